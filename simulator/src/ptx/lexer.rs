//! PTX text to tokens.

use crate::error::LoadError;

/// A token and the line where it begins.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Token<'a> {
    pub(super) text: &'a str,
    pub(super) line: u32,
}

fn word(c: u8) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, b'_' | b'$' | b'%' | b'.')
}

/// Splits the text into words, strings and single marks; comments are dropped.
pub(super) fn tokens(source: &str) -> Result<Vec<Token<'_>>, LoadError> {
    let bytes = source.as_bytes();
    let mut found = Vec::with_capacity(source.len() / 4);
    let (mut at, mut line) = (0, 1);
    while at < bytes.len() {
        let start = at;
        let first_line = line;
        match bytes[at] {
            b'\n' => {
                line += 1;
                at += 1;
                continue;
            }
            0 => break,
            c if c.is_ascii_whitespace() => {
                at += 1;
                continue;
            }
            b'/' if bytes.get(at + 1) == Some(&b'/') => {
                while at < bytes.len() && bytes[at] != b'\n' {
                    at += 1;
                }
                continue;
            }
            b'/' if bytes.get(at + 1) == Some(&b'*') => {
                let rest = source[at + 2..].find("*/").ok_or_else(|| LoadError::Syntax {
                    line,
                    what: "a comment opened here is never closed".into(),
                })?;
                let end = at + 2 + rest + 2;
                line += bytes[at..end].iter().filter(|&&c| c == b'\n').count() as u32;
                at = end;
                continue;
            }
            b'"' => {
                let rest = source[at + 1..].find('"').ok_or_else(|| LoadError::Syntax {
                    line,
                    what: "a string opened here is never closed".into(),
                })?;
                at += rest + 2;
                line += bytes[start..at].iter().filter(|&&c| c == b'\n').count() as u32;
            }
            c if word(c) => {
                while at < bytes.len() {
                    if word(bytes[at]) {
                        at += 1;
                    } else if bytes[at..].starts_with(b"::") {
                        at += 2;
                    } else {
                        break;
                    }
                }
            }
            c if c.is_ascii() => at += 1,
            _ => {
                return Err(LoadError::Syntax { line, what: "a character outside ASCII".into() });
            }
        }
        found.push(Token { text: &source[start..at], line: first_line });
    }
    Ok(found)
}
