//! Control flow: where the lanes of a divergent branch meet again.
//!
//! That is the branch's immediate post-dominator, as in the reconvergence stack of Fung et al. (*Dynamic Warp
//! Formation and Scheduling for Efficient GPU Control Flow*, MICRO 2007). Computed by the algorithm of Cooper,
//! Harvey and Kennedy (*A Simple, Fast Dominance Algorithm*) on the reversed graph of basic blocks.

use crate::program::{EXIT, Guard, Inst, Op};

/// Sets [`Inst::meet`] of every branch.
pub(super) fn meeting_points(code: &mut [Inst]) {
    let len = code.len();
    let mut leader = vec![false; len + 1];
    leader[0] = true;
    for (at, inst) in code.iter().enumerate() {
        match &inst.op {
            Op::Bra(target) => {
                leader[*target as usize] = true;
                leader[at + 1] = true;
            }
            Op::BraIndexed(_, targets) => {
                for target in targets {
                    leader[*target as usize] = true;
                }
                leader[at + 1] = true;
            }
            Op::Exit | Op::Trap => leader[at + 1] = true,
            _ => {}
        }
    }
    let starts: Vec<usize> = (0..len).filter(|&at| leader[at]).collect();
    let block_of = |at: usize| starts.partition_point(|&s| s <= at) - 1;
    let blocks = starts.len();
    let exit = blocks;
    let mut successors: Vec<Vec<usize>> = Vec::with_capacity(blocks);
    for (index, _) in starts.iter().enumerate() {
        let end = starts.get(index + 1).copied().unwrap_or(len);
        let last = &code[end - 1];
        let mut to = match &last.op {
            Op::Bra(target) => vec![block_of(*target as usize)],
            Op::BraIndexed(_, targets) => targets.iter().map(|&t| block_of(t as usize)).collect(),
            Op::Exit | Op::Trap => vec![exit],
            _ => Vec::new(),
        };
        let falls = to.is_empty() || last.guard != Guard::Always;
        if falls {
            to.push(if end == len { exit } else { index + 1 });
        }
        successors.push(to);
    }
    let meet = post_dominators(&successors, exit);
    for (index, _) in starts.iter().enumerate() {
        let end = starts.get(index + 1).copied().unwrap_or(len);
        code[end - 1].meet = match meet[index] {
            Some(block) if block != exit => starts[block] as u32,
            _ => EXIT,
        };
    }
}

/// Immediate post-dominators; `None` where the exit cannot be reached.
fn post_dominators(successors: &[Vec<usize>], exit: usize) -> Vec<Option<usize>> {
    let count = exit + 1;
    let mut predecessors = vec![Vec::new(); count];
    for (from, to) in successors.iter().enumerate() {
        for &to in to {
            predecessors[to].push(from);
        }
    }
    // Post-order of the reversed graph from the exit.
    let mut order = Vec::with_capacity(count);
    let mut seen = vec![false; count];
    let mut stack = vec![(exit, 0)];
    seen[exit] = true;
    while let Some((node, next)) = stack.pop() {
        if let Some(&to) = predecessors[node].get(next) {
            stack.push((node, next + 1));
            if !seen[to] {
                seen[to] = true;
                stack.push((to, 0));
            }
        } else {
            order.push(node);
        }
    }
    let mut rank = vec![usize::MAX; count];
    for (index, &node) in order.iter().enumerate() {
        rank[node] = index;
    }
    let mut idom: Vec<Option<usize>> = vec![None; count];
    idom[exit] = Some(exit);
    let mut changed = true;
    while changed {
        changed = false;
        for &node in order.iter().rev() {
            if node == exit {
                continue;
            }
            let mut new = None;
            for &to in &successors[node] {
                if idom[to].is_none() {
                    continue;
                }
                new = Some(match new {
                    None => to,
                    Some(other) => intersect(&idom, &rank, to, other),
                });
            }
            if new.is_some() && idom[node] != new {
                idom[node] = new;
                changed = true;
            }
        }
    }
    idom.truncate(exit);
    idom
}

fn intersect(idom: &[Option<usize>], rank: &[usize], mut a: usize, mut b: usize) -> usize {
    while a != b {
        while rank[a] < rank[b] {
            a = idom[a].unwrap_or(b);
        }
        while rank[b] < rank[a] {
            b = idom[b].unwrap_or(a);
        }
    }
    a
}
