//! What the clock says, and whether it may be believed.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds of 2026-01-01: no appliance ran before.
const FIRST: u64 = 1_767_225_600;
/// Largest difference between the system's time and that of a clock with a battery, in seconds.
const APART: u64 = 120;

fn seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

/// True when the time comes from a network or from a clock that runs on a battery: below `root` (`/`) the system says
/// that it was synchronised, or a hardware clock says the same as `now`, in seconds since 1970.
fn trusted(root: &Path, now: u64) -> bool {
    if now < FIRST {
        return false;
    }
    let clocks = std::fs::read_dir(root.join("sys/class/rtc")).into_iter().flatten().flatten();
    let mut times = clocks.filter_map(|clock| {
        std::fs::read_to_string(clock.path().join("since_epoch")).ok()?.trim().parse::<u64>().ok()
    });
    root.join("run/systemd/timesync/synchronized").exists() || times.any(|time| time.abs_diff(now) < APART)
}

/// Date and time of day of seconds since 1970, as `2026-11-29T08:50:51Z` (civil days after Hinnant, "chrono-Compatible
/// Low-Level Date Algorithms").
fn iso(seconds: u64) -> String {
    let days = seconds / 86_400 + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (day, month) = (day - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    let year = era * 400 + year + u64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Stamps of what is written down: the time where the clock is to be trusted; else this start of the machine and a number
/// that counts up, so that their order is known.
pub struct Records {
    boot: String,
    number: u64,
}

impl Records {
    /// Stamps of this start of the machine.
    pub fn new() -> Self {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        Self { boot: boot.chars().take(8).collect(), number: 0 }
    }

    /// The next stamp: `2026-11-29T08:50:51Z` or `boot 3f2a1b9c 17`.
    pub fn stamp(&mut self) -> String {
        let now = seconds();
        self.of(now, trusted(Path::new("/"), now))
    }

    fn of(&mut self, now: u64, trusted: bool) -> String {
        self.number += 1;
        if trusted { iso(now) } else { format!("boot {} {}", self.boot, self.number) }
    }
}

impl Default for Records {
    fn default() -> Self {
        Self::new()
    }
}

/// The time of day, `14:03:22 UTC`; with a question mark where the clock is not to be trusted.
pub fn time_of_day() -> String {
    let now = seconds();
    let doubt = if trusted(Path::new("/"), now) { "" } else { "?" };
    format!("{:02}:{:02}:{:02} UTC{doubt}", now / 3600 % 24, now / 60 % 60, now % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_keep_their_order_without_a_clock() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_798_761_599, "2026-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(iso(seconds), text);
        }
        let mut records = Records { boot: "3f2a1b9c".into(), number: 0 };
        let stamps = [(7, false), (FIRST, true), (9, false)].map(|(now, trusted)| records.of(now, trusted));
        assert_eq!(stamps, ["boot 3f2a1b9c 1", "2026-01-01T00:00:00Z", "boot 3f2a1b9c 3"]);
    }

    #[test]
    fn a_clock_is_believed_where_a_battery_or_a_network_stands_behind_it() {
        let root = tempfile::tempdir().unwrap();
        let now = FIRST + 1000;
        assert!(!trusted(root.path(), now), "nothing says so");
        let clock = root.path().join("sys/class/rtc/rtc0");
        std::fs::create_dir_all(&clock).unwrap();
        std::fs::write(clock.join("since_epoch"), format!("{}\n", now + 3)).unwrap();
        assert!(trusted(root.path(), now));
        assert!(!trusted(root.path(), now + APART + 3), "the system was set to something else");
        std::fs::write(clock.join("since_epoch"), "77\n").unwrap();
        assert!(!trusted(root.path(), 77) && !trusted(root.path(), now), "the battery is empty");
        let flag = root.path().join("run/systemd/timesync");
        std::fs::create_dir_all(&flag).unwrap();
        std::fs::write(flag.join("synchronized"), "").unwrap();
        assert!(trusted(root.path(), now));
    }
}
