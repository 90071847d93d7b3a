//! `fovea classify`: a finding for each picture.

use super::{ModelArgs, STOPPED, UNREAD};
use fovea::reader::Answer;
use fovea::{Class, Frame, Reader};
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;

/// Reads pictures (JPEG, PNG, TIFF, BMP); a folder is read with all folders in it.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  fovea classify scan.png\n  fovea classify --json export/ > findings.jsonl\n  \
                        fovea classify --region 120,64,768,496 screenshot.png\n\n\
                        With --json a line is one object: path, finding (CNV, DME, DRUSEN, NORMAL, UNCERTAIN, NOT_OCT), \
                        class (the most probable), confidence (calibrated), probabilities, referral (urgent, routine, \
                        observe, repeat), quality (good, fair, poor), reason, engine, millis; or path and error.\n\n\
                        Exit codes:\n  0  every picture was read\n  1  some picture could not be read, or there was none\n  \
                        2  wrong usage, configuration, model or engine\n  130  stopped by Ctrl-C"
)]
pub struct ClassifyArgs {
    /// Pictures and folders with pictures
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    model: ModelArgs,
}

/// A line of `--json`.
#[derive(Serialize)]
struct Line<'a> {
    path: &'a str,
    finding: &'a str,
    class: Class,
    confidence: f32,
    probabilities: BTreeMap<&'a str, f32>,
    referral: &'a str,
    quality: &'a str,
    reason: &'a str,
    engine: &'a str,
    millis: f32,
}

/// A picture to read, or why there is none at that place.
type Job = (PathBuf, Option<String>);

/// Classifies.
pub fn run(args: ClassifyArgs) -> anyhow::Result<ExitCode> {
    let jobs = jobs(&args.paths);
    let stop = super::stop_flag()?;
    let mut readers = vec![args.model.reader()?];
    while readers.len() < super::workers(jobs.len()) {
        let Some(another) = readers[0].share() else { break };
        readers.push(another);
    }
    let bar = super::progress(jobs.len() as u64, "reading");
    let next = AtomicUsize::new(0);
    let (send, receive) = mpsc::channel();
    let mut unread = 0;
    let finished = std::thread::scope(|scope| -> anyhow::Result<bool> {
        for mut reader in readers {
            let (send, jobs, next, stop) = (send.clone(), &jobs, &next, &stop);
            scope.spawn(move || work(&mut reader, jobs, next, stop, &send));
        }
        drop(send);
        // Answers come as they are ready and are told in the order of the files.
        let mut waiting = BTreeMap::new();
        let mut told = 0;
        for (i, answer) in receive {
            waiting.insert(i, answer);
            while let Some(answer) = waiting.remove(&told) {
                let path = jobs[told].0.display().to_string();
                unread += usize::from(answer.is_err());
                let written = bar.suspend(|| tell(&path, &answer, args.json));
                if let Err(error) = written {
                    stop.store(true, Ordering::Relaxed);
                    // `fovea classify … | head` is no failure.
                    if error.kind() == std::io::ErrorKind::BrokenPipe {
                        return Ok(false);
                    }
                    return Err(anyhow::Error::new(error).context("the results cannot be written"));
                }
                told += 1;
                bar.inc(1);
            }
        }
        Ok(told == jobs.len())
    })?;
    bar.finish_and_clear();
    Ok(match (finished, unread) {
        (false, _) => ExitCode::from(STOPPED),
        (true, 0) => ExitCode::SUCCESS,
        _ => ExitCode::from(UNREAD),
    })
}

fn work(
    reader: &mut Reader,
    jobs: &[Job],
    next: &AtomicUsize,
    stop: &AtomicBool,
    send: &mpsc::Sender<(usize, Result<Answer, String>)>,
) {
    while !stop.load(Ordering::Relaxed) {
        let i = next.fetch_add(1, Ordering::Relaxed);
        let Some((path, why)) = jobs.get(i) else { return };
        let answer = match why {
            Some(why) => Err(why.clone()),
            None => Frame::read(path)
                .map_err(|error| error.to_string())
                .and_then(|frame| reader.read(&frame).map_err(|error| error.to_string())),
        };
        if send.send((i, answer)).is_err() {
            return;
        }
    }
}

fn tell(path: &str, answer: &Result<Answer, String>, json: bool) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    match answer {
        Ok(answer) => {
            let said = &answer.diagnosis;
            if json {
                let line = Line {
                    path,
                    finding: said.finding.name(),
                    class: said.class,
                    confidence: said.confidence(),
                    probabilities: Class::ALL.map(|c| (c.name(), said.probabilities[c.index()])).into(),
                    referral: said.finding.referral().name(),
                    quality: said.quality.grade.word(),
                    reason: &said.reason,
                    engine: answer.engine,
                    millis: answer.millis,
                };
                serde_json::to_writer(&mut out, &line)?;
                writeln!(out)
            } else {
                let sure = format!("{} {:.1} %", said.class, said.confidence() * 100.0);
                let best = match said.finding.name() == said.class.name() {
                    true => sure,
                    false => format!("{} (best: {sure})", said.finding.name()),
                };
                let reason =
                    if said.reason.is_empty() { String::new() } else { format!(" · {}", said.reason) };
                let (referral, quality) = (said.finding.referral().name(), said.quality.grade.word());
                let engine = format!("{} {:.0} ms", answer.engine, answer.millis);
                writeln!(out, "{path}: {best} · {referral} · quality {quality} · {engine}{reason}")
            }
        }
        Err(why) if json => {
            serde_json::to_writer(&mut out, &serde_json::json!({ "path": path, "error": why }))?;
            writeln!(out)
        }
        Err(why) => {
            eprintln!("fovea: {why}");
            Ok(())
        }
    }
}

/// The pictures of the paths in order; a folder's in the order of their names, with the folders in it.
fn jobs(paths: &[PathBuf]) -> Vec<Job> {
    let mut list = Vec::new();
    for path in paths {
        if !path.is_dir() {
            list.push((path.clone(), None));
            continue;
        }
        let before = list.len();
        walk(path, &mut list);
        if list.len() == before {
            let why = format!(
                "{}: no picture (jpeg, png, tiff, bmp) in the folder; give one with B-scans",
                path.display()
            );
            list.push((path.clone(), Some(why)));
        }
    }
    list
}

fn walk(folder: &Path, list: &mut Vec<Job>) {
    let entries = std::fs::read_dir(folder).and_then(|entries| entries.collect::<Result<Vec<_>, _>>());
    let mut entries = match entries {
        Ok(entries) => entries,
        Err(error) => {
            let why = format!("{}: cannot be listed ({error}); check its permissions", folder.display());
            list.push((folder.into(), Some(why)));
            return;
        }
    };
    entries.sort_by_key(|entry| entry.file_name());
    for entry in entries {
        let path = entry.path();
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        // Links to folders are not followed: they can lead in circles.
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            walk(&path, list);
        } else if fovea::frame::is_picture(&path) && !path.is_dir() {
            list.push((path, None));
        }
    }
}
