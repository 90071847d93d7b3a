//! What a run shows while it works: a dashboard in a terminal, plain lines elsewhere.

mod draw;
pub mod system;

use crate::curves::Epoch;
use crate::device::DeviceKind;
use indicatif::ProgressBar;
use ratatui::Terminal;
use ratatui::backend::TermionBackend;
use ratatui::termion::{cursor, screen};
use std::collections::VecDeque;
use std::io::{IsTerminal, Stdout, Write, stdout};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use system::{Machine, Reading};

/// All that the dashboard draws.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// The run's folder.
    pub run: String,
    /// The epoch under way, from 1, and how many there are.
    pub epoch: (usize, usize),
    /// Pictures of this epoch that were shown, and how many there are.
    pub pictures: (usize, usize),
    /// Learning rate.
    pub rate: f64,
    /// Training pictures a second in this epoch.
    pub images_per_second: f64,
    /// Mean loss and share of right answers in this epoch so far.
    pub now: (f64, f64),
    /// Loss of the batches, the latest last, at the epoch's time: 1.5 is half way through the second.
    pub losses: VecDeque<(f64, f64)>,
    /// Epochs that are done.
    pub history: Vec<Epoch>,
    /// The machine.
    pub reading: Reading,
    /// Seconds since the start.
    pub seconds: f64,
    /// The latest lines.
    pub lines: VecDeque<String>,
}

/// Losses that are kept for the drawing.
const LOSSES: usize = 2000;

static ALTERNATE: AtomicBool = AtomicBool::new(false);

/// Gives the terminal back as it was; does nothing where no dashboard is open.
pub fn restore() {
    if ALTERNATE.swap(false, Ordering::Relaxed) {
        // A terminal that is gone needs no restoring.
        let _ = write!(stdout(), "{}{}", screen::ToMainScreen, cursor::Show).and_then(|()| stdout().flush());
    }
}

enum Output {
    Screen(Box<Terminal<TermionBackend<Stdout>>>),
    Plain { bar: ProgressBar, said: Instant },
}

/// Shows a run. Signals work as ever: the terminal is not put into raw mode.
pub struct Dashboard {
    view: View,
    output: Output,
    machine: Machine,
    start: Instant,
    drawn: Option<Instant>,
}

impl Dashboard {
    /// A dashboard where the output is a terminal and `plain` is not wished, else plain lines.
    pub fn open(run: String, device: DeviceKind, plain: bool) -> Self {
        let plain_output = || Output::Plain { bar: ProgressBar::hidden(), said: Instant::now() };
        let output = if plain || !stdout().is_terminal() {
            plain_output()
        } else {
            open_screen().map_or_else(|_| plain_output(), |terminal| Output::Screen(Box::new(terminal)))
        };
        let view = View { run, ..View::default() };
        Self { view, output, machine: Machine::new(device), start: Instant::now(), drawn: None }
    }

    /// An epoch of `pictures` begins.
    pub fn epoch(&mut self, number: usize, of: usize, pictures: usize, history: &[Epoch]) {
        self.view.epoch = (number, of);
        self.view.pictures = (0, pictures);
        self.view.history = history.to_vec();
        if let Output::Plain { bar, said } = &mut self.output {
            *bar = crate::bar(pictures, &format!("epoch {number}"));
            *said = Instant::now();
        }
        self.draw();
    }

    /// A batch is done: `count` pictures in all since the epoch's start with mean `loss` and `accuracy`, the batch's own
    /// loss, the rate, and pictures a second.
    pub fn batch(&mut self, count: usize, now: (f64, f64), own: f64, rate: f64, speed: f64) {
        let view = &mut self.view;
        view.pictures.0 = count;
        (view.now, view.rate, view.images_per_second) = (now, rate, speed);
        let share = count as f64 / view.pictures.1.max(1) as f64;
        view.losses.push_back(((view.epoch.0 - 1) as f64 + share, own));
        if view.losses.len() > LOSSES {
            view.losses.pop_front();
        }
        if let Output::Plain { bar, said } = &mut self.output {
            bar.set_position(count as u64);
            bar.set_message(format!("loss {:.3}", now.0));
            // A log shows that a long epoch lives.
            if bar.is_hidden() && said.elapsed() > Duration::from_secs(60) {
                *said = Instant::now();
                println!(
                    "epoch {:>2}: {count} of {} pictures, loss {:.4}, accuracy {:.2} %, {speed:.0} images/s",
                    view.epoch.0,
                    view.pictures.1,
                    now.0,
                    100.0 * now.1
                );
            }
            return;
        }
        if self.drawn.is_none_or(|time| time.elapsed() > Duration::from_millis(250)) {
            self.draw();
        }
    }

    /// A line for the reader; on the screen it is kept for the end too.
    pub fn say(&mut self, line: String) {
        match &mut self.output {
            Output::Plain { bar, .. } => {
                bar.finish_and_clear();
                println!("{line}");
            }
            Output::Screen(_) => {
                self.view.lines.push_back(line);
                self.draw();
            }
        }
    }

    fn draw(&mut self) {
        let Output::Screen(terminal) = &mut self.output else { return };
        self.view.reading = self.machine.reading();
        self.view.seconds = self.start.elapsed().as_secs_f64();
        self.drawn = Some(Instant::now());
        // What cannot be drawn now may be drawn next time; training goes on.
        let _ = terminal.draw(|frame| draw::draw(&self.view, frame));
    }
}

impl Drop for Dashboard {
    /// Leaves the lines in the terminal as it was before.
    fn drop(&mut self) {
        if matches!(self.output, Output::Screen(_)) {
            restore();
            self.view.lines.iter().for_each(|line| println!("{line}"));
        }
    }
}

fn open_screen() -> std::io::Result<Terminal<TermionBackend<Stdout>>> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            restore();
            before(info);
        }));
    });
    ALTERNATE.store(true, Ordering::Relaxed);
    let opened = write!(stdout(), "{}{}", screen::ToAlternateScreen, cursor::Hide)
        .and_then(|()| Terminal::new(TermionBackend::new(stdout())));
    if opened.is_err() {
        restore();
    }
    opened
}
