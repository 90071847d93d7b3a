//! Buttons pressed on a fake board, and what the screen then shows.

use super::*;
use fovea_board::{Beep, Button, FakeBoard, Timing};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};

const TAP: Duration = Duration::from_millis(60);
const HOLD: Duration = Duration::from_millis(900);
/// The colour of what is not as usual.
const HELD: [u8; 3] = [240, 190, 50];

/// Gives the pictures that the test sends; `None` silences it for ever.
struct Hand(Receiver<Option<u8>>);

impl Feed for Hand {
    fn run(&mut self, port: &Port) -> String {
        while let Ok(Some(value)) = self.0.recv_timeout(Duration::ZERO).or_else(|error| match error {
            std::sync::mpsc::RecvTimeoutError::Timeout => Ok(Some(0)),
            gone => Err(gone),
        }) {
            let go = if value == 0 {
                port.rest(Duration::from_millis(20))
            } else {
                port.give(frame(value, &format!("picture {value}")))
            };
            if !go {
                return String::new();
            }
        }
        loop {
            thread::park();
        }
    }
}

#[derive(Default)]
struct Seen {
    names: Vec<String>,
    rgb: Vec<u8>,
}

struct Glass(Arc<Mutex<Seen>>);

impl Display for Glass {
    fn show(&mut self, _: u32, _: u32, rgb: &[u8], keep: Option<&str>) -> Result<(), DisplayError> {
        let mut seen = self.0.lock().unwrap();
        seen.names.extend(keep.map(str::to_owned));
        seen.rgb = rgb.to_vec();
        Ok(())
    }

    fn watched(&self) -> bool {
        true
    }
}

/// A running appliance before the test's eyes and hands.
struct Rig {
    board: FakeBoard,
    pictures: Sender<Option<u8>>,
    seen: Arc<Mutex<Seen>>,
    lines: Arc<Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
    body: Option<thread::JoinHandle<()>>,
}

impl Rig {
    fn new() -> Self {
        let board = FakeBoard::new(Timing::default());
        let (pictures, inbox) = channel();
        let (seen, lines) = (Arc::<Mutex<Seen>>::default(), Arc::<Mutex<Vec<String>>>::default());
        let stop = Arc::new(AtomicBool::new(false));
        let body = {
            let (board, seen, lines, stop) =
                (board.clone(), Arc::clone(&seen), Arc::clone(&lines), Arc::clone(&stop));
            thread::spawn(move || {
                let config = config("");
                let mut plain = fake(&Arc::default());
                let warm: Classifier =
                    Box::new(move |frame| plain(frame).map(|reading| Reading { map: [1.0; 64], ..reading }));
                Appliance::new(&config, "m", warm)
                    .feed(Box::new(Hand(inbox)))
                    .buttons(Box::new(board.clone()))
                    .lights(Box::new(board))
                    .run(&mut Glass(seen), &stop, &mut |line| lines.lock().unwrap().push(line.into()))
                    .unwrap();
            })
        };
        Self { board, pictures, seen, lines, stop, body: Some(body) }
    }

    fn wait(&self, what: &str, mut there: impl FnMut(&Seen) -> bool) {
        let since = Instant::now();
        while !there(&self.seen.lock().unwrap()) {
            let lines = self.lines.lock().unwrap().clone();
            let names = self.seen.lock().unwrap().names.clone();
            assert!(since.elapsed() < Duration::from_secs(10), "never {what}: {names:?} {lines:?}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn shows(&self, name: &str) {
        self.wait(name, |seen| seen.names.last().is_some_and(|last| last == name));
    }

    fn says(&self, words: &str) {
        self.wait(words, |_| self.lines.lock().unwrap().iter().any(|line| line.contains(words)));
    }

    fn show(&self, value: u8) {
        self.pictures.send(Some(value)).unwrap();
    }

    fn names(&self) -> Vec<String> {
        self.seen.lock().unwrap().names.clone()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let end = self.body.take().unwrap().join();
        if !thread::panicking() {
            end.unwrap();
        }
    }
}

fn count(rgb: &[u8], test: impl Fn(&[u8]) -> bool) -> usize {
    rgb.chunks_exact(3).filter(|pixel| test(pixel)).count()
}

/// The upper bar, 24 rows of 480 pixels.
fn banner(seen: &Seen) -> usize {
    count(&seen.rgb[..480 * 24 * 3], |pixel| pixel == HELD)
}

#[test]
fn a_frozen_screen_says_so_and_what_came_meanwhile_is_shown_after_it_is_let_go() {
    let rig = Rig::new();
    rig.show(200);
    rig.shows("CNV");
    assert_eq!(banner(&rig.seen.lock().unwrap()), 0);
    rig.board.tap(Button::Capture, TAP);
    rig.shows("frozen");
    assert!(banner(&rig.seen.lock().unwrap()) > 2000, "the screen must say that it is not of now");
    rig.says("frozen at ");
    let before = rig.seen.lock().unwrap().rgb.clone();
    rig.show(10);
    // Longer than a finding lives without a source, and than a picture needs.
    thread::sleep(STALE + ROOM);
    let differ = before.iter().zip(&rig.seen.lock().unwrap().rgb).filter(|(a, b)| a != b).count();
    assert!(differ < 600, "{differ} bytes differ; only the picture's age may");
    rig.board.tap(Button::Capture, TAP);
    rig.shows("NORMAL");
    let names = rig.names();
    let frozen = names.iter().position(|name| name == "frozen").unwrap();
    assert_eq!(
        names[frozen..],
        ["frozen", "waiting", "NORMAL"],
        "the old finding never comes back as a new one"
    );
    assert_eq!(banner(&rig.seen.lock().unwrap()), 0);
}

#[test]
fn a_source_lost_behind_a_frozen_screen_is_said_there_and_shown_after_it() {
    let rig = Rig::new();
    rig.show(200);
    rig.shows("CNV");
    assert!(rig.board.lit().ready && !rig.board.lit().attention);
    rig.board.tap(Button::Capture, TAP);
    rig.shows("frozen");
    rig.pictures.send(None).unwrap();
    rig.says("signal lost: ");
    rig.wait("words at the lower edge", |seen| count(&seen.rgb[480 * 296 * 3..], |pixel| pixel == HELD) > 20);
    assert_eq!(rig.names().last().unwrap(), "frozen");
    assert!(rig.board.lit().attention && !rig.board.lit().ready);
    assert_eq!(rig.board.heard(), [Beep::News, Beep::Attention]);
    rig.board.tap(Button::Capture, TAP);
    rig.shows("signal-lost");
}

#[test]
fn nothing_to_freeze_is_refused() {
    let rig = Rig::new();
    rig.shows("waiting");
    rig.board.tap(Button::Capture, TAP);
    rig.says("nothing to freeze");
    assert_eq!(rig.board.heard(), [Beep::Refused]);
    assert_eq!(banner(&rig.seen.lock().unwrap()), 0);
}

#[test]
fn the_heatmap_goes_and_comes_and_the_sound_too() {
    let rig = Rig::new();
    rig.show(200);
    rig.shows("CNV");
    // The picture's half of the screen, left of the words.
    let coloured = |seen: &Seen| {
        let rows = seen.rgb.chunks_exact(480 * 3).skip(60).take(180);
        rows.map(|row| count(&row[30..240 * 3], |p| p[0].abs_diff(p[2]) > 20)).sum::<usize>()
    };
    assert!(coloured(&rig.seen.lock().unwrap()) > 10_000);
    rig.board.tap(Button::Next, TAP);
    rig.wait("grey picture", |seen| coloured(seen) == 0);
    rig.says("heatmap off");
    rig.board.tap(Button::Next, HOLD);
    rig.says("sound off");
    thread::sleep(HOLD + TAP);
    rig.board.heard();
    rig.board.tap(Button::Next, TAP);
    rig.wait("heat", |seen| coloured(seen) > 10_000);
    rig.show(10);
    rig.shows("NORMAL");
    assert_eq!(rig.board.heard(), []);
}

#[test]
fn the_eye_is_on_the_screen_and_in_the_line_and_another_eye_takes_the_finding_away() {
    let rig = Rig::new();
    rig.show(200);
    rig.shows("CNV");
    let eye = |seen: &Seen| {
        let rows = seen.rgb.chunks_exact(480 * 3).take(24);
        rows.map(|row| count(&row[80 * 3..155 * 3], |p| p[0] > 200)).sum::<usize>()
    };
    assert_eq!(eye(&rig.seen.lock().unwrap()), 0);
    rig.board.tap(Button::Eye, TAP);
    rig.wait("the eye", |seen| eye(seen) > 50);
    // The first statement is of the picture that is shown.
    assert_eq!(rig.names().last().unwrap(), "CNV");
    rig.board.tap(Button::Eye, TAP);
    rig.shows("waiting");
    rig.show(10);
    rig.shows("NORMAL");
    rig.says("picture 10: NORMAL 94.0 % · OBSERVE · quality good · fake 20 ms · OS left");
    // The next patient: nothing of the one before stays.
    rig.board.tap(Button::Capture, HOLD);
    rig.shows("waiting");
    rig.wait("no eye", |seen| eye(seen) == 0);
}
