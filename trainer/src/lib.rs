//! The trainer of fovea: from a folder of labelled B-scans to a model package.

pub mod augment;
pub mod backbone;
pub mod cache;
pub mod checkpoint;
pub mod curves;
pub mod dashboard;
pub mod data;
pub mod device;
pub mod explain_check;
pub mod export;
pub mod extract;
pub mod fetch;
pub mod frozen;
pub mod mixup;
pub mod network;
pub mod nn;
pub mod phantom;
pub mod quantise_aware;
pub mod report;
pub mod score;
pub mod section;
pub mod shards;
pub mod split;
pub mod statistics;
pub mod svg;
pub mod teach;
pub mod tensorboard;
pub mod train;

use indicatif::{ProgressBar, ProgressStyle};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// A progress bar over `count` items; silent where the error stream is no terminal.
pub fn bar(count: usize, what: &str) -> ProgressBar {
    let template = "{prefix:>12} {wide_bar} {pos}/{len} {per_sec} {eta} {msg}";
    let bar = ProgressBar::new(count as u64).with_prefix(what.to_string());
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// Catches Ctrl-C: the answer tells whether it was pressed. A second press ends the program at once.
///
/// # Errors
/// When the signal cannot be caught.
pub fn interrupt() -> Result<impl Fn() -> bool, ctrlc::Error> {
    static PRESSED: AtomicBool = AtomicBool::new(false);
    static SET: OnceLock<()> = OnceLock::new();
    if SET.set(()).is_ok() {
        ctrlc::set_handler(|| {
            if PRESSED.swap(true, Ordering::Relaxed) {
                dashboard::restore();
                std::process::exit(130);
            }
        })?;
    }
    Ok(|| PRESSED.load(Ordering::Relaxed))
}
