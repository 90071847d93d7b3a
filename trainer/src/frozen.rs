//! The frozen blocks, forward only: batch norm folded into weights that are laid out once, branches that write their channels
//! of the whole, one picture a thread. What is trained goes through [`crate::section`].

use crate::checkpoint::{Weights, WeightsError};
use crate::network::{Block, Conv, Node};
use crate::nn::{Pool, Window};
use crate::section::folded;
use fovea::prepare::{NetworkInput, SIDE};
use fovea_trainer_kernels::direct::Convolution;

enum Step {
    Convolution(Convolution),
    Pool(Pool),
    /// Branches, concatenated by channel.
    Fork(Vec<Vec<Step>>),
}

/// Frozen blocks over a grey picture.
pub struct Frozen {
    steps: Vec<Step>,
}

/// A thread's memory for activations: buffers that are used again, so that after the first picture none is allocated.
#[derive(Default)]
pub struct Arena {
    free: Vec<Vec<f32>>,
}

impl Arena {
    /// A buffer of `count` values, whatever they are.
    fn take(&mut self, count: usize) -> Vec<f32> {
        let fits = (0..self.free.len()).filter(|&i| self.free[i].len() >= count);
        match fits.min_by_key(|&i| self.free[i].len()) {
            Some(i) => self.free.swap_remove(i),
            None => vec![0.0; count],
        }
    }
}

impl Frozen {
    /// The blocks from `weights`, at least one.
    ///
    /// # Errors
    /// [`WeightsError::Missing`].
    pub fn load(blocks: &[Block], weights: &Weights) -> Result<Self, WeightsError> {
        let steps = blocks.iter().flat_map(|block| &block.nodes).map(|node| Step::load(node, weights));
        Ok(Self { steps: steps.collect::<Result<_, _>>()? })
    }

    /// The features of a picture, `[row, column, channel]`, into `features`.
    ///
    /// # Panics
    /// When `features` is smaller than the last block's output.
    pub fn run(&self, input: &NetworkInput, arena: &mut Arena, features: &mut [f32]) {
        let mut grey = arena.take(SIDE * SIDE);
        grey.iter_mut().zip(input.0.iter()).for_each(|(v, b)| *v = f32::from(*b) / 255.0);
        let shape = [SIDE, SIDE, 1];
        let channels = self.steps.iter().fold(shape, |shape, step| step.output(shape))[2];
        walk(&self.steps, &grey, shape, features, channels, arena);
        arena.free.push(grey);
    }
}

/// `steps` over `x`; the last one writes into `to`, whose pixels lie `across` values apart.
fn walk(steps: &[Step], x: &[f32], mut shape: [usize; 3], to: &mut [f32], across: usize, arena: &mut Arena) {
    let Some((last, before)) = steps.split_last() else { return };
    let mut held: Option<Vec<f32>> = None;
    for step in before {
        let made = step.output(shape);
        let mut y = arena.take(made.iter().product());
        step.run(held.as_deref().unwrap_or(x), shape, &mut y, made[2], arena);
        arena.free.extend(held.replace(y));
        shape = made;
    }
    last.run(held.as_deref().unwrap_or(x), shape, to, across, arena);
    arena.free.extend(held);
}

impl Step {
    fn load(node: &Node, weights: &Weights) -> Result<Self, WeightsError> {
        Ok(match node {
            Node::Conv(conv) => Step::Convolution(convolution(conv, weights)?),
            Node::MaxPool => Step::Pool(Pool::Max),
            Node::AveragePool => Step::Pool(Pool::Average),
            Node::Fork(branches) => {
                let branch = |nodes: &Vec<Node>| nodes.iter().map(|n| Step::load(n, weights)).collect();
                Step::Fork(branches.iter().map(branch).collect::<Result<_, _>>()?)
            }
        })
    }

    fn output(&self, [h, w, c]: [usize; 3]) -> [usize; 3] {
        match self {
            Step::Convolution(conv) => conv.output([h, w, c]),
            Step::Pool(kind) => {
                let [_, rows, columns, channels] = kind.output([1, h, w, c]);
                [rows, columns, channels]
            }
            Step::Fork(branches) => {
                let made = branches.iter().map(|b| b.iter().fold([h, w, c], |shape, s| s.output(shape)));
                made.fold([0; 3], |whole, part| [part[0], part[1], whole[2] + part[2]])
            }
        }
    }

    fn run(&self, x: &[f32], shape: [usize; 3], to: &mut [f32], across: usize, arena: &mut Arena) {
        match self {
            Step::Convolution(conv) => conv.run(x, shape, to, across),
            Step::Pool(kind) => kind.picture(x, shape, to, across),
            Step::Fork(branches) => {
                let mut first = 0;
                for branch in branches {
                    walk(branch, x, shape, &mut to[first..], across, arena);
                    first += branch.iter().fold(shape, |shape, step| step.output(shape))[2];
                }
            }
        }
    }
}

/// A convolution with its batch norm; of three equal input channels one is left, with the sum of their weights.
fn convolution(conv: &Conv, weights: &Weights) -> Result<Convolution, WeightsError> {
    let f = folded(weights, conv)?;
    let window = Window { kernel: conv.kernel, stride: conv.stride, padding: conv.padding };
    if conv.input != 3 {
        return Ok(Convolution::new(&f.weight, &f.scale, &f.bias, window));
    }
    let grey: Vec<f32> = f.weight.chunks_exact(3).map(|colours| colours.iter().sum()).collect();
    Ok(Convolution::new(&grey, &f.scale, &f.bias, window))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::colour;
    use crate::nn::Layout;
    use crate::section::tests::random_weights;
    use crate::section::{Cut, HeadKind, Section};
    use burn::tensor::Device;

    // The whole network, twice with the same memory, against burn's own operations in the other layout.
    #[test]
    fn features_equal_those_of_the_section() {
        let blocks = "Mixed_7c".parse::<Cut>().unwrap().frozen();
        let weights = random_weights(&blocks);
        let frozen = Frozen::load(&blocks, &weights).unwrap();
        let device = Device::flex();
        let (section, params, _) =
            Section::load(&blocks, &weights, HeadKind::Gap, 0, Layout::Nchw, &device).unwrap();
        let mut arena = Arena::default();
        for seed in [7, 23] {
            let mut input = NetworkInput(Box::new([0; SIDE * SIDE]));
            input.0.iter_mut().enumerate().for_each(|(i, b)| *b = (i * seed % 251) as u8);
            let mut got = vec![0.0; 8 * 8 * 2048];
            frozen.run(&input, &mut arena, &mut got);
            let x = section.batch(colour(&[input]), [1, SIDE, SIDE, 3]);
            let expected = section.forward(&params, x).permute([0, 2, 3, 1]).into_data();
            let expected = expected.try_to_vec::<f32>().unwrap();
            let largest = expected.iter().fold(0.0f32, |m, v| m.max(*v));
            for (a, b) in got.iter().zip(&expected) {
                assert!((a - b).abs() < 1e-4 * largest, "{a} {b} of {largest}");
            }
        }
    }
}
