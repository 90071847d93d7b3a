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
