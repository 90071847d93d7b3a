//! What device there is and what goes wrong with it.
//!
//! | variable | values | without it |
//! |---|---|---|
//! | `FOVEA_DRIVER_SM` | compute capability times ten | 87 |
//! | `FOVEA_DRIVER_CUDA` | version of the driver, as `10.2` | 12.6 |
//! | `FOVEA_DRIVER_DEVICES` | 0 or 1 | 1 |
//! | `FOVEA_DRIVER_SCHEDULE` | `late`, `eager`, `reversed`, `random:SEED` | `late` |
//! | `FOVEA_DRIVER_STREAMS` | `in-order`, `late:SEED`, `unordered:SEED` | `in-order` |
//! | `FOVEA_DRIVER_CHECKS` | `on`, `off`: races and unwritten shared memory | `on` |
//! | `FOVEA_DRIVER_BACK` | milliseconds after which a lost device is back | never |
//! | `FOVEA_DRIVER_FAULTS` | `KIND:N` or `KIND:N+` with commas between, see [`Kind`] | none |

use fovea_simulator::Schedule;
use std::time::Duration;

/// When work of streams runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Streams {
    /// At once, in the order in which it was given.
    InOrder,
    /// As late as is legal: only while somebody asks for a result, a piece each time; of streams that may go on a random one.
    Late(u64),
    /// Late, and the pieces of one stream in any order, its events too: no driver does so. A program that still gives right answers
    /// does not need the order that it asks for, or its test would not see that it is missing.
    Unordered(u64),
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `allocation`: memory of the device, `CUDA_ERROR_OUT_OF_MEMORY`.
    Allocation,
    /// `pinned`: memory of the host, the same.
    Pinned,
    /// `refuse`: starting a kernel or a graph, `CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES`.
    Refuse,
    /// `launch`: a kernel while it runs, `CUDA_ERROR_LAUNCH_FAILED` from then on.
    Launch,
    /// `hang`: a kernel does not end.
    Hang,
    /// `wrong`: what is copied to the host has its bits turned.
    Wrong,
    /// `lost`: the device falls off its bus before a kernel, and comes back when [`Settings::back`] says so.
    Lost,
    /// `module`: loading kernels, `CUDA_ERROR_NO_BINARY_FOR_GPU`.
    Module,
    /// `early`: an event is said to have come when it has not, as if nobody had waited.
    Early,
}

const KINDS: [(&str, Kind); 9] = [
    ("allocation", Kind::Allocation),
    ("pinned", Kind::Pinned),
    ("refuse", Kind::Refuse),
    ("launch", Kind::Launch),
    ("hang", Kind::Hang),
    ("wrong", Kind::Wrong),
    ("lost", Kind::Lost),
    ("module", Kind::Module),
    ("early", Kind::Early),
];

/// Goes wrong at the Nth time, from 1, or from the Nth time on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What.
    pub kind: Kind,
    /// When.
    pub at: u64,
    /// Ever after too.
    pub on: bool,
}

/// Everything.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Compute capability times ten.
    pub architecture: u32,
    /// As `cuDriverGetVersion` says it: 10020 is CUDA 10.2.
    pub version: i32,
    /// 0 or 1.
    pub devices: i32,
    /// Order inside a launch.
    pub schedule: Schedule,
    /// Order between pieces of work.
    pub streams: Streams,
    /// The simulator looks for races and unwritten shared memory.
    pub checks: bool,
    /// What goes wrong.
    pub faults: Vec<Fault>,
    /// After which a lost device is back.
    pub back: Option<Duration>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            architecture: 87,
            version: 12060,
            devices: 1,
            schedule: Schedule::Late,
            streams: Streams::InOrder,
            checks: true,
            faults: Vec::new(),
            back: None,
        }
    }
}

impl Settings {
    /// From variables, which `value` gives by name.
    ///
    /// # Errors
    /// In words, which variable is wrong.
    pub fn read(value: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let mut read = Self::default();
        let mut set = |name: &str, take: &mut dyn FnMut(&mut Self, &str) -> Option<()>| {
            let name = format!("FOVEA_DRIVER_{name}");
            match value(&name) {
                Some(text) => take(&mut read, &text).ok_or_else(|| format!("{name}={text} is no setting")),
                None => Ok(()),
            }
        };
        set("SM", &mut |to, text| text.parse().ok().map(|n| to.architecture = n))?;
        set("CUDA", &mut |to, text| {
            let (major, minor) = text.split_once('.')?;
            to.version = major.parse::<i32>().ok()? * 1000 + minor.parse::<i32>().ok()? * 10;
            Some(())
        })?;
        set("DEVICES", &mut |to, text| text.parse().ok().filter(|n| *n < 2).map(|n| to.devices = n))?;
        set("SCHEDULE", &mut |to, text| text.parse().ok().map(|s| to.schedule = s))?;
        set("STREAMS", &mut |to, text| {
            to.streams = match text.split_once(':') {
                Some(("late", seed)) => Streams::Late(seed.parse().ok()?),
                Some(("unordered", seed)) => Streams::Unordered(seed.parse().ok()?),
                None if text == "in-order" => Streams::InOrder,
                _ => return None,
            };
            Some(())
        })?;
        set("CHECKS", &mut |to, text| {
            to.checks = text == "on";
            (to.checks || text == "off").then_some(())
        })?;
        set("BACK", &mut |to, text| {
            to.back = Some(Duration::from_millis(text.parse().ok()?));
            Some(())
        })?;
        set("FAULTS", &mut |to, text| {
            to.faults = text.split(',').map(fault).collect::<Option<_>>()?;
            Some(())
        })?;
        Ok(read)
    }
}

fn fault(text: &str) -> Option<Fault> {
    let (name, at) = text.trim().split_once(':')?;
    let kind = KINDS.iter().find(|(known, _)| *known == name)?.1;
    let (at, on) = at.strip_suffix('+').map_or((at, false), |at| (at, true));
    Some(Fault { kind, at: at.parse().ok()?, on })
}
