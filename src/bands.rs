//! Short work on the bands of a picture: the caller takes one itself, so that it never sleeps while others wake.

/// Calls `work` with the number and the bytes of each of the bands of `size` bytes, those of this thread last.
pub fn each(bytes: &mut [u8], size: usize, work: impl Fn(usize, &mut [u8]) + Sync) {
    rayon::in_place_scope(|scope| {
        let work = &work;
        let mut bands = bytes.chunks_mut(size.max(1)).enumerate();
        let own = bands.next();
        bands.for_each(|(number, band)| scope.spawn(move |_| work(number, band)));
        if let Some((number, band)) = own {
            work(number, band);
        }
    });
}

/// Rows of a band, so that each thread has one; all rows where waking a thread takes longer than they do.
pub fn rows(height: usize, width: usize) -> usize {
    /// Pixels that are worth a thread.
    const WORTH: usize = 1 << 18;
    let threads = (height * width / WORTH).clamp(1, rayon::current_num_threads());
    height.div_ceil(threads).max(1)
}
