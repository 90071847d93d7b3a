use super::*;
use crate::Frame;
use crate::prepare::Preparation;

/// Statistics and quality of a picture that is as usual as can be.
fn usual() -> (Statistics, Quality) {
    let statistics = Statistics {
        colour: 0.0,
        likeness: 0.96,
        span: 0.8,
        prominence: 0.9,
        thickness: 0.2,
        white: 0.0,
        above: 0.2,
        below: 0.1,
        jump: 2.0,
        dark: 0.8,
        band: 120.0,
        ground: 20.0,
    };
    (statistics, Quality { contrast: 20.0, clipped: 0.0, grade: Grade::Good })
}

fn judge(logits: [f32; 4], statistics: &Statistics, quality: Quality, distance: f32) -> Diagnosis {
    let calibration = Calibration { temperature: 2.0, threshold: 0.6 };
    Diagnosis::judge(&calibration, &GateLimits { limit: Some(5.0) }, logits, statistics, quality, distance)
}

#[test]
fn temperature_flattens_and_probabilities_sum_to_one() {
    let p = softmax([4.0, 0.0, 0.0, 0.0], 2.0);
    assert!((p[0] - 2f32.exp() / (2f32.exp() + 3.0)).abs() < 1e-6);
    assert!((p.iter().sum::<f32>() - 1.0).abs() < 1e-6);
    assert_eq!(softmax([1e30, 0.0, 0.0, -1e30], 1.0), [1.0, 0.0, 0.0, 0.0]);
}

#[test]
fn each_class_has_its_referral() {
    let (statistics, quality) = usual();
    for (i, referral) in ["urgent", "urgent", "routine", "observe"].into_iter().enumerate() {
        let mut logits = [0.0; 4];
        logits[i] = 9.0;
        let d = judge(logits, &statistics, quality, 1.0);
        assert_eq!((d.finding.name(), d.finding.referral().name()), (Class::ALL[i].name(), referral));
        assert!(d.reason.is_empty() && d.confidence() > 0.9);
    }
}

#[test]
fn what_is_not_sure_or_strange_is_not_published() {
    let (statistics, quality) = usual();
    let d = judge([1.0, 0.9, 0.0, 0.0], &statistics, quality, 1.0);
    assert_eq!(
        (d.finding, d.class, d.finding.referral()),
        (Finding::Uncertain, Class::Cnv, Referral::Repeat)
    );
    assert!(d.reason.contains("CNV at") && d.reason.contains("60 %"), "{}", d.reason);
    let d = judge([f32::NAN; 4], &statistics, quality, 1.0);
    assert_eq!(d.finding, Finding::Uncertain);
    for distance in [5.1, f32::NAN] {
        let d = judge([9.0, 0.0, 0.0, 0.0], &statistics, quality, distance);
        assert_eq!((d.finding, d.finding.referral()), (Finding::NotOct, Referral::Repeat));
        assert!(d.reason.contains("limit 5.0"), "{}", d.reason);
    }
    let strange = Statistics { colour: 0.5, ..statistics.clone() };
    assert_eq!(judge([9.0, 0.0, 0.0, 0.0], &strange, quality, 1.0).reason, "no OCT B-scan: it is coloured");
    let lost = Statistics { likeness: f32::NAN, ..statistics };
    assert_eq!(judge([9.0, 0.0, 0.0, 0.0], &lost, quality, 1.0).finding, Finding::NotOct);
}

#[test]
fn poor_pictures_say_so() {
    let (statistics, _) = usual();
    let quality = Quality { contrast: 2.0, clipped: 0.2, grade: Grade::Poor };
    let d = judge([9.0, 0.0, 0.0, 0.0], &statistics, quality, 1.0);
    assert_eq!(d.finding, Finding::Class(Class::Cnv));
    assert!(d.reason.contains("clipped") && d.reason.contains("take the picture again"), "{}", d.reason);
}

#[test]
fn colour_counts_inside_the_region_only() {
    let picture = image::RgbImage::from_fn(200, 100, |x, _| {
        if x < 100 { image::Rgb([200, 20, 20]) } else { image::Rgb([90, 90, 90]) }
    });
    let mut bytes = Vec::new();
    picture.write_to(&mut std::io::Cursor::new(&mut bytes), image::ImageFormat::Png).unwrap();
    let frame = Frame::decode(&bytes, std::path::Path::new("screen.png")).unwrap();
    let region = crate::prepare::Region { x: 100, y: 0, width: 100, height: 100 };
    for (region, share) in [(None, 0.5), (Some(region), 0.0)] {
        let input = Preparation::default().prepare(&frame, region).unwrap().whole;
        assert_eq!(Statistics::measure(&frame, region, &input).colour, share);
    }
}
