//! A stream at work: which of its pictures are handed on, and when its signal is lost.

use super::super::watch::{Pattern, Stillness};
use super::super::{Port, Signal};
use super::convert::{self, Shape};
use super::{check_signal, failed, sys};
use crate::Frame;
use std::time::{Duration, Instant};

/// Many devices need so long for their first picture; later the port's patience counts.
const FIRST: Duration = Duration::from_secs(4);
/// Longest wait inside the kernel.
const POLL: Duration = Duration::from_millis(200);

/// Why a picture is not handed on.
enum Bad {
    Damaged(String),
    /// It is whole and shows nothing.
    Empty(&'static str),
    /// It is whole and for some time no new one.
    Frozen(&'static str),
}

/// A stream and what is known of its pictures.
pub struct Session<'a> {
    port: &'a Port,
    stream: sys::Stream,
    shape: Shape,
    origin: String,
    still: Stillness,
    /// Why the last picture was bad, when it was.
    bad: Option<Bad>,
    /// What the operator was told last.
    told: Option<&'static str>,
    /// When the last picture came, and the last good one.
    came: Instant,
    last: Instant,
    /// True after the first good picture.
    pub good: bool,
}

impl<'a> Session<'a> {
    pub fn new(port: &'a Port, stream: sys::Stream, shape: Shape, origin: String) -> Self {
        let now = Instant::now();
        let still = Stillness::default();
        Self { port, stream, shape, origin, still, bad: None, told: None, came: now, last: now, good: false }
    }

    /// Gives pictures until the stream is to be started anew, with the reason, or the appliance ends.
    pub fn run(&mut self) -> Result<(), String> {
        let mut bytes = Vec::new();
        while !self.port.ended() {
            let limit = if self.good { self.port.patience() } else { FIRST };
            let ready = sys::wait(self.stream.file(), POLL.min(limit / 8)).map_err(failed)?;
            if ready.event && sys::source_changed(self.stream.file()) {
                return Err("the signal changed; it is being looked at again".into());
            }
            if ready.picture {
                if let Some(buffer) = self.stream.newest().map_err(failed)? {
                    self.stream.copy(&buffer, &mut bytes);
                    let stamp = (buffer.sequence, buffer.time);
                    // V4L2_BUF_FLAG_ERROR: the driver knows that the picture is damaged.
                    let damaged = buffer.flags & 0x40 != 0;
                    self.stream.give_back(buffer).map_err(failed)?;
                    let frame = if damaged {
                        Err("the device marked the picture as damaged; check the cable and the hub".into())
                    } else {
                        convert::frame(&self.shape, &bytes, &self.origin).map_err(|error| error.to_string())
                    };
                    self.see(frame, stamp, limit);
                }
            } else if ready.broken {
                return Err("the device is gone or its stream broke; check the cable".into());
            }
            self.doubt(limit)?;
        }
        Ok(())
    }

    /// Hands a good picture on and keeps what is wrong with a bad one.
    fn see(&mut self, frame: Result<Frame, String>, stamp: (u32, [i64; 2]), limit: Duration) {
        self.came = Instant::now();
        let judged = frame.map_err(Bad::Damaged).and_then(|frame| {
            if let Some(why) = self.still.see(&frame, stamp, self.came, limit) {
                return Err(Bad::Frozen(why));
            }
            Pattern::of(&frame).map_or(Ok(frame), |pattern| Err(Bad::Empty(pattern.words())))
        });
        match judged {
            Ok(frame) => {
                (self.last, self.bad, self.told, self.good) = (self.came, None, None, true);
                self.port.offer(frame);
            }
            Err(bad) => {
                // The first damaged one of a row is told; a row that lasts is a lost signal.
                if let (Bad::Damaged(why), None) = (&bad, &self.bad) {
                    self.port.say(Signal::Note(format!("{}: {why}", self.origin)));
                }
                self.bad = Some(bad);
            }
        }
    }

    /// Says that the signal is lost when no good picture came for `limit`; an error when the stream itself is to blame.
    fn doubt(&mut self, limit: Duration) -> Result<(), String> {
        let frozen = matches!(self.bad, Some(Bad::Frozen(_)));
        if !frozen && self.last.elapsed() <= limit {
            return Ok(());
        }
        check_signal(self.stream.file())?;
        let silent = |why: &str| Err(format!("no good picture for {:.1} s: {why}", limit.as_secs_f64()));
        match &self.bad {
            // Its pictures come; they are looked at for a better one.
            Some(Bad::Empty(why) | Bad::Frozen(why)) if self.came.elapsed() <= limit => {
                if self.told.replace(why) != Some(why) {
                    self.port.lose(format!("{}: {why}", self.origin));
                }
                Ok(())
            }
            Some(Bad::Damaged(why)) => silent(why),
            _ => silent("check the cable and the machine's screen"),
        }
    }
}
