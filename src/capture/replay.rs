//! A folder played like a machine that takes pictures.

use super::{Feed, Port, Signal, pictures};
use crate::Frame;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Plays the pictures of a folder in the order of their names.
pub struct Replay {
    folder: PathBuf,
    pace: Duration,
    again: bool,
}

impl Replay {
    /// `fps` pictures a second, once or over and over. A slower reader slows the replay; no picture is left out.
    pub fn new(folder: &Path, fps: f64, again: bool) -> Self {
        Self { folder: folder.into(), pace: Duration::from_secs_f64(1.0 / fps), again }
    }
}

impl Feed for Replay {
    fn run(&mut self, port: &Port) -> String {
        loop {
            let list = match pictures(&self.folder) {
                Ok(list) if list.is_empty() => {
                    return format!("{}: no picture is left", self.folder.display());
                }
                Ok(list) => list,
                Err(error) => return format!("{}: {error}; put the folder back", self.folder.display()),
            };
            for path in list {
                let on = match Frame::read(&path) {
                    Ok(frame) => port.give(frame),
                    Err(error) => port.say(Signal::Note(error.to_string())),
                };
                if !on || !port.rest(self.pace) {
                    return "the appliance ended".into();
                }
            }
            if !self.again {
                return "the replay has ended".into();
            }
        }
    }
}
