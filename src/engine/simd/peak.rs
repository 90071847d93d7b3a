//! What the multiply units do at most: loops that touch registers only. A layer's speed is judged against this.

use super::Isa;

/// Multiply-accumulates of bytes a second on one core, measured in some 20 ms; `None` where no loop is written for the
/// instructions. A caller that wants the peak of several threads calls it on all of them at once.
pub fn peak(isa: Isa) -> Option<f64> {
    #[cfg(target_arch = "x86_64")]
    {
        use std::time::Instant;
        let (run, products) = x86::kernel(isa.name())?;
        if !isa.is_here() {
            return None;
        }
        const ROUNDS: u64 = 50_000;
        let once = || {
            let start = Instant::now();
            // SAFETY: the CPU has the instructions.
            unsafe { run(ROUNDS) };
            (ROUNDS * products) as f64 / start.elapsed().as_secs_f64()
        };
        // The first runs wake the units; the fastest is the least disturbed.
        let start = Instant::now();
        let mut best = 0f64;
        while start.elapsed().as_secs_f64() < 0.02 {
            best = best.max(once());
        }
        Some(best)
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = isa;
        None
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::asm;

    type Run = unsafe fn(u64);

    /// A loop and its products a round.
    pub fn kernel(isa: &str) -> Option<(Run, u64)> {
        Some(match isa {
            "avx512-vnni" => (avx512 as Run, 12 * 64),
            "avx-vnni" => (avx_vnni as Run, 12 * 32),
            "avx2" => (avx2 as Run, 8 * 32),
            "amx" => (amx as Run, 4 * 16 * 16 * 64),
            _ => return None,
        })
    }

    #[target_feature(enable = "avx512f,avx512vnni")]
    unsafe fn avx512(rounds: u64) {
        // SAFETY: registers only.
        unsafe {
            asm!("2:",
                "vpdpbusd zmm0, zmm30, zmm31", "vpdpbusd zmm1, zmm30, zmm31", "vpdpbusd zmm2, zmm30, zmm31",
                "vpdpbusd zmm3, zmm30, zmm31", "vpdpbusd zmm4, zmm30, zmm31", "vpdpbusd zmm5, zmm30, zmm31",
                "vpdpbusd zmm6, zmm30, zmm31", "vpdpbusd zmm7, zmm30, zmm31", "vpdpbusd zmm8, zmm30, zmm31",
                "vpdpbusd zmm9, zmm30, zmm31", "vpdpbusd zmm10, zmm30, zmm31", "vpdpbusd zmm11, zmm30, zmm31",
                "dec {n}", "jnz 2b", n = inout(reg) rounds => _,
                out("zmm0") _, out("zmm1") _, out("zmm2") _, out("zmm3") _, out("zmm4") _, out("zmm5") _,
                out("zmm6") _, out("zmm7") _, out("zmm8") _, out("zmm9") _, out("zmm10") _, out("zmm11") _,
                options(nomem, nostack));
        }
    }

    #[target_feature(enable = "avx2,avxvnni")]
    unsafe fn avx_vnni(rounds: u64) {
        // SAFETY: registers only.
        unsafe {
            asm!("2:",
                "{{vex}} vpdpbusd ymm0, ymm14, ymm15", "{{vex}} vpdpbusd ymm1, ymm14, ymm15",
                "{{vex}} vpdpbusd ymm2, ymm14, ymm15", "{{vex}} vpdpbusd ymm3, ymm14, ymm15",
                "{{vex}} vpdpbusd ymm4, ymm14, ymm15", "{{vex}} vpdpbusd ymm5, ymm14, ymm15",
                "{{vex}} vpdpbusd ymm6, ymm14, ymm15", "{{vex}} vpdpbusd ymm7, ymm14, ymm15",
                "{{vex}} vpdpbusd ymm8, ymm14, ymm15", "{{vex}} vpdpbusd ymm9, ymm14, ymm15",
                "{{vex}} vpdpbusd ymm10, ymm14, ymm15", "{{vex}} vpdpbusd ymm11, ymm14, ymm15",
                "dec {n}", "jnz 2b", n = inout(reg) rounds => _,
                out("ymm0") _, out("ymm1") _, out("ymm2") _, out("ymm3") _, out("ymm4") _, out("ymm5") _,
                out("ymm6") _, out("ymm7") _, out("ymm8") _, out("ymm9") _, out("ymm10") _, out("ymm11") _,
                options(nomem, nostack));
        }
    }

    /// The three instructions of the exact path: pairs to 16 bits, pairs of those to 32, sum.
    #[target_feature(enable = "avx2")]
    unsafe fn avx2(rounds: u64) {
        // SAFETY: registers only.
        unsafe {
            asm!("2:",
                "vpmaddubsw ymm8, ymm14, ymm15", "vpmaddwd ymm8, ymm8, ymm13", "vpaddd ymm0, ymm0, ymm8",
                "vpmaddubsw ymm9, ymm14, ymm15", "vpmaddwd ymm9, ymm9, ymm13", "vpaddd ymm1, ymm1, ymm9",
                "vpmaddubsw ymm10, ymm14, ymm15", "vpmaddwd ymm10, ymm10, ymm13", "vpaddd ymm2, ymm2, ymm10",
                "vpmaddubsw ymm11, ymm14, ymm15", "vpmaddwd ymm11, ymm11, ymm13", "vpaddd ymm3, ymm3, ymm11",
                "vpmaddubsw ymm8, ymm14, ymm15", "vpmaddwd ymm8, ymm8, ymm13", "vpaddd ymm4, ymm4, ymm8",
                "vpmaddubsw ymm9, ymm14, ymm15", "vpmaddwd ymm9, ymm9, ymm13", "vpaddd ymm5, ymm5, ymm9",
                "vpmaddubsw ymm10, ymm14, ymm15", "vpmaddwd ymm10, ymm10, ymm13", "vpaddd ymm6, ymm6, ymm10",
                "vpmaddubsw ymm11, ymm14, ymm15", "vpmaddwd ymm11, ymm11, ymm13", "vpaddd ymm7, ymm7, ymm11",
                "dec {n}", "jnz 2b", n = inout(reg) rounds => _,
                out("ymm0") _, out("ymm1") _, out("ymm2") _, out("ymm3") _, out("ymm4") _, out("ymm5") _,
                out("ymm6") _, out("ymm7") _, out("ymm8") _, out("ymm9") _, out("ymm10") _, out("ymm11") _,
                options(nomem, nostack));
        }
    }

    /// Four blocks of 16x16 sums, each with 64 products; rounds are fewer since each is large.
    unsafe fn amx(rounds: u64) {
        // Palette 1; eight tiles of 16 rows of 64 bytes (Intel SDM, LDTILECFG).
        let mut config = [0u8; 64];
        config[0] = 1;
        config[16..32].copy_from_slice(&[64, 0].repeat(8));
        config[48..56].fill(16);
        // SAFETY: the caller found AMX on this CPU and the system's leave to use it; registers and `config` only.
        unsafe {
            asm!("ldtilecfg [{c}]",
                "tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3",
                "tilezero tmm4", "tilezero tmm5", "tilezero tmm6", "tilezero tmm7",
                "2:",
                "tdpbusd tmm0, tmm4, tmm6", "tdpbusd tmm1, tmm4, tmm7",
                "tdpbusd tmm2, tmm5, tmm6", "tdpbusd tmm3, tmm5, tmm7",
                "dec {n}", "jnz 2b", "tilerelease",
                n = inout(reg) rounds => _, c = in(reg) &config, options(nostack, readonly));
        }
    }
}
