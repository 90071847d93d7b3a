//! Adam with decoupled weight decay (Loshchilov and Hutter, 2019) in one pass over memory on the CPU, where burn's takes a
//! dozen; on other devices burn's own. Without decay it is Adam (Kingma and Ba, 2015).

use burn::optim::{
    AdamW, AdamWConfig, AdamWState, AdaptiveMomentumState, LearningRate, ModuleOptimizer, Optimizer,
};
use burn::tensor::{Device, Tensor, TensorData};
use rayon::prelude::*;

const BETA_1: f32 = 0.9;
const BETA_2: f32 = 0.999;

/// The rule with its settings.
#[derive(Clone)]
pub struct Adam {
    other: AdamW,
    epsilon: f32,
    decay: f32,
    cpu: bool,
}

impl Adam {
    /// An optimizer of all parameters; `cpu` where they lie in the CPU's memory.
    pub fn optimizer(epsilon: f32, decay: f32, cpu: bool) -> ModuleOptimizer {
        let other = AdamWConfig::new().with_epsilon(epsilon).with_weight_decay(decay).build();
        ModuleOptimizer::from(Self { other, epsilon, decay, cpu })
    }
}

fn list<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_into_vec::<f32>().unwrap_or_default()
}

impl Optimizer for Adam {
    type State<const D: usize> = AdamWState<D>;

    fn step<const D: usize>(
        &self,
        rate: LearningRate,
        tensor: Tensor<D>,
        grad: Tensor<D>,
        state: Option<Self::State<D>>,
    ) -> (Tensor<D>, Option<Self::State<D>>) {
        if !self.cpu {
            return self.other.step(rate, tensor, grad, state);
        }
        let (shape, device) = (tensor.shape(), tensor.device());
        let (mut values, grad) = (list(tensor), list(grad));
        let (time, mut mean, mut square) = match state {
            Some(AdamWState { momentum: m }) => (m.time + 1, list(m.moment_1), list(m.moment_2)),
            None => (1, vec![0.0; values.len()], vec![0.0; values.len()]),
        };
        let rate = rate as f32;
        let keep = 1.0 - rate * self.decay;
        let (scale_1, scale_2) = (1.0 - BETA_1.powi(time as i32), 1.0 - BETA_2.powi(time as i32));
        const CHUNK: usize = 1 << 15;
        values
            .par_chunks_mut(CHUNK)
            .zip(grad.par_chunks(CHUNK))
            .zip(mean.par_chunks_mut(CHUNK).zip(square.par_chunks_mut(CHUNK)))
            .for_each(|((values, grad), (mean, square))| {
                for (((w, g), m), v) in values.iter_mut().zip(grad).zip(mean).zip(square) {
                    *m = BETA_1 * *m + (1.0 - BETA_1) * g;
                    *v = BETA_2 * *v + (1.0 - BETA_2) * g * g;
                    *w = keep * *w - rate * (*m / scale_1) / ((*v / scale_2).sqrt() + self.epsilon);
                }
            });
        let tensor = |values: Vec<f32>| Tensor::from_data(TensorData::new(values, shape.clone()), &device);
        let state = AdaptiveMomentumState::new(time, tensor(mean), tensor(square));
        (tensor(values), Some(AdamWState::new(state)))
    }

    fn to_device<const D: usize>(state: Self::State<D>, device: &Device) -> Self::State<D> {
        AdamW::to_device(state, device)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_pass_equals_burns_steps() {
        let device = Device::flex();
        for decay in [0.0, 0.01] {
            let ours = Adam {
                other: AdamWConfig::new().with_epsilon(1e-8).with_weight_decay(decay).build(),
                epsilon: 1e-8,
                decay,
                cpu: true,
            };
            let start: Vec<f32> = (0..70_000).map(|i| (i as f32 * 0.37).sin()).collect();
            let given = |v: Vec<f32>| Tensor::<1>::from_data(TensorData::new(v, [70_000]), &device);
            let (mut a, mut b) = ((given(start.clone()), None), (given(start), None));
            for step in 0..4 {
                let grad: Vec<f32> = (0..70_000).map(|i| ((i + step) as f32 * 0.11).cos() * 0.1).collect();
                a = ours.step(0.01, a.0, given(grad.clone()), a.1);
                b = ours.other.step(0.01, b.0, given(grad), b.1);
            }
            for (x, y) in list(a.0).into_iter().zip(list(b.0)) {
                assert!((x - y).abs() < 2e-6, "{x} {y}");
            }
        }
    }
}
