//! Buttons and lights on lines of the kernel's GPIO, and lights that the kernel knows by a name.

use super::{Beep, BoardError, Button, Keys, Lights, Lit};
use gpiocdev::line::{Bias, EdgeDetection, EdgeKind, Value};
use gpiocdev::request::Request;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A line of GPIO: `CHIP:NUMBER` with the chip's file, name or label (`gpiochip0:17`), or the line's own name (`PQ.05`).
fn find(line: &str) -> Result<(PathBuf, u32), BoardError> {
    let missing = || BoardError::Line { line: line.into(), reason: "it is not there".into() };
    let Some((chip, number)) = line.rsplit_once(':') else {
        let found = gpiocdev::find_named_line(line).ok_or_else(missing)?;
        return Ok((found.chip, found.info.offset));
    };
    let number = number.parse().map_err(|_| missing())?;
    let named = |path: &PathBuf| {
        let info = gpiocdev::chip::Chip::from_path(path).and_then(|chip| chip.info());
        info.is_ok_and(|info| (info.name == chip || info.label == chip) && number < info.num_lines)
    };
    if chip.starts_with('/') {
        return Ok((chip.into(), number));
    }
    let chips = gpiocdev::chip::chips().map_err(|error| failed(line, &error))?;
    chips.into_iter().find(named).map(|path| (path, number)).ok_or_else(missing)
}

fn failed(line: &str, error: &gpiocdev::Error) -> BoardError {
    BoardError::Line { line: line.into(), reason: error.to_string() }
}

/// A line that is a button.
pub struct GpioButtons {
    request: Request,
    button: Button,
}

impl GpioButtons {
    /// Asks the kernel for a button's line; `active_low`: pressed is 0, with the chip's resistor to 1.
    ///
    /// # Errors
    /// [`BoardError::Line`] when it is not there, not ours or in use.
    pub fn open(
        line: &str,
        button: Button,
        active_low: bool,
        debounce: Duration,
    ) -> Result<Self, BoardError> {
        let (chip, number) = find(line)?;
        let mut builder = Request::builder();
        builder.on_chip(chip).with_consumer("fovea").with_line(number).as_input();
        builder.with_edge_detection(EdgeDetection::BothEdges);
        if active_low {
            builder.as_active_low().with_bias(Bias::PullUp);
        }
        let plain = builder.clone();
        let request = builder.with_debounce_period(debounce).request().or_else(|_| {
            // Chips without debounce or resistors: the keys debounce too.
            let mut plain = plain;
            plain.with_bias(None).request()
        });
        Ok(Self { request: request.map_err(|error| failed(line, &error))?, button })
    }

    /// Presses `keys` from a thread of its own, as long as the chip is there.
    ///
    /// # Errors
    /// When there is no thread.
    pub fn start(self, keys: Keys) -> std::io::Result<()> {
        let body = move || {
            loop {
                match self.request.read_edge_event() {
                    Ok(event) => keys.edge(self.button, event.kind == EdgeKind::Rising, Instant::now()),
                    Err(error) => {
                        // A chip that was unplugged holds no button down.
                        keys.edge(self.button, false, Instant::now());
                        tracing::warn!("the line of {:?} cannot be read any more ({error})", self.button);
                        return;
                    }
                }
            }
        };
        std::thread::Builder::new().name("buttons".into()).spawn(body).map(|_| ())
    }
}

/// A light.
enum Lamp {
    Line(Request, u32),
    /// A light that the kernel knows, below /sys/class/leds.
    Named(PathBuf),
}

impl Lamp {
    fn open(name: &str, active_low: bool) -> Result<Self, BoardError> {
        if let Some(led) = name.strip_prefix("led:") {
            let file = Path::new("/sys/class/leds").join(led).join("brightness");
            return std::fs::write(&file, "0").map(|()| Self::Named(file.clone())).map_err(|error| {
                BoardError::Line { line: name.into(), reason: format!("{}: {error}", file.display()) }
            });
        }
        let (chip, number) = find(name)?;
        let mut builder = Request::builder();
        builder.on_chip(chip).with_consumer("fovea").with_line(number).as_output(Value::Inactive);
        if active_low {
            builder.as_active_low();
        }
        Ok(Self::Line(builder.request().map_err(|error| failed(name, &error))?, number))
    }

    fn set(&self, on: bool) -> Result<(), String> {
        match self {
            Lamp::Line(request, number) => request
                .set_value(*number, if on { Value::Active } else { Value::Inactive })
                .map(|_| ())
                .map_err(|error| error.to_string()),
            Lamp::Named(file) => {
                std::fs::write(file, if on { "255" } else { "0" }).map_err(|error| error.to_string())
            }
        }
    }
}

/// Up to three lights: ready, working, attention. Each goes out when the appliance ends.
pub struct GpioLights {
    lamps: [Option<Lamp>; 3],
}

impl GpioLights {
    /// Takes the lines or names (`led:NAME`) of the lights ready, working and attention.
    ///
    /// # Errors
    /// [`BoardError::Line`] when one is not there, not ours or in use.
    pub fn open(names: [Option<&str>; 3], active_low: bool) -> Result<Self, BoardError> {
        let mut lamps = [None, None, None];
        for (lamp, name) in lamps.iter_mut().zip(names) {
            *lamp = name.map(|name| Lamp::open(name, active_low)).transpose()?;
        }
        Ok(Self { lamps })
    }
}

impl Lights for GpioLights {
    fn show(&mut self, lit: Lit) {
        for (lamp, on) in self.lamps.iter_mut().zip([lit.ready, lit.working, lit.attention]) {
            if let Some(Err(error)) = lamp.as_ref().map(|lamp| lamp.set(on)) {
                tracing::warn!("a light cannot be set any more ({error})");
                *lamp = None;
            }
        }
    }

    fn beep(&mut self, _: Beep) {}
}

impl Drop for GpioLights {
    fn drop(&mut self) {
        self.show(Lit::default());
    }
}
