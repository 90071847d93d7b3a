//! Which bytes of global memory a launch touches.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::memory::Region;

/// One bit a byte, by region.
pub(super) struct Traffic {
    read: Vec<Box<[AtomicU64]>>,
    written: Vec<Box<[AtomicU64]>>,
}

fn bits(regions: &[Arc<Region>]) -> Vec<Box<[AtomicU64]>> {
    let words = |r: &Arc<Region>| (0..r.bytes.len().div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
    regions.iter().map(words).collect()
}

impl Traffic {
    pub(super) fn new(regions: &[Arc<Region>]) -> Self {
        Self { read: bits(regions), written: bits(regions) }
    }

    /// Marks bytes; an access is aligned and at most 32 bytes, so it lies in one word.
    pub(super) fn mark(&self, region: usize, offset: usize, bytes: usize, written: bool) {
        let map = if written { &self.written } else { &self.read };
        let mask = (u64::MAX >> (64 - bytes)) << (offset % 64);
        let word = &map[region][offset / 64];
        if word.load(Relaxed) & mask != mask {
            word.fetch_or(mask, Relaxed);
        }
    }

    /// Different bytes read and written.
    pub(super) fn distinct(&self) -> (u64, u64) {
        let count = |maps: &[Box<[AtomicU64]>]| {
            maps.iter().flatten().map(|w| u64::from(w.load(Relaxed).count_ones())).sum()
        };
        (count(&self.read), count(&self.written))
    }
}

/// 32-byte sectors that one warp's access touches, and how many there are.
pub(super) fn sectors(addresses: &[u64; 32], mask: u32) -> ([u64; 32], usize) {
    let mut found = [0u64; 32];
    let mut count = 0;
    for lane in super::warp::lanes(mask) {
        // Aligned accesses of at most 32 bytes lie in one sector.
        let sector = addresses[lane] / 32;
        if count == 0 || (found[count - 1] != sector && !found[..count].contains(&sector)) {
            found[count] = sector;
            count += 1;
        }
    }
    (found, count)
}

/// Most words in one bank, passes that a shared access takes, and how many of them are more than its size needs: 32 banks of 4
/// bytes; 8-byte accesses go by half warps, 16-byte accesses by quarters.
pub(super) fn bank_passes(addresses: &[u64; 32], mask: u32, bytes: usize) -> (u32, u32, u32) {
    let group = match bytes {
        0..=4 => 32,
        8 => 16,
        _ => 8,
    };
    let (mut worst, mut passes, mut extra) = (0, 0, 0);
    for start in (0..32).step_by(group) {
        let part = mask & ((u64::MAX >> (64 - group)) << start) as u32;
        if part == 0 {
            continue;
        }
        let ways = ways(super::warp::lanes(part).map(|lane| addresses[lane]), bytes);
        worst = worst.max(ways);
        passes += ways;
        extra += ways.saturating_sub(1);
    }
    (worst, passes, extra)
}

/// Most different words in one bank.
pub(super) fn ways(addresses: impl Iterator<Item = u64>, bytes: usize) -> u32 {
    let mut words = [[0u64; 8]; 32];
    let mut counts = [0usize; 32];
    for address in addresses {
        for word in address / 4..(address + bytes as u64).div_ceil(4) {
            let bank = (word % 32) as usize;
            let held = counts[bank].min(8);
            if !words[bank][..held].contains(&word) {
                if held < 8 {
                    words[bank][held] = word;
                }
                counts[bank] += 1;
            }
        }
    }
    counts.into_iter().max().unwrap_or(0) as u32
}
