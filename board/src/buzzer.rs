//! A buzzer on a PWM channel, by the kernel's files below /sys/class/pwm.

use super::{Beep, BoardError, Lights, Lit};
use std::path::Path;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

/// A buzzer, sounded by a thread of its own.
pub struct Buzzer(SyncSender<Beep>);

impl Buzzer {
    /// Opens channel `channel` of a chip, for instance `/sys/class/pwm/pwmchip0`, for a tone of `hertz`.
    ///
    /// # Errors
    /// [`BoardError::Buzzer`] when the channel is not there or not ours.
    pub fn open(chip: &Path, channel: u32, hertz: u32) -> Result<Self, BoardError> {
        let place = chip.join(format!("pwm{channel}"));
        let failed =
            |error: std::io::Error| BoardError::Buzzer { path: place.clone(), reason: error.to_string() };
        if !place.is_dir() {
            std::fs::write(chip.join("export"), channel.to_string()).map_err(failed)?;
        }
        let period = 1_000_000_000 / hertz.max(1);
        let set = |file: &str, value: u32| std::fs::write(place.join(file), value.to_string());
        // An earlier duty above the new period would be refused.
        let _ = set("duty_cycle", 0);
        set("period", period).and_then(|()| set("duty_cycle", period / 2)).map_err(failed)?;
        set("enable", 0).map_err(failed)?;
        let (beeps, inbox) = sync_channel::<Beep>(2);
        let enable = place.join("enable");
        let body = move || {
            while let Ok(beep) = inbox.recv() {
                let (times, millis) = beep.pattern();
                for on in (0..times).flat_map(|_| ["1", "0"]) {
                    if let Err(error) = std::fs::write(&enable, on) {
                        tracing::warn!("{}: no sound ({error})", enable.display());
                        return;
                    }
                    std::thread::sleep(Duration::from_millis(millis));
                }
            }
        };
        std::thread::Builder::new().name("buzzer".into()).spawn(body).map_err(failed)?;
        Ok(Self(beeps))
    }
}

impl Lights for Buzzer {
    fn show(&mut self, _: Lit) {}

    fn beep(&mut self, beep: Beep) {
        // One that sounds is heard to its end; what comes in a hurry is left out.
        let _ = self.0.try_send(beep);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_channel_is_set_up_and_sounds() {
        let chip = tempfile::tempdir().unwrap();
        let missing = Buzzer::open(&chip.path().join("none"), 0, 2000).err().unwrap().to_string();
        assert!(missing.contains("pwm0"), "{missing}");
        let place = chip.path().join("pwm1");
        std::fs::create_dir(&place).unwrap();
        let mut buzzer = Buzzer::open(chip.path(), 1, 2000).unwrap();
        let read = |file: &str| std::fs::read_to_string(place.join(file)).unwrap();
        assert_eq!(
            (read("period"), read("duty_cycle"), read("enable")),
            ("500000".into(), "250000".into(), "0".into())
        );
        buzzer.beep(Beep::News);
        let since = std::time::Instant::now();
        let mut heard = false;
        while since.elapsed() < Duration::from_secs(5) && !(heard && read("enable") == "0") {
            heard |= read("enable") == "1";
        }
        assert!(heard && read("enable") == "0");
    }
}
