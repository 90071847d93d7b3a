//! Float operations. All results are correctly rounded, also where a card's approximate ones are not.

use super::warp::Warp;
use crate::program::{Float, FloatUnary, Mods, R};

/// Subnormals become zero of the same sign.
pub(super) fn flush(value: f32, ftz: bool) -> f32 {
    if ftz && value.is_subnormal() { f32::from_bits(value.to_bits() & 0x8000_0000) } else { value }
}

fn finish(value: f32, mods: Mods) -> u32 {
    let value = flush(value, mods.ftz);
    if mods.sat {
        // A NaN becomes zero.
        return if value.is_nan() { 0 } else { (value.clamp(0.0, 1.0) + 0.0).to_bits() };
    }
    // Operations give the one NaN of the ISA.
    if value.is_nan() { 0x7FFF_FFFF } else { value.to_bits() }
}

macro_rules! binary {
    ($name:ident, $type:ty) => {
        fn $name(f: Float, x: $type, y: $type) -> $type {
            let smaller = x < y || (x == y && x.is_sign_negative());
            match f {
                Float::Add => x + y,
                Float::Sub => x - y,
                Float::Mul => x * y,
                Float::Div => x / y,
                Float::MinNan | Float::MaxNan if x.is_nan() || y.is_nan() => <$type>::NAN,
                _ if x.is_nan() => y,
                _ if y.is_nan() => x,
                Float::Min | Float::MinNan => {
                    if smaller {
                        x
                    } else {
                        y
                    }
                }
                Float::Max | Float::MaxNan => {
                    if smaller {
                        y
                    } else {
                        x
                    }
                }
            }
        }
    };
}
binary!(binary32, f32);
binary!(binary64, f64);

impl Warp {
    #[inline]
    pub(super) fn float32(&mut self, f: Float, mods: Mods, d: R, a: R, b: R, m: u32) {
        self.map2(d, a, b, m, |x, y| {
            let (x, y) = (flush(f32::from_bits(x), mods.ftz), flush(f32::from_bits(y), mods.ftz));
            finish(binary32(f, x, y), mods)
        });
    }

    #[inline]
    pub(super) fn fma32(&mut self, mods: Mods, d: R, a: R, b: R, c: R, m: u32) {
        self.map3(d, a, b, c, m, |x, y, z| {
            let [x, y, z] = [x, y, z].map(|v| flush(f32::from_bits(v), mods.ftz));
            finish(x.mul_add(y, z), mods)
        });
    }

    pub(super) fn float_unary32(&mut self, f: FloatUnary, mods: Mods, d: R, a: R, m: u32) {
        self.map1(d, a, m, |bits| {
            let x = flush(f32::from_bits(bits), mods.ftz);
            let wide = f64::from(x);
            match f {
                // Signs are changed also on NaN.
                FloatUnary::Neg => x.to_bits() ^ 0x8000_0000,
                FloatUnary::Abs => x.to_bits() & 0x7FFF_FFFF,
                FloatUnary::Rcp => finish(1.0 / x, mods),
                FloatUnary::Sqrt => finish(x.sqrt(), mods),
                FloatUnary::Rsqrt => finish((1.0 / wide.sqrt()) as f32, mods),
                FloatUnary::Ex2 => finish(wide.exp2() as f32, mods),
                FloatUnary::Lg2 => finish(wide.log2() as f32, mods),
                FloatUnary::Sin => finish(wide.sin() as f32, mods),
                FloatUnary::Cos => finish(wide.cos() as f32, mods),
                FloatUnary::Tanh => finish(wide.tanh() as f32, mods),
            }
        });
    }

    pub(super) fn float64(&mut self, f: Float, d: R, a: R, b: R, m: u32) {
        self.map2_64(d, a, b, m, |x, y| binary64(f, f64::from_bits(x), f64::from_bits(y)).to_bits());
    }

    pub(super) fn fma64(&mut self, d: R, a: R, b: R, c: R, m: u32) {
        self.map3_64(d, a, b, c, m, |x, y, z| {
            f64::from_bits(x).mul_add(f64::from_bits(y), f64::from_bits(z)).to_bits()
        });
    }

    pub(super) fn float_unary64(&mut self, f: FloatUnary, d: R, a: R, m: u32) {
        self.map1_64(d, a, m, |bits| {
            let x = f64::from_bits(bits);
            match f {
                FloatUnary::Neg => bits ^ (1 << 63),
                FloatUnary::Abs => bits & !(1 << 63),
                FloatUnary::Rcp => (1.0 / x).to_bits(),
                FloatUnary::Sqrt => x.sqrt().to_bits(),
                FloatUnary::Rsqrt => (1.0 / x.sqrt()).to_bits(),
                FloatUnary::Ex2 => x.exp2().to_bits(),
                FloatUnary::Lg2 => x.log2().to_bits(),
                FloatUnary::Sin => x.sin().to_bits(),
                FloatUnary::Cos => x.cos().to_bits(),
                FloatUnary::Tanh => x.tanh().to_bits(),
            }
        });
    }
}
