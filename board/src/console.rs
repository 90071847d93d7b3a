//! The kernel's text console, kept from drawing its letters and cursor over the picture and from blanking it.

use rustix::ioctl::{self, IntegerSetter};
use std::fs::{File, OpenOptions};

/// `KDSETMODE` and its values `KD_TEXT` and `KD_GRAPHICS` (linux/kd.h).
const MODE: ioctl::Opcode = 0x4b3a;
const TEXT: usize = 0;
const GRAPHICS: usize = 1;

/// The console in graphics mode; it is given back when this is dropped.
///
/// A process that is killed leaves it in graphics mode: the last picture stays, and the next start takes it again.
pub struct Console(File);

impl Console {
    /// Takes the console that is seen; none where there is none or it may not be taken, which is no fault.
    pub fn take() -> Option<Self> {
        let console = OpenOptions::new().read(true).write(true).open("/dev/tty0").ok()?;
        set(&console, GRAPHICS).then_some(Self(console))
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        set(&self.0, TEXT);
    }
}

fn set(console: &File, mode: usize) -> bool {
    // SAFETY: KDSETMODE takes a number and touches no memory of this process.
    unsafe { ioctl::ioctl(console, IntegerSetter::<MODE>::new_usize(mode)) }.is_ok()
}
