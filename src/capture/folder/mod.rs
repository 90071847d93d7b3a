//! A folder into which another program exports pictures.

#[cfg(target_os = "linux")]
mod notice;

use super::{Feed, Port, Signal, pictures};
use crate::Frame;
use sha2::{Digest, Sha256};
use std::collections::{HashMap, HashSet, VecDeque};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

/// Time between two looks into the folder; a file is read once it kept its size and time for 0.8 of it.
const LOOK: Duration = Duration::from_millis(500);
/// A file whose last change is so long past is not being written.
const OLD: Duration = Duration::from_secs(30);
/// Times that a young file which cannot be read is tried again: after 1, 2, 4 and 8 looks.
const TRIES: u32 = 4;
/// Larger files are no B-scans and are not taken into memory.
const MAX_BYTES: u64 = 256 << 20;
/// Files that are gone are remembered up to this number, so that one that comes back is known.
const REMEMBERED: usize = 10_000;

/// A file's size and time of change.
type Stamp = (u64, Option<SystemTime>);

#[derive(Clone, Copy, PartialEq)]
enum Phase {
    /// Perhaps still being written; not before this time.
    Settling(Instant),
    /// Waits in the queue.
    Queued,
    /// Read, or given up.
    Done,
}

struct Known {
    stamp: Stamp,
    /// When it came; none for a file that was there at the first look.
    came: Option<Instant>,
    phase: Phase,
    tries: u32,
    /// Of the content that was read last under this name.
    hash: Option<[u8; 32]>,
}

impl Known {
    /// True when it may still be being written: some programs copy with the old time of change.
    fn young(&self) -> bool {
        let changed = self.stamp.1.and_then(|time| time.elapsed().ok());
        changed.is_none_or(|age| age < OLD) || self.came.is_some_and(|at| at.elapsed() < OLD)
    }
}

/// Gives every picture that comes into a folder once, the oldest first: at once where the system says that a file is
/// finished, else when it was still for a while. What it remembers of a file is its name, stamp
/// and hash: pictures are read one at a time, when they can be taken.
pub struct Folder {
    folder: PathBuf,
    look: Duration,
    mount: bool,
    first: bool,
    known: HashMap<PathBuf, Known>,
    queue: VecDeque<PathBuf>,
    #[cfg(target_os = "linux")]
    notice: Option<notice::Notice>,
    /// Files that the system says are finished.
    finished: HashSet<PathBuf>,
}

impl Folder {
    /// Watches `folder`.
    pub fn new(folder: &Path) -> Self {
        Self::with_pace(folder, LOOK)
    }

    /// Watches `folder` at another pace.
    pub(super) fn with_pace(folder: &Path, look: Duration) -> Self {
        Self {
            folder: folder.into(),
            look,
            mount: is_mount(folder),
            first: true,
            known: HashMap::new(),
            queue: VecDeque::new(),
            #[cfg(target_os = "linux")]
            notice: None,
            finished: HashSet::new(),
        }
    }

    /// Looks what is new and queues what is settled.
    fn look(&mut self) -> Result<(), String> {
        let shown = self.folder.display();
        let list =
            pictures(&self.folder).map_err(|error| format!("{shown}: {error}; put the folder back"))?;
        if self.mount && !is_mount(&self.folder) {
            return Err(format!("{shown}: the disk is not mounted any more; put it back"));
        }
        let now = Instant::now();
        let mut settled = Vec::new();
        for path in &list {
            let Some(stamp) = stamp(path) else { continue };
            let known = self.known.entry(path.clone()).or_insert_with(|| {
                let came = (!self.first).then_some(now);
                Known { stamp, came, phase: Phase::Settling(now), tries: 0, hash: None }
            });
            let new = known.phase == Phase::Settling(now);
            // A queued file is read in whatever form it has when its turn comes.
            if (new || known.stamp != stamp) && known.phase != Phase::Queued {
                known.stamp = stamp;
                known.tries = 0;
                let settles = known.young() && !self.finished.contains(path);
                known.phase = Phase::Settling(if settles { now + self.look.mul_f32(0.8) } else { now });
            }
            if matches!(known.phase, Phase::Settling(when) if when <= now) {
                known.phase = Phase::Queued;
                settled.push((stamp.1, path.clone()));
            }
        }
        self.first = false;
        self.finished.clear();
        settled.sort();
        self.queue.extend(settled.into_iter().map(|(_, path)| path));
        if self.known.len() > list.len() + REMEMBERED {
            self.known.retain(|path, known| known.phase == Phase::Queued || list.binary_search(path).is_ok());
        }
        Ok(())
    }

    /// Waits for the next file, a quarter of the time between two looks; true when one is finished.
    #[cfg(target_os = "linux")]
    fn wait(&mut self, port: &Port) -> bool {
        if self.notice.is_none() {
            self.notice = notice::Notice::new(&self.folder);
        }
        let time = (self.look / 4).min(port.beat());
        let Some(notice) = &self.notice else {
            port.pause(time);
            return false;
        };
        let names = notice.finished(time);
        self.finished.extend(names.iter().map(|name| self.folder.join(name)));
        !names.is_empty()
    }

    #[cfg(not(target_os = "linux"))]
    fn wait(&mut self, port: &Port) -> bool {
        port.pause((self.look / 4).min(port.beat()));
        false
    }

    /// Reads a file whose turn has come: a picture, a note, or nothing (yet).
    fn read(&mut self, path: &Path) -> Option<Result<Frame, String>> {
        let known = self.known.get_mut(path)?;
        let Some(before) = stamp(path) else {
            // Gone again, as temporary files do; should it return, it is new.
            self.known.remove(path);
            return None;
        };
        known.phase = Phase::Done;
        known.stamp = before;
        if before.0 > MAX_BYTES {
            let size = before.0 >> 20;
            return Some(Err(format!("{}: {size} MB is no B-scan; export a single picture", path.display())));
        }
        let bytes = std::fs::read(path);
        let fresh = known.young();
        let later = Phase::Settling(Instant::now() + self.look * (1 << known.tries.min(TRIES)));
        if fresh && stamp(path) != Some(before) {
            // It grew meanwhile. That is no failed try.
            known.phase = later;
            return None;
        }
        let answer = match &bytes {
            Ok(bytes) => {
                let hash: [u8; 32] = Sha256::digest(bytes).into();
                if known.hash == Some(hash) {
                    return None;
                }
                if fresh && known.tries < TRIES && !whole(bytes) {
                    Err("its end is missing".into())
                } else {
                    let frame = if bytes.is_empty() {
                        Err(crate::frame::FrameError::Empty(path.into()))
                    } else {
                        Frame::decode(bytes, path)
                    };
                    if frame.is_ok() || !fresh || known.tries >= TRIES {
                        known.hash = Some(hash);
                    }
                    frame.map_err(|error| error.to_string())
                }
            }
            Err(error) => Err(format!("{}: {error}; check that the file may be read", path.display())),
        };
        if answer.is_err() && fresh && known.tries < TRIES {
            known.tries += 1;
            known.phase = later;
            return None;
        }
        Some(answer)
    }
}

impl Feed for Folder {
    fn run(&mut self, port: &Port) -> String {
        let over = || "the appliance ended".to_string();
        let mut looked: Option<Instant> = None;
        loop {
            if looked.is_none_or(|at| at.elapsed() >= self.look) {
                if let Err(why) = self.look() {
                    looked = None;
                    // The watch is on the folder that went.
                    #[cfg(target_os = "linux")]
                    {
                        self.notice = None;
                    }
                    if !port.say(Signal::Lost(why)) || !port.pause(self.look / 2) {
                        return over();
                    }
                    continue;
                }
                looked = Some(Instant::now());
            }
            let on = match self.queue.pop_front() {
                Some(path) => match self.read(&path) {
                    Some(Ok(frame)) => port.give(frame),
                    Some(Err(note)) => port.say(Signal::Note(note)),
                    None => port.say(Signal::Alive),
                },
                None => {
                    if self.wait(port) {
                        looked = None;
                    }
                    port.say(Signal::Alive)
                }
            };
            if !on {
                return over();
            }
        }
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let meta = path.metadata().ok()?;
    Some((meta.len(), meta.modified().ok()))
}

/// False when a JPEG lacks its end marker, which decoders forgive: they would give a picture with an empty lower part.
fn whole(bytes: &[u8]) -> bool {
    let tail = &bytes[bytes.len().saturating_sub(1024)..];
    !bytes.starts_with(&[0xff, 0xd8]) || tail.windows(2).any(|pair| pair == [0xff, 0xd9])
}

/// True when a disk is mounted at the folder itself: what is left after it is pulled is an empty folder, not an error.
#[cfg(unix)]
fn is_mount(folder: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let device = |path: &Path| path.metadata().map(|meta| meta.dev());
    match (device(folder), device(&folder.join(".."))) {
        (Ok(own), Ok(above)) => own != above,
        _ => false,
    }
}

#[cfg(not(unix))]
fn is_mount(_: &Path) -> bool {
    false
}
