//! Gives raw instructions their meaning: names become register indices, labels become positions, every branch
//! learns where its lanes meet again. An opcode that is not simulated is refused here, with its line.

mod arith;
mod convert;
mod flow;
mod memory;
mod warp;

use std::collections::HashMap;

use crate::error::LoadError;
use crate::program::{Address, Base, Constant, EXIT, Guard, Inst, Kernel, Op, R, Reg, Special};
use crate::ptx::{Entry, Instruction, Operand, Space, Statement, Type, Variable};

type Result<T> = std::result::Result<T, LoadError>;

/// What a name stands for.
#[derive(Clone, Copy, Debug)]
enum Name {
    R32(R, u8),
    R64(R),
    Pred(R),
    Shared(usize),
    DynamicShared,
    Local(usize),
}

/// Parts of an opcode, and the instruction it came from.
struct Code<'a> {
    parts: Vec<&'a str>,
    raw: &'a Instruction,
}

impl<'a> Code<'a> {
    fn new(raw: &'a Instruction) -> Self {
        Self { parts: raw.opcode.split('.').collect(), raw }
    }

    fn has(&self, part: &str) -> bool {
        self.parts[1..].contains(&part)
    }

    /// The last part that names a type.
    fn kind(&self) -> Result<Type> {
        self.parts.iter().rev().find_map(|p| Type::from_name(p)).ok_or_else(|| self.unknown())
    }

    fn kinds(&self) -> Vec<Type> {
        self.parts[1..].iter().filter_map(|p| Type::from_name(p)).collect()
    }

    fn unknown(&self) -> LoadError {
        LoadError::Unsupported { line: self.raw.line, what: format!("`{}`", self.raw.opcode) }
    }

    fn arg(&self, index: usize) -> Result<&'a Operand> {
        self.raw.operands.get(index).ok_or_else(|| LoadError::Syntax {
            line: self.raw.line,
            what: format!("`{}` has too few operands", self.raw.opcode),
        })
    }

    fn count(&self) -> usize {
        self.raw.operands.len()
    }

    /// Refuses parts that are neither in `known` nor types: nothing is ignored silently.
    fn only(&self, known: &[&str]) -> Result<()> {
        let foreign = self.parts[1..].iter().any(|p| !known.contains(p) && Type::from_name(p).is_none());
        if foreign { Err(self.unknown()) } else { Ok(()) }
    }
}

pub(super) struct Decoder<'a> {
    kernel: Kernel,
    scopes: Vec<HashMap<String, Name>>,
    variables: &'a [Variable],
    params: HashMap<&'a str, usize>,
    labels: HashMap<&'a str, u32>,
    targets: HashMap<&'a str, &'a [String]>,
    /// Branches whose label is not known yet.
    pending: Vec<(usize, Vec<&'a str>, u32)>,
    constants: HashMap<(Constant, bool), R>,
    line: u32,
}

/// Decodes one kernel of a module with these variables.
pub(crate) fn decode(entry: &Entry, variables: &[Variable]) -> Result<Kernel> {
    let end = entry.params.last().map_or(0, |p| p.offset + p.size);
    let mut decoder = Decoder {
        kernel: Kernel {
            name: entry.name.clone(),
            params: entry.params.clone(),
            param_bytes: end,
            n32: 0,
            n64: 0,
            preds: 0,
            const32: Vec::new(),
            const64: Vec::new(),
            const_preds: Vec::new(),
            code: Vec::new(),
            shared: 0,
            shared_names: HashMap::new(),
            local: 0,
            max_threads: entry.max_threads,
        },
        scopes: vec![HashMap::new()],
        variables,
        params: entry.params.iter().map(|p| (p.name.as_str(), p.offset)).collect(),
        labels: HashMap::new(),
        targets: HashMap::new(),
        pending: Vec::new(),
        constants: HashMap::new(),
        line: entry.line,
    };
    for statement in &entry.body {
        decoder.statement(statement)?;
    }
    decoder.finish()
}

impl<'a> Decoder<'a> {
    fn statement(&mut self, statement: &'a Statement) -> Result<()> {
        match statement {
            Statement::Open => self.scopes.push(HashMap::new()),
            Statement::Close => {
                self.scopes.pop();
            }
            Statement::Register(kind, name, None) => {
                let register = self.fresh(*kind)?;
                self.declare(name, register);
            }
            Statement::Register(kind, prefix, Some(count)) => {
                for index in 0..*count {
                    let register = self.fresh(*kind)?;
                    self.declare(format!("{prefix}{index}"), register);
                }
            }
            Statement::Variable(variable) => self.variable(variable)?,
            Statement::Label(name, line) => {
                let at = self.kernel.code.len() as u32;
                if self.labels.insert(name, at).is_some() {
                    return Err(self.syntax_at(*line, format!("the label {name} stands twice")));
                }
            }
            Statement::Targets(name, labels) => {
                self.targets.insert(name, labels);
            }
            Statement::Instruction(raw) => {
                self.line = raw.line;
                let guard = match &raw.guard {
                    None => Guard::Always,
                    Some((name, false)) => Guard::If(self.pred_name(name)?),
                    Some((name, true)) => Guard::Unless(self.pred_name(name)?),
                };
                let op = self.operation(raw)?;
                self.kernel.code.push(Inst { op, guard, line: raw.line, meet: EXIT });
            }
        }
        Ok(())
    }

    fn operation(&mut self, raw: &'a Instruction) -> Result<Op> {
        let code = Code::new(raw);
        match code.parts[0] {
            "bra" => {
                code.only(&["uni"])?;
                let Operand::Name(label) = code.arg(0)? else { return Err(self.operand_error(code.arg(0)?)) };
                self.pending.push((self.kernel.code.len(), vec![label], raw.line));
                Ok(Op::Bra(0))
            }
            "brx" => {
                code.only(&["idx", "uni"])?;
                let index = self.r32(code.arg(0)?)?;
                let Operand::Name(list) = code.arg(1)? else { return Err(self.operand_error(code.arg(1)?)) };
                let labels = self
                    .targets
                    .get(list.as_str())
                    .ok_or_else(|| self.syntax(format!("no .branchtargets {list}")))?;
                let labels = labels.iter().map(String::as_str).collect();
                self.pending.push((self.kernel.code.len(), labels, raw.line));
                Ok(Op::BraIndexed(index, Box::default()))
            }
            "ret" | "exit" => code.only(&["uni"]).map(|()| Op::Exit),
            "trap" | "brkpt" => Ok(Op::Trap),
            "nanosleep" | "pmevent" | "prefetch" | "prefetchu" | "discard" | "applypriority" => Ok(Op::Nop),
            "cvt" => self.convert(&code),
            "mov" => self.mov(&code),
            "ld" | "ldu" | "st" | "atom" | "red" | "cvta" | "isspacep" | "cp" | "membar" | "fence" => {
                self.memory(&code)
            }
            "bar" | "barrier" | "shfl" | "vote" | "match" | "redux" | "activemask" | "mma" | "wmma"
            | "ldmatrix" => self.warp_wide(&code),
            _ => self.arith(&code),
        }
    }

    fn finish(mut self) -> Result<Kernel> {
        self.kernel.code.push(Inst { op: Op::Exit, guard: Guard::Always, line: 0, meet: EXIT });
        for (at, names, line) in std::mem::take(&mut self.pending) {
            let mut positions = Vec::with_capacity(names.len());
            for name in names {
                let position = self.labels.get(name).copied();
                positions
                    .push(position.ok_or_else(|| self.syntax_at(line, format!("no label {name} to go to")))?);
            }
            match &mut self.kernel.code[at].op {
                Op::Bra(target) => *target = positions[0],
                Op::BraIndexed(_, targets) => *targets = positions.into(),
                _ => {}
            }
        }
        flow::meeting_points(&mut self.kernel.code);
        Ok(self.kernel)
    }

    fn declare(&mut self, name: impl Into<String>, value: Name) {
        if let Some(scope) = self.scopes.last_mut() {
            scope.insert(name.into(), value);
        }
    }

    fn variable(&mut self, variable: &'a Variable) -> Result<()> {
        let named = match variable.space {
            Space::Shared => {
                self.kernel.shared = self.kernel.shared.next_multiple_of(variable.align);
                let offset = self.kernel.shared;
                self.kernel.shared += variable.size;
                self.kernel.shared_names.insert(variable.name.clone(), offset);
                Name::Shared(offset)
            }
            Space::Local => {
                self.kernel.local = self.kernel.local.next_multiple_of(variable.align);
                let offset = self.kernel.local;
                self.kernel.local += variable.size;
                Name::Local(offset)
            }
            _ => return Err(self.syntax(format!("{} cannot be declared inside a kernel", variable.name))),
        };
        self.declare(variable.name.as_str(), named);
        Ok(())
    }

    fn fresh(&mut self, kind: Type) -> Result<Name> {
        Ok(match kind {
            Type::Pred => {
                self.kernel.preds += 1;
                Name::Pred(self.index(self.kernel.preds)?)
            }
            kind if kind.bits() == 64 => Name::R64(self.fresh64()?),
            kind => Name::R32(self.fresh32()?, kind.bits()),
        })
    }

    fn index(&self, count: usize) -> Result<R> {
        R::try_from(count - 1).map_err(|_| LoadError::Unsupported {
            line: self.line,
            what: "a kernel with more than 65536 registers".into(),
        })
    }

    fn fresh32(&mut self) -> Result<R> {
        self.kernel.n32 += 1;
        self.index(self.kernel.n32)
    }

    fn fresh64(&mut self) -> Result<R> {
        self.kernel.n64 += 1;
        self.index(self.kernel.n64)
    }

    fn constant32(&mut self, value: Constant) -> Result<R> {
        if let Some(&register) = self.constants.get(&(value, false)) {
            return Ok(register);
        }
        let register = self.fresh32()?;
        self.kernel.const32.push((register, value));
        self.constants.insert((value, false), register);
        Ok(register)
    }

    fn constant64(&mut self, value: Constant) -> Result<R> {
        if let Some(&register) = self.constants.get(&(value, true)) {
            return Ok(register);
        }
        let register = self.fresh64()?;
        self.kernel.const64.push((register, value));
        self.constants.insert((value, true), register);
        Ok(register)
    }

    fn syntax(&self, what: String) -> LoadError {
        self.syntax_at(self.line, what)
    }

    fn syntax_at(&self, line: u32, what: String) -> LoadError {
        LoadError::Syntax { line, what }
    }

    fn operand_error(&self, operand: &Operand) -> LoadError {
        self.syntax(format!("the operand {operand:?} does not fit here"))
    }

    fn find(&mut self, name: &'a str) -> Result<Option<Name>> {
        if let Some(found) = self.scopes.iter().rev().find_map(|s| s.get(name)) {
            return Ok(Some(*found));
        }
        // A module's shared variable takes its place in the kernels that use it.
        let Some(variable) = self.variables.iter().find(|v| v.name == name && v.space == Space::Shared)
        else {
            return Ok(None);
        };
        let named = if variable.size == 0 {
            Name::DynamicShared
        } else {
            self.kernel.shared = self.kernel.shared.next_multiple_of(variable.align);
            let offset = self.kernel.shared;
            self.kernel.shared += variable.size;
            self.kernel.shared_names.insert(variable.name.clone(), offset);
            Name::Shared(offset)
        };
        self.scopes[0].insert(variable.name.clone(), named);
        Ok(Some(named))
    }

    /// A name that is an address: its constant.
    fn address_constant(&mut self, name: &'a str, offset: i64) -> Result<Option<Constant>> {
        match self.find(name)? {
            Some(Name::Shared(at) | Name::Local(at)) => {
                Ok(Some(Constant::Value((at as i64).wrapping_add(offset) as u64)))
            }
            Some(Name::DynamicShared) => Ok(Some(Constant::DynamicShared(offset))),
            Some(_) => Ok(None),
            None => Ok(self
                .variables
                .iter()
                .position(|v| v.name == name)
                .map(|index| Constant::Variable(index, offset))
                .or_else(|| {
                    self.params.get(name).map(|&at| Constant::Value((at as i64).wrapping_add(offset) as u64))
                })),
        }
    }

    /// A 16- or 32-bit source.
    fn r32(&mut self, operand: &'a Operand) -> Result<R> {
        match operand {
            Operand::Int(value) => self.constant32(Constant::Value(*value as u32 as u64)),
            Operand::F32(bits) => self.constant32(Constant::Value(u64::from(*bits))),
            Operand::Name(name) => {
                if let Some(special) = special(name) {
                    return self.constant32(Constant::Special(special));
                }
                if let Some(Name::R32(index, _)) = self.find(name)? {
                    return Ok(index);
                }
                match self.address_constant(name, 0)? {
                    Some(constant) => self.constant32(constant),
                    None => Err(self.operand_error(operand)),
                }
            }
            Operand::NamePlus(name, offset) => match self.address_constant(name, *offset)? {
                Some(constant) => self.constant32(constant),
                None => Err(self.operand_error(operand)),
            },
            _ => Err(self.operand_error(operand)),
        }
    }

    /// A 16-bit source; constants are cut to 16 bits as registers are.
    fn r16(&mut self, operand: &'a Operand) -> Result<R> {
        match operand {
            Operand::Int(value) => self.constant32(Constant::Value(*value as u16 as u64)),
            other => self.r32(other),
        }
    }

    /// A 64-bit source.
    fn r64(&mut self, operand: &'a Operand) -> Result<R> {
        match operand {
            Operand::Int(value) => self.constant64(Constant::Value(*value as u64)),
            Operand::F64(bits) => self.constant64(Constant::Value(*bits)),
            Operand::Name(name) => {
                if let Some(Name::R64(index)) = self.find(name)? {
                    return Ok(index);
                }
                if name == "%gridid" {
                    return self.constant64(Constant::Special(Special::GridId));
                }
                match self.address_constant(name, 0)? {
                    Some(constant) => self.constant64(constant),
                    None => Err(self.operand_error(operand)),
                }
            }
            Operand::NamePlus(name, offset) => match self.address_constant(name, *offset)? {
                Some(constant) => self.constant64(constant),
                None => Err(self.operand_error(operand)),
            },
            _ => Err(self.operand_error(operand)),
        }
    }

    fn pred(&mut self, operand: &'a Operand) -> Result<R> {
        match operand {
            Operand::Name(name) => self.pred_name(name),
            Operand::Int(value) => {
                self.kernel.preds += 1;
                let index = self.index(self.kernel.preds)?;
                self.kernel.const_preds.push((index, *value != 0));
                Ok(index)
            }
            _ => Err(self.operand_error(operand)),
        }
    }

    /// A predicate destination.
    fn dst_pred(&mut self, operand: &'a Operand) -> Result<R> {
        match operand {
            Operand::Name(name) => self.pred_name(name),
            _ => Err(self.operand_error(operand)),
        }
    }

    /// A predicate that may be negated.
    fn pred_not(&mut self, operand: &'a Operand) -> Result<(R, bool)> {
        match operand {
            Operand::Not(name) => Ok((self.pred_name(name)?, true)),
            other => Ok((self.pred(other)?, false)),
        }
    }

    fn pred_name(&mut self, name: &'a str) -> Result<R> {
        match self.find(name)? {
            Some(Name::Pred(index)) => Ok(index),
            _ => Err(self.syntax(format!("`{name}` is no predicate"))),
        }
    }

    /// A 16- or 32-bit destination.
    fn d32(&mut self, operand: &'a Operand) -> Result<R> {
        if *operand == Operand::Name("_".into()) {
            return self.fresh32();
        }
        match operand {
            Operand::Name(name) => match self.find(name)? {
                Some(Name::R32(index, _)) => Ok(index),
                _ => Err(self.operand_error(operand)),
            },
            _ => Err(self.operand_error(operand)),
        }
    }

    /// A 64-bit destination.
    fn d64(&mut self, operand: &'a Operand) -> Result<R> {
        if *operand == Operand::Name("_".into()) {
            return self.fresh64();
        }
        match operand {
            Operand::Name(name) => match self.find(name)? {
                Some(Name::R64(index)) => Ok(index),
                _ => Err(self.operand_error(operand)),
            },
            _ => Err(self.operand_error(operand)),
        }
    }

    /// A register of any width, or (for sources) a constant of `bits`.
    fn any(&mut self, operand: &'a Operand, bits: u8) -> Result<Reg> {
        if let Operand::Name(name) = operand {
            match self.find(name)? {
                Some(Name::R32(index, bits)) => return Ok(Reg { index, bits }),
                Some(Name::R64(index)) => return Ok(Reg { index, bits: 64 }),
                _ => {}
            }
        }
        if *operand == Operand::Name("_".into()) {
            let index = if bits == 64 { self.fresh64()? } else { self.fresh32()? };
            return Ok(Reg { index, bits: bits.max(16) });
        }
        let index = match bits {
            64 => self.r64(operand)?,
            16 => self.r16(operand)?,
            _ => self.r32(operand)?,
        };
        Ok(Reg { index, bits })
    }

    fn list32(&mut self, operand: &'a Operand) -> Result<Box<[R]>> {
        match operand {
            Operand::Vector(parts) => parts.iter().map(|p| self.r32(p)).collect(),
            other => Ok([self.r32(other)?].into()),
        }
    }

    fn list32_dst(&mut self, operand: &'a Operand) -> Result<Box<[R]>> {
        match operand {
            Operand::Vector(parts) => parts.iter().map(|p| self.d32(p)).collect(),
            other => Ok([self.d32(other)?].into()),
        }
    }

    fn address(&mut self, operand: &'a Operand) -> Result<Address> {
        let Operand::Address(base, offset) = operand else { return Err(self.operand_error(operand)) };
        let Some(name) = base else { return Ok(Address { base: Base::None, offset: *offset }) };
        match self.find(name)? {
            Some(Name::R32(index, 32)) => return Ok(Address { base: Base::R32(index), offset: *offset }),
            Some(Name::R64(index)) => return Ok(Address { base: Base::R64(index), offset: *offset }),
            _ => {}
        }
        match self.address_constant(name, 0)? {
            Some(Constant::Value(at)) => {
                Ok(Address { base: Base::None, offset: (at as i64).wrapping_add(*offset) })
            }
            Some(constant) => Ok(Address { base: Base::R64(self.constant64(constant)?), offset: *offset }),
            None => Err(self.operand_error(operand)),
        }
    }
}

/// A special register of 32 bits that does not change while a block runs.
fn special(name: &str) -> Option<Special> {
    let axis = |letter: &str| match letter {
        "x" => Some(0),
        "y" => Some(1),
        "z" => Some(2),
        _ => None,
    };
    if let Some((register, letter)) = name.split_once('.') {
        let axis = axis(letter)?;
        return Some(match register {
            "%tid" => Special::Tid(axis),
            "%ntid" => Special::Ntid(axis),
            "%ctaid" => Special::Ctaid(axis),
            "%nctaid" => Special::Nctaid(axis),
            _ => return None,
        });
    }
    Some(match name {
        "%laneid" => Special::Lane,
        "%warpid" => Special::Warp,
        "%nwarpid" => Special::Warps,
        "%smid" => Special::Sm,
        "%nsmid" => Special::Sms,
        "%dynamic_smem_size" => Special::DynamicShared,
        "%total_smem_size" => Special::TotalShared,
        "%lanemask_eq" => Special::LaneMaskEq,
        "%lanemask_lt" => Special::LaneMaskLt,
        "%lanemask_le" => Special::LaneMaskLe,
        "%lanemask_gt" => Special::LaneMaskGt,
        "%lanemask_ge" => Special::LaneMaskGe,
        _ => return None,
    })
}
