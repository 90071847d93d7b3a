//! The kernel's word that a file of a folder is finished (inotify): it was closed after writing, or moved in.
//!
//! It only makes things quick: network folders send no such word, so the folder is looked at all the same.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, Reader, WatchFlags};
use std::ffi::OsString;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::time::Duration;

/// A watched folder.
pub struct Notice(OwnedFd);

impl Notice {
    /// Watches `folder`; none where the system cannot.
    pub fn new(folder: &Path) -> Option<Self> {
        let watch = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).ok()?;
        let what = WatchFlags::CLOSE_WRITE | WatchFlags::MOVED_TO | WatchFlags::ONLYDIR;
        inotify::add_watch(&watch, folder, what).ok()?;
        Some(Self(watch))
    }

    /// Names of files that were finished, waited for at most `time`.
    pub fn finished(&self, time: Duration) -> Vec<OsString> {
        let limit = Timespec::try_from(time).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 });
        // An error here and below is a name that is missed and found by looking.
        let _ = poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(&limit));
        let mut space = [MaybeUninit::uninit(); 8192];
        let mut reader = Reader::new(&self.0, &mut space);
        let mut names = Vec::new();
        while let Ok(event) = reader.next() {
            names.extend(event.file_name().map(|name| OsString::from_vec(name.to_bytes().to_vec())));
        }
        names
    }
}
