//! Integer, logic, float and predicate instructions.

use super::{Code, Decoder, Name, Result};
use crate::program::{Bool, Cmp, CmpType, Float, FloatUnary, Int, Mods, Op, R, Unary};
use crate::ptx::{Operand, Type};

impl<'a> Decoder<'a> {
    pub(super) fn arith(&mut self, code: &Code<'a>) -> Result<Op> {
        let kind = code.kind()?;
        match code.parts[0] {
            "add" | "sub" | "mul" | "min" | "max" | "div" if kind.float() => self.float(code, kind),
            "fma" | "mad" if kind.float() => self.fma(code, kind),
            "neg" | "abs" | "rcp" | "sqrt" | "rsqrt" | "ex2" | "lg2" | "sin" | "cos" | "tanh"
                if kind.float() =>
            {
                self.float_unary(code, kind)
            }
            "add" | "sub" | "mul" | "min" | "max" | "div" | "rem" | "shl" | "shr" => self.integer(code, kind),
            "and" | "or" | "xor" => self.logic(code, kind),
            "not" | "neg" | "abs" | "cnot" | "popc" | "clz" | "brev" | "bfind" => self.unary(code, kind),
            "mad" => self.mad(code, kind),
            "sad" => {
                code.only(&[])?;
                if kind.bits() != 32 {
                    return Err(code.unknown());
                }
                let (d, a, b, c) = self.four32(code)?;
                Ok(Op::Sad32(kind.signed(), d, a, b, c))
            }
            "dp4a" | "dp2a" => self.dot(code),
            "bfe" => {
                code.only(&[])?;
                let signed = kind.signed();
                let (b, c) = (self.r32(code.arg(2)?)?, self.r32(code.arg(3)?)?);
                Ok(if kind.bits() == 64 {
                    Op::Bfe64(signed, self.d64(code.arg(0)?)?, self.r64(code.arg(1)?)?, b, c)
                } else {
                    Op::Bfe32(signed, self.d32(code.arg(0)?)?, self.r32(code.arg(1)?)?, b, c)
                })
            }
            "bfi" => {
                code.only(&[])?;
                let (c, e) = (self.r32(code.arg(3)?)?, self.r32(code.arg(4)?)?);
                Ok(if kind.bits() == 64 {
                    let (a, b) = (self.r64(code.arg(1)?)?, self.r64(code.arg(2)?)?);
                    Op::Bfi64(self.d64(code.arg(0)?)?, a, b, c, e)
                } else {
                    let (a, b) = (self.r32(code.arg(1)?)?, self.r32(code.arg(2)?)?);
                    Op::Bfi32(self.d32(code.arg(0)?)?, a, b, c, e)
                })
            }
            "prmt" => {
                code.only(&[])?;
                let (d, a, b, c) = self.four32(code)?;
                Ok(Op::Prmt(d, a, b, c))
            }
            "lop3" => {
                code.only(&[])?;
                let (d, a, b, c) = self.four32(code)?;
                match code.arg(4)? {
                    Operand::Int(lut) => Ok(Op::Lop3(*lut as u8, d, a, b, c)),
                    other => Err(self.operand_error(other)),
                }
            }
            "shf" => {
                code.only(&["l", "r", "clamp", "wrap"])?;
                let (d, a, b, c) = self.four32(code)?;
                Ok(Op::Shf(code.has("l"), code.has("wrap"), d, a, b, c))
            }
            "setp" => self.setp(code, kind),
            "selp" => self.selp(code, kind),
            _ => Err(code.unknown()),
        }
    }

    fn four32(&mut self, code: &Code<'a>) -> Result<(R, R, R, R)> {
        Ok((
            self.d32(code.arg(0)?)?,
            self.r32(code.arg(1)?)?,
            self.r32(code.arg(2)?)?,
            self.r32(code.arg(3)?)?,
        ))
    }

    fn mods(&self, code: &Code<'a>) -> Mods {
        Mods { ftz: code.has("ftz"), sat: code.has("sat") }
    }

    fn float(&mut self, code: &Code<'a>, kind: Type) -> Result<Op> {
        // Divisions are computed exactly rounded, also the approximate ones.
        code.only(&["rn", "ftz", "sat", "full", "approx", "NaN"])?;
        let op = match (code.parts[0], code.has("NaN")) {
            ("add", _) => Float::Add,
            ("sub", _) => Float::Sub,
            ("mul", _) => Float::Mul,
            ("div", _) => Float::Div,
            ("min", false) => Float::Min,
            ("min", true) => Float::MinNan,
            ("max", false) => Float::Max,
            _ => Float::MaxNan,
        };
        match kind.bits() {
            32 => {
                let (a, b) = (self.r32(code.arg(1)?)?, self.r32(code.arg(2)?)?);
                Ok(Op::Float32(op, self.mods(code), self.d32(code.arg(0)?)?, a, b))
            }
            64 => {
                let (a, b) = (self.r64(code.arg(1)?)?, self.r64(code.arg(2)?)?);
                Ok(Op::Float64(op, self.d64(code.arg(0)?)?, a, b))
            }
            _ => Err(code.unknown()),
        }
    }

    fn fma(&mut self, code: &Code<'a>, kind: Type) -> Result<Op> {
        code.only(&["rn", "ftz", "sat"])?;
        match kind.bits() {
            32 => {
                let (d, a, b, c) = self.four32(code)?;
                Ok(Op::Fma32(self.mods(code), d, a, b, c))
            }
            64 => {
                let (a, b, c) = (self.r64(code.arg(1)?)?, self.r64(code.arg(2)?)?, self.r64(code.arg(3)?)?);
                Ok(Op::Fma64(self.d64(code.arg(0)?)?, a, b, c))
            }
            _ => Err(code.unknown()),
        }
    }

    fn float_unary(&mut self, code: &Code<'a>, kind: Type) -> Result<Op> {
        code.only(&["rn", "ftz", "approx"])?;
        let op = match code.parts[0] {
            "neg" => FloatUnary::Neg,
            "abs" => FloatUnary::Abs,
            "rcp" => FloatUnary::Rcp,
            "sqrt" => FloatUnary::Sqrt,
            "rsqrt" => FloatUnary::Rsqrt,
            "ex2" => FloatUnary::Ex2,
            "lg2" => FloatUnary::Lg2,
            "sin" => FloatUnary::Sin,
            "cos" => FloatUnary::Cos,
            _ => FloatUnary::Tanh,
        };
        match kind.bits() {
            32 => {
                let a = self.r32(code.arg(1)?)?;
                Ok(Op::FloatUnary32(op, self.mods(code), self.d32(code.arg(0)?)?, a))
            }
            64 => {
                let a = self.r64(code.arg(1)?)?;
                Ok(Op::FloatUnary64(op, self.d64(code.arg(0)?)?, a))
            }
            _ => Err(code.unknown()),
        }
    }

    fn integer(&mut self, code: &Code<'a>, kind: Type) -> Result<Op> {
        code.only(&["lo", "hi", "wide", "sat"])?;
        let signed = kind.signed();
        if code.parts[0] == "mul" && code.has("wide") {
            return match kind.bits() {
                32 => {
                    let (a, b) = (self.r32(code.arg(1)?)?, self.r32(code.arg(2)?)?);
                    Ok(Op::MulWide32(signed, self.d64(code.arg(0)?)?, a, b))
                }
                16 => {
                    let (a, b) = (self.r16(code.arg(1)?)?, self.r16(code.arg(2)?)?);
                    Ok(Op::MulWide16(signed, self.d32(code.arg(0)?)?, a, b))
                }
                _ => Err(code.unknown()),
            };
        }
        if code.has("wide") || (code.has("hi") && code.parts[0] != "mul") {
            return Err(code.unknown());
        }
        let op = match (code.parts[0], signed) {
            ("add", true) if code.has("sat") => Int::AddSat,
            ("sub", true) if code.has("sat") => Int::SubSat,
            _ if code.has("sat") => return Err(code.unknown()),
            ("add", _) => Int::Add,
            ("sub", _) => Int::Sub,
            ("mul", true) if code.has("hi") => Int::MulHiS,
            ("mul", false) if code.has("hi") => Int::MulHiU,
            ("mul", _) => Int::Mul,
            ("min", true) => Int::MinS,
            ("min", false) => Int::MinU,
            ("max", true) => Int::MaxS,
            ("max", false) => Int::MaxU,
            ("div", true) => Int::DivS,
            ("div", false) => Int::DivU,
            ("rem", true) => Int::RemS,
            ("rem", false) => Int::RemU,
            ("shl", _) => Int::Shl,
            ("shr", true) => Int::ShrS,
            _ => Int::ShrU,
        };
        let shift = matches!(op, Int::Shl | Int::ShrS | Int::ShrU);
        match kind.bits() {
            64 => {
                if matches!(op, Int::AddSat | Int::SubSat) {
                    return Err(code.unknown());
                }
                let (d, a) = (self.d64(code.arg(0)?)?, self.r64(code.arg(1)?)?);
                let b = if shift { self.r32(code.arg(2)?)? } else { self.r64(code.arg(2)?)? };
                Ok(Op::Int64(op, d, a, b))
            }
            32 => {
                let (a, b) = (self.r32(code.arg(1)?)?, self.r32(code.arg(2)?)?);
                Ok(Op::Int32(op, self.d32(code.arg(0)?)?, a, b))
            }
            16 => {
                let a = self.r16(code.arg(1)?)?;
                let b = if shift { self.r32(code.arg(2)?)? } else { self.r16(code.arg(2)?)? };
                Ok(Op::Int16(op, signed, self.d32(code.arg(0)?)?, a, b))
            }
            _ => Err(code.unknown()),
        }
    }

    fn logic(&mut self, code: &Code<'a>, kind: Type) -> Result<Op> {
        code.only(&[])?;
        let (int, boolean) = match code.parts[0] {
            "and" => (Int::And, Bool::And),
            "or" => (Int::Or, Bool::Or),
            _ => (Int::Xor, Bool::Xor),
        };
        match kind {
            Type::Pred => {
                let (a, b) = (self.pred(code.arg(1)?)?, self.pred(code.arg(2)?)?);
                Ok(Op::PredBin(boolean, self.dst_pred(code.arg(0)?)?, a, b))
            }
            kind if kind.bits() == 64 => {
                let (a, b) = (self.r64(code.arg(1)?)?, self.r64(code.arg(2)?)?);
                Ok(Op::Int64(int, self.d64(code.arg(0)?)?, a, b))
            }
            kind if kind.bits() == 32 => {
                let (a, b) = (self.r32(code.arg(1)?)?, self.r32(code.arg(2)?)?);
                Ok(Op::Int32(int, self.d32(code.arg(0)?)?, a, b))
            }
            _ => {
                let (a, b) = (self.r16(code.arg(1)?)?, self.r16(code.arg(2)?)?);
                Ok(Op::Int16(int, false, self.d32(code.arg(0)?)?, a, b))
            }
        }
    }

    fn unary(&mut self, code: &Code<'a>, kind: Type) -> Result<Op> {
        code.only(&["shiftamt"])?;
        let op = match code.parts[0] {
            "bfind" if code.has("shiftamt") && kind == Type::U(32) => Unary::ShiftU,
            _ if code.has("shiftamt") => return Err(code.unknown()),
            "not" if kind == Type::Pred => {
                let a = self.pred(code.arg(1)?)?;
                return Ok(Op::PredNot(self.dst_pred(code.arg(0)?)?, a));
            }
            "not" => Unary::Not,
            "neg" => Unary::Neg,
            "abs" => Unary::Abs,
            "cnot" => Unary::Cnot,
            "popc" => Unary::Popc,
            "clz" => Unary::Clz,
            "brev" => Unary::Brev,
            _ if kind.signed() => Unary::BfindS,
            _ => Unary::BfindU,
        };
        // Counts of bits have 32 bits whatever the source's width.
        let counts = matches!(op, Unary::Popc | Unary::Clz | Unary::BfindS | Unary::BfindU | Unary::ShiftU);
        match kind.bits() {
            64 => {
                let a = self.r64(code.arg(1)?)?;
                let d = if counts { self.d32(code.arg(0)?)? } else { self.d64(code.arg(0)?)? };
                Ok(Op::Unary64(op, d, a))
            }
            32 => {
                let a = self.r32(code.arg(1)?)?;
                Ok(Op::Unary32(op, self.d32(code.arg(0)?)?, a))
            }
            16 if matches!(op, Unary::Not | Unary::Neg | Unary::Abs | Unary::Cnot) => {
                let a = self.r16(code.arg(1)?)?;
                Ok(Op::Unary16(op, self.d32(code.arg(0)?)?, a))
            }
            _ => Err(code.unknown()),
        }
    }

    fn mad(&mut self, code: &Code<'a>, kind: Type) -> Result<Op> {
        code.only(&["lo", "hi", "wide"])?;
        let signed = kind.signed();
        match (kind.bits(), code.has("wide"), code.has("hi")) {
            (32, true, _) => {
                let (a, b, c) = (self.r32(code.arg(1)?)?, self.r32(code.arg(2)?)?, self.r64(code.arg(3)?)?);
                Ok(Op::MadWide32(signed, self.d64(code.arg(0)?)?, a, b, c))
            }
            (16, true, _) => {
                let (a, b, c) = (self.r16(code.arg(1)?)?, self.r16(code.arg(2)?)?, self.r32(code.arg(3)?)?);
                Ok(Op::MadWide16(signed, self.d32(code.arg(0)?)?, a, b, c))
            }
            (32, _, true) => {
                let (d, a, b, c) = self.four32(code)?;
                Ok(Op::MadHi32(signed, d, a, b, c))
            }
            (32, ..) => {
                let (d, a, b, c) = self.four32(code)?;
                Ok(Op::Mad32(d, a, b, c))
            }
            (64, _, false) => {
                let (a, b, c) = (self.r64(code.arg(1)?)?, self.r64(code.arg(2)?)?, self.r64(code.arg(3)?)?);
                Ok(Op::Mad64(self.d64(code.arg(0)?)?, a, b, c))
            }
            (16, _, false) => {
                let (a, b, c) = (self.r16(code.arg(1)?)?, self.r16(code.arg(2)?)?, self.r16(code.arg(3)?)?);
                Ok(Op::Mad16(self.d32(code.arg(0)?)?, a, b, c))
            }
            _ => Err(code.unknown()),
        }
    }

    fn dot(&mut self, code: &Code<'a>) -> Result<Op> {
        code.only(&["lo", "hi"])?;
        let kinds = code.kinds();
        let [a_kind, b_kind] = kinds[..] else { return Err(code.unknown()) };
        let (d, a, b, c) = self.four32(code)?;
        Ok(if code.parts[0] == "dp4a" {
            Op::Dp4a(a_kind.signed(), b_kind.signed(), d, a, b, c)
        } else {
            Op::Dp2a(a_kind.signed(), b_kind.signed(), code.has("hi"), d, a, b, c)
        })
    }

    fn setp(&mut self, code: &Code<'a>, kind: Type) -> Result<Op> {
        const NAMES: &[(&str, Cmp)] = &[
            ("eq", Cmp::Eq),
            ("ne", Cmp::Ne),
            ("lt", Cmp::Lt),
            ("le", Cmp::Le),
            ("gt", Cmp::Gt),
            ("ge", Cmp::Ge),
            ("lo", Cmp::Lt),
            ("ls", Cmp::Le),
            ("hi", Cmp::Gt),
            ("hs", Cmp::Ge),
            ("equ", Cmp::Equ),
            ("neu", Cmp::Neu),
            ("ltu", Cmp::Ltu),
            ("leu", Cmp::Leu),
            ("gtu", Cmp::Gtu),
            ("geu", Cmp::Geu),
            ("num", Cmp::Num),
            ("nan", Cmp::Nan),
        ];
        let cmp = NAMES.iter().find(|(name, _)| code.parts.get(1) == Some(name));
        let cmp = cmp.ok_or_else(|| code.unknown())?.1;
        let boolean = match code.parts.get(2) {
            Some(&"and") => Some(Bool::And),
            Some(&"or") => Some(Bool::Or),
            Some(&"xor") => Some(Bool::Xor),
            _ => None,
        };
        code.only(&[code.parts[1], "and", "or", "xor", "ftz"])?;
        let (dst, other) = match code.arg(0)? {
            Operand::Pair(p, q) => (self.pred_sink(p)?, Some(self.pred_sink(q)?)),
            single => (self.dst_pred(single)?, None),
        };
        let (kind, a, b) = match kind {
            Type::F(64) => (CmpType::F64, self.r64(code.arg(1)?)?, self.r64(code.arg(2)?)?),
            Type::F(32) => (CmpType::F32, self.r32(code.arg(1)?)?, self.r32(code.arg(2)?)?),
            Type::S(64) => (CmpType::S64, self.r64(code.arg(1)?)?, self.r64(code.arg(2)?)?),
            Type::U(64) | Type::B(64) => (CmpType::U64, self.r64(code.arg(1)?)?, self.r64(code.arg(2)?)?),
            Type::S(32) => (CmpType::S32, self.r32(code.arg(1)?)?, self.r32(code.arg(2)?)?),
            Type::U(32) | Type::B(32) => (CmpType::U32, self.r32(code.arg(1)?)?, self.r32(code.arg(2)?)?),
            Type::S(16) => (CmpType::S16, self.r16(code.arg(1)?)?, self.r16(code.arg(2)?)?),
            // Registers of 16 bits hold zeros above.
            Type::U(16) | Type::B(16) => (CmpType::U32, self.r16(code.arg(1)?)?, self.r16(code.arg(2)?)?),
            _ => return Err(code.unknown()),
        };
        let combine = match boolean {
            None => None,
            Some(boolean) => {
                let (pred, negated) = self.pred_not(code.arg(3)?)?;
                Some((boolean, pred, negated))
            }
        };
        Ok(Op::Setp { cmp, kind, dst, other, a, b, combine })
    }

    /// A predicate destination that may be `_`.
    pub(super) fn pred_sink(&mut self, name: &'a str) -> Result<R> {
        if name == "_" {
            return match self.fresh(Type::Pred)? {
                Name::Pred(index) => Ok(index),
                _ => Err(self.syntax("no predicate".into())),
            };
        }
        self.pred_name(name)
    }

    fn selp(&mut self, code: &Code<'a>, kind: Type) -> Result<Op> {
        code.only(&[])?;
        let c = self.pred(code.arg(3)?)?;
        match kind.bits() {
            64 => {
                let (a, b) = (self.r64(code.arg(1)?)?, self.r64(code.arg(2)?)?);
                Ok(Op::Selp64(self.d64(code.arg(0)?)?, a, b, c))
            }
            1 => {
                let (a, b) = (self.pred(code.arg(1)?)?, self.pred(code.arg(2)?)?);
                Ok(Op::SelpPred(self.dst_pred(code.arg(0)?)?, a, b, c))
            }
            16 => {
                let (a, b) = (self.r16(code.arg(1)?)?, self.r16(code.arg(2)?)?);
                Ok(Op::Selp32(self.d32(code.arg(0)?)?, a, b, c))
            }
            _ => {
                let (a, b) = (self.r32(code.arg(1)?)?, self.r32(code.arg(2)?)?);
                Ok(Op::Selp32(self.d32(code.arg(0)?)?, a, b, c))
            }
        }
    }
}
