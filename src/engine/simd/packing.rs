//! Weights as the kernels want them, packed once.

#[cfg(target_arch = "aarch64")]
use super::aarch64;
use super::{Isa, PANEL};
use crate::engine::plan::{Convolution, Tensor};

/// A convolution's weights in panels `[panel][tap][quad of inputs][16 outputs][4 inputs]` (for `usmmla` eight inputs
/// instead of four), with bias and multiplier padded to whole panels.
#[derive(Debug)]
pub struct Packed {
    pub weight: Vec<Block>,
    pub bias: Vec<i32>,
    pub multiplier: Vec<f32>,
    /// All multipliers are below 1, so that no scaled sum leaves 32 bits.
    #[cfg(target_arch = "x86_64")]
    pub small: bool,
    /// Quads of inputs a tap; of the whole patch where it is gathered.
    pub quads: usize,
    /// Taps that the kernel walks over: 1 where the patch is gathered, rows of the window for AMX and where a row's inputs
    /// lie side by side.
    pub taps: usize,
    pub gathered: bool,
    /// Blocks of a panel.
    pub blocks: usize,
    /// For AVX2, for each panel and tap and two quads in it: any byte's products with the weights of neighbouring inputs of
    /// both fit a sum of 16 bits.
    #[cfg(target_arch = "x86_64")]
    pub fours: Vec<bool>,
    /// Entries of `fours` a panel.
    #[cfg(target_arch = "x86_64")]
    pub pairs: usize,
    /// Products that fit a sum of 16 bits, for NEON.
    #[cfg(target_arch = "aarch64")]
    pub depth: usize,
}

/// 64 weights that share a cache line.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub struct Block([i8; 64]);

impl Packed {
    /// Packs a convolution that reads `from`.
    pub fn new(conv: &Convolution, from: &Tensor, isa: Isa) -> Self {
        let channels = from.shape[2];
        let outputs = conv.bias.len();
        let taps = conv.window.kernel[0] * conv.window.kernel[1];
        let direct = conv.window.stride == [1, 1]
            && conv.window.padding == [0; 4]
            && (taps == 1 || conv.window.kernel[1] * channels >= 48 && from.step == channels);
        // Taps of a kernel row lie side by side where no pad comes between them.
        let aside = conv.window.padding == [0; 4] && from.step == channels;
        let gathered = if isa == Isa::Amx { !direct } else { !aside && !channels.is_multiple_of(4) };
        let [rows, columns] = conv.window.kernel;
        let (taps, channels) = match isa {
            // A short row is not worth tiles of its own.
            Isa::Amx if columns * channels >= 48 => (rows, columns * channels),
            Isa::Amx => (1, taps * channels),
            _ if gathered => (1, taps * channels),
            _ if aside => (rows, columns * channels),
            _ => (taps, channels),
        };
        let (quads, panels) = (channels.div_ceil(4), outputs.div_ceil(PANEL));
        let inputs = isa.inputs();
        let blocks = channels.next_multiple_of(isa.depth()) / 4;
        let mut weight = vec![Block([0; 64]); panels * taps * blocks];
        for o in 0..outputs {
            for tap in 0..taps {
                let run = &conv.weight[(o * taps + tap) * channels..][..channels];
                let to = &mut weight[(o / PANEL * taps + tap) * blocks..][..blocks];
                match inputs {
                    4 => place::<4>(run, to, o % PANEL),
                    _ => place::<8>(run, to, o % PANEL),
                }
            }
        }
        let mut bias = conv.bias.clone();
        #[cfg(target_arch = "aarch64")]
        for (bias, weights) in bias.iter_mut().zip(conv.weight.chunks(taps * channels)) {
            *bias = bias.wrapping_add(aarch64::correction(isa, weights));
        }
        bias.resize(panels * PANEL, 0);
        let mut multiplier = conv.multiplier.clone();
        multiplier.resize(panels * PANEL, 0.0);
        #[cfg(target_arch = "x86_64")]
        let fours = if isa == Isa::Avx2 { fours(&weight, blocks) } else { Vec::new() };
        Self {
            #[cfg(target_arch = "x86_64")]
            small: multiplier.iter().all(|m| *m < 1.0),
            weight,
            #[cfg(target_arch = "x86_64")]
            pairs: fours.len() / panels.max(1),
            #[cfg(target_arch = "x86_64")]
            fours,
            bias,
            multiplier,
            quads,
            taps,
            gathered,
            blocks: taps * blocks,
            #[cfg(target_arch = "aarch64")]
            depth: aarch64::depth(conv, channels),
        }
    }
}

/// Places a tap's weights of the panel's output `o` in groups of `INPUTS`, the number that an instruction multiplies at once.
fn place<const INPUTS: usize>(run: &[i8], blocks: &mut [Block], o: usize) {
    // A group lies in one block, since 64 is a multiple of its size.
    let place = |group: usize| (group * PANEL + o) * INPUTS;
    let (groups, rest) = run.as_chunks::<INPUTS>();
    for (i, group) in groups.iter().enumerate() {
        blocks[place(i) / 64].0[place(i) % 64..][..INPUTS].copy_from_slice(group);
    }
    let last = place(groups.len());
    if !rest.is_empty() {
        blocks[last / 64].0[last % 64..][..rest.len()].copy_from_slice(rest);
    }
}

/// For each run of `blocks` blocks, by twos: no four weights that share a sum leave 16 bits with bytes up to 255.
#[cfg(target_arch = "x86_64")]
fn fours(weight: &[Block], blocks: usize) -> Vec<bool> {
    let fits = |pair: &[Block]| {
        (0..64).step_by(2).all(|lane| {
            let four = pair.iter().flat_map(|block| &block.0[lane..lane + 2]).map(|w| i32::from(*w));
            let (low, high) = four.fold((0, 0), |(low, high), w| (low + w.min(0), high + w.max(0)));
            255 * high <= i32::from(i16::MAX) && 255 * low >= i32::from(i16::MIN)
        })
    };
    weight.chunks_exact(blocks).flat_map(|run| run.chunks_exact(2).map(fits)).collect()
}
