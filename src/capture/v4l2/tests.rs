use super::*;
use crate::capture::{Signal, Slot};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::time::Instant;

#[test]
fn names_and_wishes_are_read() {
    let camera = Camera::parse("///dev/v4l/by-id/usb-X-index0?size=1280x720&format=mjpeg&fps=29.97").unwrap();
    assert_eq!(camera.path, PathBuf::from("/dev/v4l/by-id/usb-X-index0"));
    assert_eq!(
        (camera.wish.size, camera.wish.layout, camera.wish.fps),
        (Some((1280, 720)), Some(Layout::Mjpeg), Some(29.97))
    );
    assert_eq!(Camera::parse("/dev/video3").unwrap().wish, Wish::default());
    for wrong in [
        "video0",
        "//dev",
        "///dev/video0?size=0x0",
        "///dev/video0?size=12",
        "///dev/video0?format=h264",
        "///dev/video0?fps=0.5",
        "///dev/video0?fps=NaN",
        "///dev/video0?rate=3",
    ] {
        assert_eq!(Camera::parse(wrong), None, "{wrong}");
    }
}

#[test]
fn range_and_matrix_follow_the_driver() {
    let set = |colorspace, matrix, range| sys::PixFormat { colorspace, matrix, range, ..Default::default() };
    let read = |layout, set| {
        let shape = shape(layout, &set);
        (shape.full, shape.bt709)
    };
    assert_eq!(read(Layout::Yuyv, set(8, 0, 0)), (false, false));
    assert_eq!(read(Layout::Yuyv, set(3, 0, 0)), (false, true));
    assert_eq!(read(Layout::Yuyv, set(7, 0, 0)), (true, false));
    assert_eq!(read(Layout::Nv12, set(8, 2, 1)), (true, true));
    assert_eq!(read(Layout::Grey, set(8, 0, 0)), (true, false));
    assert_eq!(read(Layout::Rgb24, set(3, 1, 2)), (false, false));
}

#[test]
fn no_signal_has_a_reason() {
    assert_eq!(no_signal(0), None);
    // V4L2_IN_ST_HFLIP is no fault.
    assert_eq!(no_signal(0x10), None);
    assert!(no_signal(2).unwrap().contains("connected"));
    assert!(no_signal(0x100).unwrap().contains("lock"));
}

/// What a feed says first, and that it ends when told to.
fn first(path: &str) -> Signal {
    let (tell, said) = sync_channel(100);
    let halt = Arc::new(AtomicBool::new(false));
    let port = Port::new(
        move |s| tell.send(s).is_ok(),
        Slot::default(),
        Arc::clone(&halt),
        Duration::from_millis(250),
    );
    let mut feed = Camera::parse(path).unwrap();
    let thread = std::thread::spawn(move || feed.run(&port));
    let signal = said.recv_timeout(Duration::from_secs(5)).unwrap();
    // It goes on trying.
    assert_eq!(said.recv_timeout(Duration::from_secs(5)).unwrap(), signal);
    halt.store(true, Ordering::Relaxed);
    let since = Instant::now();
    thread.join().unwrap();
    assert!(since.elapsed() < Duration::from_secs(1));
    signal
}

#[test]
fn what_is_no_camera_is_a_lost_signal_with_words() {
    let lost = |path: &str, words: &str| {
        let signal = first(path);
        assert!(matches!(&signal, Signal::Lost(why) if why.contains(words)), "{signal:?}");
    };
    lost("/dev/no-such-camera", "plug it in");
    lost("/proc/self/exe", "no capture device");
    // A character device that answers none of the calls.
    lost("/dev/null", "replug");
}
