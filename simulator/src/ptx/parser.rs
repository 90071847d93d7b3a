//! Tokens to declarations and raw instructions.

use super::lexer::{Token, tokens};
use super::{Entry, Instruction, Operand, Param, Space, Statement, Text, Type, Variable};
use crate::error::LoadError;

struct Parser<'a> {
    tokens: Vec<Token<'a>>,
    at: usize,
}

type Result<T> = std::result::Result<T, LoadError>;

/// Reads a module.
///
/// # Errors
/// [`LoadError`] with the line of what could not be read.
pub fn parse(source: &str) -> Result<Text> {
    let mut parser = Parser { tokens: tokens(source)?, at: 0 };
    let mut text = Text::default();
    while let Some(token) = parser.peek() {
        match token.text {
            ".version" => {
                parser.at += 1;
                let value = parser.next()?;
                text.version = value
                    .text
                    .split_once('.')
                    .and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)))
                    .ok_or_else(|| syntax(value.line, format!("`{}` is no PTX version", value.text)))?;
            }
            ".target" => {
                parser.at += 1;
                let value = parser.next()?;
                let digits: String = value.text.chars().filter(char::is_ascii_digit).collect();
                text.target = digits
                    .parse()
                    .map_err(|_| syntax(value.line, format!("`{}` is no sm_ target", value.text)))?;
                while parser.eat(",") {
                    parser.next()?;
                }
            }
            ".address_size" => parser.at += 2,
            ".visible" | ".extern" | ".weak" | ".common" => parser.at += 1,
            ".entry" => text.entries.push(parser.entry()?),
            ".func" => {
                return Err(LoadError::Unsupported {
                    line: token.line,
                    what: "a device function (.func); inline it".into(),
                });
            }
            ".global" | ".const" | ".shared" => {
                let variable = parser.variable()?;
                text.variables.push(variable);
            }
            ".file" | ".loc" => parser.skip_line(),
            ".section" => parser.skip_section()?,
            ".pragma" => parser.skip_statement()?,
            other => return Err(syntax(token.line, format!("`{other}` at module scope"))),
        }
    }
    if text.version == (0, 0) || text.target == 0 {
        return Err(syntax(1, "no .version or no .target: this is not PTX".into()));
    }
    Ok(text)
}

fn syntax(line: u32, what: String) -> LoadError {
    LoadError::Syntax { line, what }
}

/// An integer as PTX writes it.
fn integer(text: &str) -> Option<i128> {
    let digits = text.strip_suffix('U').unwrap_or(text);
    if let Some(hex) = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        i128::from_str_radix(hex, 16).ok()
    } else if let Some(binary) = digits.strip_prefix("0b") {
        i128::from_str_radix(binary, 2).ok()
    } else {
        digits.parse().ok()
    }
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<Token<'a>> {
        self.tokens.get(self.at).copied()
    }

    fn line(&self) -> u32 {
        self.tokens.get(self.at).or(self.tokens.last()).map_or(1, |t| t.line)
    }

    fn next(&mut self) -> Result<Token<'a>> {
        let token = self.peek().ok_or_else(|| syntax(self.line(), "the text ends too early".into()))?;
        self.at += 1;
        Ok(token)
    }

    fn is(&self, text: &str) -> bool {
        self.peek().is_some_and(|t| t.text == text)
    }

    fn eat(&mut self, text: &str) -> bool {
        let yes = self.is(text);
        self.at += usize::from(yes);
        yes
    }

    fn expect(&mut self, text: &str) -> Result<()> {
        let token = self.next()?;
        if token.text == text {
            return Ok(());
        }
        Err(syntax(token.line, format!("`{text}` expected, `{}` found", token.text)))
    }

    fn int(&mut self) -> Result<i128> {
        let negative = self.eat("-");
        let token = self.next()?;
        let value = integer(token.text)
            .ok_or_else(|| syntax(token.line, format!("`{}` is no number", token.text)))?;
        Ok(if negative { -value } else { value })
    }

    fn count(&mut self) -> Result<usize> {
        let line = self.line();
        usize::try_from(self.int()?).map_err(|_| syntax(line, "a negative count".into()))
    }

    fn skip_line(&mut self) {
        let line = self.line();
        while self.peek().is_some_and(|t| t.line == line) {
            self.at += 1;
        }
    }

    fn skip_statement(&mut self) -> Result<()> {
        while self.next()?.text != ";" {}
        Ok(())
    }

    fn skip_section(&mut self) -> Result<()> {
        while self.next()?.text != "{" {}
        while self.next()?.text != "}" {}
        Ok(())
    }

    fn type_name(&mut self) -> Result<Type> {
        let token = self.next()?;
        token
            .text
            .strip_prefix('.')
            .and_then(Type::from_name)
            .ok_or_else(|| syntax(token.line, format!("`{}` is no type", token.text)))
    }

    /// `.space [.align n] .type name[n] [= init];`
    fn variable(&mut self) -> Result<Variable> {
        let token = self.next()?;
        let space = match token.text {
            ".global" => Space::Global,
            ".const" => Space::Const,
            ".shared" => Space::Shared,
            ".local" => Space::Local,
            other => return Err(syntax(token.line, format!("`{other}` is no state space"))),
        };
        let mut align = 0;
        while self.is(".align") || self.is(".attribute") {
            if self.eat(".align") {
                align = self.count()?;
            } else {
                return Err(LoadError::Unsupported {
                    line: self.line(),
                    what: "a variable's attribute".into(),
                });
            }
        }
        let kind = self.type_name()?;
        let name = self.next()?.text.to_owned();
        let (mut count, mut array) = (1usize, false);
        while self.eat("[") {
            array = true;
            count *= if self.is("]") { 0 } else { self.count()? };
            self.expect("]")?;
        }
        let mut init = Vec::new();
        if self.eat("=") {
            self.initialiser(kind, &mut init)?;
        }
        self.expect(";")?;
        let size = if array { count * kind.bytes() } else { kind.bytes() }.max(init.len());
        Ok(Variable { name, space, align: align.max(kind.bytes()), size, init })
    }

    fn initialiser(&mut self, kind: Type, into: &mut Vec<u8>) -> Result<()> {
        if self.eat("{") {
            loop {
                self.initialiser(kind, into)?;
                if !self.eat(",") {
                    return self.expect("}");
                }
            }
        }
        let line = self.line();
        let bits = match self.operand()? {
            Operand::Int(v) => v as u64,
            Operand::F32(v) => u64::from(v),
            Operand::F64(v) => v,
            other => {
                return Err(LoadError::Unsupported { line, what: format!("the initialiser {other:?}") });
            }
        };
        into.extend_from_slice(&bits.to_le_bytes()[..kind.bytes()]);
        Ok(())
    }

    fn entry(&mut self) -> Result<Entry> {
        let line = self.next()?.line;
        let name = self.next()?.text.to_owned();
        let mut entry = Entry { name, line, params: Vec::new(), max_threads: 0, body: Vec::new() };
        if self.eat("(") && !self.eat(")") {
            let mut end = 0;
            loop {
                let param = self.param(end)?;
                end = param.offset + param.size;
                entry.params.push(param);
                if !self.eat(",") {
                    self.expect(")")?;
                    break;
                }
            }
        }
        while !self.is("{") {
            let token = self.next()?;
            match token.text {
                ".maxntid" | ".reqntid" => {
                    let mut threads = self.count()?;
                    while self.eat(",") {
                        threads *= self.count()?;
                    }
                    entry.max_threads = threads as u32;
                }
                ".minnctapersm" | ".maxnreg" => {
                    self.count()?;
                }
                ".pragma" => self.skip_statement()?,
                other => {
                    return Err(LoadError::Unsupported { line: token.line, what: format!("`{other}`") });
                }
            }
        }
        self.expect("{")?;
        let mut depth = 1;
        while depth > 0 {
            let token =
                self.peek().ok_or_else(|| syntax(line, format!("the body of {} never ends", entry.name)))?;
            match token.text {
                "{" => {
                    self.at += 1;
                    depth += 1;
                    entry.body.push(Statement::Open);
                }
                "}" => {
                    self.at += 1;
                    depth -= 1;
                    if depth > 0 {
                        entry.body.push(Statement::Close);
                    }
                }
                ";" => self.at += 1,
                ".reg" => self.registers(&mut entry.body)?,
                ".shared" | ".local" => {
                    let variable = self.variable()?;
                    entry.body.push(Statement::Variable(variable));
                }
                ".loc" | ".file" => self.skip_line(),
                ".pragma" => self.skip_statement()?,
                other if other.starts_with('.') => {
                    return Err(LoadError::Unsupported { line: token.line, what: format!("`{other}`") });
                }
                _ => {
                    let statement = self.statement()?;
                    entry.body.push(statement);
                }
            }
        }
        Ok(entry)
    }

    /// `.param [.align n] .type [.ptr [.space] [.align n]] name[n]`
    fn param(&mut self, end: usize) -> Result<Param> {
        self.expect(".param")?;
        let mut align = if self.eat(".align") { self.count()? } else { 0 };
        let kind = self.type_name()?;
        if self.eat(".ptr") {
            while self.peek().is_some_and(|t| t.text.starts_with('.')) {
                if self.next()?.text == ".align" {
                    // The alignment of what is pointed at, not of the parameter.
                    self.count()?;
                }
            }
        }
        let name = self.next()?.text.to_owned();
        let mut size = kind.bytes();
        if self.eat("[") {
            size *= self.count()?;
            self.expect("]")?;
        }
        align = align.max(kind.bytes());
        Ok(Param { name, offset: end.next_multiple_of(align), size })
    }

    fn registers(&mut self, body: &mut Vec<Statement>) -> Result<()> {
        self.expect(".reg")?;
        let line = self.line();
        let kind = self.type_name()?;
        loop {
            let name = self.next()?.text.to_owned();
            let mut count = None;
            if self.eat("<") {
                let n = self.count()?;
                count =
                    Some(u32::try_from(n).map_err(|_| syntax(line, format!("{n} registers in one line")))?);
                self.expect(">")?;
            }
            body.push(Statement::Register(kind, name, count));
            if !self.eat(",") {
                return self.expect(";");
            }
        }
    }

    fn statement(&mut self) -> Result<Statement> {
        let token = self.next()?;
        let line = token.line;
        if self.eat(":") {
            if self.is(".branchtargets") {
                self.at += 1;
                let mut labels = vec![self.next()?.text.to_owned()];
                while self.eat(",") {
                    labels.push(self.next()?.text.to_owned());
                }
                self.expect(";")?;
                return Ok(Statement::Targets(token.text.to_owned(), labels));
            }
            return Ok(Statement::Label(token.text.to_owned(), line));
        }
        let (mut guard, mut opcode) = (None, token);
        if token.text == "@" {
            let negated = self.eat("!");
            guard = Some((self.next()?.text.to_owned(), negated));
            opcode = self.next()?;
        }
        if !opcode.text.as_bytes()[0].is_ascii_alphabetic() {
            return Err(syntax(line, format!("`{}` where an instruction should begin", opcode.text)));
        }
        let mut operands = Vec::new();
        if !self.eat(";") {
            loop {
                operands.push(self.operand()?);
                if self.eat(";") {
                    break;
                }
                self.expect(",")?;
            }
        }
        Ok(Statement::Instruction(Instruction { guard, opcode: opcode.text.to_owned(), operands, line }))
    }

    fn operand(&mut self) -> Result<Operand> {
        let token = self.next()?;
        match token.text {
            "{" => {
                let mut parts = Vec::new();
                loop {
                    parts.push(self.operand()?);
                    if !self.eat(",") {
                        self.expect("}")?;
                        return Ok(Operand::Vector(parts));
                    }
                }
            }
            "[" => {
                let mut base = None;
                let mut offset = 0i64;
                if self.peek().is_some_and(|t| integer(t.text).is_some() || t.text == "-") {
                    offset = self.int()? as i64;
                } else {
                    base = Some(self.next()?.text.to_owned());
                    if self.eat("+") || self.is("-") {
                        offset = self.int()? as i64;
                    }
                }
                self.expect("]")?;
                return Ok(Operand::Address(base, offset));
            }
            "!" => return Ok(Operand::Not(self.next()?.text.to_owned())),
            "-" => {
                let number = self.next()?;
                let value = integer(number.text)
                    .ok_or_else(|| syntax(number.line, format!("`-{}` is no number", number.text)))?;
                return Ok(Operand::Int(-value));
            }
            _ => {}
        }
        let text = token.text;
        if text.as_bytes()[0].is_ascii_digit() {
            let float = |radix: &str, digits: usize| {
                text.strip_prefix(radix)
                    .or_else(|| text.strip_prefix(&radix.to_ascii_uppercase()))
                    .filter(|hex| hex.len() == digits)
                    .and_then(|hex| u64::from_str_radix(hex, 16).ok())
            };
            if let Some(bits) = float("0f", 8) {
                return Ok(Operand::F32(bits as u32));
            }
            if let Some(bits) = float("0d", 16) {
                return Ok(Operand::F64(bits));
            }
            return integer(text)
                .map(Operand::Int)
                .ok_or_else(|| syntax(token.line, format!("`{text}` is no number")));
        }
        if text == "WARP_SZ" {
            return Ok(Operand::Int(32));
        }
        if !(text.as_bytes()[0].is_ascii_alphabetic() || matches!(text.as_bytes()[0], b'%' | b'_' | b'$')) {
            return Err(syntax(token.line, format!("`{text}` where an operand should be")));
        }
        if self.eat("|") {
            return Ok(Operand::Pair(text.to_owned(), self.next()?.text.to_owned()));
        }
        if self.eat("+") {
            return Ok(Operand::NamePlus(text.to_owned(), self.int()? as i64));
        }
        Ok(Operand::Name(text.to_owned()))
    }
}
