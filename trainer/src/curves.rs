//! Accuracy and loss over the epochs, as a table and a picture.

use anyhow::{Context, anyhow};
use plotters::prelude::*;
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;
use std::path::Path;

/// One epoch's figures.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Epoch {
    /// From 1.
    pub epoch: usize,
    /// Learning rate at its end.
    pub rate: f64,
    /// Mean loss on the training pictures while they were learnt.
    pub loss: f64,
    /// Share of right answers on them.
    pub accuracy: f64,
    /// Mean loss on the validation pictures.
    pub validation_loss: f64,
    /// Share of right answers on them.
    pub validation_accuracy: f64,
    /// Training pictures a second, validation left out.
    #[serde(default)]
    pub images_per_second: f64,
    /// Seconds that the epoch took, with validation.
    #[serde(default)]
    pub seconds: f64,
    /// Most memory that the process has held so far, in MB, where the system tells.
    #[serde(default)]
    pub peak_memory_mb: Option<f64>,
}

/// The most memory that this process has held, in MB of 10^6 bytes; only Linux tells.
pub fn peak_memory_mb() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024.0 / 1e6)
}

/// Whether a validation accuracy and loss are better than others: the higher accuracy, then the lower loss.
pub fn better((accuracy, loss): (f64, f64), (other, other_loss): (f64, f64)) -> bool {
    accuracy > other || accuracy == other && loss < other_loss
}

/// Epochs since the best checkpoint, by [`better`].
pub fn since_best(history: &[Epoch]) -> usize {
    let figures = |e: &Epoch| (e.validation_accuracy, e.validation_loss);
    let mut best = 0;
    for (i, epoch) in history.iter().enumerate() {
        if better(figures(epoch), figures(&history[best])) {
            best = i;
        }
    }
    history.len().saturating_sub(best + 1)
}

/// Writes `history.csv`, `metrics.jsonl` (a JSON object an epoch) and `curves.svg` into a folder.
///
/// # Errors
/// When the files cannot be written.
pub fn write(history: &[Epoch], folder: &Path) -> anyhow::Result<()> {
    let mut text = "epoch,rate,loss,accuracy,validation_loss,validation_accuracy\n".to_string();
    for e in history {
        let _ = writeln!(
            text,
            "{},{:.3e},{:.5},{:.5},{:.5},{:.5}",
            e.epoch, e.rate, e.loss, e.accuracy, e.validation_loss, e.validation_accuracy
        );
    }
    let path = folder.join("history.csv");
    std::fs::write(&path, text).with_context(|| format!("{}: cannot be written", path.display()))?;
    // Written anew from the history, so that a run that was killed and resumed has each epoch once.
    let lines = history.iter().map(|e| Ok(serde_json::to_string(e)? + "\n"));
    let path = folder.join("metrics.jsonl");
    std::fs::write(&path, lines.collect::<serde_json::Result<String>>()?)
        .with_context(|| format!("{}: cannot be written", path.display()))?;
    let path = folder.join("curves.svg");
    draw(history, &path).map_err(|e| anyhow!("{}: {e}", path.display()))
}

fn draw(history: &[Epoch], path: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let root = SVGBackend::new(path, (1200, 500)).into_drawing_area();
    root.fill(&WHITE)?;
    let last = history.len().max(2);
    let panels = root.split_evenly((1, 2));
    let losses = history.iter().flat_map(|e| [e.loss, e.validation_loss]).fold(0.1, f64::max);
    let low = history.iter().flat_map(|e| [e.accuracy, e.validation_accuracy]).fold(1.0, f64::min);
    type Pick = fn(&Epoch) -> f64;
    let plots: [(&str, std::ops::Range<f64>, Pick, Pick); 2] = [
        ("Accuracy", (low - 0.02).max(0.0)..1.0, |e| e.accuracy, |e| e.validation_accuracy),
        ("Loss", 0.0..losses * 1.05, |e| e.loss, |e| e.validation_loss),
    ];
    // Blue and vermilion of Okabe and Ito: told apart by colour-blind readers too.
    let (blue, red) = (RGBColor(0, 114, 178), RGBColor(213, 94, 0));
    for (panel, (title, range, train, validation)) in panels.iter().zip(plots) {
        let mut chart = ChartBuilder::on(panel)
            .caption(title, ("sans-serif", 24))
            .margin(12)
            .x_label_area_size(36)
            .y_label_area_size(56)
            .build_cartesian_2d(1f64..last as f64, range)?;
        chart.configure_mesh().x_desc("epoch").x_label_formatter(&|x| format!("{x:.0}")).draw()?;
        for (name, pick, colour) in [("training", train, blue), ("validation", validation, red)] {
            chart
                .draw_series(LineSeries::new(
                    history.iter().map(|e| (e.epoch as f64, pick(e))),
                    colour.stroke_width(2),
                ))?
                .label(name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], colour.stroke_width(2)));
        }
        chart.configure_series_labels().background_style(WHITE.mix(0.8)).border_style(BLACK).draw()?;
    }
    root.present()?;
    Ok(())
}
