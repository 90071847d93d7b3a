//! Which of a device's formats, sizes and rates is taken.

use super::convert::Layout;
use super::sys;
use std::fs::File;

/// Fewer pictures a second are too few where a device can give more.
const SLOW: f64 = 5.0;
/// Larger pictures cost time and show nothing more of a B-scan.
const LARGE: (u32, u32) = (1920, 1200);

/// A format at a size.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mode {
    /// How the pixels lie.
    pub layout: Layout,
    /// The kernel's name for it.
    pub code: u32,
    /// Width and height in pixels.
    pub size: (u32, u32),
    /// Most pictures a second, where the device says.
    pub rate: Option<f64>,
}

/// What is asked of a device.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Wish {
    /// Width and height in pixels.
    pub size: Option<(u32, u32)>,
    /// The format.
    pub layout: Option<Layout>,
    /// Pictures a second.
    pub fps: Option<f64>,
}

/// All modes of a device that can be read. A device that lists no sizes takes the wished one, or keeps `current`.
pub fn of(file: &File, wish: &Wish, current: (u32, u32)) -> Vec<Mode> {
    let offered = sys::formats(file);
    let mut modes = Vec::new();
    for layout in Layout::ALL {
        let known = layout.names().1.iter().map(|name| u32::from_le_bytes(**name));
        for code in known.filter(|code| offered.contains(code)) {
            let mut sizes = sys::sizes(file, code, wish.size.or(Some(current)));
            if sizes.is_empty() {
                sizes.push(wish.size.unwrap_or(current));
            }
            sizes.dedup();
            modes.extend(sizes.into_iter().map(|size| Mode {
                layout,
                code,
                size,
                rate: sys::rate(file, code, size),
            }));
        }
    }
    modes
}

/// The mode that fits best: the size first, then the rate, then the cost. `fixed` is the size of the signal at an HDMI input.
///
/// # Errors
/// In words what the device offers, when nothing fits.
pub fn choose(modes: &[Mode], wish: &Wish, fixed: Option<(u32, u32)>) -> Result<Mode, String> {
    let list = |mut words: Vec<String>| {
        words.sort();
        words.dedup();
        words.truncate(12);
        words.join(", ")
    };
    let named: Vec<&Mode> = modes.iter().filter(|m| wish.layout.is_none_or(|l| l == m.layout)).collect();
    if named.is_empty() {
        let names = list(modes.iter().map(|m| m.layout.names().0.into()).collect());
        return Err(format!("offers only [{names}]; choose another 'format', or another device"));
    }
    let quick = |m: &Mode| m.rate.is_none_or(|rate| rate >= wish.fps.map_or(SLOW, |fps| fps * 0.95));
    let area = |m: &Mode| u64::from(m.size.0) * u64::from(m.size.1);
    let size = match wish.size.or(fixed) {
        Some(size) => size,
        None => {
            let fits = |m: &&&Mode| m.size.0 <= LARGE.0 && m.size.1 <= LARGE.1;
            let largest = |able: &dyn Fn(&&&Mode) -> bool| {
                named.iter().filter(able).max_by_key(|m| area(m)).map(|m| m.size)
            };
            largest(&|m| fits(m) && quick(m))
                .or_else(|| largest(&fits))
                .or_else(|| named.iter().min_by_key(|m| area(m)).map(|m| m.size))
                .unwrap_or(LARGE)
        }
    };
    let sized: Vec<&Mode> = named.iter().copied().filter(|m| m.size == size).collect();
    let fastest = sized.iter().filter_map(|m| m.rate).fold(0.0, f64::max);
    // In the order of the cost.
    let found = sized.iter().find(|m| quick(m)).or_else(|| sized.iter().find(|m| m.rate == Some(fastest)));
    found.map(|m| **m).ok_or_else(|| {
        let sizes = list(named.iter().map(|m| format!("{}x{}", m.size.0, m.size.1)).collect());
        format!(
            "wrong size: offers {sizes}, not {}x{}; change 'size' or the machine's screen",
            size.0, size.1
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(layout: Layout, size: (u32, u32), rate: f64) -> Mode {
        Mode { layout, code: 0, size, rate: (rate > 0.0).then_some(rate) }
    }

    /// A usual USB card: uncompressed pictures are slow where they are large.
    fn card() -> Vec<Mode> {
        vec![
            mode(Layout::Yuyv, (1920, 1080), 5.0),
            mode(Layout::Yuyv, (1280, 720), 10.0),
            mode(Layout::Yuyv, (640, 480), 30.0),
            mode(Layout::Mjpeg, (3840, 2160), 30.0),
            mode(Layout::Mjpeg, (1920, 1080), 60.0),
            mode(Layout::Mjpeg, (1280, 720), 60.0),
        ]
    }

    #[test]
    fn size_goes_before_rate_and_rate_before_cost() {
        let choose = |wish: Wish| choose(&card(), &wish, None);
        let got = |layout, size| move |m: Mode| (m.layout, m.size) == (layout, size);
        let yuyv = got(Layout::Yuyv, (1920, 1080));
        assert!(
            choose(Wish::default()).is_ok_and(yuyv),
            "the largest that is no larger than needed, the true one"
        );
        let wish = Wish { fps: Some(30.0), ..Wish::default() };
        assert!(choose(wish).is_ok_and(got(Layout::Mjpeg, (1920, 1080))));
        assert!(choose(Wish { size: Some((640, 480)), ..wish }).is_ok_and(got(Layout::Yuyv, (640, 480))));
        assert!(choose(Wish { size: Some((1280, 720)), ..wish }).is_ok_and(got(Layout::Mjpeg, (1280, 720))));
        let slow = Wish { layout: Some(Layout::Yuyv), ..wish };
        assert!(choose(slow).is_ok_and(got(Layout::Yuyv, (640, 480))));
        let fast = Wish { fps: Some(200.0), size: Some((1280, 720)), layout: None };
        assert!(
            choose(fast).is_ok_and(got(Layout::Mjpeg, (1280, 720))),
            "the fastest where none is fast enough"
        );
    }

    #[test]
    fn what_does_not_fit_is_told_with_what_is_offered() {
        let said = |wish: Wish| choose(&card(), &wish, None).unwrap_err();
        let size = said(Wish { size: Some((5000, 5000)), ..Wish::default() });
        assert!(size.contains("wrong size: offers 1280x720") && size.contains("not 5000x5000"), "{size}");
        let layout = said(Wish { layout: Some(Layout::Nv12), ..Wish::default() });
        assert!(layout.contains("[mjpeg, yuyv]"), "{layout}");
        assert!(choose(&[], &Wish::default(), None).is_err());
    }

    #[test]
    fn an_hdmi_input_keeps_the_size_of_its_signal() {
        let modes = [mode(Layout::Yuyv, (1280, 800), 0.0), mode(Layout::Rgb24, (1280, 800), 60.0)];
        let taken = choose(&modes, &Wish::default(), Some((1280, 800))).unwrap();
        assert_eq!(taken.layout, Layout::Yuyv, "a rate that is not told may be any");
        let huge = [mode(Layout::Mjpeg, (3840, 2160), 60.0)];
        assert_eq!(choose(&huge, &Wish::default(), None).unwrap().size, (3840, 2160));
    }
}
