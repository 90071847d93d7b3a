//! The decoded form of a kernel: register indices instead of names, constants and special registers as
//! registers that are filled before a block starts.

use std::collections::HashMap;

/// Index into one of a warp's register files.
pub(crate) type R = u16;

/// Two-operand operations on 32-bit (and sign- or zero-extended 16-bit) integers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Int {
    Add,
    Sub,
    Mul,
    MulHiS,
    MulHiU,
    And,
    Or,
    Xor,
    MinS,
    MaxS,
    MinU,
    MaxU,
    Shl,
    ShrS,
    ShrU,
    DivS,
    DivU,
    RemS,
    RemU,
    AddSat,
    SubSat,
}

/// Operations on one integer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unary {
    Not,
    Neg,
    Abs,
    Cnot,
    Popc,
    Clz,
    Brev,
    BfindS,
    BfindU,
    /// `bfind.shiftamt`: by how much the highest bit is shifted to the top.
    ShiftU,
}

/// Two-operand float operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Float {
    Add,
    Sub,
    Mul,
    Div,
    Min,
    Max,
    MinNan,
    MaxNan,
}

/// One-operand float operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FloatUnary {
    Neg,
    Abs,
    Rcp,
    Sqrt,
    Rsqrt,
    Ex2,
    Lg2,
    Sin,
    Cos,
    Tanh,
}

/// `.ftz` and `.sat` of a float operation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mods {
    pub(crate) ftz: bool,
    pub(crate) sat: bool,
}

/// Comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cmp {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    /// Float only: true also where an operand is NaN.
    Equ,
    Neu,
    Ltu,
    Leu,
    Gtu,
    Geu,
    /// Both are numbers.
    Num,
    /// At least one is NaN.
    Nan,
}

/// What a comparison compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CmpType {
    S16,
    S32,
    U32,
    S64,
    U64,
    F32,
    F64,
}

/// Boolean operation on predicates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bool {
    And,
    Or,
    Xor,
}

/// Rounding of a conversion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Round {
    /// To nearest, ties to even.
    Nearest,
    /// Towards zero.
    Zero,
    /// Towards minus infinity.
    Down,
    /// Towards plus infinity.
    Up,
}

/// A register of either integer file, with the width in bits that it was declared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reg {
    pub(crate) index: R,
    pub(crate) bits: u8,
}

/// The address of a memory operand.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Address {
    pub(crate) base: Base,
    pub(crate) offset: i64,
}

/// The register part of an address.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Base {
    R32(R),
    R64(R),
    None,
}

/// State space of an access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MemSpace {
    Global,
    Shared,
    Local,
    Param,
    Generic,
}

/// Element of an access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Element {
    /// 1, 2, 4 or 8.
    pub(crate) bytes: u8,
    pub(crate) signed: bool,
}

/// Atomic operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Atomic {
    Add,
    MinS,
    MinU,
    MaxS,
    MaxU,
    And,
    Or,
    Xor,
    Exch,
    Cas,
    Inc,
    Dec,
    FAdd,
}

/// Lane exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shuffle {
    Up,
    Down,
    Butterfly,
    Index,
}

/// Vote over a warp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Vote {
    All,
    Any,
    Uni,
    Ballot,
}

/// Shape of a warp-level matrix fragment of wmma.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fragment {
    A,
    B,
    C,
}

/// A wmma shape for 8-bit integers: `m x n x 16`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) m: usize,
    pub(crate) n: usize,
}

/// One decoded operation. Destinations come first.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Int32(Int, R, R, R),
    Int64(Int, R, R, R),
    /// 16-bit: operands are extended as `signed` says, the result is cut to 16 bits.
    Int16(Int, bool, R, R, R),
    Unary32(Unary, R, R),
    Unary64(Unary, R, R),
    Unary16(Unary, R, R),
    Mad32(R, R, R, R),
    Mad64(R, R, R, R),
    Mad16(R, R, R, R),
    /// `mad.hi`: signed, then d, a, b, c.
    MadHi32(bool, R, R, R, R),
    MulWide32(bool, R, R, R),
    MadWide32(bool, R, R, R, R),
    MulWide16(bool, R, R, R),
    MadWide16(bool, R, R, R, R),
    Sad32(bool, R, R, R, R),
    Float32(Float, Mods, R, R, R),
    Fma32(Mods, R, R, R, R),
    FloatUnary32(FloatUnary, Mods, R, R),
    Float64(Float, R, R, R),
    Fma64(R, R, R, R),
    FloatUnary64(FloatUnary, R, R),
    /// Signedness of a and of b.
    Dp4a(bool, bool, R, R, R, R),
    /// Signedness of a and of b, upper half of b.
    Dp2a(bool, bool, bool, R, R, R, R),
    Bfe32(bool, R, R, R, R),
    Bfe64(bool, R, R, R, R),
    Bfi32(R, R, R, R, R),
    Bfi64(R, R, R, R, R),
    Prmt(R, R, R, R),
    Lop3(u8, R, R, R, R),
    /// Left, wrapping.
    Shf(bool, bool, R, R, R, R),
    Mov32(R, R),
    Mov64(R, R),
    MovPred(R, R),
    /// `mov.b64 d, {lo, hi}`.
    Pack64(R, R, R),
    Unpack64(R, R, R),
    /// `mov.b32 d, {lo, hi}` of 16-bit halves.
    Pack32(R, R, R),
    Unpack32(R, R, R),
    /// Halves of 64 bits into four 16-bit registers.
    Unpack64x4([R; 4], R),
    Pack64x4(R, [R; 4]),
    /// Four bytes.
    Pack32x4(R, [R; 4]),
    Unpack32x4([R; 4], R),
    Sext32To64(R, R),
    Zext32To64(R, R),
    Trunc64To32(R, R),
    Cvt(Box<Convert>),
    Setp {
        cmp: Cmp,
        kind: CmpType,
        dst: R,
        other: Option<R>,
        a: R,
        b: R,
        combine: Option<(Bool, R, bool)>,
    },
    PredBin(Bool, R, R, R),
    PredNot(R, R),
    Selp32(R, R, R, R),
    Selp64(R, R, R, R),
    SelpPred(R, R, R, R),
    Load(Box<Access>),
    Store(Box<Access>),
    Atomic(Box<AtomicAccess>),
    Bra(u32),
    /// Register with the index, targets.
    BraIndexed(R, Box<[u32]>),
    Exit,
    Trap,
    /// Barrier register, thread count register or none; whether threads only arrive; aligned.
    Barrier {
        id: R,
        count: Option<R>,
        arrive: bool,
    },
    BarrierWarp(R),
    Fence {
        global: bool,
    },
    Shuffle {
        mode: Shuffle,
        dst: R,
        valid: Option<R>,
        value: R,
        lane: R,
        clamp: R,
        members: R,
    },
    Vote {
        mode: Vote,
        dst: R,
        pred: R,
        negated: bool,
        members: R,
    },
    /// `match.any.sync.b32` d, a, members.
    MatchAny(R, R, R),
    /// Integer reduction over a warp.
    Redux(Atomic, R, R, R),
    ActiveMask(R),
    Clock32(R),
    Clock64(R),
    /// d, a, window, to.
    CvtaTo(MemSpace, R, R),
    CvtaFrom(MemSpace, R, R),
    IsSpace(MemSpace, R, R),
    Mma(Box<Mma>),
    WmmaLoad(Box<WmmaAccess>),
    WmmaStore(Box<WmmaAccess>),
    WmmaMma(Box<Wmma>),
    LdMatrix {
        dst: Box<[R]>,
        transposed: bool,
        address: Address,
    },
    CpAsync {
        dst: Address,
        src: Address,
        bytes: u8,
        src_bytes: Option<R>,
        ignore: Option<(R, bool)>,
    },
    CpCommit,
    CpWait(u32),
    CpWaitAll,
    Nop,
}

/// A conversion between types.
#[derive(Clone, Debug)]
pub(crate) struct Convert {
    pub(crate) to: crate::ptx::Type,
    pub(crate) from: crate::ptx::Type,
    /// None where the value is kept (integer to integer) or rounded to the nearest float.
    pub(crate) round: Option<Round>,
    pub(crate) sat: bool,
    pub(crate) ftz: bool,
    pub(crate) dst: Reg,
    pub(crate) src: Reg,
}

/// A load or a store of one to eight elements.
#[derive(Clone, Debug)]
pub(crate) struct Access {
    pub(crate) space: MemSpace,
    pub(crate) element: Element,
    pub(crate) regs: Box<[Reg]>,
    pub(crate) address: Address,
}

/// An atomic or a reduction.
#[derive(Clone, Debug)]
pub(crate) struct AtomicAccess {
    pub(crate) op: Atomic,
    pub(crate) space: MemSpace,
    /// 4 or 8.
    pub(crate) bytes: u8,
    pub(crate) dst: Option<R>,
    pub(crate) address: Address,
    pub(crate) value: R,
    /// The new value of `cas`.
    pub(crate) second: Option<R>,
}

/// `mma.sync.aligned` on 8-bit integers.
#[derive(Clone, Debug)]
pub(crate) struct Mma {
    pub(crate) a_signed: bool,
    pub(crate) b_signed: bool,
    pub(crate) saturate: bool,
    /// 16 or 32; m is 16 and n is 8, or m is 8 with k 16.
    pub(crate) m: usize,
    pub(crate) k: usize,
    pub(crate) d: Box<[R]>,
    pub(crate) a: Box<[R]>,
    pub(crate) b: Box<[R]>,
    pub(crate) c: Box<[R]>,
}

/// `wmma.load` or `wmma.store`.
#[derive(Clone, Debug)]
pub(crate) struct WmmaAccess {
    pub(crate) fragment: Fragment,
    pub(crate) shape: Shape,
    pub(crate) row_major: bool,
    pub(crate) space: MemSpace,
    pub(crate) regs: Box<[R]>,
    pub(crate) address: Address,
    /// Register with the leading dimension in elements.
    pub(crate) stride: Option<R>,
}

/// `wmma.mma` on 8-bit integers.
#[derive(Clone, Debug)]
pub(crate) struct Wmma {
    pub(crate) shape: Shape,
    pub(crate) a_signed: bool,
    pub(crate) b_signed: bool,
    pub(crate) saturate: bool,
    pub(crate) d: Box<[R]>,
    pub(crate) a: Box<[R]>,
    pub(crate) b: Box<[R]>,
    pub(crate) c: Box<[R]>,
}

/// Guard of an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Guard {
    Always,
    If(R),
    Unless(R),
}

/// A decoded instruction.
#[derive(Clone, Debug)]
pub(crate) struct Inst {
    pub(crate) op: Op,
    pub(crate) guard: Guard,
    pub(crate) line: u32,
    /// Where a divergent branch's lanes meet again; `EXIT` for the end.
    pub(crate) meet: u32,
}

/// The program counter past the last instruction.
pub(crate) const EXIT: u32 = u32::MAX;

/// A special register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Special {
    Tid(u8),
    Ntid(u8),
    Ctaid(u8),
    Nctaid(u8),
    Lane,
    Warp,
    Warps,
    Sm,
    Sms,
    DynamicShared,
    TotalShared,
    LaneMaskEq,
    LaneMaskLt,
    LaneMaskLe,
    LaneMaskGt,
    LaneMaskGe,
    GridId,
}

/// Where a constant register's value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Constant {
    Value(u64),
    Special(Special),
    /// Offset behind the kernel's static shared memory.
    DynamicShared(i64),
    /// Module variable and offset.
    Variable(usize, i64),
}

/// A decoded kernel.
#[derive(Clone, Debug)]
pub struct Kernel {
    pub(crate) name: String,
    pub(crate) params: Vec<crate::ptx::Param>,
    pub(crate) param_bytes: usize,
    pub(crate) n32: usize,
    pub(crate) n64: usize,
    pub(crate) preds: usize,
    pub(crate) const32: Vec<(R, Constant)>,
    pub(crate) const64: Vec<(R, Constant)>,
    /// Predicates that are always true, or always false.
    pub(crate) const_preds: Vec<(R, bool)>,
    pub(crate) code: Vec<Inst>,
    /// Static shared memory in bytes.
    pub(crate) shared: usize,
    pub(crate) shared_names: HashMap<String, usize>,
    /// Bytes of local memory a thread.
    pub(crate) local: usize,
    pub(crate) max_threads: u32,
}

impl Kernel {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Sizes of its parameters in bytes, in order.
    pub fn parameter_sizes(&self) -> impl ExactSizeIterator<Item = usize> + '_ {
        self.params.iter().map(|p| p.size)
    }

    /// Static shared memory in bytes.
    pub fn static_shared(&self) -> usize {
        self.shared
    }

    /// Offset of a shared variable, by name.
    pub fn shared_offset(&self, name: &str) -> Option<usize> {
        self.shared_names.get(name).copied()
    }

    /// Local memory in bytes a thread (arrays that the compiler could not keep in registers).
    pub fn local_bytes(&self) -> usize {
        self.local
    }

    /// Most threads a block, 1024 where the kernel says nothing.
    pub fn max_threads(&self) -> u32 {
        if self.max_threads == 0 { 1024 } else { self.max_threads.min(1024) }
    }

    /// Number of PTX instructions.
    pub fn len(&self) -> usize {
        self.code.len()
    }

    /// Whether the kernel has no instructions; it always ends with an exit.
    pub fn is_empty(&self) -> bool {
        self.code.is_empty()
    }
}
