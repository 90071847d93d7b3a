//! The dashboard's picture.

use super::View;
use crate::curves::Epoch;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Style, Stylize};
use ratatui::symbols::Marker;
use ratatui::text::Line;
use ratatui::widgets::{Axis, Block, Chart, Dataset, Gauge, GraphType, Paragraph, Wrap};

/// Draws the view into all of the frame, whatever its size.
pub(super) fn draw(view: &View, frame: &mut Frame) {
    let lines = (frame.area().height / 4).clamp(3, 8);
    let [head, gauge, charts, machine, log] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Min(6),
        Constraint::Length(2),
        Constraint::Length(lines),
    ])
    .areas(frame.area());
    let (epoch, epochs) = view.epoch;
    let (done, pictures) = view.pictures;
    let title = format!(
        "{}  epoch {epoch} of {epochs}  rate {:.1e}  {} since the start, {} to go",
        view.run,
        view.rate,
        clock(view.seconds),
        left(view).map_or("?".into(), clock)
    );
    frame.render_widget(Paragraph::new(title).bold(), head);
    let share = (done as f64 / pictures.max(1) as f64).clamp(0.0, 1.0);
    let label = format!(
        "{done} of {pictures}  {:.1} images/s  loss {:.4}  accuracy {:.2} %",
        view.images_per_second,
        view.now.0,
        100.0 * view.now.1
    );
    let bar = Gauge::default().ratio(share).label(label).gauge_style(Style::new().fg(Color::Blue));
    frame.render_widget(bar, gauge);
    let [loss, accuracy] = Layout::horizontal([Constraint::Fill(1); 2]).areas(charts);
    let of = |pick: fn(&Epoch) -> f64| -> Vec<(f64, f64)> {
        view.history.iter().map(|e| (e.epoch as f64, pick(e))).collect()
    };
    let batches = smoothed(view.losses.iter().copied());
    curves(frame, loss, "loss", &batches, &of(|e| e.validation_loss), epochs);
    let percent: [fn(&Epoch) -> f64; 2] = [|e| 100.0 * e.accuracy, |e| 100.0 * e.validation_accuracy];
    curves(frame, accuracy, "accuracy, %", &of(percent[0]), &of(percent[1]), epochs);
    let r = &view.reading;
    let gb = |bytes: u64| bytes as f64 / 1e9;
    let gpu = match r.gpu {
        None => String::new(),
        Some(g) => format!("  GPU {:.0} %, {:.1} of {:.1} GB", g.load, gb(g.used), gb(g.total)),
    };
    let text = format!(
        "CPU {:.0} %  memory {:.2} GB here, {:.1} of {:.1} GB in all{gpu}",
        r.cpu,
        gb(r.own),
        gb(r.used),
        gb(r.total)
    );
    let keys = Line::from("Ctrl-C stops after the batch; --resume goes on from there").dim();
    frame.render_widget(Paragraph::new(vec![Line::from(text), keys]), machine);
    let last = view.lines.len().saturating_sub(usize::from(lines));
    let text: Vec<Line> = view.lines.iter().skip(last).map(|line| Line::from(line.as_str())).collect();
    frame.render_widget(Paragraph::new(text).wrap(Wrap { trim: false }), log);
}

/// Training in blue, validation in the terminal's yellow.
fn curves(
    frame: &mut Frame,
    area: Rect,
    title: &str,
    training: &[(f64, f64)],
    validation: &[(f64, f64)],
    epochs: usize,
) {
    let values = || training.iter().chain(validation).map(|p| p.1).filter(|v| v.is_finite());
    let (low, high) = values().fold((f64::MAX, f64::MIN), |(l, h), v| (l.min(v), h.max(v)));
    let (low, high) = if low <= high { (low, high.max(low + 1e-3)) } else { (0.0, 1.0) };
    let end = epochs.max(1) as f64;
    let set = |name: &'static str, data, colour| {
        Dataset::default()
            .name(name)
            .data(data)
            .marker(Marker::Braille)
            .graph_type(GraphType::Line)
            .style(Style::new().fg(colour))
    };
    let datasets = vec![set("training", training, Color::Blue), set("validation", validation, Color::Yellow)];
    let chart = Chart::new(datasets)
        .block(Block::bordered().title(title.to_string()))
        .x_axis(Axis::default().bounds([0.0, end]).labels(["0".to_string(), format!("{end:.0}")]))
        .y_axis(Axis::default().bounds([low, high]).labels([format!("{low:.2}"), format!("{high:.2}")]));
    frame.render_widget(chart, area);
}

/// An exponential mean over about ten batches, so that the eye sees the course.
fn smoothed(points: impl Iterator<Item = (f64, f64)>) -> Vec<(f64, f64)> {
    let mut mean = None;
    points
        .map(|(x, y)| {
            let next = mean.map_or(y, |mean: f64| mean + 0.1 * (y - mean));
            mean = Some(next);
            (x, next)
        })
        .collect()
}

/// Seconds until all epochs are done, by this epoch's speed.
fn left(view: &View) -> Option<f64> {
    let (epoch, epochs) = view.epoch;
    let (done, pictures) = view.pictures;
    let rest = pictures.saturating_sub(done) + pictures * epochs.saturating_sub(epoch);
    (view.images_per_second > 0.0).then(|| rest as f64 / view.images_per_second)
}

fn clock(seconds: f64) -> String {
    let s = seconds as u64;
    format!("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dashboard::system::{Gpu, Reading};
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    fn screen(view: &View, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(view, frame)).unwrap();
        terminal.backend().to_string()
    }

    #[test]
    fn figures_are_on_the_screen_and_no_size_breaks_it() {
        let epoch = |epoch: usize, loss: f64| Epoch {
            epoch,
            loss,
            accuracy: 0.9,
            validation_loss: loss,
            validation_accuracy: 0.8,
            ..Epoch::default()
        };
        let gpu = Some(Gpu { load: 71.0, used: 2_000_000_000, total: 8_000_000_000 });
        let mut view = View {
            run: "run-7".into(),
            epoch: (3, 12),
            pictures: (640, 1280),
            rate: 3e-4,
            images_per_second: 32.0,
            now: (0.5123, 0.875),
            losses: (0..40).map(|i| (f64::from(i) / 16.0, 1.0 / f64::from(i + 1))).collect(),
            history: vec![epoch(1, 0.9), epoch(2, 0.6)],
            reading: Reading { cpu: 93.4, own: 1_500_000_000, used: 4 << 30, total: 16_000_000_000, gpu },
            seconds: 3725.0,
            lines: ["first", "second"].map(String::from).into(),
        };
        let text = screen(&view, 100, 30);
        for part in [
            "run-7  epoch 3 of 12  rate 3.0e-4  1:02:05 since the start",
            // Half of this epoch and nine more at 32 a second.
            "0:06:20 to go",
            "640 of 1280  32.0 images/s  loss 0.5123  accuracy 87.50 %",
            "CPU 93 %  memory 1.50 GB here",
            "of 16.0 GB in all  GPU 71 %, 2.0 of 8.0 GB",
            "accuracy, %",
            "90.00",
            "80.00",
            "Ctrl-C",
            "second",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
        assert!(text.chars().any(|c| ('\u{2801}'..='\u{28ff}').contains(&c)), "curves\n{text}");
        for (width, height) in [(1, 1), (7, 3), (20, 8), (300, 90)] {
            screen(&view, width, height);
        }
        view.losses = [(0.5, f64::NAN)].into();
        view.history[1].validation_loss = f64::INFINITY;
        screen(&view, 80, 24);
        screen(&View::default(), 80, 24);
    }
}
