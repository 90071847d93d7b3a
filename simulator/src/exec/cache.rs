//! A cache between the multiprocessors and the memory: sectors of 32 bytes, 16 ways, the least recently used goes.
//!
//! Blocks run one after the other here and together on a card, so that counts are an estimate of what crosses to memory.

/// Ways of a set.
const WAYS: usize = 16;
/// Bytes of a sector.
const SECTOR: u64 = 32;

/// A sector in its set.
#[derive(Clone, Copy, Debug)]
struct Entry {
    sector: u64,
    dirty: bool,
}

/// The cache and what crossed it.
#[derive(Debug)]
pub(super) struct Cache {
    /// Most recently used first.
    sets: Vec<Vec<Entry>>,
    read: u64,
    written: u64,
}

impl Cache {
    /// An empty cache of so many bytes.
    pub(super) fn new(bytes: usize) -> Self {
        let sets = (bytes / (SECTOR as usize * WAYS)).max(1);
        Self { sets: vec![Vec::with_capacity(WAYS + 1); sets], read: 0, written: 0 }
    }

    /// A warp reads or writes a sector. Bytes that are written are not fetched first.
    pub(super) fn touch(&mut self, sector: u64, write: bool) {
        let count = self.sets.len() as u64;
        let set = &mut self.sets[(sector % count) as usize];
        let entry = match set.iter().position(|entry| entry.sector == sector) {
            Some(at) => set.remove(at),
            None => {
                self.read += if write { 0 } else { SECTOR };
                Entry { sector, dirty: false }
            }
        };
        set.insert(0, Entry { dirty: entry.dirty || write, ..entry });
        if set.len() > WAYS && set.pop().is_some_and(|old| old.dirty) {
            self.written += SECTOR;
        }
    }

    /// Bytes read from memory and written to it, with what is left written back.
    pub(super) fn crossed(&self) -> (u64, u64) {
        let left = self.sets.iter().flatten().filter(|entry| entry.dirty).count() as u64;
        (self.read, self.written + left * SECTOR)
    }
}

#[cfg(test)]
mod tests {
    use super::Cache;

    #[test]
    fn what_fits_crosses_once_and_what_does_not_each_time() {
        let mut cache = Cache::new(64 * 32);
        for _ in 0..3 {
            (0..64).for_each(|sector| cache.touch(sector, false));
        }
        assert_eq!(cache.crossed(), (64 * 32, 0));
        (0..10).for_each(|sector| cache.touch(sector, true));
        assert_eq!(cache.crossed(), (64 * 32, 10 * 32));
        let mut cache = Cache::new(64 * 32);
        for _ in 0..3 {
            (0..128).for_each(|sector| cache.touch(sector, sector < 4));
        }
        assert_eq!(cache.crossed(), (3 * 124 * 32, 3 * 4 * 32));
    }
}
