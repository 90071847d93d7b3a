//! 64-bit atomics, packing moves and indexed branches.

use super::run;
use super::table::{check32, check64};
use crate::Options;

#[test]
fn wide_atomics_return_what_was_there() {
    let cases: &[(&str, u64, &str, u64)] = &[
        ("add.u64", u64::from(u32::MAX), "1", 1 << 32),
        ("min.s64", 5, "-3", -3i64 as u64),
        ("max.u64", 5, "-3", -3i64 as u64),
        ("xor.b64", 0xF0, "0xFF", 0x0F),
        ("exch.b64", 9, "77", 77),
        ("cas.b64", 9, "9, 4", 4),
    ];
    for &(op, old, operand, new) in cases {
        let body = format!("atom.global.{op} %rd5, [%rd1], {operand};\nst.global.u64 [%rd1+8], %rd5;");
        let mut words = [old as u32, (old >> 32) as u32, 0, 0];
        run(&body, 1, 1, &mut words, &Options::default()).unwrap_or_else(|f| panic!("{f}"));
        assert_eq!(words, [new as u32, (new >> 32) as u32, old as u32, (old >> 32) as u32], "{op}");
    }
}

#[test]
fn moves_pack_and_unpack() {
    check64("mov.b64 %rd20, {%r10, %r11};", |a, b, _| u64::from(a as u32) | b << 32);
    check32("mov.b64 {%r13, %r20}, %rd10;\nmov.b64 {%r20, %r13}, %rd10;", |a, _, _| a);
    check32("mov.b32 {%h0, %h1}, %r10;\nmov.b32 %r20, {%h1, %h0};", |a, _, _| a.rotate_left(16));
}

#[test]
fn an_indexed_branch_parts_lanes() {
    let body = "rem.u32 %r10, %r1, 3;\nT: .branchtargets A, B, C;\nbrx.idx %r10, T;\nA:\nmov.u32 %r11, 10;\n\
                bra.uni E;\nB:\nmov.u32 %r11, 20;\nbra.uni E;\nC:\nmov.u32 %r11, 30;\nE:\nst.global.u32 [%rd3], %r11;";
    let mut words = [0; 32];
    run(body, 32, 1, &mut words, &Options::default()).unwrap_or_else(|f| panic!("{f}"));
    assert!((0..32).all(|i| words[i] == [10, 20, 30][i % 3]));
}
