//! What the machine is doing while it trains. Only Linux tells; elsewhere the figures stay 0.

use crate::device::DeviceKind;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Loads and memory at one time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    /// All processors together, 0 to 100.
    pub cpu: f64,
    /// Bytes that this process holds.
    pub own: u64,
    /// Bytes in use on the machine.
    pub used: u64,
    /// Bytes that the machine has.
    pub total: u64,
    /// The GPU, where the run uses one and it can be asked.
    pub gpu: Option<Gpu>,
}

/// A GPU's load.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gpu {
    /// 0 to 100.
    pub load: f64,
    /// Bytes in use.
    pub used: u64,
    /// Bytes that it has.
    pub total: u64,
}

/// Reads the machine, at most every two seconds.
#[derive(Debug)]
pub struct Machine {
    asks_gpu: bool,
    /// Busy and all ticks of the processors so far.
    ticks: (u64, u64),
    last: Option<(Instant, Reading)>,
}

impl Machine {
    /// The machine of a run on `device`.
    pub fn new(device: DeviceKind) -> Self {
        Self { asks_gpu: device != DeviceKind::Cpu, ticks: (0, 0), last: None }
    }

    /// The latest reading.
    pub fn reading(&mut self) -> Reading {
        const EVERY: Duration = Duration::from_secs(2);
        if let Some((_, reading)) = self.last.as_ref().filter(|(time, _)| time.elapsed() < EVERY) {
            return reading.clone();
        }
        let file = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let ticks = ticks(&file("/proc/stat")).unwrap_or(self.ticks);
        let (busy, all) = (ticks.0.saturating_sub(self.ticks.0), ticks.1.saturating_sub(self.ticks.1));
        self.ticks = ticks;
        let memory = file("/proc/meminfo");
        let total = bytes(&memory, "MemTotal:").unwrap_or(0);
        let gpu = if self.asks_gpu { ask() } else { None };
        // A machine that does not answer once is not asked again: that would cost a process every time.
        self.asks_gpu = gpu.is_some();
        let reading = Reading {
            cpu: 100.0 * busy as f64 / all.max(1) as f64,
            own: bytes(&file("/proc/self/status"), "VmRSS:").unwrap_or(0),
            used: total.saturating_sub(bytes(&memory, "MemAvailable:").unwrap_or(0)),
            total,
            gpu,
        };
        self.last = Some((Instant::now(), reading.clone()));
        reading
    }
}

/// The value of a line `NAME: NUMBER kB`, as Linux writes them, in bytes.
pub fn bytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// Busy and all ticks since the start, from the first line of `/proc/stat`: user, nice, system, idle, waiting, and so on.
fn ticks(text: &str) -> Option<(u64, u64)> {
    let line = text.lines().next()?.strip_prefix("cpu ")?;
    // What guests take is counted as the user's already.
    let numbers: Vec<u64> = line.split_whitespace().take(8).map_while(|n| n.parse().ok()).collect();
    let all = numbers.iter().sum::<u64>();
    Some((all - numbers.get(3)? - numbers.get(4)?, all))
}

/// Asks NVIDIA's tool for the first GPU.
fn ask() -> Option<Gpu> {
    let query = ["--query-gpu=utilization.gpu,memory.used,memory.total", "--format=csv,noheader,nounits"];
    let output =
        Command::new("nvidia-smi").args(query).stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    parse(&String::from_utf8_lossy(&output.stdout))
}

/// A line of `nvidia-smi`: percent, MiB, MiB.
fn parse(text: &str) -> Option<Gpu> {
    let mut numbers = text.lines().next()?.split(',').map(|cell| cell.trim().parse::<u64>());
    let mut next = || numbers.next()?.ok();
    let (load, used, total) = (next()?, next()?, next()?);
    Some(Gpu { load: load as f64, used: used.checked_mul(1 << 20)?, total: total.checked_mul(1 << 20)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory() {
        if !cfg!(target_os = "linux") {
            return eprintln!("skipped: only Linux tells");
        }
        let mut machine = Machine::new(DeviceKind::Cpu);
        let reading = machine.reading();
        assert!(reading.own > 1 << 20 && reading.own < reading.total, "{reading:?}");
        assert!(reading.used > 0 && reading.used <= reading.total && reading.gpu.is_none());
        assert!((0.0..=100.0).contains(&reading.cpu));
        assert_eq!(machine.reading(), reading, "read again only after two seconds");
    }

    #[test]
    fn lines_of_linux_are_understood() {
        // user 10, nice 1, system 4, idle 80, waiting 5, and a guest's 7 that the user has already.
        assert_eq!(ticks("cpu  10 1 4 80 5 0 0 0 7 0\ncpu0 1 1 1 1\n"), Some((15, 100)));
        assert_eq!(ticks("cpu  10 1\n"), None);
        assert_eq!(ticks("intr 5\n"), None);
        assert_eq!(bytes("MemFree:  1 kB\nMemTotal:   16 kB\n", "MemTotal:"), Some(16384));
        assert_eq!(bytes("MemTotal: many\n", "MemTotal:"), None);
    }

    #[test]
    fn gpus_answer_in_lines() {
        let gpu = parse("87, 10240, 24576\n3, 0, 24576\n").unwrap();
        assert_eq!((gpu.load, gpu.used, gpu.total), (87.0, 10 << 30, 24 << 30));
        assert_eq!(parse("[N/A], 1, 2"), None);
        assert_eq!(parse("No devices were found"), None);
        assert_eq!(parse(""), None);
    }
}
