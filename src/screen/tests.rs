use super::*;
use std::path::Path;

const SIZES: [(u32, u32); 3] = [(480, 320), (1280, 720), (1920, 1080)];

fn scan() -> Frame {
    let pixels = (0..496u32 * 768)
        .map(|i| {
            let (x, y) = ((i % 768) as i32, (i / 768) as i32);
            let dip = (x - 384) * (x - 384) / 1200;
            let noise = (i.wrapping_mul(2_654_435_761) >> 27) as i32;
            let depth = y - 300 + dip / 3;
            (noise + if (-90 + dip / 4..60).contains(&depth) { 90 + (depth * 7 % 50).abs() } else { 8 })
                .clamp(0, 255) as u8
        })
        .collect();
    Frame::new(768, 496, pixels, "synthetic").unwrap()
}

fn map() -> [f32; 64] {
    std::array::from_fn(|i| {
        let (y, x) = ((i / 8) as f32 - 4.0, (i % 8) as f32 - 3.5);
        (1.0 - (x * x + y * y) / 7.0).max(0.0)
    })
}

fn states() -> Vec<(&'static str, State)> {
    vec![
        ("starting", State::Starting),
        ("waiting", State::Waiting),
        ("finding", State::Finding),
        ("uncertain", State::Uncertain),
        ("not-oct", State::NotOct),
        ("signal-lost", State::SignalLost("the source gives no sign of life; check the cable".into())),
        ("fault", State::Fault("the engine does not answer; restart the appliance".into())),
    ]
}

fn view<'a>(state: State, frame: &'a Frame, map: &'a [f32; 64]) -> View<'a> {
    let (referral, reason, map, probabilities) = match state {
        State::Uncertain => {
            (Referral::Repeat, "confidence below the threshold", Some(map), [0.1, 0.38, 0.33, 0.19])
        }
        State::NotOct => {
            (Referral::Repeat, "the picture is not like any B-scan of the training", None, [0.25; 4])
        }
        _ => (Referral::Urgent, "", Some(map), [0.964, 0.021, 0.011, 0.004]),
    };
    let shown = Shown {
        picture: frame,
        map,
        finding: "CNV",
        probabilities,
        referral,
        quality: "good",
        reason,
        age: Duration::from_secs(3),
        engine: "tract",
        millis: 212.0,
    };
    View { state, shown: Some(shown), model: "oct-inception-v3 0.1.0" }
}

#[test]
fn golden_pictures() {
    let (frame, map) = (scan(), map());
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let got_folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/golden");
    let bless = std::env::var_os("FOVEA_BLESS").is_some();
    let mut wrong = Vec::new();
    for (w, h) in SIZES {
        for (name, state) in states() {
            let mut picture = Picture::new(w, h);
            let clipped = paint(&view(state, &frame, &map), &mut picture).unwrap();
            assert_eq!(
                (clipped, picture.outside),
                (0, 0),
                "{name} at {w}x{h}: type or drawing leaves its box"
            );
            let file = format!("{name}-{w}x{h}.png");
            let save = |folder: &Path| {
                std::fs::create_dir_all(folder).unwrap();
                image::save_buffer(folder.join(&file), picture.rgb(), w, h, image::ExtendedColorType::Rgb8)
                    .unwrap();
            };
            if bless {
                save(&folder);
            } else if !image::open(folder.join(&file))
                .is_ok_and(|want| want.to_rgb8().as_raw() == picture.rgb())
            {
                save(&got_folder);
                wrong.push(file);
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:?} differ from tests/golden; see target/golden, FOVEA_BLESS=1 accepts");
}

#[test]
fn states_without_a_finding_show_none() {
    let (frame, map) = (scan(), map());
    for (name, state) in states() {
        let mut with = Picture::new(800, 480);
        let mut without = Picture::new(800, 480);
        let mut view = view(state.clone(), &frame, &map);
        draw(&view, &mut with).unwrap();
        view.shown = None;
        draw(&view, &mut without).unwrap();
        let has = matches!(state, State::Finding | State::Uncertain | State::NotOct);
        assert_eq!(with.rgb() != without.rgb(), has, "{name}");
    }
}

#[test]
fn long_words_stay_in_their_boxes_at_any_size() {
    let (frame, map) = (scan(), map());
    let long = "a very long reason that nobody would read ".repeat(20);
    for (w, h) in
        [(480, 320), (640, 480), (800, 480), (1024, 600), (1280, 800), (1080, 1080), (1920, 320), (480, 1080)]
    {
        for state in [State::Finding, State::Uncertain, State::Fault(long.clone())] {
            for referral in [Referral::Urgent, Referral::Routine, Referral::Observe, Referral::Repeat] {
                let mut view = view(state.clone(), &frame, &map);
                view.model = &long;
                if let Some(shown) = &mut view.shown {
                    (shown.reason, shown.finding, shown.quality, shown.engine) =
                        (&long, "DRUSEN", &long, &long);
                    (shown.referral, shown.probabilities, shown.millis) =
                        (referral, [f32::NAN, 1.0, 1.0, 7.0], 99_999.0);
                }
                let mut picture = Picture::new(w, h);
                let clipped = paint(&view, &mut picture).unwrap();
                assert_eq!((clipped, picture.outside), (0, 0), "{state:?} at {w}x{h}");
            }
        }
    }
}
