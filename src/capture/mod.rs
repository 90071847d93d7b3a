//! Where pictures come from: sources behind one URI ([`Source`]) and one trait ([`Feed`]).
//!
//! A source runs on a thread of its own and speaks through a [`Port`]. It gives signs of life while it waits, so that
//! one that hangs in the system is told from one that has nothing new, and it waits until a picture is taken, so that
//! none is lost and none piles up in memory.

mod folder;
mod port;
mod record;
mod replay;
#[cfg(target_os = "linux")]
mod v4l2;
mod watch;

pub use folder::Folder;
pub use port::{Port, Signal, Slot};
pub use record::{Recorder, save};
pub use replay::Replay;
#[cfg(target_os = "linux")]
pub use v4l2::{Camera, convert};

use std::path::{Path, PathBuf};

/// Why a source cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// No source has this name.
    #[error(
        "'{0}' is no source: write folder:DIR, replay:DIR?fps=N&loop=true, or on Linux \
         v4l2:///dev/video0?size=WxH&format=F&fps=N (F: grey, nv12, yuyv, uyvy, rgb24, mjpeg)"
    )]
    Source(String),
    /// The source's folder is not there.
    #[error("{0}: no such folder; check --source or 'source' in fovea.toml")]
    Folder(PathBuf),
    /// Pictures cannot be recorded.
    #[error("{folder}: pictures cannot be recorded there ({source}); check 'record' or --record")]
    Record {
        /// The folder.
        folder: PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
    /// A replay has nothing to play.
    #[error("{0}: no picture (jpeg, png, tiff, bmp) in the folder; give a folder with B-scans")]
    NoPicture(PathBuf),
}

/// A source of frames.
pub trait Feed: Send {
    /// Gives pictures until there are no more or until a call of `port` returns false, which means that the appliance
    /// ended. Returns why it ended, for the screen.
    fn run(&mut self, port: &Port) -> String;
}

/// A source by its name.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    /// A folder that is watched for new files.
    Folder(PathBuf),
    /// The pictures of a folder in the order of their names.
    Replay {
        /// The folder.
        folder: PathBuf,
        /// Pictures a second; fewer when they cannot be read so fast.
        fps: f64,
        /// Begin again after the last.
        again: bool,
    },
    /// A capture device.
    #[cfg(target_os = "linux")]
    Camera(Camera),
}

impl Source {
    /// Reads `folder:DIR` or `replay:DIR?fps=N&loop=true` (without them one a second, once), or a capture device,
    /// `v4l2:///dev/video0?size=WxH&format=F&fps=N`.
    ///
    /// # Errors
    /// See [`CaptureError`].
    pub fn parse(uri: &str) -> Result<Self, CaptureError> {
        let wrong = || CaptureError::Source(uri.into());
        let (kind, rest) = uri.split_once(':').ok_or_else(wrong)?;
        let source = match kind {
            "folder" => Source::Folder(rest.into()),
            "replay" => {
                // A folder's name may hold a question mark, so options are what follows the last one.
                let (folder, options) = match rest.rsplit_once('?') {
                    Some((folder, options)) if !Path::new(rest).is_dir() => (folder, options),
                    _ => (rest, ""),
                };
                let (mut fps, mut again) = (1.0, false);
                for option in options.split('&').filter(|o| !o.is_empty()) {
                    match option.split_once('=') {
                        Some(("fps", n)) => fps = n.parse().map_err(|_| wrong())?,
                        Some(("loop", yes)) => again = yes.parse().map_err(|_| wrong())?,
                        _ => return Err(wrong()),
                    }
                }
                if !(0.01..=1000.0).contains(&fps) {
                    return Err(wrong());
                }
                Source::Replay { folder: folder.into(), fps, again }
            }
            // It may be plugged in later.
            #[cfg(target_os = "linux")]
            "v4l2" => return Camera::parse(rest).map(Source::Camera).ok_or_else(wrong),
            _ => return Err(wrong()),
        };
        let folder = match &source {
            Source::Folder(folder) | Source::Replay { folder, .. } => folder,
            #[cfg(target_os = "linux")]
            Source::Camera(_) => return Ok(source),
        };
        if !folder.is_dir() {
            return Err(CaptureError::Folder(folder.clone()));
        }
        if matches!(source, Source::Replay { .. }) && pictures(folder).is_ok_and(|list| list.is_empty()) {
            return Err(CaptureError::NoPicture(folder.clone()));
        }
        Ok(source)
    }

    /// The source at work.
    pub fn feed(&self) -> Box<dyn Feed> {
        match self {
            Source::Folder(folder) => Box::new(Folder::new(folder)),
            Source::Replay { folder, fps, again } => Box::new(Replay::new(folder, *fps, *again)),
            #[cfg(target_os = "linux")]
            Source::Camera(camera) => Box::new(camera.clone()),
        }
    }
}

/// The picture files of a folder by name. Hidden files are none: programs keep halves and notes there.
fn pictures(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut list = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        let hidden = entry.file_name().to_string_lossy().starts_with('.');
        if !hidden && crate::frame::is_picture(&path) && path.is_file() {
            list.push(path);
        }
    }
    list.sort();
    Ok(list)
}

#[cfg(test)]
mod tests;
