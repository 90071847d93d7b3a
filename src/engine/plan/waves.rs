//! Steps that do not wait for one another: the branches of a block side by side.

use super::{Plan, memory};

/// Puts the steps in order of their waves, and says which steps each wave has.
///
/// A step's wave comes after those of all steps that write what it reads. Every tensor is written once, so that nothing
/// else orders two steps but their places in memory, which [`memory::assign`] keeps apart within a wave.
pub fn arrange(plan: &mut Plan) {
    // Which channels of which whole a tensor is.
    let part = |tensor: usize| {
        let (root, first) = memory::whole(plan, tensor);
        (root, first..first + plan.tensors[tensor].shape[2])
    };
    let mut waves: Vec<usize> = Vec::with_capacity(plan.steps.len());
    for (number, step) in plan.steps.iter().enumerate() {
        let (root, read) = part(step.tensors().0);
        let after = |earlier: usize| {
            let (whole, written) = part(plan.steps[earlier].tensors().1);
            whole == root && written.start < read.end && read.start < written.end
        };
        waves.push(
            (0..number)
                .filter(|earlier| after(*earlier))
                .map(|earlier| waves[earlier] + 1)
                .max()
                .unwrap_or(0),
        );
    }
    let mut order: Vec<(usize, super::Step)> =
        waves.into_iter().zip(std::mem::take(&mut plan.steps)).collect();
    order.sort_by_key(|(wave, _)| *wave);
    plan.waves = order.chunk_by(|a, b| a.0 == b.0).map(<[_]>::len).collect();
    plan.steps = order.into_iter().map(|(_, step)| step).collect();
}
