//! Integer and logic operations on 32 lanes.

use super::warp::Warp;
use crate::program::{Bool, Cmp, CmpType, Int, R, Unary};

pub(super) fn boolean(f: Bool, a: u32, b: u32) -> u32 {
    match f {
        Bool::And => a & b,
        Bool::Or => a | b,
        Bool::Xor => a ^ b,
    }
}

/// Sign-extends 16 bits.
fn sext16(value: u32) -> u32 {
    value as u16 as i16 as i32 as u32
}

fn int32(f: Int, x: u32, y: u32) -> u32 {
    let (s, t) = (x as i32, y as i32);
    match f {
        Int::Add => x.wrapping_add(y),
        Int::Sub => x.wrapping_sub(y),
        Int::Mul => x.wrapping_mul(y),
        Int::MulHiS => ((i64::from(s) * i64::from(t)) >> 32) as u32,
        Int::MulHiU => ((u64::from(x) * u64::from(y)) >> 32) as u32,
        Int::And => x & y,
        Int::Or => x | y,
        Int::Xor => x ^ y,
        Int::MinS => s.min(t) as u32,
        Int::MaxS => s.max(t) as u32,
        Int::MinU => x.min(y),
        Int::MaxU => x.max(y),
        // Shifts by more than the width clamp, unlike the host's.
        Int::Shl => x.checked_shl(y).unwrap_or(0),
        Int::ShrU => x.checked_shr(y).unwrap_or(0),
        Int::ShrS => (s >> y.min(31)) as u32,
        // A division by zero has an unspecified result; cards give all ones, and the dividend as rest.
        Int::DivS => {
            if t == 0 {
                u32::MAX
            } else {
                s.wrapping_div(t) as u32
            }
        }
        Int::DivU => x.checked_div(y).unwrap_or(u32::MAX),
        Int::RemS => {
            if t == 0 {
                x
            } else {
                s.wrapping_rem(t) as u32
            }
        }
        Int::RemU => x.checked_rem(y).unwrap_or(x),
        Int::AddSat => s.saturating_add(t) as u32,
        Int::SubSat => s.saturating_sub(t) as u32,
    }
}

fn int64(f: Int, x: u64, y: u64) -> u64 {
    let (s, t) = (x as i64, y as i64);
    match f {
        Int::Add => x.wrapping_add(y),
        Int::Sub => x.wrapping_sub(y),
        Int::Mul => x.wrapping_mul(y),
        Int::MulHiS => ((i128::from(s) * i128::from(t)) >> 64) as u64,
        Int::MulHiU => ((u128::from(x) * u128::from(y)) >> 64) as u64,
        Int::And => x & y,
        Int::Or => x | y,
        Int::Xor => x ^ y,
        Int::MinS => s.min(t) as u64,
        Int::MaxS => s.max(t) as u64,
        Int::MinU => x.min(y),
        Int::MaxU => x.max(y),
        Int::Shl => {
            if y > 63 {
                0
            } else {
                x << y
            }
        }
        Int::ShrU => {
            if y > 63 {
                0
            } else {
                x >> y
            }
        }
        Int::ShrS => (s >> y.min(63)) as u64,
        Int::DivS => {
            if t == 0 {
                u64::MAX
            } else {
                s.wrapping_div(t) as u64
            }
        }
        Int::DivU => x.checked_div(y).unwrap_or(u64::MAX),
        Int::RemS => {
            if t == 0 {
                x
            } else {
                s.wrapping_rem(t) as u64
            }
        }
        Int::RemU => x.checked_rem(y).unwrap_or(x),
        Int::AddSat => s.saturating_add(t) as u64,
        Int::SubSat => s.saturating_sub(t) as u64,
    }
}

/// Position of the highest bit that differs from the sign, all ones where there is none.
fn bfind(value: u64, bits: u32) -> u32 {
    let _ = bits;
    if value == 0 { u32::MAX } else { 63 - value.leading_zeros() }
}

impl Warp {
    #[inline(always)]
    pub(super) fn map1(&mut self, d: R, a: R, m: u32, f: impl Fn(u32) -> u32) {
        let x = self.get32(a);
        let value = std::array::from_fn(|l| f(x[l]));
        self.set32(d, value, m);
    }

    #[inline(always)]
    pub(super) fn map2(&mut self, d: R, a: R, b: R, m: u32, f: impl Fn(u32, u32) -> u32) {
        let (x, y) = (self.get32(a), self.get32(b));
        let value = std::array::from_fn(|l| f(x[l], y[l]));
        self.set32(d, value, m);
    }

    #[inline(always)]
    pub(super) fn map3(&mut self, d: R, a: R, b: R, c: R, m: u32, f: impl Fn(u32, u32, u32) -> u32) {
        let (x, y, z) = (self.get32(a), self.get32(b), self.get32(c));
        let value = std::array::from_fn(|l| f(x[l], y[l], z[l]));
        self.set32(d, value, m);
    }

    #[inline(always)]
    pub(super) fn map1_64(&mut self, d: R, a: R, m: u32, f: impl Fn(u64) -> u64) {
        let x = self.get64(a);
        let value = std::array::from_fn(|l| f(x[l]));
        self.set64(d, value, m);
    }

    #[inline(always)]
    pub(super) fn map2_64(&mut self, d: R, a: R, b: R, m: u32, f: impl Fn(u64, u64) -> u64) {
        let (x, y) = (self.get64(a), self.get64(b));
        let value = std::array::from_fn(|l| f(x[l], y[l]));
        self.set64(d, value, m);
    }

    #[inline(always)]
    pub(super) fn map3_64(&mut self, d: R, a: R, b: R, c: R, m: u32, f: impl Fn(u64, u64, u64) -> u64) {
        let (x, y, z) = (self.get64(a), self.get64(b), self.get64(c));
        let value = std::array::from_fn(|l| f(x[l], y[l], z[l]));
        self.set64(d, value, m);
    }

    #[inline]
    pub(super) fn int32(&mut self, f: Int, d: R, a: R, b: R, m: u32) {
        macro_rules! each {
            ($($name:ident)*) => {
                match f { $(Int::$name => self.map2(d, a, b, m, |x, y| int32(Int::$name, x, y)),)* }
            };
        }
        // One loop an operation, so that each is vectorised.
        each!(Add Sub Mul MulHiS MulHiU And Or Xor MinS MaxS MinU MaxU Shl ShrS ShrU DivS DivU RemS RemU AddSat SubSat);
    }

    #[inline]
    pub(super) fn int64(&mut self, f: Int, d: R, a: R, b: R, m: u32) {
        // The amount of a shift has 32 bits.
        if matches!(f, Int::Shl | Int::ShrS | Int::ShrU) {
            let (x, y) = (self.get64(a), self.get32(b));
            let value = std::array::from_fn(|l| int64(f, x[l], u64::from(y[l])));
            self.set64(d, value, m);
            return;
        }
        match f {
            Int::Add => self.map2_64(d, a, b, m, u64::wrapping_add),
            Int::Sub => self.map2_64(d, a, b, m, u64::wrapping_sub),
            Int::Mul => self.map2_64(d, a, b, m, u64::wrapping_mul),
            _ => self.map2_64(d, a, b, m, |x, y| int64(f, x, y)),
        }
    }

    pub(super) fn int16(&mut self, f: Int, signed: bool, d: R, a: R, b: R, m: u32) {
        let shift = matches!(f, Int::Shl | Int::ShrS | Int::ShrU);
        self.map2(d, a, b, m, |x, y| {
            let (x, y) = (
                if signed { sext16(x) } else { x & 0xFFFF },
                if shift {
                    y
                } else if signed {
                    sext16(y)
                } else {
                    y & 0xFFFF
                },
            );
            let value = match f {
                Int::MulHiS | Int::MulHiU => x.wrapping_mul(y) >> 16,
                Int::AddSat => (x as i32 + y as i32).clamp(-32768, 32767) as u32,
                Int::SubSat => (x as i32 - y as i32).clamp(-32768, 32767) as u32,
                f => int32(f, x, y),
            };
            value & 0xFFFF
        });
    }

    pub(super) fn unary32(&mut self, f: Unary, d: R, a: R, m: u32) {
        self.map1(d, a, m, |x| match f {
            Unary::Not => !x,
            Unary::Neg => x.wrapping_neg(),
            Unary::Abs => (x as i32).wrapping_abs() as u32,
            Unary::Cnot => u32::from(x == 0),
            Unary::Popc => x.count_ones(),
            Unary::Clz => x.leading_zeros(),
            Unary::Brev => x.reverse_bits(),
            Unary::BfindU => bfind(u64::from(x), 32),
            Unary::ShiftU => {
                if x == 0 {
                    u32::MAX
                } else {
                    x.leading_zeros()
                }
            }
            Unary::BfindS => bfind(u64::from(if (x as i32) < 0 { !x } else { x }), 32),
        });
    }

    pub(super) fn unary16(&mut self, f: Unary, d: R, a: R, m: u32) {
        self.map1(d, a, m, |x| {
            let value = match f {
                Unary::Not => !x,
                Unary::Neg => x.wrapping_neg(),
                Unary::Abs => (sext16(x) as i32).wrapping_abs() as u32,
                _ => u32::from(x & 0xFFFF == 0),
            };
            value & 0xFFFF
        });
    }

    pub(super) fn unary64(&mut self, f: Unary, d: R, a: R, m: u32) {
        let x = *self.get64(a);
        match f {
            Unary::Not => self.set64(d, x.map(|v| !v), m),
            Unary::Neg => self.set64(d, x.map(u64::wrapping_neg), m),
            Unary::Abs => self.set64(d, x.map(|v| (v as i64).wrapping_abs() as u64), m),
            Unary::Cnot => self.set64(d, x.map(|v| u64::from(v == 0)), m),
            Unary::Brev => self.set64(d, x.map(u64::reverse_bits), m),
            Unary::Popc => self.set32(d, x.map(u64::count_ones), m),
            Unary::Clz => self.set32(d, x.map(u64::leading_zeros), m),
            // A shift amount is decoded for 32 bits alone.
            Unary::BfindU | Unary::ShiftU => self.set32(d, x.map(|v| bfind(v, 64)), m),
            Unary::BfindS => {
                self.set32(d, x.map(|v| bfind(if (v as i64) < 0 { !v } else { v }, 64)), m);
            }
        }
    }

    pub(super) fn mad_hi(&mut self, signed: bool, d: R, a: R, b: R, c: R, m: u32) {
        let f = if signed { Int::MulHiS } else { Int::MulHiU };
        self.map3(d, a, b, c, m, |x, y, z| int32(f, x, y).wrapping_add(z));
    }

    #[inline]
    pub(super) fn mul_wide32(&mut self, signed: bool, d: R, a: R, b: R, c: Option<R>, m: u32) {
        let (x, y) = (self.get32(a), self.get32(b));
        let mut value: [u64; 32] = if signed {
            std::array::from_fn(|l| (i64::from(x[l] as i32) * i64::from(y[l] as i32)) as u64)
        } else {
            std::array::from_fn(|l| u64::from(x[l]) * u64::from(y[l]))
        };
        if let Some(c) = c {
            for (value, add) in value.iter_mut().zip(self.get64(c)) {
                *value = value.wrapping_add(*add);
            }
        }
        self.set64(d, value, m);
    }

    #[inline]
    pub(super) fn mul_wide16(&mut self, signed: bool, d: R, a: R, b: R, c: Option<R>, m: u32) {
        let (x, y) = (self.get32(a), self.get32(b));
        let mut value: [u32; 32] = if signed {
            std::array::from_fn(|l| sext16(x[l]).wrapping_mul(sext16(y[l])))
        } else {
            std::array::from_fn(|l| (x[l] & 0xFFFF).wrapping_mul(y[l] & 0xFFFF))
        };
        if let Some(c) = c {
            for (value, add) in value.iter_mut().zip(self.get32(c)) {
                *value = value.wrapping_add(*add);
            }
        }
        self.set32(d, value, m);
    }

    pub(super) fn sad(&mut self, signed: bool, d: R, a: R, b: R, c: R, m: u32) {
        self.map3(d, a, b, c, m, |x, y, z| {
            let gap = if signed { (x as i32).abs_diff(y as i32) } else { x.abs_diff(y) };
            z.wrapping_add(gap)
        });
    }

    #[expect(clippy::too_many_arguments, reason = "the operands of one instruction")]
    pub(super) fn dp4a(&mut self, a_signed: bool, b_signed: bool, d: R, a: R, b: R, c: R, m: u32) {
        fn product<const SA: bool, const SB: bool>(x: u32, y: u32, z: u32) -> u32 {
            (0..4).fold(z, |sum, i| {
                let (p, q) = ((x >> (8 * i)) as u8, (y >> (8 * i)) as u8);
                let p = if SA { i32::from(p as i8) } else { i32::from(p) };
                let q = if SB { i32::from(q as i8) } else { i32::from(q) };
                sum.wrapping_add((p * q) as u32)
            })
        }
        match (a_signed, b_signed) {
            (false, false) => self.map3(d, a, b, c, m, product::<false, false>),
            (false, true) => self.map3(d, a, b, c, m, product::<false, true>),
            (true, false) => self.map3(d, a, b, c, m, product::<true, false>),
            (true, true) => self.map3(d, a, b, c, m, product::<true, true>),
        }
    }

    pub(super) fn dp2a(&mut self, a_signed: bool, b_signed: bool, high: bool, [d, a, b, c]: [R; 4], m: u32) {
        self.map3(d, a, b, c, m, |x, y, z| {
            (0..2).fold(z, |sum, i| {
                let half = (x >> (16 * i)) as u16;
                let byte = (y >> (8 * i + if high { 16 } else { 0 })) as u8;
                let p = if a_signed { i32::from(half as i16) } else { i32::from(half) };
                let q = if b_signed { i32::from(byte as i8) } else { i32::from(byte) };
                sum.wrapping_add(p.wrapping_mul(q) as u32)
            })
        });
    }

    pub(super) fn bfe32(&mut self, signed: bool, d: R, a: R, b: R, c: R, m: u32) {
        self.map3(d, a, b, c, m, |x, pos, len| {
            bfe(if signed { x as i32 as i64 as u64 } else { u64::from(x) }, pos, len, 32, signed) as u32
        });
    }

    pub(super) fn bfe64(&mut self, signed: bool, d: R, a: R, b: R, c: R, m: u32) {
        let (x, pos, len) = (self.get64(a), self.get32(b), self.get32(c));
        let value = std::array::from_fn(|l| bfe(x[l], pos[l], len[l], 64, signed));
        self.set64(d, value, m);
    }

    pub(super) fn bfi32(&mut self, [d, a, b, c, e]: [R; 5], m: u32) {
        let (x, y, pos, len) = (self.get32(a), self.get32(b), self.get32(c), self.get32(e));
        let value = std::array::from_fn(|l| bfi(u64::from(x[l]), u64::from(y[l]), pos[l], len[l], 32) as u32);
        self.set32(d, value, m);
    }

    pub(super) fn bfi64(&mut self, [d, a, b, c, e]: [R; 5], m: u32) {
        let (x, y, pos, len) = (self.get64(a), self.get64(b), self.get32(c), self.get32(e));
        let value = std::array::from_fn(|l| bfi(x[l], y[l], pos[l], len[l], 64));
        self.set64(d, value, m);
    }

    pub(super) fn prmt(&mut self, d: R, a: R, b: R, c: R, m: u32) {
        self.map3(d, a, b, c, m, |x, y, select| {
            let bytes = u64::from(x) | (u64::from(y) << 32);
            (0..4).fold(0, |value, i| {
                let pick = (select >> (4 * i)) & 15;
                let mut byte = (bytes >> (8 * (pick & 7))) as u8;
                if pick & 8 != 0 {
                    byte = ((byte as i8) >> 7) as u8;
                }
                value | (u32::from(byte) << (8 * i))
            })
        });
    }

    pub(super) fn lop3(&mut self, lut: u8, d: R, a: R, b: R, c: R, m: u32) {
        self.map3(d, a, b, c, m, |x, y, z| {
            (0..8).filter(|i| lut & (1 << i) != 0).fold(0, |value, i| {
                let pick = |bits: u32, on: bool| if on { bits } else { !bits };
                value | (pick(x, i & 4 != 0) & pick(y, i & 2 != 0) & pick(z, i & 1 != 0))
            })
        });
    }

    pub(super) fn shf(&mut self, left: bool, wrap: bool, [d, a, b, c]: [R; 4], m: u32) {
        self.map3(d, a, b, c, m, |low, high, amount| {
            let amount = if wrap { amount & 31 } else { amount.min(32) };
            let both = u64::from(low) | (u64::from(high) << 32);
            if left { ((both << amount) >> 32) as u32 } else { (both >> amount) as u32 }
        });
    }

    pub(super) fn pack64(&mut self, d: R, low: R, high: R, m: u32) {
        let (x, y) = (self.get32(low), self.get32(high));
        let value = std::array::from_fn(|l| u64::from(x[l]) | (u64::from(y[l]) << 32));
        self.set64(d, value, m);
    }

    pub(super) fn unpack64(&mut self, low: R, high: R, a: R, m: u32) {
        let value = *self.get64(a);
        self.set32(low, value.map(|v| v as u32), m);
        self.set32(high, value.map(|v| (v >> 32) as u32), m);
    }

    pub(super) fn pack64x4(&mut self, d: R, parts: [R; 4], m: u32) {
        let parts = parts.map(|p| *self.get32(p));
        let value =
            std::array::from_fn(|l| (0..4).fold(0, |v, i| v | (u64::from(parts[i][l] & 0xFFFF) << (16 * i))));
        self.set64(d, value, m);
    }

    pub(super) fn pack32x4(&mut self, d: R, parts: [R; 4], m: u32) {
        let parts = parts.map(|p| *self.get32(p));
        let value = std::array::from_fn(|l| (0..4).fold(0, |v, i| v | ((parts[i][l] & 0xFF) << (8 * i))));
        self.set32(d, value, m);
    }

    pub(super) fn selp32(&mut self, d: R, a: R, b: R, p: R, m: u32) {
        let p = self.pred(p);
        let (x, y) = (self.get32(a), self.get32(b));
        let value = std::array::from_fn(|l| {
            let no = ((p >> l) & 1).wrapping_sub(1);
            (x[l] & !no) | (y[l] & no)
        });
        self.set32(d, value, m);
    }

    pub(super) fn selp64(&mut self, d: R, a: R, b: R, p: R, m: u32) {
        let p = self.pred(p);
        let (x, y) = (self.get64(a), self.get64(b));
        let value = std::array::from_fn(|l| if (p >> l) & 1 != 0 { x[l] } else { y[l] });
        self.set64(d, value, m);
    }

    /// A comparison, one bit a lane.
    pub(super) fn compare(&self, cmp: Cmp, kind: CmpType, a: R, b: R) -> u32 {
        fn order<T: PartialOrd + Copy>(cmp: Cmp, x: T, y: T) -> bool {
            match cmp {
                Cmp::Eq => x == y,
                // False for a NaN, unlike the host's.
                Cmp::Ne => x.partial_cmp(&y).is_some_and(std::cmp::Ordering::is_ne),
                Cmp::Lt => x < y,
                Cmp::Le => x <= y,
                Cmp::Gt => x > y,
                Cmp::Ge => x >= y,
                // Only a NaN has no order.
                other => {
                    let none = x.partial_cmp(&y).is_none();
                    match other {
                        Cmp::Equ => none || x == y,
                        Cmp::Neu => none || x != y,
                        Cmp::Ltu => none || x < y,
                        Cmp::Leu => none || x <= y,
                        Cmp::Gtu => none || x > y,
                        Cmp::Geu => none || x >= y,
                        Cmp::Num => !none,
                        _ => none,
                    }
                }
            }
        }
        macro_rules! each {
            ($get:ident, $map:expr) => {{
                let (x, y) = (self.$get(a), self.$get(b));
                super::exchange::ballot(|l| order(cmp, $map(x[l]), $map(y[l])))
            }};
        }
        match kind {
            CmpType::U32 => each!(get32, |v: u32| v),
            CmpType::S32 => each!(get32, |v: u32| v as i32),
            CmpType::S16 => each!(get32, |v: u32| v as u16 as i16),
            CmpType::U64 => each!(get64, |v: u64| v),
            CmpType::S64 => each!(get64, |v: u64| v as i64),
            CmpType::F32 => each!(get32, f32::from_bits),
            CmpType::F64 => each!(get64, f64::from_bits),
        }
    }
}

/// `bfe` of the PTX ISA: bits past the top are the sign, or zero.
fn bfe(value: u64, pos: u32, len: u32, bits: u32, signed: bool) -> u64 {
    let (pos, len) = (pos & 0xFF, len & 0xFF);
    if len == 0 {
        return 0;
    }
    let moved =
        if signed { ((value as i64) >> pos.min(63)) as u64 } else { value.checked_shr(pos).unwrap_or(0) };
    // The sign is that of the field's last bit inside the value.
    let width = len.min(bits.saturating_sub(pos)).max(u32::from(signed));
    if width >= 64 {
        return moved;
    }
    let spare = 64 - width;
    if width == 0 {
        0
    } else if signed {
        (((moved << spare) as i64) >> spare) as u64
    } else {
        (moved << spare) >> spare
    }
}

/// `bfi` of the PTX ISA: the low `len` bits of `value` into `into` at `pos`.
fn bfi(value: u64, into: u64, pos: u32, len: u32, bits: u32) -> u64 {
    let (pos, len) = (pos & 0xFF, len & 0xFF);
    if pos >= bits || len == 0 {
        return into;
    }
    let field = if len >= 64 { u64::MAX } else { (1 << len) - 1 } << pos;
    (into & !field) | ((value << pos) & field)
}
