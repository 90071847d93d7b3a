//! A buffer that several threads read and write without locks, as the threads of a grid do.
//!
//! Every access is a relaxed atomic of its own width, so that a kernel with a race gives some value instead of
//! undefined behaviour of the host; the race itself is for the detectors to find.

use std::alloc::{Layout, alloc, dealloc};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering::Relaxed};

const ALIGN: usize = 256;

#[derive(Debug)]
pub(crate) struct Bytes {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the buffer is owned; all shared access goes through atomics.
unsafe impl Send for Bytes {}
// SAFETY: as above.
unsafe impl Sync for Bytes {}

fn layout(len: usize) -> Option<Layout> {
    Layout::from_size_align(len.max(1), ALIGN).ok()
}

impl Bytes {
    /// None where the host has not so much memory.
    pub(crate) fn new(len: usize, value: u8) -> Option<Self> {
        let layout = layout(len)?;
        // SAFETY: the layout's size is at least 1.
        let start = NonNull::new(unsafe { alloc(layout) })?;
        // SAFETY: the allocation has this size, and nobody else knows it yet.
        unsafe { start.write_bytes(value, layout.size()) };
        Some(Self { start, len })
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn pointer(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    #[inline]
    fn at<T>(&self, offset: usize) -> *mut T {
        let size = size_of::<T>();
        assert!(offset.is_multiple_of(size) && offset + size <= self.len, "outside of a device buffer");
        self.start.as_ptr().wrapping_add(offset).cast()
    }

    #[inline]
    pub(crate) fn byte(&self, offset: usize) -> &AtomicU8 {
        // SAFETY: `at` checked bounds; the memory lives as long as `self` and is only accessed atomically.
        unsafe { AtomicU8::from_ptr(self.at(offset)) }
    }

    #[inline]
    pub(crate) fn half(&self, offset: usize) -> &AtomicU16 {
        // SAFETY: `at` checked bounds and alignment (the start is aligned to 256); lifetime as in `byte`.
        unsafe { AtomicU16::from_ptr(self.at(offset)) }
    }

    #[inline]
    pub(crate) fn word(&self, offset: usize) -> &AtomicU32 {
        // SAFETY: as in `half`.
        unsafe { AtomicU32::from_ptr(self.at(offset)) }
    }

    #[inline]
    pub(crate) fn double(&self, offset: usize) -> &AtomicU64 {
        // SAFETY: as in `half`.
        unsafe { AtomicU64::from_ptr(self.at(offset)) }
    }

    /// An element of 1, 2, 4 or 8 bytes, zero-extended.
    #[inline]
    pub(crate) fn load(&self, offset: usize, bytes: usize) -> u64 {
        match bytes {
            1 => u64::from(self.byte(offset).load(Relaxed)),
            2 => u64::from(self.half(offset).load(Relaxed)),
            4 => u64::from(self.word(offset).load(Relaxed)),
            _ => self.double(offset).load(Relaxed),
        }
    }

    /// Stores the low bytes of a value.
    #[inline]
    pub(crate) fn store(&self, offset: usize, bytes: usize, value: u64) {
        match bytes {
            1 => self.byte(offset).store(value as u8, Relaxed),
            2 => self.half(offset).store(value as u16, Relaxed),
            4 => self.word(offset).store(value as u32, Relaxed),
            _ => self.double(offset).store(value, Relaxed),
        }
    }

    pub(crate) fn read(&self, offset: usize, into: &mut [u8]) {
        for (index, byte) in into.iter_mut().enumerate() {
            *byte = self.byte(offset + index).load(Relaxed);
        }
    }

    pub(crate) fn write(&self, offset: usize, from: &[u8]) {
        for (index, byte) in from.iter().enumerate() {
            self.byte(offset + index).store(*byte, Relaxed);
        }
    }

    pub(crate) fn fill(&self, offset: usize, bytes: usize, value: u8) {
        for index in offset..offset + bytes {
            self.byte(index).store(value, Relaxed);
        }
    }
}

impl Drop for Bytes {
    fn drop(&mut self) {
        if let Some(layout) = layout(self.len) {
            // SAFETY: allocated in `new` with the same layout.
            unsafe { dealloc(self.start.as_ptr(), layout) };
        }
    }
}
