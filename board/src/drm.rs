//! A screen driven by the kernel's mode setting: two dumb buffers, shown in turn by page flips, so nothing tears.
//!
//! While this process is the device's master the kernel's console neither draws over it nor blanks it, and the console
//! comes back when the process ends, however it ends. A screen that is unplugged is no error: pictures are dropped until it
//! is there again.

use super::{Display, DisplayError};
use drm::Device as _;
use drm::buffer::{Buffer as _, DrmFourcc};
use drm::control::{
    Device as _, Event, Mode, ModeTypeFlags, PageFlipFlags, ResourceHandles, connector, crtc, dumbbuffer,
    framebuffer,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::fs::{File, OpenOptions};
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Time between two looks whether the screen is plugged in: the kernel's knowledge is asked for, which costs nothing.
const LOOK: Duration = Duration::from_secs(1);
/// Time between two searches, which ask each connector and may take a tenth of a second, while no screen is known.
const SEARCH: Duration = Duration::from_secs(5);
/// Longest wait for a flip; a driver that does not say when it is done is not waited for longer.
const FLIP: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

struct Card(File);

impl AsFd for Card {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl drm::Device for Card {}
impl drm::control::Device for Card {}

/// A buffer of the screen, and the picture that was copied into it.
struct Page {
    buffer: dumbbuffer::DumbBuffer,
    frame: framebuffer::Handle,
    rgb: Vec<u8>,
}

/// A screen that is set up.
struct Output {
    connector: connector::Handle,
    crtc: crtc::Handle,
    mode: Mode,
    pages: [Page; 2],
    /// The page that is shown, and whether any is yet.
    front: usize,
    lit: bool,
}

/// A graphics card's first connected screen.
pub struct Drm {
    path: PathBuf,
    card: Card,
    output: Option<Output>,
    looked: Option<Instant>,
    searched: Option<Instant>,
    /// True while a screen that was there is away.
    missed: bool,
}

impl Drm {
    /// Opens a card, for instance `/dev/dri/card0`. The screen itself need not be plugged in yet.
    ///
    /// # Errors
    /// [`DisplayError::Device`] when the card cannot be opened or is none.
    pub fn new(path: &Path) -> Result<Self, DisplayError> {
        let card = OpenOptions::new().read(true).write(true).open(path).map(Card);
        let card = card.map_err(|error| DisplayError::device(path, &error))?;
        card.get_driver().map_err(|error| DisplayError::device(path, &error))?;
        Ok(Self { path: path.into(), card, output: None, looked: None, searched: None, missed: false })
    }

    /// Looks now and then whether the screen is there, and sets up one that came.
    fn look(&mut self, width: u32, height: u32) -> std::io::Result<()> {
        if self.looked.is_some_and(|at| at.elapsed() < LOOK) {
            return Ok(());
        }
        self.looked = Some(Instant::now());
        if let Some(output) = &self.output {
            if self.card.get_connector(output.connector, false).is_ok_and(|info| plugged(&info)) {
                return Ok(());
            }
            tracing::warn!("{}: the screen was unplugged", self.path.display());
            self.drop_output();
            self.missed = true;
        }
        let resources = self.card.resource_handles()?;
        let Some(info) = self.connected(&resources) else { return Ok(()) };
        let Some(mode) = choose(info.modes(), width, height) else { return Ok(()) };
        let mut encoders = info.encoders().iter().filter_map(|e| self.card.get_encoder(*e).ok());
        let crtc = encoders.find_map(|e| resources.filter_crtcs(e.possible_crtcs()).first().copied());
        let Some(crtc) = crtc else { return Ok(()) };
        let pages = [self.page(mode)?, self.page(mode)?];
        self.output = Some(Output { connector: info.handle(), crtc, mode, pages, front: 0, lit: false });
        if std::mem::take(&mut self.missed) {
            tracing::warn!("{}: the screen is plugged in again", self.path.display());
        }
        Ok(())
    }

    /// The first connector with a screen.
    fn connected(&mut self, resources: &ResourceHandles) -> Option<connector::Info> {
        let search = self.searched.is_none_or(|at| at.elapsed() >= SEARCH);
        if search {
            self.searched = Some(Instant::now());
        }
        let ask = |c: &connector::Handle, search| self.card.get_connector(*c, search).ok().filter(plugged);
        let all = resources.connectors();
        // What the kernel knows to be plugged in is asked for its modes.
        let known = all.iter().find(|c| ask(c, false).is_some());
        known.and_then(|c| ask(c, true)).or_else(|| all.iter().filter(|_| search).find_map(|c| ask(c, true)))
    }

    /// The name of the screen that is plugged in, for instance `HDMI-A-1`.
    ///
    /// # Errors
    /// [`DisplayError::Device`] when there is none, or another program has the card.
    pub fn screen(mut self) -> Result<String, DisplayError> {
        let failed = |path: &Path, error: std::io::Error| DisplayError::device(path, &error);
        self.card.acquire_master_lock().map_err(|error| failed(&self.path, error))?;
        let resources = self.card.resource_handles().map_err(|error| failed(&self.path, error))?;
        let info = self.connected(&resources);
        let none = || failed(&self.path, std::io::Error::other("nothing is plugged in"));
        Ok(info.ok_or_else(none)?.to_string())
    }

    fn page(&self, mode: Mode) -> std::io::Result<Page> {
        let (width, height) = mode.size();
        let mut buffer =
            self.card.create_dumb_buffer((width.into(), height.into()), DrmFourcc::Xrgb8888, 32)?;
        self.card.map_dumb_buffer(&mut buffer)?.fill(0);
        let frame = self.card.add_framebuffer(&buffer, 24, 32)?;
        Ok(Page { buffer, frame, rgb: Vec::new() })
    }

    fn drop_output(&mut self) {
        for page in self.output.take().into_iter().flat_map(|output| output.pages) {
            // What cannot be given back now goes with the file.
            let _ = self.card.destroy_framebuffer(page.frame);
            let _ = self.card.destroy_dumb_buffer(page.buffer);
        }
    }

    fn draw(&mut self, width: u32, height: u32, rgb: &[u8]) -> std::io::Result<()> {
        self.look(width, height)?;
        let Some(output) = &mut self.output else { return Ok(()) };
        if output.lit && output.pages[output.front].rgb == rgb {
            return Ok(());
        }
        let back = if output.lit { 1 - output.front } else { output.front };
        let page = &mut output.pages[back];
        let (pitch, size) = (page.buffer.pitch() as usize, page.buffer.size());
        let rows =
            copy(&page.rgb, rgb, width, (pitch, size), &mut self.card.map_dumb_buffer(&mut page.buffer)?);
        page.rgb.clear();
        page.rgb.extend_from_slice(rgb);
        let flip = PageFlipFlags::EVENT;
        if output.lit && self.card.page_flip(output.crtc, page.frame, flip, None).is_ok() {
            flipped(&self.card)?;
        } else {
            let connectors = [output.connector];
            self.card.set_crtc(output.crtc, Some(page.frame), (0, 0), &connectors, Some(output.mode))?;
        }
        // Screens that live in another machine's memory are told what changed; others do not know the call.
        let changed = drm::control::ClipRect::new(0, rows.start as u16, size.0 as u16, rows.end as u16);
        let _ = self.card.dirty_framebuffer(page.frame, &[changed]);
        (output.front, output.lit) = (back, true);
        Ok(())
    }
}

fn plugged(info: &connector::Info) -> bool {
    info.state() == connector::State::Connected
}

/// The mode of the picture's size, or the screen's preferred one, or its first.
fn choose(modes: &[Mode], width: u32, height: u32) -> Option<Mode> {
    let fits = |mode: &&Mode| (u32::from(mode.size().0), u32::from(mode.size().1)) == (width, height);
    let preferred = |mode: &&Mode| mode.mode_type().contains(ModeTypeFlags::PREFERRED);
    modes.iter().find(fits).or_else(|| modes.iter().find(preferred)).or(modes.first()).copied()
}

/// Copies the rows that differ from `old` into the middle of a buffer with `pitch` bytes a row and `size` pixels; what is
/// larger than the buffer is cut at the right and below. 4 bytes a pixel: blue, green, red, none. The rows of the buffer
/// that hold all changes.
fn copy(
    old: &[u8],
    new: &[u8],
    width: u32,
    (pitch, size): (usize, (u32, u32)),
    out: &mut [u8],
) -> Range<usize> {
    let row = width as usize * 3;
    let rows = new.len() / row.max(1);
    let shown = (width.min(size.0) as usize, rows.min(size.1 as usize));
    let corner = ((size.0 as usize - shown.0) / 2, (size.1 as usize - shown.1) / 2);
    let mut changed: Option<Range<usize>> = None;
    for y in 0..shown.1 {
        let line = &new[y * row..][..row];
        if old.get(y * row..(y + 1) * row) == Some(line) {
            continue;
        }
        let start = (corner.1 + y) * pitch + corner.0 * 4;
        let Some(out) = out.get_mut(start..start + shown.0 * 4) else { break };
        let first = changed.map_or(corner.1 + y, |rows| rows.start);
        changed = Some(first..corner.1 + y + 1);
        for (to, from) in out.as_chunks_mut::<4>().0.iter_mut().zip(line.as_chunks::<3>().0) {
            *to = [from[2], from[1], from[0], 0];
        }
    }
    changed.unwrap_or(0..0)
}

/// Waits until the flip that was asked for is done.
fn flipped(card: &Card) -> std::io::Result<()> {
    let mut list = [PollFd::new(card, PollFlags::IN)];
    if poll(&mut list, Some(&FLIP))? > 0 {
        for event in card.receive_events()? {
            if let Event::PageFlip(_) = event {
                break;
            }
        }
    }
    Ok(())
}

impl Display for Drm {
    fn show(&mut self, width: u32, height: u32, rgb: &[u8], _: Option<&str>) -> Result<(), DisplayError> {
        match self.draw(width, height, rgb) {
            Ok(()) => Ok(()),
            // Another program is the master, or the user may not.
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                Err(DisplayError::device(&self.path, &error))
            }
            Err(error) => {
                tracing::warn!("{}: {error}; the screen is set up again", self.path.display());
                self.drop_output();
                Ok(())
            }
        }
    }

    fn watched(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_lies_in_the_middle_and_only_changed_rows_are_copied() {
        let new: Vec<u8> = (0..2 * 2 * 3).collect();
        let mut out = vec![9; 20 * 4];
        copy(&[], &new, 2, (20, (4, 4)), &mut out);
        assert_eq!(out[24..32], [2, 1, 0, 0, 5, 4, 3, 0]);
        assert_eq!(out[44..52], [8, 7, 6, 0, 11, 10, 9, 0]);
        assert_eq!(out.iter().filter(|v| **v == 9).count(), 80 - 16 + 1);
        // The first row is as it was; the buffer's bytes show that it was left alone.
        let mut old = new.clone();
        old[6] = 77;
        let mut out = vec![9; 20 * 4];
        assert_eq!(copy(&old, &new, 2, (20, (4, 4)), &mut out), 2..3);
        assert_eq!(copy(&new, &new, 2, (20, (4, 4)), &mut [0; 80]), 0..0);
        assert_eq!((&out[24..32], &out[44..46]), (&[9; 8][..], &[8, 7][..]));
        // Larger than the screen: cut, never outside.
        let mut small = vec![9; 4];
        copy(&[], &new, 2, (4, (1, 1)), &mut small);
        assert_eq!(small, [2, 1, 0, 0]);
    }

    #[test]
    fn a_whole_screen_is_copied_in_less_than_10_ms() {
        let (size, mut out) = ((1280, 800), vec![0; 1280 * 800 * 4]);
        let screens = [vec![1; 1280 * 800 * 3], vec![2; 1280 * 800 * 3]];
        let times = (0..20).map(|k| {
            let since = Instant::now();
            copy(&screens[k % 2], &screens[1 - k % 2], 1280, (1280 * 4, size), &mut out);
            since.elapsed()
        });
        // The others were held up by what else the machine did.
        let best = times.min().unwrap();
        println!("a whole screen of 1280x800: {best:.2?}");
        assert!(best < Duration::from_millis(10), "{best:?}");
    }

    #[test]
    fn what_is_no_card_is_refused_with_words() {
        let said = |path: &str| Drm::new(Path::new(path)).err().map(|error| error.to_string());
        assert!(said("/dev/dri/no-such-card").is_some_and(|said| said.contains("no-such-card")));
        assert!(said("/dev/null").is_some_and(|said| said.contains("/dev/null")));
    }
}
