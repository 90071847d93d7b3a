//! Copies, ldmatrix, loads of all widths, special registers, tickets between blocks, and counts.

use super::{SCHEDULES, run, with};
use crate::{FaultKind, Options};

/// Four blocks each add a part; the last to draw a ticket sums the parts into word 8.
fn ticket(fence: &str, draw: &str) -> String {
    format!(
        "mul.wide.u32 %rd4, %r2, 4;\nadd.s64 %rd4, %rd4, %rd1;\nadd.s32 %r10, %r2, 10;\n\
         st.global.u32 [%rd4], %r10;\n{fence}\n{draw}\nsetp.ne.u32 %p1, %r11, 3;\n@%p1 bra END;\n{fence}\n\
         ld.global.v4.u32 {{%r12, %r13, %r14, %r15}}, [%rd1];\nadd.s32 %r12, %r12, %r13;\n\
         add.s32 %r14, %r14, %r15;\nadd.s32 %r12, %r12, %r14;\nst.global.u32 [%rd1+32], %r12;\nEND:"
    )
}

#[test]
fn a_split_sum_needs_its_fence_and_an_atomic_ticket() {
    let atomic = "atom.global.add.u32 %r11, [%rd1+16], 1;";
    let plain = "ld.global.u32 %r11, [%rd1+16];\nadd.s32 %r16, %r11, 1;\nst.global.u32 [%rd1+16], %r16;";
    for schedule in SCHEDULES {
        let options = Options { global_races: true, ..with(schedule) };
        let mut words = [0; 9];
        run(&ticket("membar.gl;", atomic), 1, 4, &mut words, &options).unwrap_or_else(|f| panic!("{f}"));
        assert_eq!(words, [10, 11, 12, 13, 4, 0, 0, 0, 46]);
        for wrong in [ticket("", atomic), ticket("membar.gl;", plain)] {
            let fault = run(&wrong, 1, 4, &mut [0; 9], &options).unwrap_err();
            assert_eq!(fault.kind, FaultKind::Race, "{fault}");
        }
    }
}

#[test]
fn blocks_on_several_host_threads() {
    let body = "red.global.add.u32 [%rd1], 1;\nmad.lo.s32 %r10, %r2, 32, %r1;\nadd.s32 %r10, %r10, 1;\n\
                mul.wide.u32 %rd4, %r10, 4;\nadd.s64 %rd4, %rd1, %rd4;\nst.global.u32 [%rd4], %r10;";
    for schedule in SCHEDULES {
        let mut words = vec![0; 1 + 64 * 32];
        run(body, 32, 64, &mut words, &Options { threads: 4, ..with(schedule) }).unwrap();
        assert_eq!(words[0], 64 * 32);
        assert!(words[1..].iter().zip(1..).all(|(w, i)| *w == i));
    }
}

#[test]
fn copies_fill_with_zeros() {
    for (bytes, kind) in [(4usize, "ca"), (8, "ca"), (16, "ca"), (16, "cg")] {
        for from in (0..=bytes).step_by(4) {
            let body = format!(
                "mov.u32 %r10, {from};\ncp.async.{kind}.shared.global [s], [%rd1], {bytes}, %r10;\n\
                 cp.async.commit_group;\ncp.async.wait_all;\nld.shared.u32 %r11, [s+{}];\n\
                 ld.shared.u32 %r12, [s];\nst.global.u32 [%rd1+16], %r11;\nst.global.u32 [%rd1+20], %r12;",
                bytes - 4
            );
            for schedule in SCHEDULES {
                let mut words = [11, 12, 13, 14, 0, 0];
                run(&body, 1, 1, &mut words, &with(schedule)).unwrap_or_else(|f| panic!("{f}"));
                let last = if from == bytes { 10 + bytes as u32 / 4 } else { 0 };
                assert_eq!(words[4..], [last, if from == 0 { 0 } else { 11 }], "{kind} {from} of {bytes}");
            }
        }
    }
}

#[test]
fn ldmatrix_deals_rows_or_columns() {
    for (count, regs) in [(1, "{%r20}"), (2, "{%r20, %r21}"), (4, "{%r20, %r21, %r22, %r23}")] {
        for trans in ["", ".trans"] {
            // 32 rows of eight 16-bit values; value v is v. Lane l gives the address of row l.
            let body = format!(
                "mul.wide.u32 %rd4, %r1, 16;\nadd.s64 %rd4, %rd1, %rd4;\n\
                 ld.global.v4.u32 {{%r10, %r11, %r12, %r13}}, [%rd4];\nshl.b32 %r14, %r1, 4;\n\
                 mov.u32 %r15, s;\nadd.s32 %r14, %r14, %r15;\n\
                 st.shared.v4.u32 [%r14], {{%r10, %r11, %r12, %r13}};\nbar.warp.sync -1;\n\
                 mov.u32 %r20, 0;\nmov.u32 %r21, 0;\nmov.u32 %r22, 0;\nmov.u32 %r23, 0;\n\
                 ldmatrix.sync.aligned.m8n8.x{count}{trans}.shared.b16 {regs}, [%r14];\n\
                 st.global.v4.u32 [%rd4], {{%r20, %r21, %r22, %r23}};"
            );
            let mut words: Vec<u32> = (0..128).map(|i| (2 * i) | ((2 * i + 1) << 16)).collect();
            run(&body, 32, 1, &mut words, &Options::default()).unwrap_or_else(|f| panic!("{f}"));
            for (lane, matrix) in (0..128).map(|i| (i / 4, i % 4)) {
                let at = |e: usize| {
                    let (row, column) = (lane / 4, lane % 4 * 2 + e);
                    let (row, column) = if trans.is_empty() { (row, column) } else { (column, row) };
                    ((matrix * 8 + row) * 8 + column) as u32
                };
                let want = if matrix < count { at(0) | at(1) << 16 } else { 0 };
                assert_eq!(words[lane * 4 + matrix], want, "x{count}{trans} lane {lane}");
            }
        }
    }
}

#[test]
fn loads_extend_and_stores_cut() {
    for (kind, want) in [("s8", 0xFFFF_FFF4u32), ("u8", 0xF4), ("s16", 0xFFFF_F3F4), ("u16", 0xF3F4)] {
        let cut = if kind.ends_with('8') { "u8" } else { "u16" };
        let body = format!(
            "ld.global.{kind} %r10, [%rd1];\nst.global.u32 [%rd1+4], %r10;\nst.global.{cut} [%rd1+8], %r10;"
        );
        let mut words = [0xF1F2_F3F4, 0, 0];
        run(&body, 1, 1, &mut words, &Options::default()).unwrap();
        let mask = if cut == "u8" { 0xFF } else { 0xFFFF };
        assert_eq!(words, [0xF1F2_F3F4, want, want & mask], "{kind}");
    }
}

#[test]
fn special_registers_tell_the_place() {
    for (register, want) in [
        ("tid.x", (|_, t| t) as fn(u32, u32) -> u32),
        ("tid.y", |_, _| 0),
        ("ntid.x", |_, _| 64),
        ("ctaid.x", |b, _| b),
        ("nctaid.x", |_, _| 3),
        ("nctaid.y", |_, _| 1),
        ("laneid", |_, t| t % 32),
        ("warpid", |_, t| t / 32),
        ("nwarpid", |_, _| 2),
        ("nsmid", |_, _| 8),
        ("lanemask_eq", |_, t| 1 << (t % 32)),
        ("lanemask_lt", |_, t| (1 << (t % 32)) - 1),
        ("lanemask_le", |_, t| u32::MAX >> (31 - t % 32)),
        ("lanemask_gt", |_, t| !(u32::MAX >> (31 - t % 32))),
        ("lanemask_ge", |_, t| u32::MAX << (t % 32)),
    ] {
        let body = format!(
            "mad.lo.s32 %r10, %r2, 64, %r1;\nmul.wide.u32 %rd4, %r10, 4;\nadd.s64 %rd4, %rd1, %rd4;\n\
             mov.u32 %r11, %{register};\nst.global.u32 [%rd4], %r11;"
        );
        let mut words = [0; 192];
        run(&body, 64, 3, &mut words, &Options::default()).unwrap_or_else(|f| panic!("{f}"));
        assert!((0..192u32).all(|i| words[i as usize] == want(i / 64, i % 64)), "%{register}");
    }
}

#[test]
fn bytes_sectors_and_bank_conflicts_by_hand() {
    let options = Options { traffic: true, shared_races: false, uninitialised: false, ..with(SCHEDULES[0]) };
    // 32 lanes read 128 bytes in 4 sectors and write the first word of each of 32 sectors.
    let body = "ld.global.u32 %r10, [%rd3];\nmul.wide.u32 %rd4, %r1, 32;\nadd.s64 %rd4, %rd1, %rd4;\n\
                st.global.u32 [%rd4], %r10;";
    let counters = run(body, 32, 1, &mut [1; 256], &options).unwrap();
    assert_eq!((counters.global_read, counters.sectors_read, counters.distinct_read), (128, 4, 128));
    assert_eq!(
        (counters.global_written, counters.sectors_written, counters.distinct_written),
        (128, 32, 128)
    );
    // Words apart by a stride of s banks: gcd(s, 32) lanes meet in one bank.
    for (stride, ways) in [(1, 1), (2, 2), (3, 1), (4, 4), (8, 8)] {
        let body = format!(
            "mul.lo.s32 %r10, %r1, {};\nmov.u32 %r11, s;\nadd.s32 %r10, %r10, %r11;\nld.shared.u32 %r12, [%r10];",
            stride * 4
        );
        let counters = run(&body, 32, 1, &mut [0; 32], &options).unwrap();
        assert_eq!((counters.bank_ways, counters.extra_passes), (ways, u64::from(ways - 1)), "{stride}");
    }
}
