//! What surrounds the fovea appliance: displays, buttons, lights. Nothing here knows of OCT; a display takes whole pictures.

mod buttons;
#[cfg(target_os = "linux")]
mod buzzer;
#[cfg(all(feature = "fb", target_os = "linux"))]
mod console;
#[cfg(all(feature = "drm", target_os = "linux"))]
mod drm;
mod fake;
#[cfg(all(feature = "fb", target_os = "linux"))]
mod fb;
#[cfg(all(feature = "gpio", target_os = "linux"))]
mod gpio;
#[cfg(target_os = "linux")]
mod input;
#[cfg(target_os = "linux")]
mod keeper;
mod lights;
mod profile;
mod thermal;

use std::path::{Path, PathBuf};

pub use buttons::{Button, Buttons, Keys, NoButtons, Press, Timing};
#[cfg(target_os = "linux")]
pub use buzzer::Buzzer;
#[cfg(all(feature = "drm", target_os = "linux"))]
pub use drm::Drm;
pub use fake::FakeBoard;
#[cfg(all(feature = "fb", target_os = "linux"))]
pub use fb::FrameBuffer;
#[cfg(all(feature = "gpio", target_os = "linux"))]
pub use gpio::{GpioButtons, GpioLights};
#[cfg(target_os = "linux")]
pub use input::{Zones, start_inputs};
#[cfg(target_os = "linux")]
pub use keeper::{Notify, Watchdog};
pub use lights::{Beep, Lights, Lit};
pub use profile::{Board, Profile, ProfileError, place, profiles};
pub use thermal::Thermal;

/// Waits for signs of progress, and restarts an appliance that stands still.
pub trait Keeper: Send {
    /// The loop did a whole turn: it looked at source, engine and buttons, and the display took what was to be shown.
    fn progress(&mut self);

    /// What the appliance does, in a few words.
    fn state(&mut self, words: &str);
}

/// Why a part of the board could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum BoardError {
    /// A button's or a light's line.
    #[error(
        "line {line}: {reason}; check its name in the board's profile, and add the user to the group 'gpio'"
    )]
    Line {
        /// The line as the profile names it.
        line: String,
        /// What is wrong.
        reason: String,
    },
    /// The hardware's watchdog.
    #[error(
        "{path}: no watchdog there ({reason}); check the board's profile, its driver, and who else holds it open"
    )]
    Watchdog {
        /// The device.
        path: PathBuf,
        /// The system's words.
        reason: String,
    },
    /// The buzzer.
    #[error("{path}: no buzzer there ({reason}); check the PWM channel in the board's profile")]
    Buzzer {
        /// The channel's folder.
        path: PathBuf,
        /// The system's words.
        reason: String,
    },
}

/// Why a display could not be opened or written.
#[derive(Debug, thiserror::Error)]
pub enum DisplayError {
    /// No display has this name.
    #[error("'{0}' is no display: write auto, png:DIR, window, drm:///dev/dri/card0, fb:///dev/fb0 or none")]
    Unknown(String),
    /// The picture could not be written.
    #[error("{path}: the screen picture cannot be written ({reason}); check the folder and the free space")]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// The system's words.
        reason: String,
    },
    /// The window could not be opened or drawn.
    #[error("no window ({0}); check DISPLAY, or use --display png:DIR")]
    Window(String),
    /// A device that shows nothing.
    #[error(
        "{path}: no screen there ({reason}); end what else uses it, and add the user to the group 'video'"
    )]
    Device {
        /// The device's file.
        path: PathBuf,
        /// The system's words.
        reason: String,
    },
}

impl DisplayError {
    /// A device's failure.
    #[cfg(all(any(feature = "drm", feature = "fb"), target_os = "linux"))]
    fn device(path: &Path, error: &std::io::Error) -> Self {
        Self::Device { path: path.into(), reason: error.to_string() }
    }
}

/// A place where the screen is shown.
pub trait Display {
    /// Shows a picture of `width` x `height` pixels, `rgb` row by row, 3 bytes a pixel. `keep` names a picture
    /// worth keeping (a change of what is said), for displays that record.
    ///
    /// # Errors
    /// See [`DisplayError`].
    fn show(&mut self, width: u32, height: u32, rgb: &[u8], keep: Option<&str>) -> Result<(), DisplayError>;

    /// Handles the display's own events; false when its user closed it.
    fn open(&mut self) -> bool {
        true
    }

    /// True when a person watches, so that the last screen must stay.
    fn watched(&self) -> bool {
        false
    }

    /// The board that a display plays for want of a real one: a window's keys are its buttons.
    fn board(&self) -> Option<FakeBoard> {
        None
    }
}

/// Shows nothing.
pub struct Nowhere;

impl Display for Nowhere {
    fn show(&mut self, _: u32, _: u32, _: &[u8], _: Option<&str>) -> Result<(), DisplayError> {
        Ok(())
    }
}

/// Writes `screen.png` at each change, and a numbered copy of each screen worth keeping (the last 1,000).
pub struct PngFolder {
    folder: PathBuf,
    count: u32,
}

impl PngFolder {
    /// Opens the folder, making it when missing.
    ///
    /// # Errors
    /// [`DisplayError::Write`] when it cannot be made.
    pub fn new(folder: &Path) -> Result<Self, DisplayError> {
        std::fs::create_dir_all(folder)
            .map_err(|error| DisplayError::Write { path: folder.into(), reason: error.to_string() })?;
        Ok(Self { folder: folder.into(), count: 0 })
    }
}

impl Display for PngFolder {
    fn show(&mut self, width: u32, height: u32, rgb: &[u8], keep: Option<&str>) -> Result<(), DisplayError> {
        let path = self.folder.join("screen.png");
        let half = self.folder.join(".screen.part.png");
        let failed = |reason: String| DisplayError::Write { path: path.clone(), reason };
        image::save_buffer(&half, rgb, width, height, image::ExtendedColorType::Rgb8)
            .map_err(|error| failed(error.to_string()))?;
        if let Some(name) = keep {
            let name: String = name
                .chars()
                .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' })
                .collect();
            let copy = self.folder.join(format!("{:03}-{name}.png", self.count % 1000));
            self.count += 1;
            std::fs::copy(&half, copy).map_err(|error| failed(error.to_string()))?;
        }
        // A reader never sees half a picture.
        std::fs::rename(&half, &path).map_err(|error| failed(error.to_string()))
    }
}

#[cfg(feature = "window")]
mod window {
    use super::{Button, Display, DisplayError, FakeBoard, Keys, Lit, Timing};
    use minifb::Key;
    use std::cell::Cell;
    use std::rc::Rc;
    use std::time::Instant;

    /// Hears each key; asked now and then, the window would miss a short press.
    struct Typing {
        escape: Rc<Cell<bool>>,
        keys: Keys,
    }

    impl minifb::InputCallback for Typing {
        fn add_char(&mut self, _: u32) {}

        fn set_key_state(&mut self, key: Key, down: bool) {
            let button = match key {
                Key::Escape => {
                    self.escape.set(self.escape.get() || down);
                    return;
                }
                Key::Space | Key::Enter | Key::C | Key::F => Button::Capture,
                Key::H | Key::N | Key::Tab | Key::Right => Button::Next,
                Key::E => Button::Eye,
                _ => return,
            };
            self.keys.edge(button, down, Instant::now());
        }
    }

    /// A window of the desktop, opened with the first picture. Its keys are buttons, its title has the lights.
    pub struct Desktop {
        window: Option<minifb::Window>,
        escape: Rc<Cell<bool>>,
        board: FakeBoard,
        titled: Option<Lit>,
    }

    impl Default for Desktop {
        fn default() -> Self {
            let board = FakeBoard::new(Timing::default());
            Self { window: None, escape: Rc::default(), board, titled: None }
        }
    }

    impl Desktop {
        fn title(&mut self) {
            let lit = self.board.lit();
            if let Some(window) = self.window.as_mut().filter(|_| self.titled != Some(lit)) {
                let lamps = [(lit.ready, "ready"), (lit.working, "working"), (lit.attention, "attention")];
                let on = lamps.into_iter().filter(|(on, _)| *on).map(|(_, name)| format!(" - {name}"));
                window.set_title(&format!("fovea{}", on.collect::<String>()));
                self.titled = Some(lit);
            }
        }
    }

    impl Display for Desktop {
        fn show(&mut self, width: u32, height: u32, rgb: &[u8], _: Option<&str>) -> Result<(), DisplayError> {
            let failed = |error: minifb::Error| DisplayError::Window(error.to_string());
            let (w, h) = (width as usize, height as usize);
            if self.window.is_none() {
                let mut window =
                    minifb::Window::new("fovea", w, h, minifb::WindowOptions::default()).map_err(failed)?;
                let typing = Typing { escape: Rc::clone(&self.escape), keys: self.board.keys() };
                window.set_input_callback(Box::new(typing));
                self.window = Some(window);
            }
            let pixels: Vec<u32> =
                rgb.chunks_exact(3).map(|p| u32::from_be_bytes([0, p[0], p[1], p[2]])).collect();
            match &mut self.window {
                Some(window) => window.update_with_buffer(&pixels, w, h).map_err(failed),
                None => Ok(()),
            }
        }

        fn open(&mut self) -> bool {
            self.title();
            self.window.as_mut().is_none_or(|window| {
                window.update();
                window.is_open() && !self.escape.get()
            })
        }

        fn watched(&self) -> bool {
            true
        }

        fn board(&self) -> Option<FakeBoard> {
            Some(self.board.clone())
        }
    }
}

#[cfg(feature = "window")]
pub use window::Desktop;

/// Two displays that show the same.
struct Both(Box<dyn Display>, Box<dyn Display>);

impl Display for Both {
    fn show(&mut self, width: u32, height: u32, rgb: &[u8], keep: Option<&str>) -> Result<(), DisplayError> {
        self.0.show(width, height, rgb, keep)?;
        self.1.show(width, height, rgb, keep)
    }

    fn open(&mut self) -> bool {
        self.0.open() && self.1.open()
    }

    fn watched(&self) -> bool {
        self.0.watched() || self.1.watched()
    }

    fn board(&self) -> Option<FakeBoard> {
        self.0.board().or_else(|| self.1.board())
    }
}

/// What `auto` stands for here, and why: a window where a desktop's `DISPLAY` is set, else the first screen that the kernel
/// drives, else its plain frame buffer, else pictures in `screens/`.
pub fn automatic() -> (String, String) {
    if std::env::var_os("DISPLAY").is_some_and(|name| !name.is_empty()) && cfg!(feature = "window") {
        return ("window".into(), "DISPLAY names a desktop".into());
    }
    #[allow(unused_mut, reason = "where this build has no devices")]
    let mut none: Vec<String> = vec!["no desktop".into()];
    #[cfg(all(feature = "drm", target_os = "linux"))]
    {
        let cards: Vec<PathBuf> =
            (0..16).map(|n| format!("/dev/dri/card{n}").into()).filter(|p: &PathBuf| p.exists()).collect();
        for card in &cards {
            match Drm::new(card).and_then(|drm| drm.screen()) {
                Ok(screen) => {
                    return (format!("drm://{}", card.display()), format!("{screen} is plugged in"));
                }
                Err(error) => none.push(error.to_string()),
            }
        }
        if cards.is_empty() {
            none.push("no /dev/dri/card0".into());
        }
    }
    #[cfg(all(feature = "fb", target_os = "linux"))]
    match FrameBuffer::new(Path::new("/dev/fb0")) {
        Ok(_) => return ("fb:///dev/fb0".into(), none.join("; ")),
        Err(error) => none.push(error.to_string()),
    }
    ("png:screens".into(), none.join("; "))
}

/// Opens a display by its name: `png:DIR`, `window`, `drm:///dev/dri/card0`, `fb:///dev/fb0`
/// or `none`; `NAME+png:DIR` also keeps the
/// screens of another display as pictures.
///
/// # Errors
/// [`DisplayError`] when the name is unknown, the folder cannot be made or the device cannot be opened.
pub fn open(uri: &str) -> Result<Box<dyn Display>, DisplayError> {
    if let Some((first, folder)) = uri.split_once("+png:").filter(|(first, _)| !first.starts_with("png:")) {
        return Ok(Box::new(Both(open(first)?, open(&format!("png:{folder}"))?)));
    }
    #[cfg(all(feature = "drm", target_os = "linux"))]
    if let Some(path) = uri.strip_prefix("drm://").filter(|path| path.starts_with('/')) {
        return Ok(Box::new(Drm::new(Path::new(path))?));
    }
    #[cfg(all(feature = "fb", target_os = "linux"))]
    if let Some(path) = uri.strip_prefix("fb://").filter(|path| path.starts_with('/')) {
        return Ok(Box::new(FrameBuffer::new(Path::new(path))?));
    }
    match (uri, uri.strip_prefix("png:")) {
        ("none", _) => Ok(Box::new(Nowhere)),
        #[cfg(feature = "window")]
        ("window", _) => Ok(Box::<Desktop>::default()),
        (_, Some(folder)) if !folder.is_empty() => Ok(Box::new(PngFolder::new(Path::new(folder))?)),
        _ => Err(DisplayError::Unknown(uri.into())),
    }
}
