//! `cargo xtask mutants`: bugs planted in the kernels, each of which the simulator must find.
//!
//! A mutant is one edit of the sources (compiled with NVRTC) or of the built PTX. It runs the suite's problems under several
//! legal orders; it is caught by a fault of the interpreter or by bytes that are not the scalar engine's. One that is caught by
//! none says that a test is missing: an error.

mod list;

use crate::board::{Board, built_ptx};
use crate::toolchain::Toolchain;
use anyhow::{Context, bail, ensure};
use fovea::engine::cuda::kernels::{PTX, compile, source};
use fovea::engine::{plan::Plan, scalar::Scalar, suite};
use fovea_simulator::{FaultKind, Options, Schedule};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// Plants bugs in the kernels and sees that each is caught.
#[derive(Debug, clap::Args)]
pub struct MutantsArgs {
    /// Only mutants whose name contains this
    #[arg(long, value_name = "WORD", default_value = "")]
    only: String,
    /// Only those that need no compiler
    #[arg(long)]
    built: bool,
    /// Also remove each barrier of the built PTX in turn
    #[arg(long)]
    barriers: bool,
    /// Threads; each runs a mutant
    #[arg(long)]
    threads: Option<usize>,
}

/// Where a bug is planted.
pub enum Edit {
    /// In the sources: this text, which stands there once, becomes that.
    Source(&'static str, &'static str),
    /// In the built PTX of the kernel `steps`: in the line with the n-th place of this text, it becomes that.
    Ptx(&'static str, usize, &'static str),
}

/// A planted bug.
pub struct Mutant {
    /// What is wrong.
    pub name: String,
    /// The PTX that it is planted in.
    pub on: u32,
    /// How.
    pub edit: Edit,
}

/// An order of a launch, with what is watched.
struct Order {
    name: &'static str,
    options: Options,
}

fn orders() -> [Order; 4] {
    let order = |name, schedule, global_races| Order {
        name,
        options: Options {
            schedule,
            global_races,
            threads: 1,
            // A loop that never ends is met soon.
            max_instructions: 2_000_000,
            ..Options::default()
        },
    };
    [
        order("late", Schedule::Late, false),
        order("reversed", Schedule::EagerReversed, false),
        order("random", Schedule::Random(5), false),
        order("blocks", Schedule::Random(9), true),
    ]
}

/// A problem with its input and the right answer.
struct Problem {
    plan: Plan,
    blocks: usize,
    input: Vec<u8>,
    expected: Vec<u8>,
}

/// The suite; each problem with shared sums and without.
fn problems() -> Vec<Problem> {
    let mut all = Vec::new();
    for plan in suite::all() {
        let Some(input) = suite::inputs(&plan, 2).into_iter().next() else { continue };
        let expected = Scalar::of(plan.clone()).run_bytes(&input);
        for blocks in [64, 1] {
            let (plan, input, expected) = (plan.clone(), input.clone(), expected.clone());
            all.push(Problem { plan, blocks, input, expected });
        }
    }
    all
}

fn word(kind: FaultKind) -> &'static str {
    match kind {
        FaultKind::OutOfBounds => "out of bounds",
        FaultKind::Misaligned => "misaligned",
        FaultKind::Uninitialised => "uninitialised",
        FaultKind::Race => "race",
        FaultKind::Divergence => "divergence",
        FaultKind::Trap => "trap",
        FaultKind::Hang => "hang",
        FaultKind::Launch => "launch",
    }
}

/// By what each order catches kernels, if it does.
type Caught = Vec<Option<&'static str>>;

fn examine(ptx: &str, problems: &[Problem], orders: &[Order]) -> anyhow::Result<Caught> {
    let board = Board::new(ptx)?;
    let mut caught = vec![None; orders.len()];
    for problem in problems {
        let schedule = board.schedule(&problem.plan, problem.blocks)?;
        for (order, caught) in orders.iter().zip(&mut caught) {
            if caught.is_some() {
                continue;
            }
            let network = board.network(&schedule)?;
            // The second picture finds what the first left, as tickets.
            for _ in 0..if schedule.tickets > 0 { 2 } else { 1 } {
                *caught = caught.or(match network.run(&problem.input, &order.options)? {
                    Err(fault) => Some(word(fault.kind)),
                    Ok((got, _)) if got != problem.expected => Some("wrong bytes"),
                    Ok(_) => None,
                });
            }
        }
        if caught.iter().all(Option::is_some) {
            break;
        }
    }
    Ok(caught)
}

/// The lines of a kernel's body in PTX.
fn body(ptx: &str) -> anyhow::Result<(usize, usize)> {
    let start = ptx.find(".entry steps(").context("the PTX has no kernel `steps`")?;
    let end = ptx[start..].find("\n}").context("the kernel `steps` does not end")?;
    Ok((start, start + end))
}

fn mutated(mutant: &Mutant) -> anyhow::Result<String> {
    match mutant.edit {
        Edit::Source(from, to) => {
            let text = source();
            let places = text.matches(from).count();
            ensure!(places == 1, "{}: its text stands at {places} places of the sources", mutant.name);
            let bytes = compile(&text.replacen(from, to, 1), mutant.on).map_err(anyhow::Error::msg)?;
            Ok(String::from_utf8(bytes)?)
        }
        Edit::Ptx(from, nth, to) => {
            let ptx = built_ptx(mutant.on)?;
            let (start, end) = body(&ptx)?;
            let place = ptx[start..end].match_indices(from).nth(nth);
            let (at, _) = place.with_context(|| format!("{}: no place {nth} of `{from}`", mutant.name))?;
            let at = start + at;
            Ok(format!("{}{to}{}", &ptx[..at], &ptx[at + from.len()..]))
        }
    }
}

/// Each barrier of each built PTX, taken away.
fn barriers() -> anyhow::Result<Vec<Mutant>> {
    let mut all = Vec::new();
    for on in PTX {
        let ptx = built_ptx(on)?;
        let (start, end) = body(&ptx)?;
        let count = ptx[start..end].matches(list::BARRIER).count();
        all.extend((0..count).map(|nth| Mutant {
            name: format!("barrier {} of {count} taken away", nth + 1),
            on,
            edit: Edit::Ptx(list::BARRIER, nth, ""),
        }));
    }
    Ok(all)
}

/// What became of a mutant.
struct Verdict {
    caught: Caught,
    seconds: f32,
}

fn run_all(mutants: &[Mutant], threads: usize) -> anyhow::Result<Vec<Verdict>> {
    let (problems, orders) = (problems(), orders());
    let next = AtomicUsize::new(0);
    let work = || -> anyhow::Result<Vec<(usize, Verdict)>> {
        let mut done = Vec::new();
        loop {
            let i = next.fetch_add(1, Ordering::Relaxed);
            let Some(mutant) = mutants.get(i) else { return Ok(done) };
            let start = Instant::now();
            let caught = mutated(mutant)
                .and_then(|ptx| examine(&ptx, &problems, &orders))
                .with_context(|| format!("mutant `{}` on compute_{}", mutant.name, mutant.on))?;
            let verdict = Verdict { caught, seconds: start.elapsed().as_secs_f32() };
            println!("{}", row(mutant, &verdict));
            done.push((i, verdict));
        }
    };
    let mut all: Vec<(usize, Verdict)> = Vec::new();
    std::thread::scope(|scope| -> anyhow::Result<()> {
        let handles: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(work)).collect();
        for handle in handles {
            match handle.join() {
                Ok(done) => all.extend(done?),
                Err(_) => bail!("a thread failed"),
            }
        }
        Ok(())
    })?;
    Ok(all.into_iter().map(|(_, verdict)| verdict).collect())
}

/// Plants them all.
pub fn run(args: &MutantsArgs) -> anyhow::Result<()> {
    // Loads NVRTC, which the mutants of the sources are compiled with.
    let _tools = if args.built { None } else { Some(Toolchain::open()?) };
    let mut mutants = list::all();
    if args.barriers {
        mutants.extend(barriers()?);
    }
    mutants.retain(|m| m.name.contains(&args.only) && !(args.built && matches!(m.edit, Edit::Source(..))));
    let threads = args.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, Into::into));
    let names: String = orders().iter().map(|order| format!("{:<15}", order.name)).collect();
    println!("{:<4} {:<50} {names}", "PTX", "mutant, and what caught it under each order");
    let verdicts = run_all(&mutants, threads)?;
    let survived = |verdict: &&Verdict| verdict.caught.iter().all(Option::is_none);
    let survivors = verdicts.iter().filter(survived).count();
    ensure!(survivors == 0, "{survivors} of {} mutants are not caught", mutants.len());
    println!("all {} mutants are caught", mutants.len());
    Ok(())
}

/// A line of the table.
fn row(mutant: &Mutant, verdict: &Verdict) -> String {
    let cells: String = verdict.caught.iter().map(|c| format!("{:<15}", c.unwrap_or("-"))).collect();
    format!("{:<4} {:<50} {cells}{:>6.1} s", mutant.on, mutant.name, verdict.seconds)
}

#[cfg(test)]
mod tests {
    use super::{Edit, examine, list, mutated, orders, problems};

    /// The mutants of the built PTX; those of the sources need the compilers.
    #[test]
    fn a_sample_is_caught() {
        let (problems, orders) = (problems(), orders());
        let sample: Vec<_> =
            list::all().into_iter().filter(|m| matches!(m.edit, Edit::Ptx(..))).take(list::SAMPLE).collect();
        assert_eq!(sample.len(), list::SAMPLE);
        for mutant in sample {
            // Under one of the orders is enough here.
            let one = [0, 3].iter().any(|&i| {
                let caught = examine(&mutated(&mutant).unwrap(), &problems, &orders[i..=i]).unwrap();
                caught[0].is_some()
            });
            assert!(one, "{} on compute_{}", mutant.name, mutant.on);
        }
    }

    /// The sources change; the mutants must go with them.
    #[test]
    fn every_source_edit_has_its_place() {
        let text = fovea::engine::cuda::kernels::source();
        for mutant in list::all() {
            if let Edit::Source(from, to) = mutant.edit {
                assert_eq!(text.matches(from).count(), 1, "{}: {from}", mutant.name);
                assert_ne!(from, to, "{}", mutant.name);
            }
        }
    }
}
