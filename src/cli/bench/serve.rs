//! `fovea bench --serve`: reads pictures as their names come in and says how long each took. The parent that measures cold
//! start and memory talks to it, and so does `scripts/bench-peers`.

use super::BenchArgs;
use anyhow::Context;
use fovea::{Class, Frame};
use serde::{Deserialize, Serialize};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitCode, Stdio};
use std::time::Instant;

/// An answer: one line of JSON.
#[derive(Debug, Serialize, Deserialize)]
pub struct Line {
    pub path: String,
    pub class: Class,
    pub logits: [f32; 4],
    /// Milliseconds of each stage.
    pub decode: f64,
    pub prepare: f64,
    pub engine: f64,
    /// Milliseconds of CPU time of all threads while the engine ran.
    pub cpu: f64,
    /// Largest resident memory of the process so far, in kilobytes; 0 where the system does not say.
    pub peak_kb: u64,
}

/// Serves until stdin ends: a name a line. `INPUT=FILE` and a tab before it writes what the network sees to FILE, 299x299
/// bytes.
pub fn serve(args: &BenchArgs) -> anyhow::Result<ExitCode> {
    let mut reader = args.reader()?;
    let preparation = reader.package().manifest.preparation.clone();
    let region = reader.region();
    let millis = |start: Instant| start.elapsed().as_secs_f64() * 1000.0;
    for line in std::io::stdin().lock().lines() {
        let line = line.context("stdin cannot be read")?;
        let (save, path) = match line.strip_prefix("INPUT=").and_then(|rest| rest.split_once('\t')) {
            Some((file, path)) => (Some(file), path),
            None => (None, line.as_str()),
        };
        let start = Instant::now();
        let frame = Frame::read(Path::new(path))?;
        let decode = millis(start);
        let start = Instant::now();
        let input = preparation.prepare(&frame, region)?.input;
        let prepare = millis(start);
        if let Some(file) = save {
            std::fs::write(file, &input.0[..]).with_context(|| format!("{file}: cannot be written"))?;
        }
        let (start, before) = (Instant::now(), cpu_millis());
        let output = reader.engine().run(&input)?;
        let (engine, cpu) = (millis(start), cpu_millis() - before);
        let best = (0..4).max_by(|&a, &b| output.logits[a].total_cmp(&output.logits[b])).unwrap_or(0);
        let line = Line {
            path: path.into(),
            class: Class::ALL[best],
            logits: output.logits,
            decode,
            prepare,
            engine,
            cpu,
            peak_kb: peak_kb(),
        };
        let mut out = std::io::stdout().lock();
        serde_json::to_writer(&mut out, &line)?;
        writeln!(out)?;
        out.flush()?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Largest resident memory of this process in kilobytes (`VmHWM`, proc(5)).
fn peak_kb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// CPU time of all threads in milliseconds: the scheduler's own count in nanoseconds (`schedstat` of each task).
fn cpu_millis() -> f64 {
    let Ok(tasks) = std::fs::read_dir("/proc/self/task") else { return 0.0 };
    let time = |task: std::fs::DirEntry| -> Option<f64> {
        std::fs::read_to_string(task.path().join("schedstat")).ok()?.split(' ').next()?.parse().ok()
    };
    tasks.filter_map(Result::ok).filter_map(time).sum::<f64>() / 1e6
}

/// What a fresh process took.
#[derive(Clone, Debug, Serialize)]
pub struct Fresh {
    /// Milliseconds from the start of the process to its first finding: of each process that was started.
    pub cold_start: super::spread::Spread,
    /// Largest resident memory in kilobytes after 20 pictures.
    pub peak_kb: u64,
}

/// Starts the program again as a server, `starts` times, and has the last one read `picture` 20 times.
pub fn fresh(args: &BenchArgs, engine: &str, picture: &Path, starts: usize) -> anyhow::Result<Fresh> {
    let mut times = Vec::new();
    let mut peak_kb = 0;
    for number in 0..starts {
        let start = Instant::now();
        let mut child = start_child(args, engine)?;
        let out = child.stdout.take().context("no stdout")?;
        let mut out = BufReader::new(out);
        ask(&mut child, &mut out, picture)?;
        times.push(start.elapsed().as_secs_f64() * 1000.0);
        if number + 1 == starts {
            for _ in 1..20 {
                peak_kb = ask(&mut child, &mut out, picture)?.peak_kb;
            }
        }
        drop(child.stdin.take());
        child.wait()?;
    }
    Ok(Fresh { cold_start: super::spread::Spread::of(times), peak_kb })
}

fn start_child(args: &BenchArgs, engine: &str) -> anyhow::Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["bench", "--serve", "--engine", engine]);
    command.arg("--model").arg(super::super::model_folder(&args.model.config()?)?);
    if let Some(config) = &args.model.config {
        command.arg("--config").arg(config);
    }
    if engine == fovea::engine::simd::NAME {
        if let Some(threads) = args.threads {
            command.args(["--threads", &threads.to_string()]);
        }
        if let Some(isa) = &args.isa {
            command.args(["--isa", isa]);
        }
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("the program cannot start itself")
}

fn ask(child: &mut Child, out: &mut BufReader<ChildStdout>, picture: &Path) -> anyhow::Result<Line> {
    let stdin = child.stdin.as_mut().context("no stdin")?;
    writeln!(stdin, "{}", picture.display())?;
    stdin.flush()?;
    let mut line = String::new();
    out.read_line(&mut line)?;
    serde_json::from_str(&line).with_context(|| format!("a server said '{line}'"))
}
