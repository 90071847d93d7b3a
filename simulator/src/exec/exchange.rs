//! Exchanges between the lanes of a warp.

use super::warp::{Warp, lanes};
use super::{Trouble, atomic};
use crate::error::FaultKind;
use crate::program::{Atomic, R, Shuffle, Vote};

/// One bit a lane.
#[inline(always)]
pub(super) fn ballot(test: impl Fn(usize) -> bool) -> u32 {
    (0..32).fold(0, |all, lane| all | (u32::from(test(lane)) << lane))
}

/// `shfl`, as the pseudocode of the PTX ISA has it.
pub(super) fn shuffle(
    warp: &mut Warp,
    mode: Shuffle,
    (dst, valid): (R, Option<R>),
    [value, lane, clamp]: [R; 3],
    mask: u32,
    members: u32,
) -> Result<(), Trouble> {
    let (value, b, c) = (*warp.get32(value), *warp.get32(lane), *warp.get32(clamp));
    let mut result = value;
    let mut inside = 0u32;
    for own in lanes(mask) {
        let (b, clamp, segment) =
            ((b[own] & 31) as usize, (c[own] & 31) as usize, (c[own] >> 8 & 31) as usize);
        let most = (own & segment) | (clamp & !segment);
        let least = own & segment;
        let (from, ok) = match mode {
            Shuffle::Up => (own.wrapping_sub(b), own as i64 - b as i64 >= most as i64),
            Shuffle::Down => (own + b, own + b <= most),
            Shuffle::Butterfly => (own ^ b, own ^ b <= most),
            Shuffle::Index => {
                let from = least | (b & !segment);
                (from, from <= most)
            }
        };
        let from = if ok { from } else { own };
        if members & (1 << from) == 0 {
            let what = format!("lane {own} takes the value of lane {from}, which does not take part");
            return Err(Trouble::new(FaultKind::Divergence, what));
        }
        result[own] = value[from];
        inside |= u32::from(ok) << own;
    }
    warp.set32(dst, result, mask);
    if let Some(valid) = valid {
        warp.set_pred(valid, inside, mask);
    }
    Ok(())
}

pub(super) fn vote(warp: &mut Warp, mode: Vote, dst: R, (pred, negated): (R, bool), mask: u32, members: u32) {
    let votes = (warp.pred(pred) ^ if negated { u32::MAX } else { 0 }) & members;
    let all = votes == members;
    let say = |yes: bool| if yes { u32::MAX } else { 0 };
    match mode {
        Vote::Ballot => warp.set32(dst, [votes; 32], mask),
        Vote::All => warp.set_pred(dst, say(all), mask),
        Vote::Any => warp.set_pred(dst, say(votes != 0), mask),
        Vote::Uni => warp.set_pred(dst, say(all || votes == 0), mask),
    }
}

pub(super) fn match_any(warp: &mut Warp, dst: R, value: R, mask: u32, members: u32) {
    let value = *warp.get32(value);
    let same = std::array::from_fn(|own| ballot(|l| members & (1 << l) != 0 && value[l] == value[own]));
    warp.set32(dst, same, mask);
}

pub(super) fn redux(warp: &mut Warp, op: Atomic, dst: R, value: R, mask: u32, members: u32) {
    let value = *warp.get32(value);
    let all = lanes(members)
        .map(|l| value[l])
        .reduce(|a, b| atomic::apply(op, 4, u64::from(a), u64::from(b), 0) as u32);
    warp.set32(dst, [all.unwrap_or(0); 32], mask);
}
