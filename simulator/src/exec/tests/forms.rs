//! Forms of instructions that the engine's kernels use and no other test has: shared memory in all widths, predicates as values,
//! fragments from shared memory.

use super::table::{check32, check64};
use super::{SCHEDULES, run, with};

#[test]
fn shared_memory_in_all_widths() {
    // Bytes and halves written next to each other, read as a word; a word read as bytes.
    let body = "mov.u32 %r10, 67305985;\nmov.u32 %r15, 9;\nst.shared.u16 [s], %r10;\nshr.u32 %r11, %r10, 16;\nst.shared.u8 [s+2], %r11;\n\
                st.shared.u8 [s+3], %r15;\nld.shared.u32 %r12, [s];\nst.global.u32 [%rd1], %r12;\n\
                ld.shared.u8 %r13, [s+1];\nst.global.u32 [%rd1+4], %r13;\nld.shared.u16 %r14, [s+2];\n\
                st.global.u32 [%rd1+8], %r14;";
    for schedule in SCHEDULES {
        let mut words = [0; 3];
        run(body, 1, 1, &mut words, &with(schedule)).unwrap();
        assert_eq!(words, [0x0903_0201, 2, 0x0903]);
    }
    let body = "shl.b32 %r10, %r1, 4;\nadd.s32 %r10, %r10, %r4;\nsub.s32 %r10, %r10, %r3;\nmul.lo.s32 %r11, %r1, 3;\n\
                st.shared.v4.u32 [%r10], {%r1, %r11, %r10, %r2};\nbar.sync 0;\n\
                xor.b32 %r12, %r10, 16;\nld.shared.v4.u32 {%r13, %r14, %r15, %r16}, [%r12];\n\
                add.s32 %r13, %r13, %r14;\nst.global.u32 [%rd3], %r13;";
    let mut words = [0; 32];
    run(body, 32, 1, &mut words, &with(SCHEDULES[0])).unwrap();
    assert!(words.iter().enumerate().all(|(t, w)| *w as usize == (t ^ 1) * 4), "{words:?}");
}

/// Floats, signed words, halves and pairs through both memories, and past the first-level cache.
#[test]
fn values_of_all_kinds_in_memory() {
    let body = "mov.f32 %r10, 0fBFC00000;\nst.shared.f32 [s], %r10;\nld.shared.f32 %r11, [s];\nst.global.f32 [%rd1], %r11;\n\
                ld.global.cg.f32 %r12, [%rd1];\nst.global.f32 [%rd1+4], %r12;\nmov.u32 %r13, -7;\nst.shared.u32 [s+4], %r13;\n\
                ld.shared.s32 %r14, [s+4];\nst.global.v2.u32 [%rd1+8], {%r14, %r11};\nld.global.cg.s32 %r15, [%rd1+8];\n\
                st.global.u32 [%rd1+16], %r15;\nld.global.s32 %r16, [%rd1+8];\nst.global.u32 [%rd1+20], %r16;\n\
                ld.global.v2.u32 {%r17, %r18}, [%rd1+8];\nst.global.v2.u32 [%rd1+24], {%r18, %r17};\n\
                st.shared.u32 [s+8], 0xFFFE;\nld.shared.u16 %r19, [s+8];\nst.global.u32 [%rd1+32], %r19;\n\
                ld.global.f32 %r20, [%rd1+28];\nst.global.f32 [%rd1+36], %r20;";
    let (half, seven) = ((-1.5f32).to_bits(), (-7i32) as u32);
    for schedule in SCHEDULES {
        let mut words = [0; 10];
        run(body, 1, 1, &mut words, &with(schedule)).unwrap_or_else(|f| panic!("{f}"));
        assert_eq!(words, [half, half, seven, half, seven, seven, half, seven, 0xFFFE, seven]);
    }
    let halves = "cvt.u16.u32 %h0, %r10;\ncvt.u64.u16 %rd20, %h0;";
    check64(halves, |a, _, _| a & 0xFFFF);
}

#[test]
fn predicates_are_values_too() {
    let both = "setp.lt.s32 %p1, %r10, %r11;\nsetp.eq.s32 %p2, %r10, %r12;\n";
    let select = "selp.b32 %r20, 1, 0, %p3;";
    let less = |a: u32, b: u32| (a as i32) < b as i32;
    check32(&format!("{both} or.pred %p3, %p1, %p2;\n{select}"), |a, b, c| (less(a, b) || a == c).into());
    check32(&format!("{both} and.pred %p3, %p1, %p2;\n{select}"), |a, b, c| (less(a, b) && a == c).into());
    check32(&format!("{both} not.pred %p3, %p2;\n{select}"), |a, _, c| (a != c).into());
    check32(&format!("{both} mov.pred %p3, %p1;\n{select}"), |a, b, _| less(a, b).into());
    check32("mov.pred %p3, -1;\nselp.b32 %r20, %r10, %r11, %p3;", |a, _, _| a);
    check64("mov.u64 %rd20, %rd11;", |_, b, _| b);
}

/// Both sides of a product of 16x16x16 in shared memory, its sums back there.
#[test]
fn fragments_from_shared_memory() {
    let sums = "{%r20, %r21, %r22, %r23, %r24, %r25, %r26, %r27}";
    let body = format!(
        "shl.b32 %r10, %r1, 4;\nmov.u32 %r11, s;\nadd.s32 %r10, %r10, %r11;\nmul.wide.u32 %rd4, %r1, 16;\nadd.s64 %rd4, %rd1, %rd4;\n\
         ld.global.v4.u32 {{%r12, %r13, %r14, %r15}}, [%rd4];\nst.shared.v4.u32 [%r10], {{%r12, %r13, %r14, %r15}};\nbar.sync 0;\n\
         wmma.load.a.sync.aligned.row.m16n16k16.shared.s8 {{%r30, %r31}}, [%r11], 16;\n\
         wmma.load.b.sync.aligned.col.m16n16k16.shared.s8 {{%r32, %r33}}, [%r11+256], 16;\n\
         mov.u32 %r20, 0;\nmov.u32 %r21, 0;\nmov.u32 %r22, 0;\nmov.u32 %r23, 0;\nmov.u32 %r24, 0;\nmov.u32 %r25, 0;\nmov.u32 %r26, 0;\nmov.u32 %r27, 0;\n\
         wmma.mma.sync.aligned.row.col.m16n16k16.s32.s8.s8.s32 {sums}, {{%r30, %r31}}, {{%r32, %r33}}, {sums};\nbar.sync 0;\n\
         wmma.store.d.sync.aligned.row.m16n16k16.shared.s32 [%r11], {sums}, 16;\nbar.sync 0;\n\
         mul.wide.u32 %rd5, %r1, 32;\nadd.s64 %rd5, %rd1, %rd5;\nshl.b32 %r34, %r1, 5;\nadd.s32 %r34, %r34, %r11;\n\
         ld.shared.v4.u32 {{%r12, %r13, %r14, %r15}}, [%r34];\nst.global.v4.u32 [%rd5], {{%r12, %r13, %r14, %r15}};\n\
         ld.shared.v4.u32 {{%r12, %r13, %r14, %r15}}, [%r34+16];\nst.global.v4.u32 [%rd5+16], {{%r12, %r13, %r14, %r15}};"
    );
    let bytes: Vec<i8> = (0..512).map(|i: i32| (i * 37 % 255 - 127) as i8).collect();
    let mut words: Vec<u32> =
        bytes.chunks_exact(4).map(|b| u32::from_le_bytes([0, 1, 2, 3].map(|i| b[i] as u8))).collect();
    words.resize(256, 0);
    run(&body, 32, 1, &mut words, &with(SCHEDULES[0])).unwrap_or_else(|f| panic!("{f}"));
    for (i, word) in words.iter().enumerate() {
        let (row, column) = (i / 16, i % 16);
        let sum: i32 =
            (0..16).map(|k| i32::from(bytes[row * 16 + k]) * i32::from(bytes[256 + column * 16 + k])).sum();
        assert_eq!(*word, sum as u32, "row {row}, column {column}");
    }
}
