//! Loads, stores, atomics, address spaces, `cp.async`, fences.

use super::{Code, Decoder, Result};
use crate::program::{Access, Atomic, AtomicAccess, Element, MemSpace, Op};
use crate::ptx::{Operand, Type};

/// Cache and ordering hints that do not change what a load or a store does here.
const HINTS: &[&str] = &[
    "volatile",
    "relaxed",
    "weak",
    "acquire",
    "release",
    "acq_rel",
    "cta",
    "gpu",
    "sys",
    "cluster",
    "nc",
    "ca",
    "cg",
    "cs",
    "cv",
    "lu",
    "wb",
    "wt",
    "L1::evict_normal",
    "L1::evict_unchanged",
    "L1::evict_first",
    "L1::evict_last",
    "L1::no_allocate",
    "L2::64B",
    "L2::128B",
    "L2::256B",
    "L2::evict_last",
    "L2::evict_normal",
    "L2::evict_first",
    "v2",
    "v4",
    "v8",
    "global",
    "shared",
    "shared::cta",
    "local",
    "param",
    "const",
    "noftz",
    "param::entry",
];

impl<'a> Decoder<'a> {
    pub(super) fn memory(&mut self, code: &Code<'a>) -> Result<Op> {
        match code.parts[0] {
            "ld" | "ldu" | "st" => self.access(code),
            "atom" | "red" => self.atomic(code),
            "cvta" => {
                code.only(&["to", "global", "shared", "shared::cta", "local", "const", "param"])?;
                let space = self.space(code);
                if code.kind()?.bits() != 64 {
                    return Err(code.unknown());
                }
                let a = self.r64(code.arg(1)?)?;
                let d = self.d64(code.arg(0)?)?;
                Ok(if code.has("to") { Op::CvtaTo(space, d, a) } else { Op::CvtaFrom(space, d, a) })
            }
            "isspacep" => {
                code.only(&["global", "shared", "shared::cta", "local", "const"])?;
                let space = self.space(code);
                let a = self.r64(code.arg(1)?)?;
                Ok(Op::IsSpace(space, self.dst_pred(code.arg(0)?)?, a))
            }
            "membar" | "fence" => {
                code.only(&["cta", "gl", "sys", "sc", "acq_rel", "gpu", "proxy", "async"])?;
                Ok(Op::Fence { global: !code.has("cta") })
            }
            _ => self.cp(code),
        }
    }

    pub(super) fn space(&self, code: &Code<'a>) -> MemSpace {
        for part in &code.parts[1..] {
            match *part {
                "global" | "const" => return MemSpace::Global,
                "shared" | "shared::cta" => return MemSpace::Shared,
                "local" => return MemSpace::Local,
                "param" | "param::entry" => return MemSpace::Param,
                _ => {}
            }
        }
        MemSpace::Generic
    }

    fn access(&mut self, code: &Code<'a>) -> Result<Op> {
        code.only(HINTS)?;
        let kind = code.kind()?;
        let load = code.parts[0] != "st";
        let (values, place) = if load { (code.arg(0)?, code.arg(1)?) } else { (code.arg(1)?, code.arg(0)?) };
        let address = self.address(place)?;
        let parts = match values {
            Operand::Vector(parts) => parts.as_slice(),
            single => std::slice::from_ref(single),
        };
        let stated = ["v2", "v4", "v8"].iter().zip([2, 4, 8]).find(|(v, _)| code.has(v)).map_or(1, |v| v.1);
        if parts.len() != stated || kind == Type::Pred {
            return Err(self.syntax(format!("`{}` with {} values", code.raw.opcode, parts.len())));
        }
        let mut regs = Vec::with_capacity(parts.len());
        for part in parts {
            let reg = self.any(part, kind.bits().max(16))?;
            if reg.bits < kind.bits() {
                return Err(self.syntax("a register is narrower than the type".into()));
            }
            regs.push(reg);
        }
        let access = Box::new(Access {
            space: self.space(code),
            element: Element { bytes: kind.bytes() as u8, signed: kind.signed() },
            regs: regs.into(),
            address,
        });
        Ok(if load { Op::Load(access) } else { Op::Store(access) })
    }

    fn atomic(&mut self, code: &Code<'a>) -> Result<Op> {
        let kind = code.kind()?;
        let signed = kind.signed();
        let names = ["add", "min", "max", "and", "or", "xor", "exch", "cas", "inc", "dec"];
        code.only(&[&names, HINTS].concat())?;
        let name = names.iter().find(|n| code.has(n)).ok_or_else(|| code.unknown())?;
        let op = match (*name, signed) {
            ("add", _) if kind == Type::F(32) => Atomic::FAdd,
            _ if kind.float() => return Err(code.unknown()),
            ("add", _) => Atomic::Add,
            ("min", true) => Atomic::MinS,
            ("min", false) => Atomic::MinU,
            ("max", true) => Atomic::MaxS,
            ("max", false) => Atomic::MaxU,
            ("and", _) => Atomic::And,
            ("or", _) => Atomic::Or,
            ("xor", _) => Atomic::Xor,
            ("exch", _) => Atomic::Exch,
            ("cas", _) => Atomic::Cas,
            ("inc", _) => Atomic::Inc,
            _ => Atomic::Dec,
        };
        let wide = match kind.bits() {
            32 => false,
            64 => true,
            _ => return Err(code.unknown()),
        };
        let returns = code.parts[0] == "atom";
        let first = usize::from(returns);
        let dst = match (returns, wide) {
            (false, _) => None,
            (true, false) => Some(self.d32(code.arg(0)?)?),
            (true, true) => Some(self.d64(code.arg(0)?)?),
        };
        let address = self.address(code.arg(first)?)?;
        let value = if wide { self.r64(code.arg(first + 1)?)? } else { self.r32(code.arg(first + 1)?)? };
        let second = match (op, wide) {
            (Atomic::Cas, false) => Some(self.r32(code.arg(first + 2)?)?),
            (Atomic::Cas, true) => Some(self.r64(code.arg(first + 2)?)?),
            _ => None,
        };
        let space = self.space(code);
        let bytes = kind.bytes() as u8;
        Ok(Op::Atomic(Box::new(AtomicAccess { op, space, bytes, dst, address, value, second })))
    }

    fn cp(&mut self, code: &Code<'a>) -> Result<Op> {
        if code.parts.get(1) != Some(&"async") {
            return Err(code.unknown());
        }
        match code.parts.get(2) {
            Some(&"commit_group") => Ok(Op::CpCommit),
            Some(&"wait_all") => Ok(Op::CpWaitAll),
            Some(&"wait_group") => match code.arg(0)? {
                Operand::Int(groups) => Ok(Op::CpWait(*groups as u32)),
                other => Err(self.operand_error(other)),
            },
            Some(&("ca" | "cg")) => {
                code.only(&[
                    "async",
                    "ca",
                    "cg",
                    "shared",
                    "shared::cta",
                    "global",
                    "L2::64B",
                    "L2::128B",
                    "L2::256B",
                ])?;
                let (dst, src) = (self.address(code.arg(0)?)?, self.address(code.arg(1)?)?);
                let Operand::Int(bytes) = code.arg(2)? else { return Err(self.operand_error(code.arg(2)?)) };
                let bytes = *bytes as u8;
                let fits = if code.has("cg") { bytes == 16 } else { matches!(bytes, 4 | 8 | 16) };
                if !fits {
                    return Err(self.syntax(format!("`{}` of {bytes} bytes", code.raw.opcode)));
                }
                let (mut src_bytes, mut ignore) = (None, None);
                if code.count() > 3 {
                    match code.arg(3)? {
                        Operand::Not(name) => ignore = Some((self.pred_name(name)?, true)),
                        Operand::Name(name) if matches!(self.find(name)?, Some(super::Name::Pred(_))) => {
                            ignore = Some((self.pred_name(name)?, false));
                        }
                        size => src_bytes = Some(self.r32(size)?),
                    }
                }
                Ok(Op::CpAsync { dst, src, bytes, src_bytes, ignore })
            }
            _ => Err(code.unknown()),
        }
    }
}
