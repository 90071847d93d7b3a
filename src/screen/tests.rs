use super::*;
use image::ImageEncoder;
use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use std::path::Path;

const SIZES: [(u32, u32); 3] = [(480, 320), (1280, 720), (1920, 1080)];

/// A retina in flat bands: what a phantom or a real scan has in speckle would make the golden pictures large.
fn scan() -> Frame {
    const BANDS: [(i32, u8); 8] =
        [(-95, 165), (-84, 110), (-56, 84), (-46, 100), (-38, 60), (-20, 150), (-15, 95), (-10, 200)];
    let pixels = (0..248 * 384)
        .map(|i| {
            let (x, y) = (i % 384 * 2 - 384, i / 384 * 2);
            let bruch = 300 - x * x / 3600;
            let pit = 34 - (x * x / 90).min(34);
            let depth = y - bruch;
            // The inner layers give way in the pit; below lies the choroid, paler with depth.
            let band = BANDS
                .iter()
                .rev()
                .find(|(top, _)| depth >= *top + if *top < -38 { pit * (-38 - *top) / 57 } else { 0 });
            match band {
                None => 12,
                Some(_) if depth >= 0 => (90 - depth / 6 * 3).max(12) as u8,
                Some((_, grey)) => *grey,
            }
        })
        .collect();
    Frame::new(384, 248, pixels, "synthetic").unwrap()
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
        place: Region::whole(frame),
        lit: None,
        map,
        finding: "CNV",
        probabilities,
        referral,
        quality: "good",
        reason,
        age: Duration::from_secs(3),
        engine: "tract",
        note: "",
        millis: 212.0,
    };
    View { state, shown: Some(shown), model: "oct-inception-v3 0.1.0", strip: Strip::default() }
}

/// Items that do not lie on the screen with all of their box.
fn astray(screen: &Screen) -> usize {
    let all = screen.picture.bounding_box();
    screen.items.iter().filter(|item| item.rect().intersection(&all).size != item.rect().size).count()
}

#[test]
fn golden_pictures() {
    let (frame, map) = (scan(), map());
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let got_folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/golden");
    let bless = std::env::var_os("FOVEA_BLESS").is_some();
    let mut wrong = Vec::new();
    for (w, h) in SIZES {
        let mut views: Vec<_> =
            states().into_iter().map(|(name, state)| (name, view(state, &frame, &map))).collect();
        let mut held = view(State::Finding, &frame, &map);
        held.strip.eye = Some(Eye::Od);
        held.strip.frozen = Some("FROZEN 14:03:22 UTC".into());
        held.strip.status = "signal lost · heatmap off · sound off".into();
        if let Some(shown) = &mut held.shown {
            shown.map = None;
        }
        views.push(("frozen", held));
        for (name, view) in views {
            let mut screen = Screen::new(w, h);
            screen.draw(&view);
            assert_eq!(
                (screen.clipped, astray(&screen)),
                (0, 0),
                "{name} at {w}x{h}: type or drawing leaves its box"
            );
            let file = format!("{name}-{w}x{h}.png");
            let save = |folder: &Path| {
                std::fs::create_dir_all(folder).unwrap();
                let to = std::fs::File::create(folder.join(&file)).unwrap();
                PngEncoder::new_with_quality(to, CompressionType::Best, FilterType::Adaptive)
                    .write_image(screen.rgb(), w, h, image::ExtendedColorType::Rgb8)
                    .unwrap();
            };
            if bless {
                save(&folder);
            } else if !image::open(folder.join(&file))
                .is_ok_and(|want| want.to_rgb8().as_raw() == screen.rgb())
            {
                save(&got_folder);
                wrong.push(file);
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:?} differ from tests/golden; see target/golden, FOVEA_BLESS=1 accepts");
}

/// With every finding, at every size, in its box.
#[test]
fn a_note_on_the_engine_is_shown() {
    let (frame, map) = (scan(), map());
    let note = "GPU off: the device did not answer within 500ms; it is given up";
    for (w, h) in SIZES {
        let mut view = view(State::Finding, &frame, &map);
        let mut without = Screen::new(w, h);
        without.draw(&view);
        if let Some(shown) = &mut view.shown {
            shown.note = note;
        }
        let mut screen = Screen::new(w, h);
        screen.draw(&view);
        assert_eq!((screen.clipped, astray(&screen)), (0, 0), "{w}x{h}");
        let told = |item: &Item| matches!(item, Item::Paragraph { text, .. } if text == note);
        assert!(screen.items.iter().any(told) && screen.rgb() != without.rgb(), "{w}x{h}");
    }
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
                view.strip = Strip { eye: Some(Eye::Os), frozen: Some(long.clone()), status: long.clone() };
                if let Some(shown) = &mut view.shown {
                    (shown.reason, shown.finding, shown.quality, shown.engine, shown.note) =
                        (&long, "DRUSEN", &long, &long, &long);
                    (shown.referral, shown.probabilities, shown.millis) =
                        (referral, [f32::NAN, 1.0, 1.0, 7.0], 99_999.0);
                }
                let mut screen = Screen::new(w, h);
                screen.draw(&view);
                assert_eq!((screen.clipped, astray(&screen)), (0, 0), "{state:?} at {w}x{h}");
            }
        }
    }
}

/// Whatever was on a screen before, and whatever of the view changed: it shows what a fresh one shows.
#[test]
fn a_screen_that_remembers_shows_the_same() {
    let (frame, map) = (scan(), map());
    let mut other = frame.pixels().to_vec();
    other.reverse();
    let other = Frame::new(400, 238, other[..400 * 238].to_vec(), "other").unwrap();
    let cold = [0.25; 64];
    for (w, h) in [(480, 320), (1280, 800)] {
        let mut screen = Screen::new(w, h);
        let mut small_changes = 0;
        for round in 0..40usize {
            let (_, state) = states()[[2, 2, 2, 3, 2, 4, 0, 2, 5, 1][round % 10]].clone();
            let mut view = view(state, &frame, &map);
            if let Some(shown) = &mut view.shown {
                shown.age = Duration::from_secs(round as u64 * 7);
                shown.picture = if round % 3 == 0 { &other } else { &frame };
                shown.map = [None, Some(&map), Some(&cold)][round % 7 % 3];
                shown.finding = ["CNV", "DRUSEN", "NORMAL"][round % 5 % 3];
                shown.referral = [Referral::Urgent, Referral::Observe][round / 3 % 2];
                shown.probabilities = std::array::from_fn(|c| ((c * 5 + round) % 7) as f32 / 7.0);
                shown.reason =
                    ["", "few words", "so many words that they need more than one line of type"][round % 3];
            }
            let places = changed(
                &screen.items,
                &layout::compose(&view, Size::new(w, h)),
                screen.picture.bounding_box(),
            );
            small_changes += usize::from(places.iter().all(|place| place.size.height < h));
            screen.draw(&view);
            let mut fresh = Picture::new(w, h);
            draw(&view, &mut fresh).unwrap();
            assert!(screen.rgb() == fresh.rgb(), "round {round} at {w}x{h}");
            assert!(
                changed(&screen.items, &layout::compose(&view, Size::new(w, h)), fresh.bounding_box())
                    .is_empty()
            );
        }
        assert!(small_changes >= 10, "{small_changes} of 40 redrew a part only");
    }
}
