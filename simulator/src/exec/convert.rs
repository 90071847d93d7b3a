//! `cvt`.

use super::float::flush;
use super::warp::Warp;
use crate::program::{Convert, Round};
use crate::ptx::Type;

/// A value between source and destination.
enum Value {
    Int(i128),
    Float(f64),
}

/// f16 to f64, exactly (IEEE 754 binary16).
fn from_half(bits: u16) -> f64 {
    let sign = if bits & 0x8000 != 0 { -1.0 } else { 1.0 };
    let (exponent, fraction) = (i32::from(bits >> 10) & 31, f64::from(bits & 0x3FF));
    match exponent {
        0 => sign * fraction * 2f64.powi(-24),
        31 if fraction == 0.0 => sign * f64::INFINITY,
        31 => f64::NAN,
        _ => sign * (1024.0 + fraction) * 2f64.powi(exponent - 25),
    }
}

/// f64 to f16, to nearest, ties to even.
fn to_half(value: f64) -> u16 {
    if value.is_nan() {
        return 0x7FFF;
    }
    let sign = if value.is_sign_negative() { 0x8000 } else { 0 };
    let size = value.abs();
    if size < 2f64.powi(-14) {
        return sign | (size * 2f64.powi(24)).round_ties_even() as u16;
    }
    let exponent = (size.to_bits() >> 52) as i32 - 1023;
    let steps = (size * 2f64.powi(10 - exponent)).round_ties_even();
    if exponent > 15 || (exponent == 15 && steps >= 2048.0) {
        return sign | 0x7C00;
    }
    // A carry out of the fraction raises the exponent by itself.
    sign | ((exponent + 15) as u16 * 1024 + (steps as u16 - 1024))
}

fn round(value: f64, how: Round) -> f64 {
    match how {
        Round::Nearest => value.round_ties_even(),
        Round::Zero => value.trunc(),
        Round::Down => value.floor(),
        Round::Up => value.ceil(),
    }
}

fn read(raw: u64, from: Type, ftz: bool) -> Value {
    let bits = u32::from(from.bits());
    match from {
        Type::F(64) => Value::Float(f64::from_bits(raw)),
        Type::F(32) => Value::Float(f64::from(flush(f32::from_bits(raw as u32), ftz))),
        Type::F(_) => Value::Float(from_half(raw as u16)),
        Type::S(_) => Value::Int(i128::from(((raw << (64 - bits)) as i64) >> (64 - bits))),
        _ => Value::Int(i128::from((raw << (64 - bits)) >> (64 - bits))),
    }
}

/// The least and the greatest value of an integer type.
fn limits(kind: Type) -> (i128, i128) {
    let bits = u32::from(kind.bits());
    if kind.signed() { (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) } else { (0, (1 << bits) - 1) }
}

fn write(value: &Value, convert: &Convert) -> u64 {
    let (to, sat) = (convert.to, convert.sat);
    if to.float() {
        let exact = match value {
            // From 64-bit integers through f64 would round twice on the way to f32.
            Value::Int(v) if to == Type::F(32) && !sat => return u64::from((*v as f32).to_bits()),
            Value::Int(v) => *v as f64,
            Value::Float(v) => convert.round.map_or(*v, |how| round(*v, how)),
        };
        let exact = match exact {
            v if !sat => v,
            v if v.is_nan() => 0.0,
            // -0 becomes 0.
            v => v.clamp(0.0, 1.0) + 0.0,
        };
        return match to {
            Type::F(64) => exact.to_bits(),
            Type::F(32) if exact.is_nan() => 0x7FFF_FFFF,
            Type::F(32) => u64::from(flush(exact as f32, convert.ftz).to_bits()),
            _ => u64::from(to_half(exact)),
        };
    }
    let (low, high) = limits(to);
    let integer = match value {
        Value::Int(v) if sat => (*v).clamp(low, high),
        Value::Int(v) => *v,
        Value::Float(v) if v.is_nan() => 0,
        // Floats clamp to the destination always; `as` saturates.
        Value::Float(v) => (round(*v, convert.round.unwrap_or(Round::Zero)) as i128).clamp(low, high),
    };
    // Cut to the type, then extend to the register as the type says.
    let spare = 64 - u32::from(to.bits());
    let cut = (integer as u64) << spare;
    if to.signed() { ((cut as i64) >> spare) as u64 } else { cut >> spare }
}

impl Warp {
    pub(super) fn convert(&mut self, convert: &Convert, m: u32) {
        let source: [u64; 32] = if convert.src.bits == 64 {
            *self.get64(convert.src.index)
        } else {
            self.get32(convert.src.index).map(u64::from)
        };
        // The two conversions of every requantisation.
        if !convert.ftz && !convert.sat && convert.dst.bits == 32 && convert.src.bits == 32 {
            match (convert.to, convert.from, convert.round) {
                (Type::F(32), Type::S(32), _) => {
                    self.set32(convert.dst.index, source.map(|v| (v as u32 as i32 as f32).to_bits()), m);
                    return;
                }
                (Type::S(32), Type::F(32), Some(Round::Nearest)) => {
                    let value = source.map(|v| f32::from_bits(v as u32).round_ties_even() as i32 as u32);
                    self.set32(convert.dst.index, value, m);
                    return;
                }
                _ => {}
            }
        }
        let value = source.map(|raw| write(&read(raw, convert.from, convert.ftz), convert));
        match convert.dst.bits {
            64 => self.set64(convert.dst.index, value, m),
            16 => self.set32(convert.dst.index, value.map(|v| v as u32 & 0xFFFF), m),
            _ => self.set32(convert.dst.index, value.map(|v| v as u32), m),
        }
    }
}
