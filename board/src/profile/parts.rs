//! What a board's profile may say.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// A number between two limits, both allowed; others are refused where they are read.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "u32")]
pub struct Within<const LOW: u32, const HIGH: u32>(u32);

impl<const LOW: u32, const HIGH: u32> Within<LOW, HIGH> {
    /// The number.
    pub fn get(self) -> u32 {
        self.0
    }
}

impl<const LOW: u32, const HIGH: u32> TryFrom<u32> for Within<LOW, HIGH> {
    type Error = String;
    fn try_from(number: u32) -> Result<Self, String> {
        let fits = (LOW..=HIGH).contains(&number);
        fits.then_some(Self(number)).ok_or_else(|| format!("{number}: write {LOW} to {HIGH}"))
    }
}

/// Degrees Celsius, 30 to 125.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "f32")]
pub struct Celsius(f32);

impl Celsius {
    /// The number.
    pub fn get(self) -> f32 {
        self.0
    }
}

impl TryFrom<f32> for Celsius {
    type Error = String;
    fn try_from(degrees: f32) -> Result<Self, String> {
        let fits = (30.0..=125.0).contains(&degrees);
        fits.then_some(Self(degrees)).ok_or_else(|| format!("{degrees} degrees Celsius: write 30 to 125"))
    }
}

/// Where the screen goes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DisplayPart {
    /// A display's name, see [`crate::open`].
    pub uri: Option<String>,
    /// Its width and height in pixels.
    pub size: Option<[u32; 2]>,
}

/// Buttons on lines of GPIO, keyboards and touch screens.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ButtonPart {
    /// The line of the button capture: its own name, or `CHIP:NUMBER`.
    pub capture: Option<String>,
    /// The line of the button next.
    pub next: Option<String>,
    /// The line of the button eye.
    pub eye: Option<String>,
    /// A pressed button is 0.
    pub active_low: Option<bool>,
    /// A level counts after so many milliseconds.
    pub debounce_ms: Option<Within<0, 200>>,
    /// A press is long after so many milliseconds.
    pub long_press_ms: Option<Within<200, 5000>>,
    /// Keyboards and touch screens press the buttons too.
    pub inputs: Option<bool>,
}

/// Lights: lines as of buttons, or `led:NAME` for one below /sys/class/leds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LightPart {
    /// Pictures are taken and read.
    pub ready: Option<String>,
    /// A picture is being read.
    pub working: Option<String>,
    /// Somebody must look.
    pub attention: Option<String>,
    /// A light that is on is 0.
    pub active_low: Option<bool>,
}

/// A buzzer on a PWM channel.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BuzzerPart {
    /// The chip, for instance /sys/class/pwm/pwmchip0.
    pub chip: Option<PathBuf>,
    /// Its channel.
    pub channel: Option<u32>,
    /// The tone in hertz.
    pub hertz: Option<Within<100, 10_000>>,
}

/// What is asked of a capture device that does not choose well by itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quirk {
    /// How the card's name begins, as /sys/class/video4linux/video*/name has it.
    pub card: String,
    /// Options of its source, as after the `?` of `v4l2:///dev/video0?format=yuyv`.
    pub options: String,
}

/// Capture devices.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CapturePart {
    /// Used where the source states no options; the first that fits.
    pub quirks: Option<Vec<Quirk>>,
}

/// Which engine computes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnginePart {
    /// Engines in the order in which they are tried.
    pub prefer: Option<Vec<String>>,
}

/// What the supply allows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PowerPart {
    /// Milliseconds of rest between two pictures.
    pub rest_ms: Option<Within<0, 1000>>,
}

/// What the heat allows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ThermalPart {
    /// The kernel's zones that are looked at, by their `type`; those that are not there do not count.
    pub zones: Option<Vec<String>>,
    /// From here on the reader rests between two pictures, and the screen says so.
    pub slow_at: Option<Celsius>,
    /// From here down it does not any more.
    pub back_at: Option<Celsius>,
    /// Milliseconds of rest between two pictures while it is hot.
    pub rest_ms: Option<Within<0, 1000>>,
}

/// The hardware's watchdog, which restarts a board whose appliance stands still.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WatchdogPart {
    /// Its device.
    pub device: Option<PathBuf>,
    /// Seconds without progress after which it restarts the board.
    pub timeout_s: Option<Within<5, 120>>,
}
