//! Matrix products of a warp on 8-bit integers.
//!
//! Which lane holds what is from the PTX ISA, "Matrix Fragments for mma.m16n8k32" and its siblings. The fragments of
//! wmma are opaque in the ISA: only what load, mma and store do together is defined, so any bijection serves.

use super::Trouble;
use super::block::Executor;
use super::memory::place;
use super::shared::Kind;
use super::warp::{ALL, Warp};
use crate::error::FaultKind;
use crate::program::{Fragment, MemSpace, Mma, R, Wmma, WmmaAccess};

fn widen(byte: u8, signed: bool) -> i16 {
    if signed { i16::from(byte as i8) } else { i16::from(byte) }
}

/// Adds a product to an accumulator.
fn accumulate(sum: i32, old: u32, saturate: bool) -> u32 {
    if saturate { (old as i32).saturating_add(sum) as u32 } else { (old as i32).wrapping_add(sum) as u32 }
}

/// Row, first column of the four bytes of register `j` of lane `l` in matrix A of `mma` (rows of m, columns of k).
fn a_place(mma: &Mma, j: usize, l: usize) -> (usize, usize) {
    let (group, column) = (l / 4, l % 4 * 4);
    if mma.m == 8 { (group, column) } else { (group + j % 2 * 8, column + j / 2 * 16) }
}

pub(super) fn mma(warp: &mut Warp, mma: &Mma) {
    let mut a = [[0i16; 32]; 16];
    let mut b = [[0i16; 32]; 8];
    for (j, register) in mma.a.iter().enumerate() {
        for (l, value) in warp.get32(*register).iter().enumerate() {
            let (row, column) = a_place(mma, j, l);
            for (e, byte) in value.to_le_bytes().into_iter().enumerate() {
                a[row][column + e] = widen(byte, mma.a_signed);
            }
        }
    }
    for (j, register) in mma.b.iter().enumerate() {
        for (l, value) in warp.get32(*register).iter().enumerate() {
            for (e, byte) in value.to_le_bytes().into_iter().enumerate() {
                b[l / 4][l % 4 * 4 + j * 16 + e] = widen(byte, mma.b_signed);
            }
        }
    }
    let mut product = [[0i32; 8]; 16];
    for (row, out) in product.iter_mut().enumerate().take(mma.m) {
        for (column, out) in out.iter_mut().enumerate() {
            // Unused columns of k are zero.
            *out = a[row].iter().zip(&b[column]).map(|(x, y)| i32::from(*x) * i32::from(*y)).sum();
        }
    }
    let c: Vec<[u32; 32]> = mma.c.iter().map(|r| *warp.get32(*r)).collect();
    for (e, register) in mma.d.iter().enumerate() {
        let value = std::array::from_fn(|l| {
            let sum = product[l / 4 + e / 2 * 8][l % 4 * 2 + e % 2];
            accumulate(sum, c[e][l], mma.saturate)
        });
        warp.set32(*register, value, ALL);
    }
}

/// Elements of a wmma fragment are dealt to lanes in runs of what one register holds.
fn element(fragment: Fragment, register: usize, lane: usize, byte: usize) -> usize {
    match fragment {
        Fragment::C => register * 32 + lane,
        _ => (register * 32 + lane) * 4 + byte,
    }
}

/// Rows and columns of a fragment.
fn extent(access: &WmmaAccess) -> (usize, usize) {
    match access.fragment {
        Fragment::A => (access.shape.m, 16),
        Fragment::B => (16, access.shape.n),
        Fragment::C => (access.shape.m, access.shape.n),
    }
}

fn gather(warp: &Warp, registers: &[R], fragment: Fragment, signed: bool) -> Vec<i16> {
    let mut values = vec![0; registers.len() * 128];
    for (j, register) in registers.iter().enumerate() {
        for (l, value) in warp.get32(*register).iter().enumerate() {
            for (e, byte) in value.to_le_bytes().into_iter().enumerate() {
                values[element(fragment, j, l, e)] = widen(byte, signed);
            }
        }
    }
    values
}

pub(super) fn wmma(warp: &mut Warp, wmma: &Wmma) {
    let (m, n) = (wmma.shape.m, wmma.shape.n);
    // Fragments hold A by rows and B by columns, whatever memory had.
    let a = gather(warp, &wmma.a, Fragment::A, wmma.a_signed);
    let b = gather(warp, &wmma.b, Fragment::B, wmma.b_signed);
    let c: Vec<[u32; 32]> = wmma.c.iter().map(|r| *warp.get32(*r)).collect();
    let mut d = vec![[0u32; 32]; wmma.d.len()];
    for row in 0..m {
        let a: &[i16] = &a[row * 16..row * 16 + 16];
        for column in 0..n {
            let b = &b[column * 16..column * 16 + 16];
            let sum = a.iter().zip(b).map(|(x, y)| i32::from(*x) * i32::from(*y)).sum();
            let index = row * n + column;
            let (register, lane) = (index / 32, index % 32);
            d[register][lane] = accumulate(sum, c[register][lane], wmma.saturate);
        }
    }
    for (register, value) in wmma.d.iter().zip(d) {
        warp.set32(*register, value, ALL);
    }
}

impl Executor<'_> {
    /// The byte address of every element of a fragment, by its index in the fragment.
    fn wmma_places(&self, warp: &Warp, access: &WmmaAccess) -> Result<Vec<(MemSpace, u64)>, Trouble> {
        let (rows, columns) = extent(access);
        let size = if access.fragment == Fragment::C { 4 } else { 1 };
        let base = warp.addresses(&access.address);
        let least = if access.row_major { columns } else { rows };
        let stride = access.stride.map_or(least as u64, |r| u64::from(warp.get32(r)[0]));
        let uniform = base.iter().all(|b| *b == base[0])
            && access.stride.is_none_or(|r| warp.get32(r).iter().all(|s| *s == warp.get32(r)[0]));
        if !uniform {
            let what = "a wmma address or stride that differs between lanes".into();
            return Err(Trouble::new(FaultKind::Divergence, what));
        }
        let bytes = stride * size;
        if !bytes.is_multiple_of(16) || !base[0].is_multiple_of(32) {
            let what =
                format!("wmma at {:#x} with a stride of {bytes} bytes; 32 and 16 divide them", base[0]);
            return Err(Trouble::new(FaultKind::Misaligned, what));
        }
        let by_columns = access.fragment == Fragment::B;
        Ok((0..rows * columns)
            .map(|index| {
                let (row, column) = if by_columns {
                    (index % rows, index / rows)
                } else {
                    (index / columns, index % columns)
                };
                let (slow, fast) = if access.row_major { (row, column) } else { (column, row) };
                place(access.space, base[0] + (slow as u64 * stride + fast as u64) * size)
            })
            .collect())
    }

    pub(super) fn wmma_load(&mut self, warp: &mut Warp, access: &WmmaAccess, pc: u32) -> Result<(), Trouble> {
        let places = self.wmma_places(warp, access)?;
        let (size, each) = if access.fragment == Fragment::C { (4, 1) } else { (1, 4) };
        let line = self.line(pc);
        self.wmma_count(&places, size, false, pc);
        for (j, register) in access.regs.iter().enumerate() {
            let mut value = [0u32; 32];
            for (l, value) in value.iter_mut().enumerate() {
                for e in 0..each {
                    let (space, address) = places[element(access.fragment, j, l, e)];
                    let raw = match space {
                        MemSpace::Shared => {
                            let at = self.shared.range(address, size, size)?;
                            let who = Self::who(&self.seen, warp.index, l, line);
                            self.shared.touch(at, size, Kind::Read, who, false)?;
                            self.shared.load(at, size)
                        }
                        _ => {
                            let (region, at) = self.global(address, size, size)?;
                            if let Some(races) = &mut self.races {
                                races.touch(address, size, Kind::Read, warp.index, line)?;
                            }
                            if let Some(traffic) = &self.grid.traffic {
                                traffic.mark(region, at, size, false);
                            }
                            self.grid.regions[region].bytes.load(at, size)
                        }
                    };
                    *value |= (raw as u32) << (8 * e);
                }
            }
            warp.set32(*register, value, ALL);
        }
        Ok(())
    }

    pub(super) fn wmma_store(
        &mut self,
        warp: &mut Warp,
        access: &WmmaAccess,
        pc: u32,
    ) -> Result<(), Trouble> {
        let places = self.wmma_places(warp, access)?;
        let line = self.line(pc);
        self.wmma_count(&places, 4, true, pc);
        for (j, register) in access.regs.iter().enumerate() {
            for (l, value) in warp.get32(*register).iter().enumerate() {
                let (space, address) = places[element(Fragment::C, j, l, 0)];
                match space {
                    MemSpace::Shared => {
                        let at = self.shared.range(address, 4, 4)?;
                        let who = Self::who(&self.seen, warp.index, l, line);
                        self.shared.touch(at, 4, Kind::Write, who, false)?;
                        self.shared.store(at, 4, u64::from(*value));
                    }
                    _ => {
                        let (region, at) = self.global(address, 4, 4)?;
                        if let Some(races) = &mut self.races {
                            races.touch(address, 4, Kind::Write, warp.index, line)?;
                        }
                        if let Some(traffic) = &self.grid.traffic {
                            traffic.mark(region, at, 4, true);
                        }
                        self.grid.regions[region].bytes.store(at, 4, u64::from(*value));
                    }
                }
            }
        }
        Ok(())
    }

    /// How a card reads wmma fragments is not documented; bytes are counted, bank conflicts are not.
    fn wmma_count(&mut self, places: &[(MemSpace, u64)], size: usize, written: bool, _pc: u32) {
        let global = places.iter().filter(|p| p.0 == MemSpace::Global);
        let mut sectors: Vec<u64> = global.map(|p| p.1 / 32).collect();
        let bytes = (sectors.len() * size) as u64;
        sectors.sort_unstable();
        sectors.dedup();
        if written {
            self.moved.written += bytes;
            self.moved.sectors_written += sectors.len() as u64;
        } else {
            self.moved.read += bytes;
            self.moved.sectors_read += sectors.len() as u64;
        }
    }
}
