//! The emulated machine: its console is read line by line, and its screen is taken from outside.

use super::guest::Guest;
use super::{Arch, Outcome, VmArgs};
use crate::toolchain::run as run_tool;
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
    fn ask(&mut self, command: &str) -> anyhow::Result<String> {
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
                return Ok(line);
            }
        }
    }

    /// The level of a pin of the PL061 as its register has it, read from outside (ARM DDI 0190B: bits 2 to 9 of the address of
    /// GPIODATA are the mask).
    fn pin(&mut self, pin: u32) -> anyhow::Result<String> {
        let address = 0x0903_0000 + (4u32 << pin);
        let command = format!(
            r#"{{"execute":"human-monitor-command","arguments":{{"command-line":"xp /1wx {address:#x}"}}}}"#
        );
        let answer = self.ask(&command)?;
        let value = answer.split("0x").nth(1).and_then(|hex| u32::from_str_radix(hex.get(..8)?, 16).ok());
        let value = value.with_context(|| format!("qemu says {answer}"))?;
        Ok(u32::from(value & 1 << pin != 0).to_string())
    }

    /// What is still said until the machine ends.
    fn rest(mut self) -> String {
        let mut said = String::new();
        while self.0.read_line(&mut said).is_ok_and(|bytes| bytes > 0) {}
        said
    }
}

/// Processor of the machine `virt`, and processors and memory of all; its device tree depends on them.
const ARM: [&str; 2] = ["-cpu", "cortex-a72"];
const SIZE: [&str; 4] = ["-smp", "2", "-m", "2048"];

/// The machine without what differs from run to run. Emulation alone: the kernel's virtual machines are not to be had everywhere.
fn command(guest: &Guest, arch: Arch) -> anyhow::Result<Command> {
    let mut machine = Command::new(match arch {
        Arch::X86_64 => "qemu-system-x86_64",
        Arch::Arm64 => "qemu-system-aarch64",
    });
    match arch {
        Arch::X86_64 => machine.args(["-cpu", "max", "-vga", "none"]),
        Arch::Arm64 => machine.args(["-M", "virt"]).args(ARM),
    };
    machine
        .args(SIZE)
        .args(["-accel", "tcg,thread=multi", "-no-reboot", "-nodefaults"])
        .args(["-display", "none", "-device", "virtio-gpu-pci", "-device", "virtio-keyboard-pci"])
        .args(["-device", "i6300esb", "-action", "watchdog=reset", "-serial", "stdio"])
        .arg("-kernel")
        .arg(&guest.kernel)
        .arg("-initrd")
        .arg(&guest.files);
    if arch == Arch::Arm64 {
        // The kernel's own driver would take the line of the power key.
        let tree = guest.files.with_extension("dtb");
        let dump = format!("virt,dumpdtb={}", tree.display());
        run_tool(Command::new("qemu-system-aarch64").args(["-M", &dump]).args(ARM).args(SIZE))?;
        run_tool(Command::new("fdtput").arg("-r").arg(&tree).arg("/gpio-keys"))?;
        machine.arg("-dtb").arg(tree);
    }
    Ok(machine)
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
    let mut machine = command(guest, args.arch)?;
    machine
        .arg("-qmp")
        .arg(format!("unix:{},server,nowait", socket.display()))
        .arg("-virtfs")
        .arg(format!("local,path={},mount_tag=out,security_model=none", out.display()))
        .arg("-append")
        .arg(format!(
            "console={} panic=-1 loglevel=3 scenario={name} replugs={} classes={}",
            if args.arch == Arch::Arm64 { "ttyAMA0" } else { "ttyS0" },
            args.replugs,
            args.classes
        ))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut machine =
        Machine(machine.spawn().context("qemu cannot be started; install qemu-system-x86 and -arm")?);
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
                } else if line == "powerkey" {
                    // The machine `virt` has its key on line 3 of the PL061: 1 for 100 ms.
                    if let Err(error) = control.ask(r#"{"execute":"system_powerdown"}"#) {
                        row(false, &format!("power key: {error}"));
                    }
                    console.write_all(b"\n")?;
                } else if let Some(pin) = line.strip_prefix("pin ") {
                    let level = pin.parse().context("a pin's number").and_then(|pin| control.pin(pin));
                    let level = level.unwrap_or_else(|error| format!("{error}"));
                    console.write_all(format!("{level}\n").as_bytes())?;
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
