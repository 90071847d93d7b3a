//! Integer instructions against what Rust's own operators give, over edge values of every operand.

use super::table::{check32, check64};

#[test]
fn add_sub_mul_min_max() {
    check32("add.s32 %r20, %r10, %r11;", |a, b, _| a.wrapping_add(b));
    check32("sub.u32 %r20, %r10, %r11;", |a, b, _| a.wrapping_sub(b));
    check32("add.sat.s32 %r20, %r10, %r11;", |a, b, _| (a as i32).saturating_add(b as i32) as u32);
    check32("sub.sat.s32 %r20, %r10, %r11;", |a, b, _| (a as i32).saturating_sub(b as i32) as u32);
    check32("mul.lo.s32 %r20, %r10, %r11;", |a, b, _| a.wrapping_mul(b));
    check32("mul.hi.u32 %r20, %r10, %r11;", |a, b, _| ((a as u64 * b as u64) >> 32) as u32);
    check32("mul.hi.s32 %r20, %r10, %r11;", |a, b, _| ((a as i32 as i64 * b as i32 as i64) >> 32) as u32);
    check32("min.s32 %r20, %r10, %r11;", |a, b, _| (a as i32).min(b as i32) as u32);
    check32("max.s32 %r20, %r10, %r11;", |a, b, _| (a as i32).max(b as i32) as u32);
    check32("min.u32 %r20, %r10, %r11;", |a, b, _| a.min(b));
    check32("max.u32 %r20, %r10, %r11;", |a, b, _| a.max(b));
    check32("mad.lo.s32 %r20, %r10, %r11, %r12;", |a, b, c| a.wrapping_mul(b).wrapping_add(c));
    check32("mad.hi.u32 %r20, %r10, %r11, %r12;", |a, b, c| {
        ((a as u64 * b as u64) >> 32).wrapping_add(c as u64) as u32
    });
    check32("mad.hi.s32 %r20, %r10, %r11, %r12;", |a, b, c| {
        (((a as i32 as i64 * b as i32 as i64) >> 32) as u32).wrapping_add(c)
    });
    check32("sad.s32 %r20, %r10, %r11, %r12;", |a, b, c| (a as i32).abs_diff(b as i32).wrapping_add(c));
    check32("sad.u32 %r20, %r10, %r11, %r12;", |a, b, c| a.abs_diff(b).wrapping_add(c));
}

#[test]
fn division_and_rest() {
    // Divisors are made odd: a division by zero has no specified result. The smallest over -1 has none either.
    let odd = "or.b32 %r11, %r11, 1;\n";
    let divide = |op: &str| format!("{odd}{op} %r20, %r10, %r11;");
    check32(&divide("div.u32"), |a, b, _| a / (b | 1));
    check32(&divide("rem.u32"), |a, b, _| a % (b | 1));
    check32(&divide("div.s32"), |a, b, _| (a as i32).wrapping_div((b | 1) as i32) as u32);
    check32(&divide("rem.s32"), |a, b, _| (a as i32).wrapping_rem((b | 1) as i32) as u32);
    let odd = "or.b64 %rd11, %rd11, 1;\n";
    let divide = |op: &str| format!("{odd}{op} %rd20, %rd10, %rd11;");
    check64(&divide("div.u64"), |a, b, _| a / (b | 1));
    check64(&divide("rem.u64"), |a, b, _| a % (b | 1));
    check64(&divide("div.s64"), |a, b, _| (a as i64).wrapping_div((b | 1) as i64) as u64);
    check64(&divide("rem.s64"), |a, b, _| (a as i64).wrapping_rem((b | 1) as i64) as u64);
}

#[test]
fn logic_and_shifts() {
    check32("and.b32 %r20, %r10, %r11;", |a, b, _| a & b);
    check32("or.b32 %r20, %r10, %r11;", |a, b, _| a | b);
    check32("xor.b32 %r20, %r10, %r11;", |a, b, _| a ^ b);
    check32("not.b32 %r20, %r10;", |a, _, _| !a);
    check32("neg.s32 %r20, %r10;", |a, _, _| 0u32.wrapping_sub(a));
    check32("abs.s32 %r20, %r10;", |a, _, _| (a as i32).unsigned_abs());
    check32("cnot.b32 %r20, %r10;", |a, _, _| u32::from(a == 0));
    check32("popc.b32 %r20, %r10;", |a, _, _| (0..32).map(|i| (a >> i) & 1).sum());
    check32("clz.b32 %r20, %r10;", |a, _, _| (0..32).rev().take_while(|i| (a >> i) & 1 == 0).count() as u32);
    check32("brev.b32 %r20, %r10;", |a, _, _| (0..32).fold(0, |all, i| all | (((a >> i) & 1) << (31 - i))));
    let top = |a: u64| (0..64).rev().find(|i| (a >> i) & 1 == 1).unwrap_or(u32::MAX);
    check32("bfind.u32 %r20, %r10;", |a, _, _| top(a as u64));
    check32("bfind.s32 %r20, %r10;", |a, _, _| top(if (a as i32) < 0 { !a as u64 } else { a as u64 }));
    check32("bfind.shiftamt.u32 %r20, %r10;", |a, _, _| if a == 0 { u32::MAX } else { 31 - top(a.into()) });
    check32("shl.b32 %r20, %r10, %r11;", |a, b, _| if b > 31 { 0 } else { a << b });
    check32("shr.u32 %r20, %r10, %r11;", |a, b, _| if b > 31 { 0 } else { a >> b });
    check32("shr.s32 %r20, %r10, %r11;", |a, b, _| ((a as i32 as i64) >> b.min(32)) as u32);
    check32("shf.l.wrap.b32 %r20, %r10, %r11, %r12;", |a, b, c| {
        ((((b as u64) << 32 | a as u64) << (c & 31)) >> 32) as u32
    });
    check32("shf.l.clamp.b32 %r20, %r10, %r11, %r12;", |a, b, c| {
        ((((b as u64) << 32 | a as u64) << c.min(32)) >> 32) as u32
    });
    check32("shf.r.wrap.b32 %r20, %r10, %r11, %r12;", |a, b, c| {
        (((b as u64) << 32 | a as u64) >> (c & 31)) as u32
    });
    check32("shf.r.clamp.b32 %r20, %r10, %r11, %r12;", |a, b, c| {
        (((b as u64) << 32 | a as u64) >> c.min(32)) as u32
    });
    for lut in [0x00u32, 0x80, 0xE8, 0x96, 0xCA, 0x6A, 0xFF] {
        check32(&format!("lop3.b32 %r20, %r10, %r11, %r12, {lut};"), |a, b, c| {
            (0..32).fold(0, |all, i| {
                let index = ((a >> i) & 1) << 2 | ((b >> i) & 1) << 1 | ((c >> i) & 1);
                all | (((lut >> index) & 1) << i)
            })
        });
    }
}

#[test]
fn wide_products_and_64_bits() {
    check64("mul.wide.u32 %rd20, %r10, %r11;", |a, b, _| u64::from(a as u32) * u64::from(b as u32));
    check64("mul.wide.s32 %rd20, %r10, %r11;", |a, b, _| (a as i32 as i64 * b as i32 as i64) as u64);
    check64("mad.wide.u32 %rd20, %r10, %r11, %rd12;", |a, b, c| {
        (u64::from(a as u32) * u64::from(b as u32)).wrapping_add(c)
    });
    check64("mad.wide.s32 %rd20, %r10, %r11, %rd12;", |a, b, c| {
        ((a as i32 as i64 * b as i32 as i64) as u64).wrapping_add(c)
    });
    check64("mad.lo.s64 %rd20, %rd10, %rd11, %rd12;", |a, b, c| a.wrapping_mul(b).wrapping_add(c));
    check64("add.s64 %rd20, %rd10, %rd11;", |a, b, _| a.wrapping_add(b));
    check64("sub.s64 %rd20, %rd10, %rd11;", |a, b, _| a.wrapping_sub(b));
    check64("mul.lo.s64 %rd20, %rd10, %rd11;", |a, b, _| a.wrapping_mul(b));
    check64("mul.hi.u64 %rd20, %rd10, %rd11;", |a, b, _| ((a as u128 * b as u128) >> 64) as u64);
    check64("mul.hi.s64 %rd20, %rd10, %rd11;", |a, b, _| {
        ((a as i64 as i128 * b as i64 as i128) >> 64) as u64
    });
    check64("min.s64 %rd20, %rd10, %rd11;", |a, b, _| (a as i64).min(b as i64) as u64);
    check64("max.s64 %rd20, %rd10, %rd11;", |a, b, _| (a as i64).max(b as i64) as u64);
    check64("min.u64 %rd20, %rd10, %rd11;", |a, b, _| a.min(b));
    check64("max.u64 %rd20, %rd10, %rd11;", |a, b, _| a.max(b));
    check64("and.b64 %rd20, %rd10, %rd11;", |a, b, _| a & b);
    check64("or.b64 %rd20, %rd10, %rd11;", |a, b, _| a | b);
    check64("xor.b64 %rd20, %rd10, %rd11;", |a, b, _| a ^ b);
    check64("not.b64 %rd20, %rd10;", |a, _, _| !a);
    check64("neg.s64 %rd20, %rd10;", |a, _, _| 0u64.wrapping_sub(a));
    check64("abs.s64 %rd20, %rd10;", |a, _, _| (a as i64).unsigned_abs());
    check64("cnot.b64 %rd20, %rd10;", |a, _, _| u64::from(a == 0));
    check64("brev.b64 %rd20, %rd10;", |a, _, _| (0..64).fold(0, |all, i| all | (((a >> i) & 1) << (63 - i))));
    check64("shl.b64 %rd20, %rd10, %r11;", |a, b, _| if b as u32 > 63 { 0 } else { a << (b as u32) });
    check64("shr.u64 %rd20, %rd10, %r11;", |a, b, _| if b as u32 > 63 { 0 } else { a >> (b as u32) });
    check64("shr.s64 %rd20, %rd10, %r11;", |a, b, _| ((a as i64 as i128) >> (b as u32).min(64)) as u64);
    check64("popc.b64 %r20, %rd10;\ncvt.u64.u32 %rd20, %r20;", |a, _, _| (0..64).map(|i| (a >> i) & 1).sum());
    check64("clz.b64 %r20, %rd10;\ncvt.u64.u32 %rd20, %r20;", |a, _, _| {
        (0..64).rev().take_while(|i| (a >> i) & 1 == 0).count() as u64
    });
    let top = |a: u64| u64::from((0..64).rev().find(|i| (a >> i) & 1 == 1).unwrap_or(u32::MAX));
    check64("bfind.u64 %r20, %rd10;\ncvt.u64.u32 %rd20, %r20;", |a, _, _| top(a));
    check64("bfind.s64 %r20, %rd10;\ncvt.u64.u32 %rd20, %r20;", |a, _, _| {
        top(if (a as i64) < 0 { !a } else { a })
    });
}

#[test]
fn sixteen_bits() {
    let h = |op: &str| {
        format!(
            "cvt.u16.u32 %h0, %r10;\ncvt.u16.u32 %h1, %r11;\ncvt.u16.u32 %h2, %r12;\n{op}\ncvt.u32.u16 %r20, %h3;"
        )
    };
    let s = |x: u32| i32::from(x as u16 as i16);
    check32(&h("add.s16 %h3, %h0, %h1;"), |a, b, _| u32::from((a as u16).wrapping_add(b as u16)));
    check32(&h("sub.s16 %h3, %h0, %h1;"), |a, b, _| u32::from((a as u16).wrapping_sub(b as u16)));
    check32(&h("mul.lo.s16 %h3, %h0, %h1;"), |a, b, _| u32::from((a as u16).wrapping_mul(b as u16)));
    check32(&h("mul.hi.u16 %h3, %h0, %h1;"), |a, b, _| ((a & 0xFFFF) * (b & 0xFFFF)) >> 16);
    check32(&h("mul.hi.s16 %h3, %h0, %h1;"), |a, b, _| ((s(a) * s(b)) >> 16) as u32 & 0xFFFF);
    check32(&h("mad.lo.s16 %h3, %h0, %h1, %h2;"), |a, b, c| {
        u32::from((a as u16).wrapping_mul(b as u16).wrapping_add(c as u16))
    });
    check32(&h("min.s16 %h3, %h0, %h1;"), |a, b, _| s(a).min(s(b)) as u32 & 0xFFFF);
    check32(&h("max.s16 %h3, %h0, %h1;"), |a, b, _| s(a).max(s(b)) as u32 & 0xFFFF);
    check32(&h("min.u16 %h3, %h0, %h1;"), |a, b, _| (a & 0xFFFF).min(b & 0xFFFF));
    check32(&h("max.u16 %h3, %h0, %h1;"), |a, b, _| (a & 0xFFFF).max(b & 0xFFFF));
    check32(&h("and.b16 %h3, %h0, %h1;"), |a, b, _| a & b & 0xFFFF);
    check32(&h("or.b16 %h3, %h0, %h1;"), |a, b, _| (a | b) & 0xFFFF);
    check32(&h("xor.b16 %h3, %h0, %h1;"), |a, b, _| (a ^ b) & 0xFFFF);
    check32(&h("not.b16 %h3, %h0;"), |a, _, _| !a & 0xFFFF);
    check32(&h("neg.s16 %h3, %h0;"), |a, _, _| a.wrapping_neg() & 0xFFFF);
    check32(&h("abs.s16 %h3, %h0;"), |a, _, _| s(a).unsigned_abs() & 0xFFFF);
    check32(&h("shl.b16 %h3, %h0, %r11;"), |a, b, _| if b > 15 { 0 } else { (a << b) & 0xFFFF });
    check32(&h("shr.u16 %h3, %h0, %r11;"), |a, b, _| if b > 15 { 0 } else { (a & 0xFFFF) >> b });
    check32(&h("shr.s16 %h3, %h0, %r11;"), |a, b, _| (s(a) >> b.min(31)) as u32 & 0xFFFF);
    check32(
        &h("mul.wide.u16 %r20, %h0, %h1;\nmov.u16 %h3, 0;").replace("cvt.u32.u16 %r20, %h3;", ""),
        |a, b, _| (a & 0xFFFF) * (b & 0xFFFF),
    );
    check32(&h("mul.wide.s16 %r20, %h0, %h1;").replace("cvt.u32.u16 %r20, %h3;", ""), |a, b, _| {
        (s(a) * s(b)) as u32
    });
    check32(&h("mad.wide.s16 %r20, %h0, %h1, %r12;").replace("cvt.u32.u16 %r20, %h3;", ""), |a, b, c| {
        ((s(a) * s(b)) as u32).wrapping_add(c)
    });
}

#[test]
fn bit_fields() {
    // Position and length are the low bytes.
    let field = |a: u64, width: u32, pos: u32, len: u32, signed: bool| {
        let (pos, len) = (pos & 255, len & 255);
        let bit = |i: u32| (a >> i) & 1;
        let sign = if !signed || len == 0 { 0 } else { bit((pos + len - 1).min(width - 1)) };
        (0..width).fold(0u64, |all, i| {
            let b = if i < len && pos + i < width { bit(pos + i) } else { sign };
            all | (b << i)
        })
    };
    let set = |a: u64, b: u64, width: u32, pos: u32, len: u32| {
        let (pos, len) = (pos & 255, len & 255);
        (0..len)
            .take_while(|i| pos + i < width)
            .fold(b, |all, i| (all & !(1 << (pos + i))) | (((a >> i) & 1) << (pos + i)))
    };
    check32("bfe.u32 %r20, %r10, %r11, %r12;", |a, b, c| field(a.into(), 32, b, c, false) as u32);
    check32("bfe.s32 %r20, %r10, %r11, %r12;", |a, b, c| field(a.into(), 32, b, c, true) as u32);
    check64("bfe.u64 %rd20, %rd10, %r11, %r12;", |a, b, c| field(a, 64, b as u32, c as u32, false));
    check64("bfe.s64 %rd20, %rd10, %r11, %r12;", |a, b, c| field(a, 64, b as u32, c as u32, true));
    for (pos, len) in [(0, 0), (0, 32), (5, 7), (28, 8), (31, 1), (32, 4), (3, 255), (300, 2)] {
        check32(&format!("bfi.b32 %r20, %r10, %r11, {pos}, {len};"), |a, b, _| {
            set(a.into(), b.into(), 32, pos, len) as u32
        });
        check64(&format!("bfi.b64 %rd20, %rd10, %rd11, {pos}, {len};"), |a, b, _| set(a, b, 64, pos, len));
    }
}

#[test]
fn permutes_and_dot_products() {
    check32("prmt.b32 %r20, %r10, %r11, %r12;", |a, b, c| {
        let bytes = [a.to_le_bytes(), b.to_le_bytes()].concat();
        (0..4).fold(0, |all, i| {
            let select = (c >> (4 * i)) & 15;
            let byte = bytes[(select & 7) as usize];
            let byte = if select & 8 != 0 { ((byte as i8) >> 7) as u8 } else { byte };
            all | (u32::from(byte) << (8 * i))
        })
    });
    for (a_kind, b_kind) in [("s32", "s32"), ("s32", "u32"), ("u32", "s32"), ("u32", "u32")] {
        let byte = |x: u32, i: usize, kind: &str| {
            let byte = x.to_le_bytes()[i];
            if kind == "s32" { i64::from(byte as i8) } else { i64::from(byte) }
        };
        check32(&format!("dp4a.{a_kind}.{b_kind} %r20, %r10, %r11, %r12;"), |a, b, c| {
            let sum: i64 = (0..4).map(|i| byte(a, i, a_kind) * byte(b, i, b_kind)).sum();
            (sum + i64::from(c)) as u32
        });
        let half = |x: u32, i: u32| {
            let half = (x >> (16 * i)) as u16;
            if a_kind == "s32" { i64::from(half as i16) } else { i64::from(half) }
        };
        for (part, first) in [("lo", 0), ("hi", 2)] {
            check32(&format!("dp2a.{part}.{a_kind}.{b_kind} %r20, %r10, %r11, %r12;"), |a, b, c| {
                let sum = half(a, 0) * byte(b, first, b_kind) + half(a, 1) * byte(b, first + 1, b_kind);
                (sum + i64::from(c)) as u32
            });
        }
    }
}
