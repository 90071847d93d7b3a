//! Instruction sets: names, detection, tile sizes.

/// Which instructions compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isa {
    /// AMX: 16,384 products an instruction, between tiles of 16 rows of 64 bytes.
    Amx,
    /// AVX-512 with VNNI: 64 products an instruction.
    Avx512Vnni,
    /// AVX-VNNI: 32 products an instruction.
    AvxVnni,
    /// AVX2 with `vpmaddubsw`; a convolution whose pairs could saturate widens to 16 bits first.
    Avx2,
    /// FEAT_I8MM of Arm: `usmmla`, 32 products an instruction.
    I8mm,
    /// FEAT_DotProd of Arm: `sdot`, 16 products an instruction.
    DotProd,
    /// Any 64-bit Arm: `smlal`, 8 products an instruction.
    Neon,
}

impl Isa {
    /// All, the fastest first.
    pub const ALL: [Isa; 7] =
        [Isa::Amx, Isa::Avx512Vnni, Isa::AvxVnni, Isa::Avx2, Isa::I8mm, Isa::DotProd, Isa::Neon];

    /// The name in messages.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Amx => "amx",
            Isa::Avx512Vnni => "avx512-vnni",
            Isa::AvxVnni => "avx-vnni",
            Isa::Avx2 => "avx2",
            Isa::I8mm => "i8mm",
            Isa::DotProd => "dotprod",
            Isa::Neon => "neon",
        }
    }

    /// This CPU has the instructions.
    pub fn is_here(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2");
            return match self {
                Isa::Amx => super::amx::is_here(),
                Isa::Avx512Vnni => {
                    avx2 && is_x86_feature_detected!("avx512f")
                        && is_x86_feature_detected!("avx512bw")
                        && is_x86_feature_detected!("avx512vnni")
                }
                Isa::AvxVnni => avx2 && is_x86_feature_detected!("avxvnni"),
                Isa::Avx2 => avx2,
                Isa::I8mm | Isa::DotProd | Isa::Neon => false,
            };
        }
        #[cfg(target_arch = "aarch64")]
        {
            use std::arch::is_aarch64_feature_detected;
            return match self {
                Isa::I8mm => is_aarch64_feature_detected!("i8mm"),
                Isa::DotProd => is_aarch64_feature_detected!("dotprod"),
                Isa::Neon => is_aarch64_feature_detected!("neon"),
                Isa::Amx | Isa::Avx512Vnni | Isa::AvxVnni | Isa::Avx2 => false,
            };
        }
        #[allow(unreachable_code, reason = "reached on other processors only")]
        false
    }

    /// The fastest that this CPU has.
    pub fn best() -> Option<Isa> {
        Self::ALL.into_iter().find(|isa| isa.is_here())
    }

    /// Output pixels and panels in a tile: as many sums as registers hold.
    pub(super) fn tile(self) -> (usize, usize) {
        match self {
            Isa::Amx => (32, 2),
            Isa::Avx512Vnni => (14, 2),
            Isa::AvxVnni => (6, 1),
            Isa::Avx2 => (4, 1),
            Isa::I8mm => (6, 1),
            Isa::DotProd => (5, 1),
            Isa::Neon => (2, 1),
        }
    }

    /// The kernel adds a tap's offset to a row's pointer. With few rows in a tile that costs more than pointers for each tap.
    pub(super) fn follows_offsets(self) -> bool {
        self == Isa::Avx512Vnni
    }

    /// Inputs of one output side by side in a block of packed weights.
    pub(super) fn inputs(self) -> usize {
        if self == Isa::I8mm { 8 } else { 4 }
    }

    /// Inputs of a tap are padded to a multiple of this.
    pub(super) fn depth(self) -> usize {
        if self == Isa::Amx { 64 } else { self.inputs() }
    }
}
