//! Places of tensors in one arena: two tensors share bytes where the last use of one is in a wave of steps before the first
//! of the other.

use super::{Plan, PlanError};

const ALIGN: usize = 64;
/// A plan that needs more is refused.
const LIMIT: usize = 1 << 28;

/// First channel of `tensor` in its whole, and the number of the whole.
pub fn whole(plan: &Plan, mut tensor: usize) -> (usize, usize) {
    let mut first = 0;
    while let Some((parent, channel)) = plan.tensors[tensor].part_of {
        tensor = parent;
        first += channel;
    }
    (tensor, first)
}

/// Sets every tensor's place and step, and the plan's arena.
pub fn assign(plan: &mut Plan) -> Result<(), PlanError> {
    let count = plan.tensors.len();
    let roots: Vec<(usize, usize)> = (0..count).map(|t| whole(plan, t)).collect();
    // First and last wave that touches a root; the input is there before the first, the features after the last.
    let mut lives: Vec<Option<(usize, usize)>> = vec![None; count];
    let mut touch = |tensor: usize, time: usize| {
        let life = lives[roots[tensor].0].get_or_insert((time, time));
        *life = (life.0.min(time), life.1.max(time));
    };
    touch(plan.input, 0);
    let times = plan.waves.iter().enumerate().flat_map(|(wave, steps)| std::iter::repeat_n(wave, *steps));
    for (time, step) in times.zip(&plan.steps) {
        let (from, to) = step.tensors();
        touch(from, time);
        touch(to, time);
    }
    touch(plan.features, plan.waves.len());
    let size = |t: usize| plan.tensors[t].shape.iter().product::<usize>().next_multiple_of(ALIGN);
    let zeros = plan.tensors.iter().map(|t| t.shape[2]).max().unwrap_or(0).next_multiple_of(ALIGN);
    let mut order: Vec<usize> = (0..count).filter(|&t| lives[t].is_some()).collect();
    order.sort_by_key(|&t| std::cmp::Reverse(size(t)));
    let mut places: Vec<Option<usize>> = vec![None; count];
    let mut arena = zeros;
    for &tensor in &order {
        let overlaps = |other: usize| match (lives[tensor], lives[other]) {
            (Some(a), Some(b)) => a.0 <= b.1 && b.0 <= a.1,
            _ => false,
        };
        let mut taken: Vec<(usize, usize)> =
            order.iter().filter(|&&o| overlaps(o)).filter_map(|&o| Some((places[o]?, size(o)))).collect();
        taken.sort_unstable();
        let mut place = zeros;
        for (start, length) in taken {
            if place + size(tensor) <= start {
                break;
            }
            place = place.max(start + length);
        }
        places[tensor] = Some(place);
        arena = arena.max(place + size(tensor));
    }
    if arena > LIMIT {
        return Err(PlanError::Graph(format!("needs {} MB of activations, more than 256", arena >> 20)));
    }
    for (t, (root, first)) in roots.into_iter().enumerate() {
        let step = plan.tensors[root].shape[2];
        let tensor = &mut plan.tensors[t];
        tensor.place = places[root].unwrap_or(zeros) + first;
        tensor.step = step;
    }
    (plan.arena, plan.zeros) = (arena, zeros);
    Ok(())
}
