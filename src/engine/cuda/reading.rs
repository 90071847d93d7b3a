//! What the device does around the network: the picture's preparation before it, the explanation behind it.
//!
//! Everything here is arithmetic on the host and needs no device: the words that the kernels read (`kernels/picture.cuh`), the launches
//! with the buffers that each is given, and the bytes that come back.

use super::CudaError;
use crate::Class;
use crate::engine::plan::Plan;
use crate::engine::{Ask, FEATURE_CHANNELS, FEATURE_SIDE, Light};
use crate::explain::light::{Lit, colours, covered, fit, ramps};
use crate::model::Head;
use crate::prepare::{NetworkInput, Prepared, Region, SIDE, band};
use std::sync::Arc;

/// Longest side of a frame that the device prepares: `WIDEST` of `kernels/prepare.cuh`, and products of two fit 32 bits.
pub const LARGEST: u32 = 8192;
/// Pieces of the heat along a row; more than there are.
const RAMPS: usize = 12;
/// Weights of an output, at most: `MOST_TAPS` of `kernels/prepare.cuh`.
const MOST_TAPS: usize = 64;
/// Bytes from row to row of the narrow picture.
const PITCH: usize = 304;
/// Strips of the band's search.
const STRIPS: usize = 23;
/// Positions of the features.
const CELLS: usize = FEATURE_SIDE * FEATURE_SIDE;
/// Blocks of a launch over the features' channels.
const GROUPS: usize = FEATURE_CHANNELS / 32;

/// What the kernels must know of a picture: the words of `Picture` in `kernels/picture.cuh`, in the same order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Picture {
    frame: [i32; 2],
    region: [i32; 4],
    white: i32,
    least: i32,
    input: i32,
    features: i32,
    features_step: i32,
    shown: [i32; 2],
    across: [i32; 2],
    ramps: i32,
    ramp: [[i32; 5]; RAMPS],
}

/// Words of a picture.
const WORDS: usize = size_of::<Picture>() / 4;

impl Picture {
    /// The words for a picture and the plan that reads it; `None` where the device does not prepare it: one that is too large, or a plan
    /// that does not read pictures of 299x299.
    pub fn of(ask: &Ask<'_>, plan: &Plan) -> Option<Self> {
        let (frame, region) = (ask.cut.frame(), ask.cut.region());
        let (input, features) = (&plan.tensors[plan.input], &plan.tensors[plan.features]);
        let fits = frame.width().max(frame.height()) <= LARGEST && input.shape == [SIDE, SIDE, 1];
        if !fits || input.step != 1 {
            return None;
        }
        let mut picture = Self {
            frame: [frame.width(), frame.height()].map(|n| n as i32),
            region: [region.x, region.y, region.width, region.height].map(|n| n as i32),
            white: ask.preparation.margin_white.into(),
            least: band::rows(ask.preparation.band) as i32,
            input: i32::try_from(input.place).ok()?,
            features: i32::try_from(features.place).ok()?,
            features_step: i32::try_from(features.step).ok()?,
            ..Self::default()
        };
        let size = ask.room.map(|room| fit(frame, room));
        if let Some(size) = size.filter(|[w, h]| *w > 0 && *w.max(h) <= LARGEST) {
            let across = covered(region.x, region.width, frame.width() as usize, size[0] as usize);
            let pieces = ramps(across.len());
            if pieces.len() <= RAMPS {
                picture.shown = size.map(|n| n as i32);
                picture.across = [across.start, across.end].map(|n| n as i32);
                picture.ramps = pieces.len() as i32;
                for (words, piece) in picture.ramp.iter_mut().zip(pieces) {
                    let [from, to, cell] = [piece.from, piece.to, piece.cell].map(|n| n as i32);
                    *words = [from, to, cell, piece.start, piece.step];
                }
            }
        }
        Some(picture)
    }

    /// With the features in another place than the plan says.
    #[must_use]
    pub fn with_features(self, place: usize) -> Self {
        Self { features: place as i32, ..self }
    }

    /// As the kernels read it.
    pub fn bytes(&self) -> Vec<u8> {
        // SAFETY: a `repr(C)` structure of nothing but 32-bit numbers.
        let words = unsafe { std::mem::transmute::<Self, [i32; WORDS]>(*self) };
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    /// True where a screen wants the picture.
    pub fn is_shown(&self) -> bool {
        self.shown[0] > 0
    }

    /// Bytes from row to row of the lit picture: whole groups of four pixels.
    fn lit_pitch(&self) -> usize {
        (self.shown[0] as usize).div_ceil(4) * 12
    }
}

/// A piece of memory that kernels are given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Buffer {
    /// The frame's bytes.
    Frame,
    /// [`Picture`].
    Picture,
    /// What the processor reads: `Seen` of `kernels/picture.cuh`.
    Seen,
    /// The picture for the screen.
    Lit,
    /// White runs of rows and columns.
    Runs,
    /// Weights of three filters.
    Taps,
    /// The region at 299 columns.
    Narrow,
    /// Sums of the whole picture's strips.
    Strips,
    /// First row and number of rows of the band.
    Band,
    /// Three counters of blocks; 0 between launches.
    Tickets,
    /// The plan's byte for each grey level.
    Levels,
    /// The network's tensors.
    Arena,
    /// The head's weights.
    Head,
    /// Shares of blocks.
    Partial,
    /// Slope of the best class's logit for each hidden unit.
    Gates,
    /// 64 heats.
    Heat,
    /// The screen's colours.
    Colours,
}

/// The arena is the network's own.
pub const BUFFERS: [Buffer; 16] = [
    Buffer::Frame,
    Buffer::Picture,
    Buffer::Seen,
    Buffer::Lit,
    Buffer::Runs,
    Buffer::Taps,
    Buffer::Narrow,
    Buffer::Strips,
    Buffer::Band,
    Buffer::Tickets,
    Buffer::Levels,
    Buffer::Head,
    Buffer::Partial,
    Buffer::Gates,
    Buffer::Heat,
    Buffer::Colours,
];

/// First byte of the band, the best class and the map in `Seen`, and the bytes of it all; the pictures are padded to words.
const SEEN: [usize; 4] = {
    let pictures = 2 * (SIDE * SIDE).next_multiple_of(4);
    [pictures, pictures + 8, pictures + 12, pictures + 12 + 4 * CELLS]
};

impl Buffer {
    /// Bytes that a picture needs of it.
    pub fn bytes(self, picture: &Picture) -> usize {
        let [frame_width, frame_height] = picture.frame.map(|n| n as usize);
        let [width, height] = [picture.region[2], picture.region[3]].map(|n| n as usize);
        match self {
            // Rows are read in whole words.
            Buffer::Frame => frame_width * frame_height + 4,
            Buffer::Picture => WORDS * 4,
            Buffer::Seen => SEEN[3],
            Buffer::Lit => picture.lit_pitch() * picture.shown[1] as usize,
            Buffer::Runs => (width + height) * 8,
            Buffer::Taps => 3 * (2 + MOST_TAPS) * SIDE * 4,
            Buffer::Narrow => height * PITCH,
            Buffer::Strips => SIDE * STRIPS * 4,
            Buffer::Band => 8,
            Buffer::Tickets => 12,
            Buffer::Levels => 256,
            Buffer::Head => (1 + 64 * FEATURE_CHANNELS + 64 + 4 * CELLS * 64 + 4) * 4,
            Buffer::Partial => 64 * GROUPS.max(CELLS) * 4,
            Buffer::Gates | Buffer::Heat => CELLS * 4,
            Buffer::Colours => 256 * 256 * 4,
            Buffer::Arena => 0,
        }
    }

    /// True of the machine's own memory, which the kernels read and write in place.
    pub fn is_mapped(self) -> bool {
        matches!(self, Buffer::Frame | Buffer::Picture | Buffer::Seen | Buffer::Lit)
    }

    /// What it holds once and for all; `None` where the kernels, or each picture, write it.
    pub fn constant(self, plan: &Plan, head: Option<&Head>) -> Option<Vec<u8>> {
        match self {
            Buffer::Tickets => Some(vec![0; 12]),
            Buffer::Levels => Some(match &plan.levels {
                Some(levels) => levels.to_vec(),
                None => (0..=255).collect(),
            }),
            Buffer::Head => head.map(|head| words_of(head, plan.tensors[plan.features].scale)),
            Buffer::Colours => Some(colours().as_flattened().as_flattened().to_vec()),
            _ => None,
        }
    }
}

/// The head in the words of `Head` in `kernels/explain.cuh`.
fn words_of(head: &Head, scale: f32) -> Vec<u8> {
    let (first, first_bias, second, second_bias) = match head {
        Head::Gap { fc1, fc1_bias, fc2, fc2_bias } => (fc1, fc1_bias, fc2, fc2_bias),
        Head::Conv { conv, conv_bias, fc, fc_bias } => (conv, conv_bias, fc, fc_bias),
    };
    let gap = std::iter::repeat_n(&0.0, 4 * CELLS * 64 - second.len());
    let words =
        [&scale].into_iter().chain(first).chain(first_bias).chain(second).chain(gap).chain(second_bias);
    words.flat_map(|word| word.to_le_bytes()).collect()
}

/// The kernels of [`before`] and [`behind`].
pub const KERNELS: [&str; 8] =
    ["margins", "narrow", "whole", "input", "hidden", "contributions", "positions", "light"];

/// A launch: the kernel's name, its blocks, and the buffers that it is given.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// The kernel.
    pub kernel: &'static str,
    /// Blocks of [`super::schedule::THREADS`] threads.
    pub blocks: usize,
    /// Its arguments, all addresses.
    pub buffers: &'static [Buffer],
}

/// What prepares a picture, before the network; `blocks` for launches of as many as there are.
pub fn before(blocks: usize) -> [Call; 4] {
    use Buffer::{Arena, Band, Frame, Levels, Narrow, Picture, Runs, Seen, Strips, Taps, Tickets};
    let call = |kernel, blocks, buffers| Call { kernel, blocks, buffers };
    [
        call("margins", blocks, &[Frame, Picture, Runs, Taps]),
        call("narrow", blocks, &[Frame, Picture, Runs, Taps, Narrow]),
        call("whole", SIDE, &[Picture, Narrow, Taps, Strips, Band, Tickets, Seen]),
        call("input", SIDE, &[Picture, Narrow, Taps, Band, Levels, Arena, Seen]),
    ]
}

/// What explains the answer, behind the network.
pub fn behind(head: &Head, picture: &Picture, blocks: usize) -> Vec<Call> {
    use Buffer::{
        Arena, Band, Colours, Frame, Gates, Head as Weights, Heat, Lit, Partial, Picture, Seen, Tickets,
    };
    let call = |kernel, blocks, buffers| Call { kernel, blocks, buffers };
    let mut calls = match head {
        Head::Gap { .. } => vec![
            call("hidden", GROUPS, &[Picture, Arena, Weights, Partial, Gates, Tickets, Seen]),
            call("contributions", GROUPS, &[Picture, Arena, Weights, Gates, Partial, Tickets, Heat, Seen]),
        ],
        Head::Conv { .. } => {
            vec![call("positions", CELLS, &[Picture, Arena, Weights, Partial, Tickets, Heat, Seen])]
        }
    };
    if picture.is_shown() {
        calls.push(call("light", blocks, &[Frame, Picture, Band, Heat, Colours, Lit]));
    }
    calls
}

/// Blocks of launches that have as many as there are, on a device of so many multiprocessors.
pub fn blocks(multiprocessors: usize) -> usize {
    multiprocessors * 8
}

/// What was prepared, from the bytes of [`Buffer::Seen`].
///
/// # Errors
/// [`CudaError::Prepared`] where they cannot be so.
pub fn prepared(seen: &[u8], ask: &Ask<'_>) -> Result<Prepared, CudaError> {
    let square = |from: usize| {
        let mut bytes = Box::new([0; SIDE * SIDE]);
        bytes.copy_from_slice(&seen[from..from + SIDE * SIDE]);
        NetworkInput(bytes)
    };
    let region = ask.cut.region();
    let (first, rows) = (word(seen, SEEN[0]), word(seen, SEEN[0] + 4));
    let inside = rows > 0 && first.checked_add(rows).is_some_and(|end| end <= region.height);
    if !inside {
        return Err(CudaError::Prepared(format!("rows {first} and {rows} behind it")));
    }
    let place = Region { y: region.y + first, height: rows, ..region };
    Ok(Prepared { whole: square(0), input: square(SEEN[0] / 2), place })
}

/// Where the answer comes from, from the bytes of [`Buffer::Seen`] and [`Buffer::Lit`].
///
/// # Errors
/// [`CudaError::Prepared`] where they cannot be so.
pub fn light(seen: &[u8], lit: &[u8], picture: &Picture) -> Result<Light, CudaError> {
    let best = word(seen, SEEN[1]);
    let class = Class::ALL.get(best as usize).copied();
    let class = class.ok_or_else(|| CudaError::Prepared(format!("class {best}")))?;
    let map = std::array::from_fn(|i| f32::from_bits(word(seen, SEEN[2] + 4 * i)));
    let picture = picture.is_shown().then(|| {
        let (size, pitch) = (picture.shown.map(|n| n as u32), picture.lit_pitch());
        Arc::new(Lit { size, pitch, rgb: lit[..pitch * size[1] as usize].to_vec() })
    });
    Ok(Light { class, map, picture })
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
