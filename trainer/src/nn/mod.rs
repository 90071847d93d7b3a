//! The layers of the network as differentiable operations of burn. On the CPU they are our own kernels over
//! `[batch, row, column, channel]`; on other devices burn's, over `[batch, channel, row, column]`.

pub mod adam;

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, TensorMetadata, backend_extension};
use burn::tensor::module::{avg_pool2d, conv2d, max_pool2d};
use burn::tensor::ops::{AvgPoolOptions, ConvOptions, MaxPoolOptions};
use burn::tensor::{Tensor, TensorData, activation::relu};
use burn_flex::FlexTensor;
pub use fovea_trainer_kernels::{Pool, Window};
use fovea_trainer_kernels::{layers as kernels, product};

/// In what products are computed on the CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Precision {
    /// f32 throughout.
    F32,
    /// Operands rounded to bfloat16, sums and everything else in f32, where the CPU has tile units for it; else f32.
    Mixed,
}

impl Precision {
    /// Chooses it for this process, since burn's operations carry no settings; true when it is to be had here.
    pub fn choose(self) -> bool {
        product::choose(self == Precision::Mixed) == (self == Precision::Mixed)
    }
}

/// Convolution with ReLU and pooling over `[batch, row, column, channel]`.
#[backend_extension(Flex, Autodiff)]
pub trait NhwcOps: Backend {
    /// See [`fovea_trainer_kernels::layers::convolve`].
    fn convolve(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        window: Window,
    ) -> FloatTensor<Self>;

    /// See [`fovea_trainer_kernels::layers::pool`].
    fn pool(x: FloatTensor<Self>, kind: Pool) -> FloatTensor<Self>;
}

fn shape4(x: &FlexTensor) -> [usize; 4] {
    x.shape().dims()
}

/// Runs `f` over the values of a tensor, which are gathered first where they do not lie row by row.
fn values<R>(x: &FlexTensor, f: impl FnOnce(&[f32]) -> R) -> R {
    match x.as_slice::<f32>() {
        Some(slice) => f(slice),
        None => f(x.to_contiguous().as_slice::<f32>().unwrap_or_default()),
    }
}

fn tensor<const D: usize>(values: Vec<f32>, shape: [usize; D]) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(values, shape))
}

impl NhwcOps for Flex {
    fn convolve(
        x: FlexTensor,
        weight: FlexTensor,
        bias: FlexTensor,
        scale: FlexTensor,
        window: Window,
    ) -> FlexTensor {
        let shape = shape4(&x);
        let channels = bias.shape().num_elements();
        let y = values(&x, |x| {
            values(&weight, |weight| {
                values(&bias, |bias| {
                    values(&scale, |scale| kernels::convolve(x, shape, weight, bias, scale, window))
                })
            })
        });
        tensor(y, window.output(shape, channels))
    }

    fn pool(x: FlexTensor, kind: Pool) -> FlexTensor {
        let shape = shape4(&x);
        tensor(values(&x, |x| kernels::pool(x, shape, kind)), kind.output(shape))
    }
}

#[derive(Debug)]
struct ConvolveBackward;

impl Backward<Flex, 3> for ConvolveBackward {
    type State = (FlexTensor, FlexTensor, FlexTensor, FlexTensor, Window);

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let (x, weight, scale, y, window) = ops.state;
        let grad = grads.consume::<Flex>(&ops.node);
        let [parent_x, parent_w, parent_b] = ops.parents;
        let (shape, channels) = (shape4(&x), scale.shape().num_elements());
        let wanted = parent_x.is_some();
        let (grad_x, grad_w, grad_b) = values(&x, |x| {
            values(&weight, |weight| {
                values(&scale, |scale| {
                    values(&y, |y| {
                        values(&grad, |grad| {
                            kernels::convolve_backward(x, shape, weight, scale, window, y, grad, wanted)
                        })
                    })
                })
            })
        });
        if let (Some(node), Some(grad)) = (parent_x, grad_x) {
            grads.register::<Flex>(node.id, tensor(grad, shape));
        }
        if let Some(node) = parent_w {
            let width = grad_w.len() / channels;
            grads.register::<Flex>(node.id, tensor(grad_w, [channels, width]));
        }
        if let Some(node) = parent_b {
            grads.register::<Flex>(node.id, tensor(grad_b, [channels]));
        }
    }
}

#[derive(Debug)]
struct PoolBackward;

impl Backward<Flex, 1> for PoolBackward {
    type State = (FlexTensor, FlexTensor, Pool);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let (x, y, kind) = ops.state;
        let grad = grads.consume::<Flex>(&ops.node);
        let shape = shape4(&x);
        let [parent] = ops.parents;
        if let Some(node) = parent {
            let grad = values(&x, |x| {
                values(&y, |y| values(&grad, |grad| kernels::pool_backward(x, shape, kind, y, grad)))
            });
            grads.register::<Flex>(node.id, tensor(grad, shape));
        }
    }
}

impl<C: CheckpointStrategy> NhwcOps for Autodiff<Flex, C> {
    fn convolve(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        window: Window,
    ) -> FloatTensor<Self> {
        let nodes = [x.node(), weight.node(), bias.node()];
        let (x, weight, scale) = (x.into_primitive(), weight.into_primitive(), scale.into_primitive());
        let y = Flex::convolve(x.clone(), weight.clone(), bias.into_primitive(), scale.clone(), window);
        match ConvolveBackward.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish((x, weight, scale, y.clone(), window), y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        }
    }

    fn pool(x: FloatTensor<Self>, kind: Pool) -> FloatTensor<Self> {
        let node = x.node();
        let x = x.into_primitive();
        let y = Flex::pool(x.clone(), kind);
        match PoolBackward.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish((x, y.clone(), kind), y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        }
    }
}

/// Where the channels of the tensors lie, and whose operations compute them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Channels last, our kernels on the CPU.
    Nhwc,
    /// Channels second, burn's operations on any device.
    Nchw,
}

impl Layout {
    /// The axis of the channels.
    pub fn axis(self) -> usize {
        if self == Layout::Nhwc { 3 } else { 1 }
    }

    /// `relu(scale · conv(x, weight) + bias)`; weight `[output, kernel row · kernel column · input]`.
    pub fn convolve(
        self,
        x: Tensor<4>,
        weight: Tensor<2>,
        bias: Tensor<1>,
        scale: Tensor<1>,
        window: Window,
    ) -> Tensor<4> {
        match self {
            Layout::Nhwc => Tensor::from_dispatch(<Dispatch as NhwcOps>::convolve(
                x.into_dispatch(),
                weight.into_dispatch(),
                bias.into_dispatch(),
                scale.into_dispatch(),
                window,
            )),
            Layout::Nchw => {
                let ([output, width], [kh, kw]) = (weight.dims(), window.kernel);
                let weight = weight * scale.reshape([output, 1]);
                let weight = weight.reshape([output, kh, kw, width / (kh * kw)]).permute([0, 3, 1, 2]);
                let stride = [window.stride; 2];
                relu(conv2d(x, weight, Some(bias), ConvOptions::new(stride, window.padding, [1, 1], 1)))
            }
        }
    }

    /// One of the pools.
    pub fn pool(self, x: Tensor<4>, kind: Pool) -> Tensor<4> {
        match (self, kind) {
            (Layout::Nhwc, _) => Tensor::from_dispatch(<Dispatch as NhwcOps>::pool(x.into_dispatch(), kind)),
            (Layout::Nchw, Pool::Max) => max_pool2d(x, MaxPoolOptions::new([3, 3]).with_stride([2, 2])),
            (Layout::Nchw, Pool::Average) => {
                let options = AvgPoolOptions::new([3, 3]).with_stride([1, 1]).with_padding([1, 1]);
                avg_pool2d(x, options.with_count_include_pad(false))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    fn noise(count: usize, seed: u32) -> Vec<f32> {
        let mut state = seed;
        (0..count)
            .map(|_| {
                state = state.wrapping_mul(1664525).wrapping_add(1013904223);
                (state >> 8) as f32 / (1 << 23) as f32 - 1.0
            })
            .collect()
    }

    fn close(a: Vec<f32>, b: Vec<f32>) {
        assert_eq!(a.len(), b.len());
        let scale = b.iter().fold(1e-3f32, |m, v| m.max(v.abs()));
        for (a, b) in a.iter().zip(&b) {
            assert!((a - b).abs() <= 2e-5 * scale, "{a} {b}");
        }
    }

    // Our kernels against burn's own operations: outputs and every gradient.
    #[test]
    fn convolution_and_gradients_equal_burns() {
        let device = Device::flex().autodiff();
        for (kernel, stride, padding, h, w) in [
            ([1, 1], 1, [0, 0], 5, 6),
            ([3, 3], 2, [0, 0], 9, 8),
            ([1, 7], 1, [0, 3], 6, 7),
            ([7, 1], 1, [3, 0], 7, 4),
            ([3, 3], 1, [1, 1], 6, 5),
        ] {
            let (n, c, o) = (5, 6, 7);
            let window = Window { kernel, stride, padding };
            let width = kernel[0] * kernel[1] * c;
            let run = |layout: Layout| {
                let x =
                    Tensor::<4>::from_data(TensorData::new(noise(n * h * w * c, 1), [n, h, w, c]), &device)
                        .require_grad();
                let weight =
                    Tensor::<2>::from_data(TensorData::new(noise(o * width, 2), [o, width]), &device)
                        .require_grad();
                let bias = Tensor::<1>::from_data(TensorData::new(noise(o, 3), [o]), &device).require_grad();
                let scale = Tensor::<1>::from_data(TensorData::new(noise(o, 4), [o]), &device);
                let given = if layout == Layout::Nhwc { x.clone() } else { x.clone().permute([0, 3, 1, 2]) };
                let y = layout.convolve(given, weight.clone(), bias.clone(), scale, window);
                let y = if layout == Layout::Nhwc { y } else { y.permute([0, 2, 3, 1]) };
                let weights = Tensor::<4>::from_data(
                    TensorData::new(noise(y.shape().num_elements(), 5), y.shape()),
                    &device,
                );
                let grads = (y.clone() * weights).sum().backward();
                let flat = |t: TensorData| t.try_to_vec::<f32>().unwrap();
                [
                    flat(y.into_data()),
                    flat(x.grad(&grads).unwrap().into_data()),
                    flat(weight.grad(&grads).unwrap().into_data()),
                    flat(bias.grad(&grads).unwrap().into_data()),
                ]
            };
            let (ours, theirs) = (run(Layout::Nhwc), run(Layout::Nchw));
            ours.into_iter().zip(theirs).for_each(|(a, b)| close(a, b));
        }
    }

    #[test]
    fn pools_and_gradients_equal_burns() {
        let device = Device::flex().autodiff();
        for kind in [Pool::Max, Pool::Average] {
            let run = |layout: Layout| {
                let x =
                    Tensor::<4>::from_data(TensorData::new(noise(3 * 9 * 9 * 4, 7), [3, 9, 9, 4]), &device)
                        .require_grad();
                let given = if layout == Layout::Nhwc { x.clone() } else { x.clone().permute([0, 3, 1, 2]) };
                let y = layout.pool(given, kind);
                let y = if layout == Layout::Nhwc { y } else { y.permute([0, 2, 3, 1]) };
                let weights = Tensor::<4>::from_data(
                    TensorData::new(noise(y.shape().num_elements(), 8), y.shape()),
                    &device,
                );
                let grads = (y.clone() * weights).sum().backward();
                [
                    y.into_data().try_to_vec::<f32>().unwrap(),
                    x.grad(&grads).unwrap().into_data().try_to_vec::<f32>().unwrap(),
                ]
            };
            let (ours, theirs) = (run(Layout::Nhwc), run(Layout::Nchw));
            ours.into_iter().zip(theirs).for_each(|(a, b)| close(a, b));
        }
    }
}
