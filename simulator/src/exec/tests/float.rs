//! Floats, conversions and comparisons.

use super::table::each;

type Rounding = fn(f64) -> f64;
type Word = fn(u32) -> u32;
type Compare<T> = fn(T, T) -> bool;

const FLOATS: [f32; 16] = [
    0.0,
    -0.0,
    1.0,
    -1.5,
    0.5,
    2.5,
    -2.5,
    3.5,
    127.6,
    -129.0,
    1e-40,
    65_519.9,
    3e9,
    -1e20,
    f32::INFINITY,
    f32::NAN,
];

/// Runs `body` on all pairs (and a fixed third operand); a NaN equals any NaN.
fn check(body: &str, want: impl Fn(f32, f32, f32) -> f32) {
    let rows: Vec<[u64; 3]> = FLOATS
        .iter()
        .flat_map(|a| FLOATS.iter().map(|b| [*a, *b, 0.75].map(|v| u64::from(v.to_bits()))))
        .collect();
    for (row, got) in rows.iter().zip(each(body, false, &rows)) {
        let [a, b, c] = row.map(|v| f32::from_bits(v as u32));
        let (got, want) = (f32::from_bits(got as u32), want(a, b, c));
        let same = got.to_bits() == want.to_bits() || (got.is_nan() && want.is_nan());
        assert!(same, "{body}: {a}, {b}, {c}: {got}, not {want}");
    }
}

#[test]
fn float_arithmetic() {
    check("add.rn.f32 %r20, %r10, %r11;", |a, b, _| a + b);
    check("sub.f32 %r20, %r10, %r11;", |a, b, _| a - b);
    check("mul.f32 %r20, %r10, %r11;", |a, b, _| a * b);
    check("div.rn.f32 %r20, %r10, %r11;", |a, b, _| a / b);
    // Exact in f64 up to one rounding, apart from values whose sum needs more than 53 bits: none are here.
    check("fma.rn.f32 %r20, %r10, %r11, %r12;", |a, b, c| {
        (f64::from(a) * f64::from(b) + f64::from(c)) as f32
    });
    check("rcp.rn.f32 %r20, %r10;", |a, _, _| 1.0 / a);
    check("sqrt.rn.f32 %r20, %r10;", |a, _, _| a.sqrt());
    check("neg.f32 %r20, %r10;", |a, _, _| -a);
    check("abs.f32 %r20, %r10;", |a, _, _| a.abs());
    let pick = |a: f32, b: f32, less: bool| match (a.is_nan(), b.is_nan()) {
        (true, _) => b,
        (_, true) => a,
        // -0 is less than +0.
        _ => {
            let first = a < b || (a == b && a.to_bits() >> 31 == 1);
            if first == less { a } else { b }
        }
    };
    check("min.f32 %r20, %r10, %r11;", |a, b, _| pick(a, b, true));
    check("max.f32 %r20, %r10, %r11;", |a, b, _| pick(a, b, false));
    let nan = |a: f32, b: f32| a.is_nan() || b.is_nan();
    check("min.NaN.f32 %r20, %r10, %r11;", |a, b, _| if nan(a, b) { f32::NAN } else { pick(a, b, true) });
    check("max.NaN.f32 %r20, %r10, %r11;", |a, b, _| if nan(a, b) { f32::NAN } else { pick(a, b, false) });
    let unit = |v: f32| if v > 0.0 { v.min(1.0) } else { 0.0 };
    check("add.sat.f32 %r20, %r10, %r11;", |a, b, _| unit(a + b));
    let ftz = |v: f32| if v.abs() < f32::MIN_POSITIVE { 0f32.copysign(v) } else { v };
    check("mul.ftz.f32 %r20, %r10, %r11;", |a, b, _| ftz(ftz(a) * ftz(b)));
}

#[test]
fn transcendental_functions_at_known_points() {
    let cases: [(&str, f32, f32); 9] = [
        ("ex2.approx.f32", 3.0, 8.0),
        ("ex2.approx.f32", -1.0, 0.5),
        ("ex2.approx.f32", f32::NEG_INFINITY, 0.0),
        ("lg2.approx.f32", 0.125, -3.0),
        ("rsqrt.approx.f32", 0.25, 2.0),
        ("rcp.approx.f32", 4.0, 0.25),
        ("sin.approx.f32", 0.0, 0.0),
        ("cos.approx.f32", 0.0, 1.0),
        ("tanh.approx.f32", 20.0, 1.0),
    ];
    for (op, x, want) in cases {
        let got = each(&format!("{op} %r20, %r10;"), false, &[[u64::from(x.to_bits()), 0, 0]]);
        assert_eq!(f32::from_bits(got[0] as u32), want, "{op} {x}");
    }
}

#[test]
fn float_to_integer_roundings_clamp() {
    let round: [(&str, Rounding); 4] =
        [("rni", f64::round_ties_even), ("rzi", f64::trunc), ("rmi", f64::floor), ("rpi", f64::ceil)];
    let rows: Vec<[u64; 3]> = FLOATS.iter().map(|v| [u64::from(v.to_bits()), 0, 0]).collect();
    for (name, round) in round {
        for (kind, low, high) in
            [("s32", -2_147_483_648.0, 2_147_483_647.0), ("u32", 0.0, 4_294_967_295.0), ("s8", -128.0, 127.0)]
        {
            let got = each(&format!("cvt.{name}.{kind}.f32 %r20, %r10;"), false, &rows);
            for (x, got) in FLOATS.iter().zip(got) {
                let want = if x.is_nan() { 0.0 } else { round(f64::from(*x)).clamp(low, high) };
                assert_eq!(got as u32, want as i64 as u32, "cvt.{name}.{kind}.f32 {x}");
            }
        }
        let got = each(&format!("cvt.{name}.f32.f32 %r20, %r10;"), false, &rows);
        for (x, got) in FLOATS.iter().zip(got) {
            let want = round(f64::from(*x)) as f32;
            assert!(got as u32 == want.to_bits() || x.is_nan(), "cvt.{name}.f32.f32 {x}");
        }
    }
}

#[test]
fn integer_conversions_extend_cut_and_saturate() {
    let values = [
        0u64,
        1,
        127,
        128,
        255,
        256,
        32767,
        32768,
        0xFFFF,
        0x7FFF_FFFF,
        0x8000_0000,
        0xFFFF_FF80,
        0xFFFF_FFFF,
    ];
    let rows = values.map(|v| [v, 0, 0]);
    let cases: &[(&str, Word)] = &[
        ("cvt.s32.s8", |v| v as u8 as i8 as u32),
        ("cvt.u32.u8", |v| v & 255),
        ("cvt.s32.s16", |v| v as u16 as i16 as u32),
        ("cvt.u32.u16", |v| v & 0xFFFF),
        ("cvt.sat.s8.s32", |v| (v as i32).clamp(-128, 127) as u32),
        ("cvt.sat.u8.s32", |v| (v as i32).clamp(0, 255) as u32),
        ("cvt.sat.u8.u32", |v| v.min(255)),
        ("cvt.sat.s16.s32", |v| (v as i32).clamp(-32768, 32767) as u32),
        ("cvt.sat.u32.s32", |v| (v as i32).max(0) as u32),
        ("cvt.rn.f32.s32", |v| (v as i32 as f32).to_bits()),
        ("cvt.rn.f32.u32", |v| (v as f32).to_bits()),
        ("cvt.rn.f32.s8", |v| f32::from(v as u8 as i8).to_bits()),
        ("cvt.rn.f32.u8", |v| f32::from(v as u8).to_bits()),
        ("cvt.rn.f32.u16", |v| f32::from(v as u16).to_bits()),
    ];
    for (op, want) in cases {
        for (v, got) in values.iter().zip(each(&format!("{op} %r20, %r10;"), false, &rows)) {
            assert_eq!(got as u32, want(*v as u32), "{op} {v:#x}");
        }
    }
    for (v, got) in values.iter().zip(each("cvt.s64.s32 %rd20, %r10;", true, &rows)) {
        assert_eq!(got, *v as u32 as i32 as i64 as u64);
    }
    for (v, got) in values.iter().zip(each("cvt.u64.u32 %rd20, %r10;", true, &rows)) {
        assert_eq!(got, *v);
    }
}

#[test]
fn comparisons_and_selections() {
    let ints: &[(&str, Compare<u32>)] = &[
        ("eq.s32", |a, b| a == b),
        ("ne.s32", |a, b| a != b),
        ("lt.s32", |a, b| (a as i32) < b as i32),
        ("le.s32", |a, b| a as i32 <= b as i32),
        ("gt.s32", |a, b| a as i32 > b as i32),
        ("ge.s32", |a, b| a as i32 >= b as i32),
        ("lo.u32", |a, b| a < b),
        ("ls.u32", |a, b| a <= b),
        ("hi.u32", |a, b| a > b),
        ("hs.u32", |a, b| a >= b),
    ];
    let edges = [0u64, 1, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF];
    let rows: Vec<[u64; 3]> = edges.iter().flat_map(|a| edges.map(|b| [*a, b, 0])).collect();
    for (op, want) in ints {
        let body = format!("setp.{op} %p1, %r10, %r11;\nselp.b32 %r20, 7, 9, %p1;");
        for (row, got) in rows.iter().zip(each(&body, false, &rows)) {
            assert_eq!(got, if want(row[0] as u32, row[1] as u32) { 7 } else { 9 }, "{op} {row:?}");
        }
    }
    let floats: &[(&str, Compare<f32>)] = &[
        ("eq", |a, b| a == b),
        ("ne", |a, b| a != b && !a.is_nan() && !b.is_nan()),
        ("lt", |a, b| a < b),
        ("le", |a, b| a <= b),
        ("gt", |a, b| a > b),
        ("ge", |a, b| a >= b),
        ("equ", |a, b| a == b || a.is_nan() || b.is_nan()),
        ("neu", |a, b| a != b),
        ("ltu", |a, b| a < b || a.is_nan() || b.is_nan()),
        ("leu", |a, b| a <= b || a.is_nan() || b.is_nan()),
        ("gtu", |a, b| a > b || a.is_nan() || b.is_nan()),
        ("geu", |a, b| a >= b || a.is_nan() || b.is_nan()),
        ("num", |a, b| !a.is_nan() && !b.is_nan()),
        ("nan", |a, b| a.is_nan() || b.is_nan()),
    ];
    for (op, want) in floats {
        let body = format!("setp.{op}.f32 %p1, %r10, %r11;\nselp.f32 %r20, 0f3F800000, 0f00000000, %p1;");
        check(&body, |a, b, _| if want(a, b) { 1.0 } else { 0.0 });
    }
    // Both results of setp, each combined with a predicate.
    let body = "setp.lt.u32 %p1, %r11, 2;\nsetp.lt.and.s32 %p2|%p3, %r10, %r11, %p1;\n\
                selp.b32 %r13, 1, 0, %p2;\nselp.b32 %r14, 2, 0, %p3;\nor.b32 %r20, %r13, %r14;";
    for (row, got) in rows.iter().zip(each(body, false, &rows)) {
        let (a, b) = (row[0] as u32 as i32, row[1] as u32 as i32);
        let want = if row[1] >= 2 {
            0
        } else if a < b {
            1
        } else {
            2
        };
        assert_eq!(got, want, "{row:?}");
    }
}

#[test]
fn floats_of_the_requantisation() {
    check("mul.rn.f32 %r20, %r10, %r11;", |a, b, _| a * b);
    check("mov.f32 %r20, %r11;", |_, b, _| b);
    check("sub.rn.f32 %r20, %r10, %r11;", |a, b, _| a - b);
    check("cvt.sat.f32.f32 %r20, %r10;", |a, _, _| if a > 0.0 { a.min(1.0) } else { 0.0 });
}
