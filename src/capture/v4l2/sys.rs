//! The kernel's side: structures of `linux/videodev2.h` and the calls that take them. All `unsafe` of the capture is here.
//!
//! Fields keep the kernel's order; what fovea does not read is padding. The layouts are those of 64-bit systems, and
//! the sizes, which are part of each call's number, are checked when compiling.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::ioctl::{self, Opcode, Updater, opcode};
use std::fs::File;
use std::os::fd::AsFd;
use std::time::Duration;

/// `V4L2_BUF_TYPE_VIDEO_CAPTURE`.
const CAPTURE: u32 = 1;
/// `V4L2_MEMORY_MMAP`.
const MMAP: u32 = 1;

/// `struct v4l2_capability`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct Capability {
    driver: [u8; 16],
    card: [u8; 32],
    bus: [u8; 32],
    version: u32,
    all: u32,
    device: u32,
    reserved: [u32; 3],
}

/// `struct v4l2_fmtdesc`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Description {
    index: u32,
    kind: u32,
    flags: u32,
    text: [u8; 32],
    pixels: u32,
    bus: u32,
    reserved: [u32; 3],
}

/// `struct v4l2_pix_format`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PixFormat {
    pub width: u32,
    pub height: u32,
    pub pixels: u32,
    pub field: u32,
    pub stride: u32,
    pub size: u32,
    pub colorspace: u32,
    pub private: u32,
    pub flags: u32,
    pub matrix: u32,
    pub range: u32,
    pub transfer: u32,
}

/// `struct v4l2_format`; the union holds pointers and so begins at 8.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Format {
    kind: u32,
    pad: u32,
    pix: PixFormat,
    rest: [u8; 152],
}

/// `struct v4l2_streamparm`.
#[repr(C)]
#[derive(Clone, Copy)]
struct StreamParm {
    kind: u32,
    capability: u32,
    mode: u32,
    numerator: u32,
    denominator: u32,
    rest: [u32; 46],
}

/// `struct v4l2_requestbuffers`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Request {
    count: u32,
    kind: u32,
    memory: u32,
    capabilities: u32,
    flags: u32,
}

/// `struct v4l2_buffer`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct Buffer {
    pub index: u32,
    kind: u32,
    pub used: u32,
    pub flags: u32,
    field: u32,
    pad: u32,
    pub time: [i64; 2],
    code: [u32; 4],
    pub sequence: u32,
    memory: u32,
    offset: u64,
    pub length: u32,
    reserved: u32,
    request: u64,
}

/// `struct v4l2_input`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Input {
    index: u32,
    name: [u8; 32],
    kind: u32,
    audio: u32,
    tuner: u32,
    standards: u64,
    status: u32,
    capabilities: u32,
    reserved: [u32; 4],
}

/// `struct v4l2_dv_timings`, whose packed contents are 32-bit words: width, height, interlaced, polarities, pixel clock
/// (two words), and what fovea hands back unread.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timings {
    kind: u32,
    words: [u32; 32],
}

/// `struct v4l2_frmsizeenum`: one size, or least, most and step of width, then of height.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct FrameSize {
    index: u32,
    pixels: u32,
    kind: u32,
    sides: [u32; 6],
    reserved: [u32; 2],
}

/// `struct v4l2_frmivalenum`: one time between pictures as a fraction, or the least, most and step.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Interval {
    index: u32,
    pixels: u32,
    width: u32,
    height: u32,
    kind: u32,
    fractions: [u32; 6],
    reserved: [u32; 2],
}

/// `struct v4l2_event_subscription`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Subscription {
    kind: u32,
    id: u32,
    flags: u32,
    reserved: [u32; 5],
}

/// `struct v4l2_event`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Event {
    kind: u32,
    pad: u32,
    data: [u64; 8],
    pending: u32,
    sequence: u32,
    time: [i64; 2],
    id: u32,
    reserved: [u32; 9],
}

const _: () = {
    assert!(size_of::<Capability>() == 104);
    assert!(size_of::<Description>() == 64);
    assert!(size_of::<Format>() == 208);
    assert!(size_of::<StreamParm>() == 204);
    assert!(size_of::<Request>() == 20);
    assert!(size_of::<Buffer>() == 88);
    assert!(size_of::<Input>() == 80);
    assert!(size_of::<Timings>() == 132);
    assert!(size_of::<FrameSize>() == 44);
    assert!(size_of::<Interval>() == 52);
    assert!(size_of::<Subscription>() == 32);
    assert!(size_of::<Event>() == 136);
};

/// Calls with a structure that the kernel reads and fills, again when a signal interrupts.
///
/// # Safety
/// `CALL` must be a call that takes a `T`.
unsafe fn call<const CALL: Opcode, T>(file: &File, value: &mut T) -> Result<(), Errno> {
    loop {
        // SAFETY: by the caller's word the kernel reads and writes no more than a `T`, whose fields are all integers.
        match unsafe { ioctl::ioctl(file, Updater::<CALL, T>::new(value)) } {
            Err(Errno::INTR) => {}
            end => return end,
        }
    }
}

/// A safe function for each call: a `T` in, the kernel's `T` out.
macro_rules! calls {
    ($($name:ident($direction:ident $number:literal): $kind:ty;)*) => {$(
        fn $name(file: &File, mut value: $kind) -> Result<$kind, Errno> {
            // SAFETY: number, direction and structure are those of linux/videodev2.h, and the size is checked above.
            unsafe { call::<{ opcode::$direction::<$kind>(b'V', $number) }, $kind>(file, &mut value)? };
            Ok(value)
        }
    )*};
}

calls! {
    querycap(read 0): Capability;
    enum_fmt(read_write 2): Description;
    g_fmt(read_write 4): Format;
    s_fmt(read_write 5): Format;
    reqbufs(read_write 8): Request;
    querybuf(read_write 9): Buffer;
    qbuf(read_write 15): Buffer;
    dqbuf(read_write 17): Buffer;
    streamon(write 18): u32;
    streamoff(write 19): u32;
    g_parm(read_write 21): StreamParm;
    s_parm(read_write 22): StreamParm;
    enuminput(read_write 26): Input;
    g_input(read 38): u32;
    enum_framesizes(read_write 74): FrameSize;
    enum_frameintervals(read_write 75): Interval;
    s_dv_timings(read_write 87): Timings;
    dqevent(read 89): Event;
    subscribe_event(write 90): Subscription;
    query_dv_timings(read 99): Timings;
}

/// True when a device captures by streaming.
pub fn captures(file: &File) -> Result<bool, Errno> {
    let c = querycap(file, Capability::default())?;
    // V4L2_CAP_DEVICE_CAPS: the device's own abilities stand apart from those of the whole card.
    let able = if c.all & 0x8000_0000 != 0 { c.device } else { c.all };
    Ok(able & 1 != 0 && able & 0x0400_0000 != 0)
}

/// The pixel formats a device offers.
pub fn formats(file: &File) -> Vec<u32> {
    let ask = |index| enum_fmt(file, Description { index, kind: CAPTURE, ..Default::default() });
    (0..64).map_while(|index| ask(index).ok()).map(|d| d.pixels).collect()
}

/// The sizes at which a device gives a format; `wish` and the largest where it takes any within bounds.
pub fn sizes(file: &File, pixels: u32, wish: Option<(u32, u32)>) -> Vec<(u32, u32)> {
    let ask = |index| enum_framesizes(file, FrameSize { index, pixels, ..Default::default() });
    let list: Vec<FrameSize> = (0..256).map_while(|index| ask(index).ok()).collect();
    let mut sizes = Vec::new();
    for FrameSize { kind, sides, .. } in list {
        // V4L2_FRMSIZE_TYPE_DISCRETE
        if kind == 1 {
            sizes.push((sides[0], sides[1]));
            continue;
        }
        let fits = |side: u32, [least, most, step]: [u32; 3]| {
            (least..=most).contains(&side) && (side - least).is_multiple_of(step.max(1))
        };
        let (across, down) = ([sides[0], sides[1], sides[2]], [sides[3], sides[4], sides[5]]);
        sizes.extend(wish.filter(|(width, height)| fits(*width, across) && fits(*height, down)));
        sizes.push((across[1], down[1]));
    }
    sizes
}

/// Most pictures a second of a format and size; none where the device does not say.
pub fn rate(file: &File, pixels: u32, (width, height): (u32, u32)) -> Option<f64> {
    let ask =
        |index| enum_frameintervals(file, Interval { index, pixels, width, height, ..Default::default() });
    let list = (0..256).map_while(|index| ask(index).ok());
    // The first fraction is the only one, or the shortest time of a range.
    let rates = list.map(|interval| f64::from(interval.fractions[1]) / f64::from(interval.fractions[0]));
    rates.filter(|rate| rate.is_finite()).reduce(f64::max)
}

fn format(pix: PixFormat) -> Format {
    Format { kind: CAPTURE, pad: 0, pix, rest: [0; 152] }
}

/// The format that is set.
pub fn current(file: &File) -> Result<PixFormat, Errno> {
    Ok(g_fmt(file, format(PixFormat::default()))?.pix)
}

/// Asks for a format and size; what the driver made of it.
pub fn set_format(file: &File, pixels: u32, (width, height): (u32, u32)) -> Result<PixFormat, Errno> {
    // V4L2_FIELD_NONE: whole pictures.
    let wish = PixFormat { width, height, pixels, field: 1, ..Default::default() };
    Ok(s_fmt(file, format(wish))?.pix)
}

/// Asks for a frame rate a second; a driver takes the nearest it can, or none.
pub fn set_rate(file: &File, rate: f64) {
    let empty =
        StreamParm { kind: CAPTURE, capability: 0, mode: 0, numerator: 0, denominator: 0, rest: [0; 46] };
    let Ok(mut parm) = g_parm(file, empty) else { return };
    // V4L2_CAP_TIMEPERFRAME
    if parm.capability & 0x1000 != 0 {
        (parm.numerator, parm.denominator) = (1000, (rate * 1000.0) as u32);
        let _ = s_parm(file, parm);
    }
}

/// The status bits of the selected input; 0 where a device has no inputs.
pub fn input_status(file: &File) -> Result<u32, Errno> {
    let index = match g_input(file, 0) {
        Ok(index) => index,
        Err(Errno::NOTTY | Errno::INVAL) => return Ok(0),
        Err(error) => return Err(error),
    };
    match enuminput(file, Input { index, ..Default::default() }) {
        Ok(input) => Ok(input.status),
        Err(Errno::NOTTY | Errno::INVAL) => Ok(0),
        Err(error) => Err(error),
    }
}

/// The timings of the signal at a digital video input.
pub fn timings(file: &File) -> Result<Timings, Errno> {
    query_dv_timings(file, Timings::default())
}

/// Sets the timings that [`timings`] told.
pub fn set_timings(file: &File, timings: Timings) -> Result<(), Errno> {
    s_dv_timings(file, timings).map(|_| ())
}

/// Asks for news when the signal changes; not every driver can, and those go without.
pub fn subscribe(file: &File) {
    // V4L2_EVENT_SOURCE_CHANGE, of the input that is selected.
    let id = g_input(file, 0).unwrap_or(0);
    let _ = subscribe_event(file, Subscription { kind: 5, id, ..Default::default() });
}

/// Takes the events that wait; true when the signal changed.
pub fn source_changed(file: &File) -> bool {
    let empty = Event {
        kind: 0,
        pad: 0,
        data: [0; 8],
        pending: 0,
        sequence: 0,
        time: [0; 2],
        id: 0,
        reserved: [0; 9],
    };
    // A bound, for a driver that never ends.
    (0..64).map_while(|_| dqevent(file, empty).ok()).filter(|event| event.kind == 5).count() > 0
}

/// What [`wait`] saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ready {
    /// A picture waits.
    pub picture: bool,
    /// An event waits.
    pub event: bool,
    /// The device is gone or its stream broke.
    pub broken: bool,
}

/// Waits for a picture or an event, at most `time`.
pub fn wait(file: &File, time: Duration) -> Result<Ready, Errno> {
    let mut list = [PollFd::new(file, PollFlags::IN | PollFlags::PRI)];
    let limit = Timespec::try_from(time).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 });
    match poll(&mut list, Some(&limit)) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(error) => return Err(error),
    }
    let seen = list[0].revents();
    Ok(Ready {
        picture: seen.contains(PollFlags::IN),
        event: seen.contains(PollFlags::PRI),
        broken: seen.intersects(PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL),
    })
}

/// A buffer of the driver's, mapped for reading.
struct Map {
    start: *const u8,
    length: usize,
}

// SAFETY: a mapping belongs to no thread.
unsafe impl Send for Map {}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: the range is a mapping that this value made and alone holds. An error leaves it mapped; no harm.
        let _ = unsafe { rustix::mm::munmap(self.start.cast_mut().cast(), self.length) };
    }
}

/// A stream at work, over buffers that the driver fills.
pub struct Stream {
    file: File,
    maps: Vec<Map>,
}

impl Stream {
    /// Starts streaming into up to `count` buffers.
    pub fn start(file: File, count: u32) -> Result<Self, Errno> {
        let got = reqbufs(&file, Request { count, kind: CAPTURE, memory: MMAP, ..Default::default() })?;
        let mut stream = Self { file, maps: Vec::new() };
        for index in 0..got.count.min(32) {
            let buffer = querybuf(&stream.file, Self::buffer(index))?;
            let length = buffer.length as usize;
            if length == 0 {
                return Err(Errno::NOMEM);
            }
            // SAFETY: a new mapping at an address of the kernel's choice touches no other memory.
            let start = unsafe {
                rustix::mm::mmap(
                    std::ptr::null_mut(),
                    length,
                    rustix::mm::ProtFlags::READ,
                    rustix::mm::MapFlags::SHARED,
                    stream.file.as_fd(),
                    buffer.offset & 0xffff_ffff,
                )?
            };
            stream.maps.push(Map { start: start.cast_const().cast(), length });
            qbuf(&stream.file, Self::buffer(index))?;
        }
        if stream.maps.is_empty() {
            return Err(Errno::NOMEM);
        }
        streamon(&stream.file, CAPTURE)?;
        Ok(stream)
    }

    fn buffer(index: u32) -> Buffer {
        Buffer { index, kind: CAPTURE, memory: MMAP, ..Default::default() }
    }

    /// The device.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Takes the newest filled buffer and gives older ones back unread; none when none is filled.
    pub fn newest(&self) -> Result<Option<Buffer>, Errno> {
        let mut newest = None;
        // No more than there are, for a driver that never says it is empty.
        for _ in 0..self.maps.len() {
            match dqbuf(&self.file, Self::buffer(0)) {
                Ok(buffer) => {
                    if let Some(older) = newest.replace(buffer) {
                        self.give_back(older)?;
                    }
                }
                Err(Errno::AGAIN) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(newest)
    }

    /// Copies what the driver wrote: `used` bytes, or all where it does not say.
    pub fn copy(&self, buffer: &Buffer, out: &mut Vec<u8>) {
        out.clear();
        let Some(map) = self.maps.get(buffer.index as usize) else { return };
        let used = if buffer.used == 0 { map.length } else { (buffer.used as usize).min(map.length) };
        out.reserve(used);
        // SAFETY: the mapping holds at least `used` bytes and `out` has room for them; the buffer is taken out of the
        // driver's queue, and bytes that a wrong driver changes meanwhile are copied as they come.
        unsafe {
            std::ptr::copy_nonoverlapping(map.start, out.as_mut_ptr(), used);
            out.set_len(used);
        }
    }

    /// Gives a buffer back to be filled again.
    pub fn give_back(&self, buffer: Buffer) -> Result<(), Errno> {
        qbuf(&self.file, Self::buffer(buffer.index)).map(|_| ())
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // A device that was pulled refuses; closing the file ends the stream all the same.
        let _ = streamoff(&self.file, CAPTURE);
    }
}
