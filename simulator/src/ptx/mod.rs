//! Reads PTX text: tokens, then a tree of declarations and raw instructions.
//!
//! The language is that of NVIDIA's *Parallel Thread Execution ISA*, as NVRTC writes it for integer kernels.
//! Meaning is given to instructions by `decode`.

mod lexer;
mod parser;

pub use parser::parse;

/// A value type of PTX, without its vector width.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// Predicate.
    Pred,
    /// Untyped bits of this width.
    B(u8),
    /// Unsigned integer of this width in bits.
    U(u8),
    /// Signed integer of this width in bits.
    S(u8),
    /// IEEE 754 float of this width in bits.
    F(u8),
}

impl Type {
    /// The type named by an opcode's part (`s32`, `b8`, `pred`).
    pub fn from_name(name: &str) -> Option<Self> {
        if name == "pred" {
            return Some(Self::Pred);
        }
        let width = name.get(1..)?.parse::<u8>().ok()?;
        match (name.as_bytes()[0], width) {
            (b'b', 8 | 16 | 32 | 64) => Some(Self::B(width)),
            (b'u', 8 | 16 | 32 | 64) => Some(Self::U(width)),
            (b's', 8 | 16 | 32 | 64) => Some(Self::S(width)),
            (b'f', 16 | 32 | 64) => Some(Self::F(width)),
            _ => None,
        }
    }

    /// Width in bits; a predicate has 1.
    pub fn bits(self) -> u8 {
        match self {
            Self::Pred => 1,
            Self::B(n) | Self::U(n) | Self::S(n) | Self::F(n) => n,
        }
    }

    /// Width in bytes of one element in memory.
    pub fn bytes(self) -> usize {
        usize::from(self.bits()).div_ceil(8)
    }

    /// Whether the value is a signed integer.
    pub fn signed(self) -> bool {
        matches!(self, Self::S(_))
    }

    /// Whether the value is a float.
    pub fn float(self) -> bool {
        matches!(self, Self::F(_))
    }
}

/// One operand as written.
#[derive(Clone, Debug, PartialEq)]
pub enum Operand {
    /// A register, special register, variable, label or `_`.
    Name(String),
    /// A variable's address plus a number of bytes.
    NamePlus(String, i64),
    /// A negated predicate.
    Not(String),
    /// An integer.
    Int(i128),
    /// Bits of an f32 (`0f3F800000`).
    F32(u32),
    /// Bits of an f64 (`0d…`).
    F64(u64),
    /// `[base + offset]`; without a name the offset is absolute.
    Address(Option<String>, i64),
    /// `{a, b, …}`.
    Vector(Vec<Operand>),
    /// `a|b`: two destinations.
    Pair(String, String),
}

/// One instruction as written.
#[derive(Clone, Debug)]
pub struct Instruction {
    /// Guard predicate and whether it is negated.
    pub guard: Option<(String, bool)>,
    /// Opcode with its dots.
    pub opcode: String,
    /// Operands in order.
    pub operands: Vec<Operand>,
    /// Line of the PTX text, from 1.
    pub line: u32,
}

/// State space of a variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// Device memory.
    Global,
    /// Read-only device memory; here as global.
    Const,
    /// One array a block.
    Shared,
    /// One array a thread.
    Local,
}

/// A variable at module or kernel scope.
#[derive(Clone, Debug)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// Where it lies.
    pub space: Space,
    /// Alignment in bytes.
    pub align: usize,
    /// Size in bytes; 0 for the launch's dynamic shared memory.
    pub size: usize,
    /// First bytes; the rest is zero.
    pub init: Vec<u8>,
}

/// A kernel parameter.
#[derive(Clone, Debug)]
pub struct Param {
    /// Its name.
    pub name: String,
    /// Offset in the parameter block.
    pub offset: usize,
    /// Size in bytes.
    pub size: usize,
}

/// A statement of a kernel's body.
#[derive(Clone, Debug)]
pub enum Statement {
    /// `{`: names declared inside are local to it.
    Open,
    /// `}`.
    Close,
    /// `.reg`: type, name, and the count of a `name<n>` declaration.
    Register(Type, String, Option<u32>),
    /// A shared or local variable.
    Variable(Variable),
    /// A label.
    Label(String, u32),
    /// `.branchtargets`: the name of the list and its labels.
    Targets(String, Vec<String>),
    /// An instruction.
    Instruction(Instruction),
}

/// A kernel as written.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Line of `.entry`.
    pub line: u32,
    /// Parameters with their offsets.
    pub params: Vec<Param>,
    /// Most threads a block (`.maxntid`, `.reqntid`), 0 when not said.
    pub max_threads: u32,
    /// Statements in order.
    pub body: Vec<Statement>,
}

/// A module as written.
#[derive(Clone, Debug, Default)]
pub struct Text {
    /// `.version`, e.g. (7, 4).
    pub version: (u32, u32),
    /// Number in `.target sm_87`.
    pub target: u32,
    /// Variables at module scope.
    pub variables: Vec<Variable>,
    /// Kernels.
    pub entries: Vec<Entry>,
}

#[cfg(test)]
mod tests;
