//! Accuracy and loss over the epochs, as a table and a picture.

use crate::dashboard::system::bytes;
use crate::tensorboard::{self, Point};
use anyhow::{Context, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::register_font;
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;
use std::path::Path;

/// One epoch's figures.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
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
    /// When it ended, in seconds since 1970.
    #[serde(default)]
    pub time: f64,
}

impl Epoch {
    /// The figures under TensorBoard's names.
    fn point(&self) -> Point {
        let mut values = vec![
            ("loss/training", self.loss),
            ("loss/validation", self.validation_loss),
            ("accuracy/training", self.accuracy),
            ("accuracy/validation", self.validation_accuracy),
            ("rate", self.rate),
            ("images_per_second", self.images_per_second),
            ("seconds", self.seconds),
        ];
        values.extend(self.peak_memory_mb.map(|mb| ("peak_memory_mb", mb)));
        Point { time: self.time, step: self.epoch as i64, values }
    }
}

/// The most memory that this process has held, in MB of 10^6 bytes; only Linux tells.
pub fn peak_memory_mb() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    Some(bytes(&status, "VmHWM:")? as f64 / 1e6)
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

/// Writes `history.csv`, `metrics.jsonl` (a JSON object an epoch), `events.out.tfevents.0.fovea` for TensorBoard, and
/// `curves.svg` and `.png` into a folder.
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
    let path = folder.join("events.out.tfevents.0.fovea");
    let points: Vec<Point> = history.iter().map(Epoch::point).collect();
    tensorboard::write(&points, &path).with_context(|| format!("{}: cannot be written", path.display()))?;
    draw_both(history, folder).map_err(|e| anyhow!("{}: the curves cannot be drawn: {e}", folder.display()))
}

/// Pixels of the curves.
const SIZE: (u32, u32) = (1200, 500);

fn draw_both(history: &[Epoch], folder: &Path) -> Result<(), Box<dyn std::error::Error>> {
    register_font("sans-serif", FontStyle::Normal, dejavu::sans::regular()).map_err(|_| "no font")?;
    draw(history, &SVGBackend::new(&folder.join("curves.svg"), SIZE).into_drawing_area())?;
    let mut pixels = vec![0; (SIZE.0 * SIZE.1 * 3) as usize];
    draw(history, &BitMapBackend::with_buffer(&mut pixels, SIZE).into_drawing_area())?;
    let picture = image::RgbImage::from_raw(SIZE.0, SIZE.1, pixels).ok_or("no picture")?;
    Ok(picture.save(folder.join("curves.png"))?)
}

fn draw<B: DrawingBackend>(
    history: &[Epoch],
    root: &DrawingArea<B, Shift>,
) -> Result<(), DrawingAreaErrorKind<B::ErrorType>> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_are_drawn_with_letters() {
        let folder = tempfile::tempdir().unwrap();
        let epoch = |epoch: usize| Epoch {
            epoch,
            loss: 1.0 / epoch as f64,
            accuracy: 0.7,
            validation_loss: 0.8,
            validation_accuracy: 0.6,
            ..Epoch::default()
        };
        write(&[epoch(1), epoch(2), epoch(3)], folder.path()).unwrap();
        let svg = std::fs::read_to_string(folder.path().join("curves.svg")).unwrap();
        for part in ["Accuracy", "Loss", "epoch", "validation", "#0072B2", "#D55E00"] {
            assert!(svg.contains(part), "{part}");
        }
        let png = image::open(folder.path().join("curves.png")).unwrap().into_rgb8();
        assert_eq!(png.dimensions(), SIZE);
        let count = |wanted: [u8; 3]| png.pixels().filter(|p| p.0 == wanted).count();
        assert!(count([0, 114, 178]) > 500 && count([213, 94, 0]) > 500, "both lines in both panels");
        // The captions are drawn in black on white.
        let caption = (0..40).flat_map(|y| (0..600).map(move |x| (x, y)));
        assert!(caption.filter(|&(x, y)| png.get_pixel(x, y).0[0] < 60).count() > 100);
        assert!(folder.path().join("events.out.tfevents.0.fovea").is_file());
    }
}
