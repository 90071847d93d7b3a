//! Which instructions lie in a loop.

use crate::program::{Inst, Op};

/// True for all from the target of a backward branch to the branch: compilers lay loops out in one piece.
pub(super) fn looped(code: &[Inst]) -> Vec<bool> {
    let mut inside = vec![false; code.len()];
    for (at, inst) in code.iter().enumerate() {
        if let Op::Bra(target) = inst.op
            && target as usize <= at
        {
            inside[target as usize..=at].fill(true);
        }
    }
    inside
}
