//! Instructions of a whole warp or block: barriers, exchanges, matrix products.

use super::{Code, Decoder, Result};
use crate::program::{Atomic, Constant, Fragment, Mma, Op, Shape, Shuffle, Vote, Wmma, WmmaAccess};
use crate::ptx::{Operand, Type};

impl<'a> Decoder<'a> {
    pub(super) fn warp_wide(&mut self, code: &Code<'a>) -> Result<Op> {
        match code.parts[0] {
            "bar" if code.has("warp") => {
                code.only(&["warp", "sync"])?;
                Ok(Op::BarrierWarp(self.r32(code.arg(0)?)?))
            }
            "bar" | "barrier" => {
                code.only(&["sync", "arrive", "cta", "aligned"])?;
                let id = self.r32(code.arg(0)?)?;
                let count = if code.count() > 1 { Some(self.r32(code.arg(1)?)?) } else { None };
                let arrive = code.has("arrive");
                if arrive && count.is_none() {
                    return Err(self.syntax("bar.arrive needs a count of threads".into()));
                }
                Ok(Op::Barrier { id, count, arrive })
            }
            "activemask" => Ok(Op::ActiveMask(self.d32(code.arg(0)?)?)),
            "shfl" => self.shuffle(code),
            "vote" => self.vote(code),
            "match" => {
                code.only(&["any", "sync"])?;
                if !code.has("any") || code.kind()?.bits() != 32 {
                    return Err(code.unknown());
                }
                let (a, members) = (self.r32(code.arg(1)?)?, self.r32(code.arg(2)?)?);
                Ok(Op::MatchAny(self.d32(code.arg(0)?)?, a, members))
            }
            "redux" => self.redux(code),
            "mma" => self.mma(code),
            "ldmatrix" => self.ldmatrix(code),
            _ => self.wmma(code),
        }
    }

    fn shuffle(&mut self, code: &Code<'a>) -> Result<Op> {
        code.only(&["sync", "up", "down", "bfly", "idx"])?;
        if code.kind()?.bits() != 32 {
            return Err(code.unknown());
        }
        let mode = match () {
            () if code.has("up") => Shuffle::Up,
            () if code.has("down") => Shuffle::Down,
            () if code.has("bfly") => Shuffle::Butterfly,
            () => Shuffle::Index,
        };
        let (dst, valid) = match code.arg(0)? {
            Operand::Pair(d, p) => {
                let valid = self.pred_sink(p)?;
                (self.d32_name(d)?, Some(valid))
            }
            single => (self.d32(single)?, None),
        };
        let (value, lane, clamp) =
            (self.r32(code.arg(1)?)?, self.r32(code.arg(2)?)?, self.r32(code.arg(3)?)?);
        // Without `.sync` (before sm_70) the running lanes take part.
        let members =
            if code.has("sync") { self.r32(code.arg(4)?)? } else { self.constant32(Constant::Value(0))? };
        Ok(Op::Shuffle { mode, dst, valid, value, lane, clamp, members })
    }

    fn d32_name(&mut self, name: &'a str) -> Result<crate::program::R> {
        if name == "_" {
            return self.fresh32();
        }
        match self.find(name)? {
            Some(super::Name::R32(index, _)) => Ok(index),
            _ => Err(self.syntax(format!("`{name}` is no 32-bit register"))),
        }
    }

    fn vote(&mut self, code: &Code<'a>) -> Result<Op> {
        code.only(&["sync", "all", "any", "uni", "ballot"])?;
        let mode = match () {
            () if code.has("all") => Vote::All,
            () if code.has("any") => Vote::Any,
            () if code.has("uni") => Vote::Uni,
            () if code.has("ballot") => Vote::Ballot,
            () => return Err(code.unknown()),
        };
        let dst = if mode == Vote::Ballot { self.d32(code.arg(0)?)? } else { self.dst_pred(code.arg(0)?)? };
        let (pred, negated) = self.pred_not(code.arg(1)?)?;
        let members =
            if code.has("sync") { self.r32(code.arg(2)?)? } else { self.constant32(Constant::Value(0))? };
        Ok(Op::Vote { mode, dst, pred, negated, members })
    }

    fn redux(&mut self, code: &Code<'a>) -> Result<Op> {
        code.only(&["sync", "add", "min", "max", "and", "or", "xor"])?;
        let signed = code.kind()?.signed();
        let op = match code.parts.get(2).copied() {
            Some("add") => Atomic::Add,
            Some("min") if signed => Atomic::MinS,
            Some("min") => Atomic::MinU,
            Some("max") if signed => Atomic::MaxS,
            Some("max") => Atomic::MaxU,
            Some("and") => Atomic::And,
            Some("or") => Atomic::Or,
            Some("xor") => Atomic::Xor,
            _ => return Err(code.unknown()),
        };
        let (a, members) = (self.r32(code.arg(1)?)?, self.r32(code.arg(2)?)?);
        Ok(Op::Redux(op, self.d32(code.arg(0)?)?, a, members))
    }

    fn mma(&mut self, code: &Code<'a>) -> Result<Op> {
        code.only(&["sync", "aligned", "m16n8k32", "m16n8k16", "m8n8k16", "row", "col", "satfinite"])?;
        let kinds = code.kinds();
        let [Type::S(32), a_kind, b_kind, Type::S(32)] = kinds[..] else { return Err(code.unknown()) };
        if a_kind.bits() != 8 || b_kind.bits() != 8 || !code.has("row") || !code.has("col") {
            return Err(code.unknown());
        }
        let (m, k, na, nb, nc) = match () {
            () if code.has("m16n8k32") => (16, 32, 4, 2, 4),
            () if code.has("m16n8k16") => (16, 16, 2, 1, 4),
            () => (8, 16, 1, 1, 2),
        };
        let d = self.list32_dst(code.arg(0)?)?;
        let (a, b, c) = (self.list32(code.arg(1)?)?, self.list32(code.arg(2)?)?, self.list32(code.arg(3)?)?);
        if (d.len(), a.len(), b.len(), c.len()) != (nc, na, nb, nc) {
            return Err(self.syntax("a fragment with the wrong number of registers".into()));
        }
        let (a_signed, b_signed) = (a_kind.signed(), b_kind.signed());
        Ok(Op::Mma(Box::new(Mma { a_signed, b_signed, saturate: code.has("satfinite"), m, k, d, a, b, c })))
    }

    fn ldmatrix(&mut self, code: &Code<'a>) -> Result<Op> {
        code.only(&["sync", "aligned", "m8n8", "x1", "x2", "x4", "trans", "shared", "shared::cta"])?;
        if code.kind()?.bits() != 16 {
            return Err(code.unknown());
        }
        let dst = self.list32_dst(code.arg(0)?)?;
        let stated = ["x1", "x2", "x4"].iter().zip([1, 2, 4]).find(|(x, _)| code.has(x)).map_or(0, |x| x.1);
        if dst.len() != stated {
            return Err(self.syntax(format!("ldmatrix into {} registers", dst.len())));
        }
        let address = self.address(code.arg(1)?)?;
        Ok(Op::LdMatrix { dst, transposed: code.has("trans"), address })
    }

    fn wmma(&mut self, code: &Code<'a>) -> Result<Op> {
        let shapes = [("m16n16k16", 16, 16), ("m32n8k16", 32, 8), ("m8n32k16", 8, 32)];
        code.only(&[
            "load",
            "store",
            "mma",
            "a",
            "b",
            "c",
            "d",
            "sync",
            "aligned",
            "row",
            "col",
            "m16n16k16",
            "m32n8k16",
            "m8n32k16",
            "global",
            "shared",
            "shared::cta",
            "satfinite",
        ])?;
        let shape = shapes.iter().find(|s| code.has(s.0)).ok_or_else(|| code.unknown())?;
        let shape = Shape { m: shape.1, n: shape.2 };
        let layouts: Vec<bool> =
            code.parts.iter().filter(|p| matches!(**p, "row" | "col")).map(|p| *p == "row").collect();
        let count = |fragment| match fragment {
            Fragment::A => shape.m * 16 / 128,
            Fragment::B => shape.n * 16 / 128,
            Fragment::C => 8,
        };
        let kinds = code.kinds();
        let check = |list: &[u16], fragment| list.len() == count(fragment);
        match code.parts[1] {
            "load" | "store" => {
                let load = code.parts[1] == "load";
                let fragment = match code.parts[2] {
                    "a" => Fragment::A,
                    "b" => Fragment::B,
                    _ => Fragment::C,
                };
                let wide = fragment == Fragment::C;
                if kinds.len() != 1 || kinds[0].bits() != if wide { 32 } else { 8 } || kinds[0].float() {
                    return Err(code.unknown());
                }
                let space = self.space(code);
                let (regs, address) = if load {
                    (self.list32_dst(code.arg(0)?)?, self.address(code.arg(1)?)?)
                } else {
                    (self.list32(code.arg(1)?)?, self.address(code.arg(0)?)?)
                };
                if !check(&regs, fragment) || layouts.len() != 1 {
                    return Err(self.syntax("a fragment with the wrong number of registers".into()));
                }
                let stride = if code.count() > 2 { Some(self.r32(code.arg(2)?)?) } else { None };
                let row_major = layouts[0];
                let access =
                    Box::new(WmmaAccess { fragment, shape, row_major, space, regs, address, stride });
                Ok(if load { Op::WmmaLoad(access) } else { Op::WmmaStore(access) })
            }
            "mma" => {
                let [Type::S(32), a_kind, b_kind, Type::S(32)] = kinds[..] else {
                    return Err(code.unknown());
                };
                if a_kind.bits() != 8 || a_kind != b_kind || layouts.len() != 2 {
                    return Err(code.unknown());
                }
                let d = self.list32_dst(code.arg(0)?)?;
                let (a, b, c) =
                    (self.list32(code.arg(1)?)?, self.list32(code.arg(2)?)?, self.list32(code.arg(3)?)?);
                let fits = check(&d, Fragment::C) && check(&c, Fragment::C);
                if !fits || !check(&a, Fragment::A) || !check(&b, Fragment::B) {
                    return Err(self.syntax("a fragment with the wrong number of registers".into()));
                }
                Ok(Op::WmmaMma(Box::new(Wmma {
                    shape,
                    a_signed: a_kind.signed(),
                    b_signed: b_kind.signed(),
                    saturate: code.has("satfinite"),
                    d,
                    a,
                    b,
                    c,
                })))
            }
            _ => Err(code.unknown()),
        }
    }
}
