//! `fovea doctor --board`: each part that the profile names, tried on this machine.

use super::{ABSENT, BROKEN, WORKS, devices, say};
use crate::cli::board::{card, parts};
use fovea_board::{BoardError, Profile};
use std::path::Path;

/// Says what became of a part; false when it does not work.
fn part<T>(kind: &str, words: &str, opened: Result<T, BoardError>) -> bool {
    match &opened {
        Ok(_) => say(WORKS, kind, words),
        Err(error) => say(BROKEN, kind, error),
    }
    opened.is_ok()
}

/// Tries all parts; true when every named one works.
pub fn run(board: &Profile) -> bool {
    let mut good = true;
    let (mut count, keys) = (0, &board.buttons);
    for button in parts::buttons(board) {
        count += usize::from(part("button", "its line is there and free", button));
    }
    let named = [&keys.capture, &keys.next, &keys.eye].into_iter().flatten().count();
    good &= count == named;
    if named == 0 {
        say(ABSENT, "buttons", "the board names no lines");
    }
    if keys.inputs == Some(true) {
        inputs();
    }
    match parts::lights(board) {
        Some(lights) => good &= part("lights", "every light is there", lights),
        None => say(ABSENT, "lights", "the board names none"),
    }
    match parts::buzzer(board) {
        Some(buzzer) => good &= part("buzzer", "its channel is there", buzzer),
        None => say(ABSENT, "buzzer", "the board names none"),
    }
    match parts::thermal(board).map(|thermal| thermal.hottest()) {
        Some(Some(degrees)) => say(WORKS, "heat", format_args!("{degrees:.0} \u{b0}C")),
        Some(None) => {
            let zones = board.thermal.zones.clone().unwrap_or_default().join(", ");
            say(
                BROKEN,
                "heat",
                format_args!("no thermal zone is named {zones}; see /sys/class/thermal/*/type"),
            );
            good = false;
        }
        None => say(ABSENT, "heat", "the board names no thermal zones"),
    }
    match &board.watchdog.device {
        Some(path) => good &= watchdog(path),
        None => say(ABSENT, "watchdog", "the board names none"),
    }
    for path in devices("/dev", "video") {
        let card = card(&path, Path::new("/sys"));
        let options = board.quirk(&card).unwrap_or("its own best format");
        say(WORKS, "capture", format_args!("{} ({card}): {options}", path.display()));
    }
    good
}

/// Keyboards and touch screens may come and go, so none is no fault.
fn inputs() {
    let list = devices("/dev/input", "event");
    let readable = list.iter().filter(|path| std::fs::File::open(path).is_ok()).count();
    match (list.len(), readable) {
        (0, _) => say(ABSENT, "inputs", "no keyboard or touch screen (/dev/input/event*)"),
        (all, 0) => say(
            BROKEN,
            "inputs",
            format_args!("{all} there, none may be read; add the user to the group 'input'"),
        ),
        (all, some) => say(WORKS, "inputs", format_args!("{some} of {all} may be read")),
    }
}

/// Not opened: that would arm it.
fn watchdog(path: &Path) -> bool {
    let may = rustix::fs::access(path, rustix::fs::Access::WRITE_OK);
    match &may {
        Ok(()) => say(WORKS, "watchdog", format_args!("{} (not armed by this look)", path.display())),
        Err(error) => {
            let mend = "load its driver, and give this user the right to it";
            say(BROKEN, "watchdog", format_args!("{}: {error}; {mend}", path.display()));
        }
    }
    may.is_ok()
}
