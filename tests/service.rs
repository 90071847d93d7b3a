//! The real binary as a service: a fake service manager listens to it, stops it and lets it go on.
#![cfg(target_os = "linux")]

use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

struct Process(Child);

impl Process {
    fn signal(&self, name: &str) {
        assert!(Command::new("kill").args([name, &self.0.id().to_string()]).status().unwrap().success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Manager(UnixDatagram);

impl Manager {
    /// What comes within a time.
    fn hear(&self, time: Duration) -> Vec<String> {
        let end = Instant::now() + time;
        let mut heard = Vec::new();
        while let Some(left) = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            self.0.set_read_timeout(Some(left)).unwrap();
            let mut bytes = [0; 512];
            if let Ok(length) = self.0.recv(&mut bytes) {
                heard.extend(String::from_utf8_lossy(&bytes[..length]).lines().map(str::to_owned));
            }
        }
        heard
    }

    /// Waits for a message, for at most 60 s.
    fn wait(&self, message: &str) {
        let start = Instant::now();
        let mut heard = Vec::new();
        while !heard.iter().any(|line| line == message) {
            assert!(start.elapsed() < Duration::from_secs(60), "no {message}: {heard:?}");
            heard.extend(self.hear(Duration::from_millis(50)));
        }
    }
}

#[test]
fn the_manager_hears_it_get_ready_and_live_and_nothing_while_it_is_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("notify");
    let manager = Manager(UnixDatagram::bind(&socket).unwrap());
    let screens = folder.path().join("screens");
    let scans = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/bscans");
    let child = Command::new(env!("CARGO_BIN_EXE_fovea"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["run", "--source", &format!("replay:{scans}?fps=2&loop=true")])
        .args(["--display", &format!("png:{}", screens.display())])
        .env("NOTIFY_SOCKET", &socket)
        .env("WATCHDOG_USEC", "800000")
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut process = Process(child);
    manager.wait("READY=1");
    assert!(screens.join("screen.png").is_file(), "ready means that there is a screen");
    manager.wait("STATUS=a finding is shown");
    let alive = |heard: &[String]| heard.iter().filter(|line| *line == "WATCHDOG=1").count();
    let heard = manager.hear(Duration::from_secs(3));
    assert!((4..=16).contains(&alive(&heard)), "{heard:?}");
    process.signal("-STOP");
    manager.hear(Duration::from_millis(100));
    assert_eq!(manager.hear(Duration::from_secs(2)), [""; 0]);
    process.signal("-CONT");
    manager.wait("WATCHDOG=1");
    process.signal("-TERM");
    manager.wait("STOPPING=1");
    assert!(process.0.wait().unwrap().success());
}
