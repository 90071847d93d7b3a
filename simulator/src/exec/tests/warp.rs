//! Exchanges, votes, atomics, matrix products and the ticket of a split sum.

use super::{SCHEDULES, run, with};
use crate::Options;

/// Bytes in no order.
fn noise(count: usize, seed: u32) -> Vec<u8> {
    let mut state = seed;
    std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    })
    .take(count)
    .collect()
}

/// A warp runs `body` on its words; `want` gives the word of a lane.
fn lanes(body: &str, input: impl Fn(u32) -> u32, want: impl Fn(u32) -> u32) {
    for schedule in SCHEDULES {
        let mut words: Vec<u32> = (0..32).map(&input).collect();
        let body = format!("ld.global.u32 %r10, [%rd3];\n{body}\nst.global.u32 [%rd3], %r20;");
        run(&body, 32, 1, &mut words, &with(schedule)).unwrap_or_else(|f| panic!("{f}"));
        assert_eq!(words, (0..32).map(&want).collect::<Vec<u32>>(), "{body}");
    }
}

#[test]
fn shuffles_with_clamps() {
    let input = |l: u32| 1000 + l * l;
    // Segment width and what CUDA's intrinsics pass as clamp: (32 - width) << 8, with 31 but 0 for up.
    for width in [32, 16, 8, 4] {
        let segments = (32 - width) << 8;
        for by in [0, 1, 3, 5, 17] {
            let case = |mode: &str, clamp: u32, from: &dyn Fn(u32) -> Option<u32>| {
                let body = format!(
                    "shfl.sync.{mode}.b32 %r21|%p1, %r10, {by}, {}, -1;\nselp.u32 %r22, 1, 0, %p1;\n\
                     shl.b32 %r22, %r22, 31;\nor.b32 %r20, %r21, %r22;",
                    segments | clamp
                );
                lanes(&body, input, |l| from(l).map_or(input(l), |f| input(f) | 1 << 31));
            };
            let first = |l: u32| l / width * width;
            case("up", 0, &|l| (l >= first(l) + by).then(|| l - by));
            case("down", 31, &|l| (l + by < first(l) + width).then(|| l + by));
            case("bfly", 31, &|l| ((l ^ by) < first(l) + width).then_some(l ^ by));
            case("idx", 31, &|l| Some(first(l) + by % width));
        }
    }
}

#[test]
fn votes_and_reductions() {
    let input = |l: u32| l.wrapping_mul(0x9E37_79B9);
    let odd = "and.b32 %r11, %r10, 1;\nsetp.eq.u32 %p1, %r11, 1;\n";
    let ballot = (0..32).fold(0, |all, l| all | (input(l) & 1) << l);
    lanes(&format!("{odd} vote.sync.ballot.b32 %r20, %p1, -1;"), input, |_| ballot);
    lanes(&format!("{odd} vote.sync.ballot.b32 %r20, !%p1, -1;"), input, |_| !ballot);
    for (below, all, any, uni) in [(0, 0, 0, 1), (1, 0, 1, 0), (31, 0, 1, 0), (32, 1, 1, 1)] {
        for (mode, want) in [("all", all), ("any", any), ("uni", uni)] {
            let body = format!(
                "setp.lt.u32 %p1, %r1, {below};\nvote.sync.{mode}.pred %p2, %p1, -1;\nselp.u32 %r20, 1, 0, %p2;"
            );
            lanes(&body, input, |_| want);
        }
    }
    lanes("activemask.b32 %r20;", input, |_| u32::MAX);
    lanes("mov.u32 %r20, 7;\nsetp.lt.u32 %p1, %r1, 5;\n@%p1 activemask.b32 %r20;", input, |l| {
        if l < 5 { 31 } else { 7 }
    });
    lanes(
        "match.any.sync.b32 %r20, %r10, -1;",
        |l| l % 3,
        |l| (0..32).filter(|o| o % 3 == l % 3).fold(0, |all, o| all | 1 << o),
    );
    let values = || (0..32).map(input);
    lanes("redux.sync.add.u32 %r20, %r10, -1;", input, |_| values().fold(0, u32::wrapping_add));
    lanes("redux.sync.min.s32 %r20, %r10, -1;", input, |_| values().map(|v| v as i32).min().unwrap() as u32);
    lanes("redux.sync.max.s32 %r20, %r10, -1;", input, |_| values().map(|v| v as i32).max().unwrap() as u32);
    lanes("redux.sync.min.u32 %r20, %r10, -1;", input, |_| values().min().unwrap());
    lanes("redux.sync.max.u32 %r20, %r10, -1;", input, |_| values().max().unwrap());
    lanes("redux.sync.xor.b32 %r20, %r10, -1;", input, |_| values().fold(0, |a, b| a ^ b));
}

#[test]
fn atomics_return_what_was_there() {
    let cases: &[(&str, u32, &str, u32)] = &[
        ("add.u32", 5, "0xFFFFFFFF", 4),
        ("min.s32", 5, "-3", -3i32 as u32),
        ("min.u32", 5, "-3", 5),
        ("max.s32", 5, "-3", 5),
        ("max.u32", 5, "-3", -3i32 as u32),
        ("and.b32", 0xF0F0, "0xFF00", 0xF000),
        ("or.b32", 0xF0F0, "0xFF00", 0xFFF0),
        ("xor.b32", 0xF0F0, "0xFF00", 0x0FF0),
        ("exch.b32", 9, "77", 77),
        ("cas.b32", 9, "9, 4", 4),
        ("cas.b32", 9, "8, 4", 9),
        ("inc.u32", 3, "3", 0),
        ("inc.u32", 2, "3", 3),
        ("dec.u32", 0, "3", 3),
        ("dec.u32", 9, "3", 3),
        ("dec.u32", 2, "3", 1),
        ("add.f32", 1.5f32.to_bits(), "0f40100000", 3.75f32.to_bits()),
    ];
    for &(op, old, operand, new) in cases {
        let mut words = [old, 0];
        let body = format!("atom.global.{op} %r20, [%rd1], {operand};\nst.global.u32 [%rd1+4], %r20;");
        run(&body, 1, 1, &mut words, &Options::default()).unwrap_or_else(|f| panic!("{f}"));
        assert_eq!(words, [new, old], "atom.global.{op} {operand}");
        let body = format!(
            "ld.global.u32 %r21, [%rd1];\nst.shared.u32 [s], %r21;\natom.shared.{op} %r20, [s], {operand};\n\
             st.global.u32 [%rd1+4], %r20;\nld.shared.u32 %r21, [s];\nst.global.u32 [%rd1], %r21;"
        );
        words = [old, 0];
        run(&body, 1, 1, &mut words, &Options::default()).unwrap_or_else(|f| panic!("{f}"));
        assert_eq!(words, [new, old], "atom.shared.{op} {operand}");
    }
}

#[test]
fn mma_m16n8k32_is_a_matrix_product() {
    let value = |byte: u8, kind: &str| if kind == "s8" { i32::from(byte as i8) } else { i32::from(byte) };
    for (a_kind, b_kind) in [("s8", "s8"), ("s8", "u8"), ("u8", "s8"), ("u8", "u8")] {
        // A by rows, B by columns.
        let (a, b) = (noise(16 * 32, 3), noise(8 * 32, 4));
        let mut words = vec![0u32; 32 * 16];
        for lane in 0..32 {
            let (group, inside) = (lane / 4, lane % 4);
            for i in 0..16 {
                let row = if (4..8).contains(&(i % 8)) { group + 8 } else { group };
                let column = inside * 4 + i % 4 + if i >= 8 { 16 } else { 0 };
                words[lane * 16 + i / 4] |= u32::from(a[row * 32 + column]) << (8 * (i % 4));
            }
            for i in 0..8 {
                let k = inside * 4 + i % 4 + if i >= 4 { 16 } else { 0 };
                words[lane * 16 + 4 + i / 4] |= u32::from(b[group * 32 + k]) << (8 * (i % 4));
            }
            for i in 0..4 {
                words[lane * 16 + 8 + i] = (lane * 1000 + i) as u32;
            }
        }
        let body = format!(
            "mul.wide.u32 %rd4, %r1, 64;\nadd.s64 %rd4, %rd4, %rd1;\n\
             ld.global.v4.u32 {{%r10, %r11, %r12, %r13}}, [%rd4];\nld.global.v2.u32 {{%r14, %r15}}, [%rd4+16];\n\
             ld.global.v4.u32 {{%r20, %r21, %r22, %r23}}, [%rd4+32];\n\
             mma.sync.aligned.m16n8k32.row.col.s32.{a_kind}.{b_kind}.s32 {{%r24, %r25, %r26, %r27}}, \
             {{%r10, %r11, %r12, %r13}}, {{%r14, %r15}}, {{%r20, %r21, %r22, %r23}};\n\
             st.global.v4.u32 [%rd4+48], {{%r24, %r25, %r26, %r27}};"
        );
        let counters = run(&body, 32, 1, &mut words, &Options::default()).unwrap_or_else(|f| panic!("{f}"));
        for lane in 0..32 {
            for i in 0..4 {
                let row = lane / 4 + if i < 2 { 0 } else { 8 };
                let column = lane % 4 * 2 + i % 2;
                let sum: i32 =
                    (0..32).map(|k| value(a[row * 32 + k], a_kind) * value(b[column * 32 + k], b_kind)).sum();
                assert_eq!(words[lane * 16 + 12 + i] as i32, sum + (lane * 1000 + i) as i32);
            }
        }
        assert_eq!(counters.matrix_macs, 16 * 8 * 32);
    }
}

#[test]
fn wmma_is_a_matrix_product_through_memory() {
    for (kind, a_layout, b_layout) in [("s8", "row", "col"), ("u8", "col", "row"), ("s8", "row", "row")] {
        let bytes = noise(512, 9);
        let value = |at: usize| {
            if kind == "s8" { i32::from(bytes[at] as i8) } else { i32::from(bytes[at]) }
        };
        let mut words: Vec<u32> =
            bytes.chunks_exact(4).map(|c| u32::from_le_bytes(c.try_into().unwrap())).collect();
        words.resize(128 + 256, 0);
        let c = "{%r20, %r21, %r22, %r23, %r24, %r25, %r26, %r27}";
        let body = format!(
            "wmma.load.a.sync.aligned.{a_layout}.m16n16k16.global.{kind} {{%r10, %r11}}, [%rd1], 16;\n\
             wmma.load.b.sync.aligned.{b_layout}.m16n16k16.global.{kind} {{%r12, %r13}}, [%rd1+256], 16;\n\
             wmma.load.c.sync.aligned.row.m16n16k16.global.s32 {c}, [%rd1+512], 16;\n\
             wmma.mma.sync.aligned.{a_layout}.{b_layout}.m16n16k16.s32.{kind}.{kind}.s32 {c}, {{%r10, %r11}}, \
             {{%r12, %r13}}, {c};\nwmma.store.d.sync.aligned.row.m16n16k16.global.s32 [%rd1+512], {c}, 16;"
        );
        (0..256).for_each(|i| words[128 + i] = i as u32 * 3);
        run(&body, 32, 1, &mut words, &Options::default()).unwrap_or_else(|f| panic!("{f}"));
        for (row, column) in (0..256).map(|i| (i / 16, i % 16)) {
            let at = |layout, r: usize, c: usize| if layout == "row" { r * 16 + c } else { c * 16 + r };
            let sum: i32 =
                (0..16).map(|k| value(at(a_layout, row, k)) * value(256 + at(b_layout, k, column))).sum();
            let index = row * 16 + column;
            assert_eq!(words[128 + index] as i32, sum + index as i32 * 3, "{a_layout} {b_layout}");
        }
    }
}
