//! `cargo xtask gpu-cost`: what the network costs, counted on the simulator, and what it should therefore take.

mod boards;

use crate::board::{Board, built_ptx, ptx_for};
use crate::root;
use crate::simulate::{Shipped, shipped};
use anyhow::{Context, ensure};
use boards::{BOARDS, ISSUE, NODE, cache, resident};
use fovea::engine::cuda::kernels::LOCK;
use fovea::engine::cuda::schedule::{Launch, Schedule};
use fovea::engine::plan::{Plan, Step};
use fovea::engine::{Ask, FEATURE_CHANNELS, Seen};
use fovea::explain::light::fit;
use fovea::prepare::SIDE;
use fovea_simulator::{Counters, Options};
use std::collections::BTreeSet;
use std::fmt::Write as _;

/// Counts what the network costs on each board and judges it.
#[derive(Debug, clap::Args)]
pub struct CostArgs {
    /// Boards, by their architecture
    #[arg(long, value_delimiter = ',', default_value = "53,62,72,87")]
    boards: Vec<u32>,
    /// Blocks that a launch should have at least: three for each multiprocessor
    #[arg(long, default_value_t = 24)]
    blocks: usize,
    /// Put the tables into docs/cuda-cost.md
    #[arg(long)]
    write: bool,
}

/// What a launch must move at least: each input, weight, bias, multiplier and output once.
fn least(plan: &Plan, steps: &[usize]) -> u64 {
    let size = |tensor: usize| plan.tensors[tensor].shape.iter().product::<usize>() as u64;
    let inputs: BTreeSet<usize> = steps.iter().map(|&step| plan.steps[step].tensors().0).collect();
    let one = |&step: &usize| {
        let (_, to) = plan.steps[step].tensors();
        size(to)
            + match &plan.steps[step] {
                Step::Convolution(c) => (c.weight.len() + 8 * c.bias.len()) as u64,
                Step::Pool(_) => 0,
            }
    };
    inputs.into_iter().map(size).sum::<u64>() + steps.iter().map(one).sum::<u64>()
}

fn issued(counters: &Counters) -> u64 {
    counters.matrix_macs + counters.dot_macs + counters.half_macs
}

/// Seconds of a launch by its tightest limit.
fn seconds(board: &boards::Board, counters: &Counters) -> f64 {
    let each = board.multiprocessors * board.clock * 1e9;
    let blocks = counters.blocks as f64;
    // The last multiprocessor to end has this much more than its share.
    let uneven = (blocks / board.multiprocessors).ceil() * board.multiprocessors / blocks;
    let products = issued(counters) as f64 / board.macs;
    let busiest = products.max(counters.passes as f64).max(counters.instructions as f64 / ISSUE);
    let memory = (counters.memory_read + counters.memory_written) as f64 / (board.memory * 1e9);
    (busiest * uneven / each).max(memory) + NODE * 1e-6
}

/// What a kernel around the network must move at least: what it is given and what it leaves, each once.
fn least_around(kernel: &str, ask: &Ask<'_>, seen: &Seen) -> u64 {
    let (frame, region) = (ask.cut.frame(), ask.cut.region());
    let square = (SIDE * SIDE) as u64;
    let narrow = |rows: u32| u64::from(rows) * SIDE as u64;
    let weights = (64 * FEATURE_CHANNELS * 4) as u64;
    let shown = fit(frame, ask.room.unwrap_or_default());
    match kernel {
        // The region's edges, and the runs.
        "margins" => 10 * u64::from(region.width + region.height),
        "narrow" => u64::from(region.width) * u64::from(region.height) + narrow(region.height),
        "whole" => narrow(region.height) + square,
        "input" => narrow(seen.prepared.place.height) + 2 * square,
        "light" => frame.pixels().len() as u64 + 3 * u64::from(shown[0]) * u64::from(shown[1]),
        // Features and the hidden layer's weights.
        _ => weights + seen.output.features.len() as u64,
    }
}

/// The counts of a board.
struct Measured {
    board: u32,
    schedule: Schedule,
    /// Of all launches, with their kernels.
    launches: Vec<(&'static str, Counters)>,
    all: Counters,
    least: u64,
    useful: u64,
    resident: u32,
    registers: u32,
}

fn measure(board: u32, blocks: usize, shipped: &Shipped) -> anyhow::Result<Measured> {
    let (plan, ask) = (&shipped.plan, shipped.view.ask()?);
    let device = Board::new(&built_ptx(ptx_for(board)?)?)?;
    let schedule = device.schedule(plan, blocks)?;
    let options = Options {
        shared_races: false,
        uninitialised: false,
        traffic: true,
        cache: Some(cache(board)),
        ..Options::default()
    };
    let (seen, launches) = device.network(&schedule)?.read(&ask, &shipped.head, &options)??;
    let mut all = Counters::default();
    launches.iter().for_each(|(_, counters)| all.add(counters));
    let steps = |launch: &Launch| schedule.steps[launch.first..launch.first + launch.jobs].to_vec();
    let network: u64 = schedule.launches.iter().map(|launch| least(plan, &steps(launch))).sum();
    let around = launches.iter().filter(|(kernel, _)| *kernel != "steps");
    let least = network + around.map(|(kernel, _)| least_around(kernel, &ask, &seen)).sum::<u64>();
    let useful = plan.steps.iter().map(|step| plan.macs(step)).sum();
    let lock: toml::Table = LOCK.parse()?;
    let usage = |what: &str| -> anyhow::Result<u32> {
        let number = lock["kernels"][&format!("sm_{board}")]["steps"][what].as_integer();
        Ok(u32::try_from(number.context("kernels.toml does not say what `steps` takes")?)?)
    };
    let (registers, shared) = (usage("registers")?, usage("shared")?);
    let resident = resident(board, registers, shared);
    Ok(Measured { board, schedule, launches, all, least, useful, resident, registers })
}

impl Measured {
    fn moved(&self) -> u64 {
        self.all.memory_read + self.all.memory_written
    }

    /// Nodes of a picture's graph: the launches, and the copy of the features.
    fn nodes(&self) -> usize {
        self.launches.len() + 1
    }

    /// Warp instructions around the network.
    fn around(&self) -> u64 {
        let around = self.launches.iter().filter(|(kernel, _)| *kernel != "steps");
        around.map(|(_, counters)| counters.instructions).sum()
    }

    /// Worst bank conflict in a loop, with its line.
    fn conflict(&self) -> (u32, &str) {
        let looped = self.all.lines.iter().filter(|line| line.looped);
        looped.max_by_key(|line| line.bank_ways).map_or((0, ""), |line| (line.bank_ways, &line.text))
    }

    /// Fewest blocks of a convolution above 5 million products, with its name.
    fn fewest(&self, plan: &Plan) -> (i32, String) {
        let mut fewest = (i32::MAX, String::new());
        for launch in &self.schedule.launches {
            let mut before = 0;
            for number in launch.first..launch.first + launch.jobs {
                let job = &self.schedule.jobs[number];
                let step = &plan.steps[self.schedule.steps[number]];
                if plan.macs(step) > 5_000_000 && job.end - before < fewest.0 {
                    fewest = (job.end - before, step.name().to_owned());
                }
                before = job.end;
            }
        }
        fewest
    }

    /// What is not as it must be.
    fn missed(&self, plan: &Plan) -> Vec<String> {
        let mut missed = Vec::new();
        let mut must = |holds: bool, what: String| {
            if !holds {
                missed.push(format!("sm_{}: {what}", self.board));
            }
        };
        let share = self.useful as f64 / issued(&self.all) as f64;
        // Required of Orin; the others are told.
        must(self.board != 87 || share >= 0.80, format!("useful / issued is {share:.2}, below 0.80"));
        let bytes = self.moved() as f64 / self.least as f64;
        must(bytes <= 1.8, format!("{bytes:.2} times the least bytes, above 1.8"));
        let (ways, line) = self.conflict();
        must(ways <= 2, format!("{ways} words of one bank in `{line}`, above 2"));
        must(self.all.local_bytes == 0, format!("{} bytes of local memory", self.all.local_bytes));
        let nodes = self.nodes();
        must(nodes <= 80, format!("{nodes} nodes, above 80"));
        let (blocks, name) = self.fewest(plan);
        must(blocks >= 8, format!("{blocks} blocks in {name}, below 8"));
        missed
    }
}

fn tables(all: &[Measured], plan: &Plan) -> anyhow::Result<String> {
    let mut text = String::new();
    writeln!(
        text,
        "| | {} |",
        all.iter().map(|m| format!("sm_{}", m.board)).collect::<Vec<_>>().join(" | ")
    )?;
    writeln!(text, "|---|{}", "---|".repeat(all.len()))?;
    let mut row = |name: &str, cell: &dyn Fn(&Measured) -> String| {
        writeln!(text, "| {name} | {} |", all.iter().map(cell).collect::<Vec<_>>().join(" | "))
    };
    let mega = |n: u64| format!("{:.1}", n as f64 / 1e6);
    row("useful products, million", &|m| mega(m.useful))?;
    row("issued products, million", &|m| mega(issued(&m.all)))?;
    row("useful / issued", &|m| format!("{:.3}", m.useful as f64 / issued(&m.all) as f64))?;
    row("warp instructions (PTX), million", &|m| mega(m.all.instructions))?;
    row("of them around the network: preparation, explanation", &|m| mega(m.around()))?;
    row("divergent branches, million", &|m| mega(m.all.divergent_branches))?;
    row("MB asked for by threads", &|m| mega(m.all.global_read + m.all.global_written))?;
    row("cache, KB", &|m| format!("{}", cache(m.board) >> 10))?;
    row("MB read / written behind it", &|m| {
        format!("{} / {}", mega(m.all.memory_read), mega(m.all.memory_written))
    })?;
    row("times the least", &|m| format!("{:.2}", m.moved() as f64 / m.least as f64))?;
    row("shared-memory passes, million", &|m| mega(m.all.passes))?;
    row("accesses in loops by ways 1, 2, 4, 8, 16, 32; million", &|m| {
        let mut sum = [0u64; 6];
        for line in m.all.lines.iter().filter(|line| line.looped) {
            sum.iter_mut().zip(line.degrees).for_each(|(all, own)| *all += own);
        }
        sum.map(|n| format!("{:.2}", n as f64 / 1e6)).join(", ")
    })?;
    row("nodes of the graph", &|m| format!("{}", m.nodes()))?;
    row("fewest blocks above 5 million products", &|m| format!("{}", m.fewest(plan).0))?;
    row("registers of a thread", &|m| format!("{}", m.registers))?;
    row("bytes of local memory, in PTX (`cargo xtask kernels` refuses spills)", &|m| {
        format!("{}", m.all.local_bytes)
    })?;
    row("blocks of a multiprocessor", &|m| format!("{}", m.resident))?;
    for count in [8u64, 16, 20] {
        row(&format!("rounds of blocks on {count} multiprocessors, filled to"), &|m| {
            let room = count * u64::from(m.resident);
            let rounds: u64 = m.launches.iter().map(|(_, l)| l.blocks.div_ceil(room)).sum();
            format!("{rounds}, {:.0} %", 100.0 * m.all.blocks as f64 / (rounds * room) as f64)
        })?;
    }
    writeln!(
        text,
        "\n| board | multiprocessors, GHz | products | shared memory | instructions | memory | nodes | estimate, ms |"
    )?;
    writeln!(text, "|---|---|---|---|---|---|---|---|")?;
    for board in &BOARDS {
        let Some(m) = all.iter().find(|m| m.board == board.architecture) else { continue };
        let each = board.multiprocessors * board.clock * 1e6;
        let total: f64 = m.launches.iter().map(|(_, counters)| seconds(board, counters)).sum();
        writeln!(
            text,
            "| {} | {}, {} | {:.2} | {:.2} | {:.2} | {:.2} | {:.2} | **{:.1}** |",
            board.name,
            board.multiprocessors,
            board.clock,
            issued(&m.all) as f64 / board.macs / each,
            m.all.passes as f64 / each,
            m.all.instructions as f64 / ISSUE / each,
            m.moved() as f64 / (board.memory * 1e6),
            NODE * 1e-3 * m.launches.len() as f64,
            total * 1e3
        )?;
    }
    Ok(text)
}

/// What stands before the tables.
const HEAD: &str = "# What a picture costs on a GPU

From the frame's bytes to features and the picture for a screen of 1280x720. Made by `cargo xtask gpu-cost --write`, which fails where a
limit is passed. No GPU ran: the built PTX was executed by the simulator, which counts. *Times the least*: bytes that cross to memory behind a cache of the board's size, empty before each launch (16 ways, least
recently used, blocks one after the other), over each launch's inputs, weights and outputs once. Partial sums of shared tiles are in
the first and not in the second.

The estimate is a lower bound. For each launch the tightest of: products at the units' dense peak, passes of 128 bytes of shared memory, one a
clock (wmma's own are not counted), PTX instructions at four a clock, bytes at the memory's peak; the first three times what the last
multiprocessor has more than its share; and 3 us for each node. Latency, throttling and other users of the memory are left out. The
columns before it are the milliseconds of each limit alone.

";

/// Measures, prints, judges.
pub fn run(args: &CostArgs) -> anyhow::Result<()> {
    let shipped = shipped(None)?;
    let plan = &shipped.plan;
    let all: Vec<Measured> = args
        .boards
        .iter()
        .map(|board| measure(*board, args.blocks, &shipped))
        .collect::<anyhow::Result<_>>()?;
    let text = tables(&all, plan)?;
    print!("{text}");
    if args.write {
        std::fs::write(root().join("docs/cuda-cost.md"), format!("{HEAD}{text}"))?;
    }
    let missed: Vec<String> = all.iter().flat_map(|m| m.missed(plan)).collect();
    ensure!(missed.is_empty(), "{}", missed.join("\n"));
    println!("all limits are kept");
    Ok(())
}
