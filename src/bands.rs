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

/// Rows of a band, so that each thread has one.
pub fn rows(height: usize) -> usize {
    height.div_ceil(rayon::current_num_threads()).max(32)
}
