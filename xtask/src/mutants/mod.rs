//! `cargo xtask mutants`: bugs planted in the kernels, each of which the simulator must find.
//!
//! A mutant is one edit of the sources (compiled with NVRTC) or of the built PTX. It runs the suite's problems under several
//! legal orders; it is caught by a fault of the interpreter or by bytes that are not the scalar engine's. One that is caught by
//! none says that a test is missing: an error.

mod list;

use crate::board::{Board, built_ptx};
use crate::toolchain::Toolchain;
use anyhow::{Context, bail, ensure};
use fovea::engine::cuda::examine::compare;
use fovea::engine::cuda::kernels::{PTX, compile, source};
use fovea::engine::suite::{self, View};
use fovea::engine::{plan::Plan, scalar::Scalar};
use fovea::model::Head;
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
    /// In the built PTX of a kernel: in the line with the n-th place of this text, it becomes that.
    Ptx(&'static str, &'static str, usize, &'static str),
}

/// A planted bug.
pub struct Mutant {
    /// What is wrong.
    pub name: String,
    /// The PTX that it is planted in.
    pub on: u32,
    /// How.
    pub edit: Edit,
    /// It lies around the network: pictures show it, not the suite's layers.
    pub around: bool,
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

/// A problem with two inputs and the right answers.
struct Problem {
    plan: Plan,
    blocks: usize,
    pictures: Vec<(Vec<u8>, Vec<u8>)>,
}

/// The suite; each problem with shared sums and without.
fn problems() -> Vec<Problem> {
    let mut all = Vec::new();
    for plan in suite::all() {
        let mut scalar = Scalar::of(plan.clone());
        let answered = |input: Vec<u8>| (input.clone(), scalar.run_bytes(&input));
        let pictures: Vec<_> = suite::inputs(&plan, 2).into_iter().take(2).map(answered).collect();
        for blocks in [64, 1] {
            all.push(Problem { plan: plan.clone(), blocks, pictures: pictures.clone() });
        }
    }
    all
}

/// The suite's pictures with heads of both kinds, around a network of next to nothing.
struct Pictures {
    plan: Plan,
    heads: [Head; 2],
    views: Vec<View>,
}

fn pictures() -> anyhow::Result<Pictures> {
    let plan = suite::tiny_network().context("the tiny network has no plan")?;
    Ok(Pictures { plan, heads: suite::heads(), views: suite::views().collect() })
}

/// The same for what lies around the network: each picture is read twice, so that the second finds what the first left, as tickets.
fn examine_around(ptx: &str, pictures: &Pictures, orders: &[Order]) -> anyhow::Result<Caught> {
    let board = Board::new(ptx)?;
    let schedule = board.schedule(&pictures.plan, 1)?;
    let mut caught = vec![None; orders.len()];
    for (order, caught) in orders.iter().zip(&mut caught) {
        'all: for head in &pictures.heads {
            let network = board.network(&schedule)?;
            for view in pictures.views.iter().flat_map(|view| [view, view]) {
                let ask = view.ask()?;
                *caught = match network.read(&ask, head, &order.options) {
                    Ok(Err(fault)) => Some(word(fault.kind)),
                    Ok(Ok((seen, _))) => compare(&seen, &ask, head).map(|_| "wrong bytes"),
                    // What came back makes no sense.
                    Err(_) => Some("wrong bytes"),
                };
                if caught.is_some() {
                    break 'all;
                }
            }
        }
    }
    Ok(caught)
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
            let pictures = if schedule.tickets > 0 { 2 } else { 1 };
            for (input, expected) in problem.pictures.iter().take(pictures) {
                *caught = match network.run(input, &order.options)? {
                    Err(fault) => Some(word(fault.kind)),
                    Ok((got, _)) if got != *expected => Some("wrong bytes"),
                    Ok(_) => continue,
                };
                break;
            }
        }
        if caught.iter().all(Option::is_some) {
            break;
        }
    }
    Ok(caught)
}

/// The lines of a kernel's body in PTX.
fn body(ptx: &str, kernel: &str) -> anyhow::Result<(usize, usize)> {
    let start = ptx.find(&format!(".entry {kernel}(")).with_context(|| format!("no kernel {kernel}"))?;
    let end = ptx[start..].find("\n}").with_context(|| format!("the kernel {kernel} does not end"))?;
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
        Edit::Ptx(kernel, from, nth, to) => {
            let ptx = built_ptx(mutant.on)?;
            let (start, end) = body(&ptx, kernel)?;
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
    for (on, kernel) in PTX.into_iter().flat_map(|on| list::kernels().map(move |kernel| (on, kernel))) {
        let ptx = built_ptx(on)?;
        let (start, end) = body(&ptx, kernel)?;
        let count = ptx[start..end].matches(list::BARRIER).count();
        all.extend((0..count).map(|nth| Mutant {
            name: format!("barrier {} of {count} of {kernel} taken away", nth + 1),
            on,
            edit: Edit::Ptx(kernel, list::BARRIER, nth, ""),
            around: kernel != "steps",
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
    let (problems, pictures, orders) = (problems(), pictures()?, orders());
    let next = AtomicUsize::new(0);
    let work = || -> anyhow::Result<Vec<(usize, Verdict)>> {
        let mut done = Vec::new();
        loop {
            let i = next.fetch_add(1, Ordering::Relaxed);
            let Some(mutant) = mutants.get(i) else { return Ok(done) };
            let start = Instant::now();
            let caught = mutated(mutant)
                .and_then(|ptx| match mutant.around {
                    true => examine_around(&ptx, &pictures, &orders),
                    false => examine(&ptx, &problems, &orders),
                })
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
    use super::{Edit, examine, examine_around, list, mutated, orders, pictures, problems};

    /// The mutants of the built PTX; those of the sources need the compilers.
    #[test]
    fn a_sample_is_caught() {
        let (problems, pictures, orders) = (problems(), pictures().unwrap(), orders());
        let sample: Vec<_> =
            list::all().into_iter().filter(|m| matches!(m.edit, Edit::Ptx(..))).take(list::SAMPLE).collect();
        assert_eq!(sample.len(), list::SAMPLE);
        for mutant in sample {
            // Under one of the orders is enough here.
            let one = [0, 3].iter().any(|&i| {
                let (ptx, orders) = (mutated(&mutant).unwrap(), &orders[i..=i]);
                let caught = match mutant.around {
                    true => examine_around(&ptx, &pictures, orders),
                    false => examine(&ptx, &problems, orders),
                };
                let caught = caught.unwrap();
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
