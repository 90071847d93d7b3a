//! Runs an instruction on every combination of edge values.

use super::{SCHEDULES, with};
use crate::{DeviceMemory, Launch, Module, launch, pack_args};

const EDGES: [u64; 14] = [
    0,
    1,
    2,
    5,
    31,
    33,
    0x0000_8421,
    0x7FFF_FFFF,
    0x8000_0000,
    0xFFFF_FFFF,
    0x7FFF_FFFF_FFFF_FFFF,
    0x8000_0000_0000_0000,
    0xFFFF_FFFF_FFFF_FFFF,
    0xDEAD_BEEF_1234_F6A7,
];

/// Runs `body` a thread for each row of three operands, in `%r10`.. (low words) and `%rd10`..; gives `%rd20`, or
/// `%r20` where `wide` is not set.
pub(super) fn each(body: &str, wide: bool, rows: &[[u64; 3]]) -> Vec<u64> {
    let out = if wide { "" } else { "cvt.u64.u32 %rd20, %r20;\n" };
    let source = format!(
        ".version 7.4\n.target sm_87\n.address_size 64\n.visible .entry k(.param .u64 k_0, .param .u32 k_1)\n{{\n\
         .reg .pred %p<8>;\n.reg .b16 %h<8>;\n.reg .b32 %r<40>;\n.reg .b64 %rd<40>;\n\
         ld.param.u64 %rd0, [k_0];\nld.param.u32 %r0, [k_1];\ncvta.to.global.u64 %rd1, %rd0;\n\
         mov.u32 %r1, %tid.x;\nmov.u32 %r2, %ctaid.x;\nmad.lo.s32 %r3, %r2, 128, %r1;\n\
         setp.ge.u32 %p7, %r3, %r0;\n@%p7 bra END;\n\
         mul.wide.u32 %rd2, %r3, 32;\nadd.s64 %rd3, %rd1, %rd2;\n\
         ld.global.u64 %rd10, [%rd3];\nld.global.u64 %rd11, [%rd3+8];\nld.global.u64 %rd12, [%rd3+16];\n\
         cvt.u32.u64 %r10, %rd10;\ncvt.u32.u64 %r11, %rd11;\ncvt.u32.u64 %r12, %rd12;\n\
         {body}\n{out}st.global.u64 [%rd3+24], %rd20;\nEND:\nret;\n}}\n"
    );
    let memory = DeviceMemory::new(1 << 24);
    let module = Module::load(&source, &memory).unwrap_or_else(|e| panic!("{e}\n{body}"));
    let kernel = module.kernel("k").unwrap();
    let at = memory.allocate(rows.len() * 32).unwrap();
    let bytes: Vec<u8> = rows.iter().flat_map(|r| [r[0], r[1], r[2], 0]).flat_map(u64::to_le_bytes).collect();
    memory.write(at, &bytes).unwrap();
    let args = pack_args(&module, kernel, &[&at.to_le_bytes(), &(rows.len() as u32).to_le_bytes()]).unwrap();
    let grid = [rows.len().div_ceil(128) as u32, 1, 1];
    let shape = Launch { grid, block: [128, 1, 1], dynamic_shared: 0, args };
    launch(&module, kernel, &shape, &memory, &with(SCHEDULES[0])).unwrap_or_else(|f| panic!("{f}"));
    let mut bytes = vec![0; bytes.len()];
    memory.read(at, &mut bytes).unwrap();
    bytes.chunks_exact(32).map(|row| u64::from_le_bytes(row[24..].try_into().unwrap())).collect()
}

fn rows() -> Vec<[u64; 3]> {
    let mut rows = Vec::new();
    for a in EDGES {
        for b in EDGES {
            rows.extend(EDGES.map(|c| [a, b, c]));
        }
    }
    rows
}

/// Compares `%r20` with a function of the low words of the operands.
pub(super) fn check32(body: &str, want: impl Fn(u32, u32, u32) -> u32) {
    let rows = rows();
    for (row, got) in rows.iter().zip(each(body, false, &rows)) {
        let [a, b, c] = row.map(|v| v as u32);
        let want = want(a, b, c);
        assert_eq!(got, u64::from(want), "{body}: {a:#x}, {b:#x}, {c:#x}: {got:#x}, not {want:#x}");
    }
}

/// Compares `%rd20` with a function of the operands.
pub(super) fn check64(body: &str, want: impl Fn(u64, u64, u64) -> u64) {
    let rows = rows();
    for (row, got) in rows.iter().zip(each(body, true, &rows)) {
        let [a, b, c] = *row;
        let want = want(a, b, c);
        assert_eq!(got, want, "{body}: {a:#x}, {b:#x}, {c:#x}: {got:#x}, not {want:#x}");
    }
}
