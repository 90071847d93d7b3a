//! `mov` with its packing forms, and `cvt`.

use super::{Code, Decoder, Name, Result};
use crate::program::{Convert, Op, R, Round};
use crate::ptx::{Operand, Type};

impl<'a> Decoder<'a> {
    pub(super) fn mov(&mut self, code: &Code<'a>) -> Result<Op> {
        code.only(&[])?;
        let kind = code.kind()?;
        let (d, a) = (code.arg(0)?, code.arg(1)?);
        if let Operand::Name(name) = a {
            match name.as_str() {
                "%clock" | "%clock_hi" | "%globaltimer_lo" | "%globaltimer_hi" => {
                    return Ok(Op::Clock32(self.d32(d)?));
                }
                "%clock64" | "%globaltimer" => return Ok(Op::Clock64(self.d64(d)?)),
                _ => {}
            }
        }
        match (kind.bits(), d, a) {
            (1, ..) => {
                let a = self.pred(a)?;
                Ok(Op::MovPred(self.dst_pred(d)?, a))
            }
            (bits, d, Operand::Vector(parts)) => self.pack(code, bits, d, parts),
            (bits, Operand::Vector(parts), a) => self.unpack(code, bits, parts, a),
            (64, ..) => {
                let a = self.r64(a)?;
                Ok(Op::Mov64(self.d64(d)?, a))
            }
            (16, ..) => {
                let a = self.r16(a)?;
                Ok(Op::Mov32(self.d32(d)?, a))
            }
            _ => {
                let a = self.r32(a)?;
                Ok(Op::Mov32(self.d32(d)?, a))
            }
        }
    }

    fn pack(&mut self, code: &Code<'a>, bits: u8, d: &'a Operand, parts: &'a [Operand]) -> Result<Op> {
        let parts: Vec<R> = parts.iter().map(|p| self.r32(p)).collect::<Result<_>>()?;
        match (bits, &parts[..]) {
            (64, &[lo, hi]) => Ok(Op::Pack64(self.d64(d)?, lo, hi)),
            (64, &[a, b, c, e]) => Ok(Op::Pack64x4(self.d64(d)?, [a, b, c, e])),
            (32, &[lo, hi]) => Ok(Op::Pack32(self.d32(d)?, lo, hi)),
            (32, &[a, b, c, e]) => Ok(Op::Pack32x4(self.d32(d)?, [a, b, c, e])),
            _ => Err(code.unknown()),
        }
    }

    fn unpack(&mut self, code: &Code<'a>, bits: u8, parts: &'a [Operand], a: &'a Operand) -> Result<Op> {
        let parts: Vec<R> = parts.iter().map(|p| self.d32(p)).collect::<Result<_>>()?;
        match (bits, &parts[..]) {
            (64, &[lo, hi]) => Ok(Op::Unpack64(lo, hi, self.r64(a)?)),
            (64, &[b, c, d, e]) => Ok(Op::Unpack64x4([b, c, d, e], self.r64(a)?)),
            (32, &[lo, hi]) => Ok(Op::Unpack32(lo, hi, self.r32(a)?)),
            (32, &[b, c, d, e]) => Ok(Op::Unpack32x4([b, c, d, e], self.r32(a)?)),
            _ => Err(code.unknown()),
        }
    }

    pub(super) fn convert(&mut self, code: &Code<'a>) -> Result<Op> {
        code.only(&["rn", "rz", "rm", "rp", "rni", "rzi", "rmi", "rpi", "ftz", "sat"])?;
        let kinds = code.kinds();
        let [to, from] = kinds[..] else { return Err(code.unknown()) };
        let round = code.parts[1..].iter().find_map(|p| match *p {
            "rn" | "rni" => Some(Round::Nearest),
            "rz" | "rzi" => Some(Round::Zero),
            "rm" | "rmi" => Some(Round::Down),
            "rp" | "rpi" => Some(Round::Up),
            _ => None,
        });
        let narrowing = matches!((to, from), (Type::F(a), Type::F(b)) if a < b);
        let int_to_float = to.float() && !from.float();
        if int_to_float && round.is_some_and(|r| r != Round::Nearest)
            || narrowing && round != Some(Round::Nearest)
        {
            return Err(code.unknown());
        }
        if to.float() != from.float() && round.is_none() {
            return Err(self.syntax("a conversion between integer and float needs a rounding".into()));
        }
        let src = self.any(code.arg(1)?, from.bits())?;
        let dst = match code.arg(0)? {
            Operand::Name(name) => match self.find(name)? {
                Some(Name::R32(index, bits)) => crate::program::Reg { index, bits },
                Some(Name::R64(index)) => crate::program::Reg { index, bits: 64 },
                _ => return Err(self.operand_error(code.arg(0)?)),
            },
            other => return Err(self.operand_error(other)),
        };
        if dst.bits < to.bits() || src.bits < from.bits() {
            return Err(self.syntax("a register is narrower than the type".into()));
        }
        let sat = code.has("sat");
        // The common widenings and the truncation have their own fast operations.
        let plain = !sat && !to.float() && !from.float() && src.bits == from.bits();
        if plain && dst.bits == 64 && to.bits() == 64 && from.bits() == 32 {
            return Ok(if from.signed() {
                Op::Sext32To64(dst.index, src.index)
            } else {
                Op::Zext32To64(dst.index, src.index)
            });
        }
        if plain && dst.bits == 32 && to.bits() == 32 && from.bits() == 64 {
            return Ok(Op::Trunc64To32(dst.index, src.index));
        }
        if plain && dst.bits == 32 && to.bits() == 32 && from.bits() == 32 {
            return Ok(Op::Mov32(dst.index, src.index));
        }
        // With equal types a float's rounding is to an integer (`cvt.rni.f32.f32`).
        let integral = code.parts[1..].iter().any(|p| matches!(*p, "rni" | "rzi" | "rmi" | "rpi"));
        if to.float() && from.float() && to == from && !integral && round.is_some() {
            return Err(code.unknown());
        }
        let round = match (to.float() && from.float(), integral) {
            (true, false) => None,
            _ => round,
        };
        Ok(Op::Cvt(Box::new(Convert { to, from, round, sat, ftz: code.has("ftz"), dst, src })))
    }
}
