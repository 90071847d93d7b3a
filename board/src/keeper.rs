//! Who restarts an appliance that stands still: the service manager, and the hardware's watchdog.

use super::{BoardError, Keeper};
use rustix::ioctl::{Updater, opcode};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// systemd's side of a service of `Type=notify`: `READY=1` with the first progress, `WATCHDOG=1` with later ones.
pub struct Notify {
    socket: UnixDatagram,
    address: SocketAddr,
    /// Time between two signs; none where no watchdog is set.
    every: Option<Duration>,
    told: Option<Instant>,
    state: String,
}

impl Notify {
    /// What the service manager asks for in the environment; none when nobody does.
    pub fn from_environment() -> Option<Self> {
        let name = std::env::var("NOTIFY_SOCKET").ok()?;
        let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
        let ours = number("WATCHDOG_PID").is_none_or(|id| id == u64::from(std::process::id()));
        Self::new(&name, number("WATCHDOG_USEC").filter(|_| ours).map(Duration::from_micros))
    }

    /// The socket of this name (a path, or `@` and an abstract name), and the time after which silence is a fault.
    fn new(name: &str, limit: Option<Duration>) -> Option<Self> {
        let address = match name.strip_prefix('@') {
            Some(name) => SocketAddr::from_abstract_name(name),
            None => SocketAddr::from_pathname(name),
        };
        let socket = UnixDatagram::unbound().ok()?;
        socket.set_nonblocking(true).ok()?;
        let every = limit.map(|limit| limit / 4);
        Some(Self { socket, address: address.ok()?, every, told: None, state: String::new() })
    }

    /// A manager that does not listen is its own affair.
    fn tell(&self, words: &str) {
        let _ = self.socket.send_to_addr(words.as_bytes(), &self.address);
    }
}

impl Keeper for Notify {
    fn progress(&mut self) {
        match (self.told, self.every) {
            (None, _) => self.tell("READY=1\nWATCHDOG=1"),
            (Some(told), Some(every)) if told.elapsed() >= every => self.tell("WATCHDOG=1"),
            _ => return,
        }
        self.told = Some(Instant::now());
    }

    fn state(&mut self, words: &str) {
        if self.state != words {
            // A line ends a message's field.
            self.tell(&format!("STATUS={}", words.replace('\n', " ")));
            self.state = words.into();
        }
    }
}

impl Drop for Notify {
    fn drop(&mut self) {
        self.tell("STOPPING=1");
    }
}

/// The hardware's watchdog: once open it restarts the board after a time without progress, also when this program was
/// killed; a polite end disarms it.
pub struct Watchdog {
    path: PathBuf,
    file: File,
    every: Duration,
    fed: Instant,
}

impl Watchdog {
    /// Opens and arms a watchdog, for instance `/dev/watchdog`, for `timeout` (full seconds). One that does not know that
    /// time keeps its own.
    ///
    /// # Errors
    /// [`BoardError::Watchdog`].
    pub fn open(path: &Path, timeout: Duration) -> Result<Self, BoardError> {
        let file = OpenOptions::new().write(true).open(path);
        let failed =
            |error: std::io::Error| BoardError::Watchdog { path: path.into(), reason: error.to_string() };
        let file = file.map_err(failed)?;
        let mut seconds = i32::try_from(timeout.as_secs()).unwrap_or(i32::MAX);
        // SAFETY: WDIOC_SETTIMEOUT reads and writes one int.
        let set = unsafe {
            rustix::ioctl::ioctl(
                &file,
                Updater::<{ opcode::read_write::<i32>(b'W', 6) }, i32>::new(&mut seconds),
            )
        };
        if let Err(error) = set {
            tracing::warn!("{}: the time of {seconds} s cannot be set ({error})", path.display());
        }
        let every = Duration::from_secs(u64::try_from(seconds).unwrap_or(4)) / 4;
        Ok(Self { path: path.into(), file, every, fed: Instant::now() })
    }

    fn write(&mut self, what: &[u8]) {
        if let Err(error) = self.file.write_all(what) {
            tracing::warn!("{}: cannot be fed ({error})", self.path.display());
        }
    }
}

impl Keeper for Watchdog {
    fn progress(&mut self) {
        if self.fed.elapsed() >= self.every {
            self.write(&[0]);
            self.fed = Instant::now();
        }
    }

    fn state(&mut self, _: &str) {}
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        // The letter by which drivers know that the end is meant.
        self.write(b"V");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manager_hears_that_it_is_ready_and_lives_no_oftener_than_needed() {
        let name = format!("fovea-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let manager = UnixDatagram::bind_addr(&address).unwrap();
        manager.set_nonblocking(true).unwrap();
        let heard = || {
            let mut bytes = [0; 256];
            manager.recv(&mut bytes).ok().map(|n| String::from_utf8_lossy(&bytes[..n]).into_owned())
        };
        let mut notify = Notify::new(&format!("@{name}"), Some(Duration::from_millis(200))).unwrap();
        assert_eq!(heard(), None);
        notify.progress();
        notify.progress();
        assert_eq!((heard().as_deref(), heard()), (Some("READY=1\nWATCHDOG=1"), None));
        std::thread::sleep(Duration::from_millis(60));
        notify.progress();
        notify.progress();
        assert_eq!((heard().as_deref(), heard()), (Some("WATCHDOG=1"), None));
        notify.state("a\nb");
        notify.state("a\nb");
        assert_eq!((heard().as_deref(), heard()), (Some("STATUS=a b"), None));
        drop(notify);
        assert_eq!(heard().as_deref(), Some("STOPPING=1"));
    }

    #[test]
    fn a_watchdog_is_fed_and_disarmed_by_a_polite_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("watchdog");
        assert!(Watchdog::open(&path, Duration::from_secs(1)).is_err());
        std::fs::write(&path, "").unwrap();
        let mut dog = Watchdog::open(&path, Duration::from_secs(1)).unwrap();
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(600) {
            dog.progress();
        }
        drop(dog);
        assert_eq!(std::fs::read(&path).unwrap(), [0, 0, b'V']);
    }
}
