//! The emulated machine: its console is read line by line, and its screen is taken from outside.

use super::guest::Guest;
use super::{Outcome, VmArgs};
use anyhow::{Context, bail};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// A machine that is switched off when it is left.
struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The machine's control socket (QMP).
struct Control(BufReader<UnixStream>);

impl Control {
    fn open(path: &Path) -> anyhow::Result<Self> {
        let since = Instant::now();
        let stream = loop {
            match UnixStream::connect(path) {
                Ok(stream) => break stream,
                Err(_) if since.elapsed() < Duration::from_secs(10) => {
                    std::thread::sleep(Duration::from_millis(50));
                }
                Err(error) => return Err(error).context("qemu's control socket does not answer"),
            }
        };
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        let mut control = Self(BufReader::new(stream));
        control.0.read_line(&mut String::new())?;
        control.ask(r#"{"execute":"qmp_capabilities"}"#)?;
        Ok(control)
    }

    /// Sends a command and waits for its end; events between are not of interest.
    fn ask(&mut self, command: &str) -> anyhow::Result<()> {
        writeln!(self.0.get_mut(), "{command}")?;
        loop {
            let mut line = String::new();
            if self.0.read_line(&mut line)? == 0 {
                bail!("qemu ended while it was asked {command}");
            }
            if line.contains("\"error\"") {
                bail!("qemu: {}", line.trim());
            }
            if line.contains("\"return\"") {
                return Ok(());
            }
        }
    }

    /// What is still said until the machine ends.
    fn rest(mut self) -> String {
        let mut said = String::new();
        while self.0.read_line(&mut said).is_ok_and(|bytes| bytes > 0) {}
        said
    }
}

/// Runs a scenario and adds what it said to the table.
pub fn run(
    guest: &Guest,
    name: &str,
    args: &VmArgs,
    out: &Path,
    table: &mut Vec<Outcome>,
) -> anyhow::Result<()> {
    let socket = out.join("qmp");
    // Emulation alone: the kernel's virtual machines are not to be had everywhere.
    let mut machine = Command::new("qemu-system-x86_64");
    machine
        .args([
            "-accel",
            "tcg,thread=multi",
            "-cpu",
            "max",
            "-smp",
            "2",
            "-m",
            "2048",
            "-no-reboot",
            "-nodefaults",
        ])
        .args([
            "-display",
            "none",
            "-vga",
            "none",
            "-device",
            "virtio-gpu-pci",
            "-device",
            "virtio-keyboard-pci",
            "-device",
            "i6300esb",
            "-watchdog-action",
            "reset",
            "-serial",
            "stdio",
        ])
        .arg("-qmp")
        .arg(format!("unix:{},server,nowait", socket.display()))
        .arg("-virtfs")
        .arg(format!("local,path={},mount_tag=out,security_model=none", out.display()))
        .arg("-kernel")
        .arg(&guest.kernel)
        .arg("-initrd")
        .arg(&guest.files)
        .arg("-append")
        .arg(format!(
            "console=ttyS0 panic=-1 loglevel=3 scenario={name} replugs={} classes={}",
            args.replugs, args.classes
        ))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut machine =
        Machine(machine.spawn().context("qemu-system-x86_64 cannot be started; install qemu-system-x86")?);
    let mut console = machine.0.stdin.take().context("no console")?;
    let spoken = machine.0.stdout.take().context("no console")?;
    let (give, lines) = channel();
    std::thread::spawn(move || {
        let mut reader = BufReader::new(spoken);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).is_ok_and(|bytes| bytes > 0) {
            if give.send(String::from_utf8_lossy(&line).trim().to_owned()).is_err() {
                return;
            }
            line.clear();
        }
    });
    let mut control = Control::open(&socket)?;
    let start = Instant::now();
    let mut row = |good, what: &str| table.push(Outcome { scenario: name.into(), good, what: what.into() });
    let limit = Duration::from_secs(args.limit);
    let (mut ended, mut reset) = (false, None);
    loop {
        match lines.recv_timeout(limit.saturating_sub(start.elapsed())) {
            Ok(line) => {
                println!("{:6.1} {line}", start.elapsed().as_secs_f64());
                if let Some(what) = line.strip_prefix("ok ") {
                    row(true, what);
                } else if let Some(what) = line.strip_prefix("fail ") {
                    row(false, what);
                } else if let Some(shot) = line.strip_prefix("shot ") {
                    let picture = out.join(format!("{shot}.png"));
                    let command = format!(
                        r#"{{"execute":"screendump","arguments":{{"filename":"{}","format":"png"}}}}"#,
                        picture.display()
                    );
                    if let Err(error) = control.ask(&command) {
                        row(false, &format!("{shot}: {error}"));
                    }
                    console.write_all(b"\n")?;
                } else if let Some((key, millis)) =
                    line.strip_prefix("key ").and_then(|rest| rest.split_once(' '))
                {
                    let command = format!(
                        r#"{{"execute":"send-key","arguments":{{"keys":[{{"type":"qcode","data":"{key}"}}],"hold-time":{millis}}}}}"#
                    );
                    if let Err(error) = control.ask(&command) {
                        row(false, &format!("key {key}: {error}"));
                    }
                    console.write_all(b"\n")?;
                } else if line == "expect reset" {
                    reset = Some(Instant::now());
                } else if line == "done" {
                    ended = true;
                }
            }
            Err(RecvTimeoutError::Timeout) => {
                row(false, &format!("not at its end after {} s", args.limit));
                return Ok(());
            }
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    if let Some(since) = reset {
        let took = since.elapsed().as_secs_f64();
        let bitten = control.rest().contains("\"WATCHDOG\"");
        row(bitten, &format!("the watchdog restarted the machine {took:.0} s after the loop stood still"));
    } else if !ended {
        row(false, "the machine stopped before the scenario's end");
    }
    Ok(())
}
