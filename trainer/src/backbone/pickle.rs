//! Pickles of tensors (Python's `pickletools` lists the opcodes), read without running anything: objects other than
//! dictionaries and tensors become [`Value::Opaque`], and what a pickle would call is never called.

use std::collections::HashMap;
use std::rc::Rc;

/// Containers in containers; `torch.save` nests six deep.
const DEPTH: u8 = 32;

/// A number's form in a storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// 64 bits.
    F64,
    /// 32 bits.
    F32,
    /// 16 bits (IEEE 754).
    F16,
    /// 16 bits (the upper half of 32).
    Bf16,
    /// No float, with its bytes.
    Other(usize),
}

impl Kind {
    /// Bytes of a number.
    pub fn size(self) -> usize {
        match self {
            Kind::F64 => 8,
            Kind::F32 => 4,
            Kind::F16 | Kind::Bf16 => 2,
            Kind::Other(size) => size,
        }
    }

    /// Of PyTorch's name, `FloatStorage`.
    fn of(name: &str) -> Option<Self> {
        Some(match name {
            "DoubleStorage" => Kind::F64,
            "FloatStorage" => Kind::F32,
            "HalfStorage" => Kind::F16,
            "BFloat16Storage" => Kind::Bf16,
            "LongStorage" => Kind::Other(8),
            "IntStorage" => Kind::Other(4),
            "ShortStorage" => Kind::Other(2),
            "CharStorage" | "ByteStorage" | "BoolStorage" => Kind::Other(1),
            _ => return None,
        })
    }
}

/// A view of a storage.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    /// The storage's key.
    pub key: Rc<str>,
    /// Its numbers.
    pub kind: Kind,
    /// The first number.
    pub offset: usize,
    /// Lengths.
    pub shape: Vec<usize>,
    /// Numbers from one to the next, for each dimension.
    pub strides: Vec<usize>,
}

/// A value; containers carry how deep they are.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A number.
    Int(i64),
    /// A truth.
    Bool(bool),
    /// Characters.
    Text(Rc<str>),
    /// A tuple.
    Tuple(Rc<[Value]>, u8),
    /// A list.
    List(Vec<Value>, u8),
    /// A dictionary, by its text keys.
    Dict(Vec<(Rc<str>, Value)>, u8),
    /// `module name`.
    Global(Rc<str>),
    /// A storage.
    Storage(Rc<str>, Kind),
    /// A tensor.
    Tensor(Rc<View>),
    /// Anything else.
    Opaque,
}

impl Value {
    fn depth(&self) -> u8 {
        match self {
            Value::Tuple(_, depth) | Value::List(_, depth) | Value::Dict(_, depth) => *depth,
            _ => 0,
        }
    }
}

/// Reads one pickle after another.
pub struct Reader<'a> {
    rest: &'a [u8],
    stack: Vec<Value>,
    marks: Vec<usize>,
    memo: HashMap<u32, Value>,
    /// The kinds of the storages that were named, by key.
    pub storages: HashMap<Rc<str>, Kind>,
}

type Result<T> = std::result::Result<T, String>;

impl<'a> Reader<'a> {
    /// A reader of these bytes.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self {
            rest: bytes,
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
            storages: HashMap::new(),
        }
    }

    /// What lies behind the pickles read so far.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next pickle's value.
    ///
    /// # Errors
    /// In words, where it is cut off, damaged, or not of tensors.
    pub fn read(&mut self) -> Result<Value> {
        (self.stack, self.marks, self.memo) = Default::default();
        loop {
            let code = self.take(1)?[0];
            if code == b'.' {
                return self.pop();
            }
            self.step(code)?;
        }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let (taken, rest) =
            self.rest.split_at_checked(count).ok_or("the pickle ends in the middle of a value")?;
        self.rest = rest;
        Ok(taken)
    }

    fn number<const N: usize>(&mut self) -> Result<usize> {
        let mut bytes = [0; 8];
        bytes[..N].copy_from_slice(self.take(N)?);
        usize::try_from(u64::from_le_bytes(bytes)).map_err(|_| "a number is too large".into())
    }

    fn text(&mut self, length: usize) -> Result<Rc<str>> {
        std::str::from_utf8(self.take(length)?).map(Rc::from).map_err(|_| "a text is not UTF-8".into())
    }

    fn line(&mut self) -> Result<Rc<str>> {
        let end = self.rest.iter().position(|&b| b == b'\n').ok_or("a line does not end")?;
        let line = self.text(end)?;
        self.take(1)?;
        Ok(line)
    }

    fn pop(&mut self) -> Result<Value> {
        // What lies below a mark belongs to another value.
        if self.marks.last().is_some_and(|&mark| self.stack.len() <= mark) {
            return Err("a value is missing".into());
        }
        self.stack.pop().ok_or_else(|| "a value is missing".into())
    }

    fn marked(&mut self) -> Result<Vec<Value>> {
        let mark = self.marks.pop().ok_or("a mark is missing")?;
        Ok(self.stack.split_off(mark.min(self.stack.len())))
    }

    fn tuple(&mut self, values: Vec<Value>) -> Result<()> {
        let depth = deeper(&values)?;
        self.stack.push(Value::Tuple(values.into(), depth));
        Ok(())
    }

    fn last(&mut self, count: usize) -> Result<Vec<Value>> {
        let mut values = (0..count).map(|_| self.pop()).collect::<Result<Vec<_>>>()?;
        values.reverse();
        Ok(values)
    }

    fn step(&mut self, code: u8) -> Result<()> {
        let value = match code {
            // PROTO, FRAME: nothing that matters here.
            0x80 => return self.take(1).map(|_| ()),
            0x95 => return self.take(8).map(|_| ()),
            b'(' => {
                self.marks.push(self.stack.len());
                return Ok(());
            }
            b'0' => return self.pop().map(|_| ()),
            b'N' => Value::Opaque,
            0x88 => Value::Bool(true),
            0x89 => Value::Bool(false),
            b'J' => {
                let mut bytes = [0; 4];
                bytes.copy_from_slice(self.take(4)?);
                Value::Int(i32::from_le_bytes(bytes).into())
            }
            b'K' => Value::Int(self.number::<1>()? as i64),
            b'M' => Value::Int(self.number::<2>()? as i64),
            0x8a => {
                let length = self.number::<1>()?;
                integer(self.take(length)?)
            }
            b'G' => {
                self.take(8)?;
                Value::Opaque
            }
            b'X' => {
                let length = self.number::<4>()?;
                Value::Text(self.text(length)?)
            }
            0x8c => {
                let length = self.number::<1>()?;
                Value::Text(self.text(length)?)
            }
            // Bytes, as of protocol 3.
            b'C' | b'U' => {
                let length = self.number::<1>()?;
                self.take(length)?;
                Value::Opaque
            }
            b'B' | b'T' => {
                let length = self.number::<4>()?;
                self.take(length)?;
                Value::Opaque
            }
            b')' => return self.tuple(Vec::new()),
            0x85..=0x87 => {
                let values = self.last(usize::from(code - 0x84))?;
                return self.tuple(values);
            }
            b't' => {
                let values = self.marked()?;
                return self.tuple(values);
            }
            b']' => Value::List(Vec::new(), 1),
            b'}' => Value::Dict(Vec::new(), 1),
            b'a' => {
                let value = self.pop()?;
                return self.append(vec![value]);
            }
            b'e' => {
                let values = self.marked()?;
                return self.append(values);
            }
            b's' => {
                let pair = self.last(2)?;
                return self.set(pair);
            }
            b'u' => {
                let values = self.marked()?;
                return self.set(values);
            }
            b'c' => Value::Global(format!("{} {}", self.line()?, self.line()?).into()),
            0x93 => match &self.last(2)?[..] {
                [Value::Text(module), Value::Text(name)] => Value::Global(format!("{module} {name}").into()),
                _ => return Err("a name is no text".into()),
            },
            b'q' => return self.number::<1>().and_then(|at| self.remember(at)),
            b'r' => return self.number::<4>().and_then(|at| self.remember(at)),
            0x94 => return self.remember(self.memo.len()),
            b'h' => self.number::<1>().and_then(|at| self.recall(at))?,
            b'j' => self.number::<4>().and_then(|at| self.recall(at))?,
            b'Q' => {
                let id = self.pop()?;
                self.storage(&id)?
            }
            b'R' => match &self.last(2)?[..] {
                [Value::Global(name), Value::Tuple(arguments, _)] => made(name, arguments)?,
                _ => Value::Opaque,
            },
            // NEWOBJ, and BUILD, which gives attributes to what lies below: neither matters to a dictionary of tensors.
            0x81 => {
                self.last(2)?;
                Value::Opaque
            }
            b'b' => return self.pop().map(|_| ()),
            _ => return Err(format!("opcode 0x{code:02x} is not of a dictionary of tensors")),
        };
        self.stack.push(value);
        Ok(())
    }

    fn remember(&mut self, at: usize) -> Result<()> {
        let value = match self.stack.last().ok_or("a value is missing")? {
            // These grow afterwards, and nothing of a state dict is named twice.
            Value::List(..) | Value::Dict(..) => Value::Opaque,
            value => value.clone(),
        };
        let at = u32::try_from(at).map_err(|_| "a number is too large")?;
        self.memo.insert(at, value);
        Ok(())
    }

    fn recall(&self, at: usize) -> Result<Value> {
        let value = u32::try_from(at).ok().and_then(|at| self.memo.get(&at));
        value.cloned().ok_or_else(|| "a value is recalled that was not remembered".into())
    }

    fn append(&mut self, values: Vec<Value>) -> Result<()> {
        let deep = deeper(&values)?;
        match self.stack.last_mut() {
            Some(Value::List(list, depth)) => {
                list.extend(values);
                *depth = deep.max(*depth);
            }
            Some(Value::Opaque) => {}
            _ => return Err("a list is missing".into()),
        }
        Ok(())
    }

    fn set(&mut self, values: Vec<Value>) -> Result<()> {
        let deep = deeper(&values)?;
        match self.stack.last_mut() {
            Some(Value::Dict(pairs, depth)) => {
                let mut values = values.into_iter();
                while let (Some(key), Some(value)) = (values.next(), values.next()) {
                    if let Value::Text(key) = key {
                        pairs.push((key, value));
                    }
                }
                *depth = deep.max(*depth);
            }
            Some(Value::Opaque) => {}
            _ => return Err("a dictionary is missing".into()),
        }
        Ok(())
    }

    /// `('storage', torch.FloatStorage, key, location, count)`
    fn storage(&mut self, id: &Value) -> Result<Value> {
        let Value::Tuple(id, _) = id else { return Err("a storage is named in another way".into()) };
        let [Value::Text(word), Value::Global(class), Value::Text(key), ..] = &id[..] else {
            return Err("a storage is named in another way".into());
        };
        let kind = class.strip_prefix("torch ").and_then(Kind::of);
        let kind = kind.filter(|_| &**word == "storage").ok_or_else(|| format!("{class} is no storage"))?;
        self.storages.insert(key.clone(), kind);
        Ok(Value::Storage(key.clone(), kind))
    }
}

/// One deeper than the deepest of these.
fn deeper(values: &[Value]) -> Result<u8> {
    match values.iter().map(Value::depth).max().unwrap_or(0) {
        depth if depth < DEPTH => Ok(depth + 1),
        _ => Err("values lie too deep in one another".into()),
    }
}

/// A whole number of any length, little-endian; longer than 8 bytes it is opaque.
fn integer(bytes: &[u8]) -> Value {
    if bytes.len() > 8 {
        return Value::Opaque;
    }
    let negative = bytes.last().is_some_and(|&b| b > 127);
    let mut wide = [if negative { 255 } else { 0 }; 8];
    wide[..bytes.len()].copy_from_slice(bytes);
    Value::Int(i64::from_le_bytes(wide))
}

/// What a call gives, of the few that are understood.
fn made(name: &str, arguments: &[Value]) -> Result<Value> {
    match (name, arguments) {
        ("collections OrderedDict", []) => Ok(Value::Dict(Vec::new(), 1)),
        (
            "torch._utils _rebuild_tensor" | "torch._utils _rebuild_tensor_v2",
            [
                Value::Storage(key, kind),
                Value::Int(offset),
                Value::Tuple(shape, _),
                Value::Tuple(strides, _),
                ..,
            ],
        ) => {
            let sizes = |values: &[Value]| -> Result<Vec<usize>> {
                let size = |value: &Value| match value {
                    Value::Int(n) => usize::try_from(*n).ok(),
                    _ => None,
                };
                values.iter().map(size).collect::<Option<_>>().ok_or_else(|| "a size is no number".into())
            };
            let (shape, strides) = (sizes(shape)?, sizes(strides)?);
            let offset = usize::try_from(*offset).map_err(|_| "a tensor starts before its storage")?;
            if shape.len() != strides.len() {
                return Err("a tensor has more sizes than strides".into());
            }
            Ok(Value::Tensor(Rc::new(View { key: key.clone(), kind: *kind, offset, shape, strides })))
        }
        (
            "torch._utils _rebuild_parameter" | "torch._utils _rebuild_parameter_with_state",
            [tensor @ Value::Tensor(_), ..],
        ) => Ok(tensor.clone()),
        _ => Ok(Value::Opaque),
    }
}
