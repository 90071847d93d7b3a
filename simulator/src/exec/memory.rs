//! Loads and stores.

use super::block::Executor;
use super::run::resolve;
use super::shared::Kind;
use super::traffic::{bank_passes, sectors, ways};
use super::warp::{Warp, lanes};
use super::{LOCAL_WINDOW, Trouble};
use crate::error::FaultKind;
use crate::program::{Access, Address, Base, MemSpace, R, Reg};

impl Executor<'_> {
    /// The region and the offset of a global access.
    #[inline]
    pub(super) fn global(
        &mut self,
        address: u64,
        bytes: usize,
        align: usize,
    ) -> Result<(usize, usize), Trouble> {
        let regions = &self.grid.regions;
        let inside = |index: usize| {
            regions.get(index).is_some_and(|r| address >= r.base && address + bytes as u64 <= r.end())
        };
        if !inside(self.region) {
            let after = regions.partition_point(|r| r.base <= address);
            if after == 0 || !inside(after - 1) {
                return Err(self.outside(address, bytes));
            }
            self.region = after - 1;
        }
        if !address.is_multiple_of(align as u64) {
            let what = format!("global address {address:#x} is not a multiple of {align}");
            return Err(Trouble::new(FaultKind::Misaligned, what));
        }
        Ok((self.region, (address - regions[self.region].base) as usize))
    }

    #[cold]
    fn outside(&self, address: u64, bytes: usize) -> Trouble {
        let regions = &self.grid.regions;
        let after = regions.partition_point(|r| r.base <= address);
        let near = match after.checked_sub(1).map(|i| &regions[i]) {
            Some(r) if address < r.end() + 4096 => {
                format!("; {} bytes into an allocation of {}", address - r.base, r.bytes.len())
            }
            _ => String::new(),
        };
        let what = format!("{bytes} bytes at global address {address:#x} are outside every allocation{near}");
        Trouble::new(FaultKind::OutOfBounds, what)
    }

    #[inline]
    pub(super) fn line(&self, pc: u32) -> u32 {
        self.grid.kernel.code[pc as usize].line
    }

    /// Counts a warp's global access.
    pub(super) fn count_global(&mut self, addresses: &[u64; 32], mask: u32, bytes: usize, written: bool) {
        let total = u64::from(mask.count_ones()) * bytes as u64;
        let (found, count) = sectors(addresses, mask);
        let touched = count as u64;
        if let Some(cache) = &self.grid.cache {
            let mut cache = cache.lock().unwrap_or_else(|e| e.into_inner());
            found[..count].iter().for_each(|sector| cache.touch(*sector, written));
        }
        if written {
            self.moved.written += total;
            self.moved.sectors_written += touched;
        } else {
            self.moved.read += total;
            self.moved.sectors_read += touched;
        }
    }

    /// Counts a warp's shared access.
    pub(super) fn count_shared(&mut self, addresses: &[u64; 32], mask: u32, bytes: usize, pc: u32) {
        let (worst, passes, extra) = bank_passes(addresses, mask, bytes);
        self.count_passes(worst, passes, extra, pc);
    }

    fn count_passes(&mut self, worst: u32, passes: u32, extra: u32, pc: u32) {
        let count = &mut self.counts[pc as usize];
        count.degrees[(worst.max(1).next_power_of_two().trailing_zeros() as usize).min(5)] += 1;
        count.passes += u64::from(passes);
        count.bank_ways = count.bank_ways.max(worst);
        count.extra_passes += u64::from(extra);
    }

    pub(super) fn load(
        &mut self,
        warp: &mut Warp,
        access: &Access,
        mask: u32,
        pc: u32,
    ) -> Result<(), Trouble> {
        let size = usize::from(access.element.bytes);
        let whole = size * access.regs.len();
        if access.space == MemSpace::Param && matches!(access.address.base, Base::None) {
            return self.load_param(warp, access, mask);
        }
        let addresses = warp.addresses(&access.address);
        if self.grid.options.traffic {
            self.count_access(&addresses, access.space, mask, whole, false, pc);
        }
        let line = self.line(pc);
        for lane in lanes(mask) {
            let (space, address) = place(access.space, addresses[lane]);
            match space {
                MemSpace::Shared => {
                    let at = self.shared.range(address, whole, whole)?;
                    let who = Self::who(&self.seen, warp.index, lane, line);
                    self.shared.touch(at, whole, Kind::Read, who, false)?;
                    for (index, reg) in access.regs.iter().enumerate() {
                        let raw = self.shared.load(at + index * size, size);
                        set(warp, *reg, lane, extend(raw, access.element.signed, size));
                    }
                }
                MemSpace::Local => {
                    let at = self.local_range(address, whole)?;
                    let base = lane * self.grid.kernel.local + at;
                    for (index, reg) in access.regs.iter().enumerate() {
                        let from = base + index * size;
                        let raw = little(&warp.local[from..from + size]);
                        set(warp, *reg, lane, extend(raw, access.element.signed, size));
                    }
                }
                MemSpace::Param => {
                    let at = self.param_range(address, whole)?;
                    for (index, reg) in access.regs.iter().enumerate() {
                        let from = at + index * size;
                        let raw = little(&self.grid.launch.args[from..from + size]);
                        set(warp, *reg, lane, extend(raw, access.element.signed, size));
                    }
                }
                _ => {
                    let (region, at) = self.global(address, whole, whole)?;
                    if let Some(races) = &mut self.races {
                        races.touch(address, whole, Kind::Read, warp.index, line)?;
                    }
                    if let Some(traffic) = &self.grid.traffic {
                        traffic.mark(region, at, whole, false);
                    }
                    let bytes = &self.grid.regions[region].bytes;
                    for (index, reg) in access.regs.iter().enumerate() {
                        let raw = bytes.load(at + index * size, size);
                        set(warp, *reg, lane, extend(raw, access.element.signed, size));
                    }
                }
            }
        }
        Ok(())
    }

    pub(super) fn store(
        &mut self,
        warp: &mut Warp,
        access: &Access,
        mask: u32,
        pc: u32,
    ) -> Result<(), Trouble> {
        let size = usize::from(access.element.bytes);
        let whole = size * access.regs.len();
        let addresses = warp.addresses(&access.address);
        if self.grid.options.traffic {
            self.count_access(&addresses, access.space, mask, whole, true, pc);
        }
        let line = self.line(pc);
        for lane in lanes(mask) {
            let (space, address) = place(access.space, addresses[lane]);
            match space {
                MemSpace::Shared => {
                    let at = self.shared.range(address, whole, whole)?;
                    let same = access.regs.iter().enumerate().all(|(index, reg)| {
                        let cut = u64::MAX >> (64 - 8 * size);
                        self.shared.load(at + index * size, size) == get(warp, *reg, lane) & cut
                    });
                    let who = Self::who(&self.seen, warp.index, lane, line);
                    self.shared.touch(at, whole, Kind::Write, who, same)?;
                    for (index, reg) in access.regs.iter().enumerate() {
                        self.shared.store(at + index * size, size, get(warp, *reg, lane));
                    }
                }
                MemSpace::Local => {
                    let at = self.local_range(address, whole)?;
                    let base = lane * self.grid.kernel.local + at;
                    for (index, reg) in access.regs.iter().enumerate() {
                        let value = get(warp, *reg, lane).to_le_bytes();
                        let to = base + index * size;
                        warp.local[to..to + size].copy_from_slice(&value[..size]);
                    }
                }
                MemSpace::Param => {
                    return Err(Trouble::new(FaultKind::OutOfBounds, "a store to parameters".into()));
                }
                _ => {
                    let (region, at) = self.global(address, whole, whole)?;
                    if let Some(races) = &mut self.races {
                        races.touch(address, whole, Kind::Write, warp.index, line)?;
                    }
                    if let Some(traffic) = &self.grid.traffic {
                        traffic.mark(region, at, whole, true);
                    }
                    let bytes = &self.grid.regions[region].bytes;
                    for (index, reg) in access.regs.iter().enumerate() {
                        bytes.store(at + index * size, size, get(warp, *reg, lane));
                    }
                }
            }
        }
        Ok(())
    }

    fn count_access(
        &mut self,
        addresses: &[u64; 32],
        space: MemSpace,
        mask: u32,
        bytes: usize,
        written: bool,
        pc: u32,
    ) {
        let part = |wanted: MemSpace| {
            mask & super::exchange::ballot(|lane| place(space, addresses[lane]).0 == wanted)
        };
        let (shared, global) = (part(MemSpace::Shared), part(MemSpace::Global));
        if shared != 0 {
            self.count_shared(addresses, shared, bytes, pc);
        }
        if global != 0 {
            self.count_global(addresses, global, bytes, written);
        }
    }

    /// Parameters read by name: the same for every lane.
    fn load_param(&mut self, warp: &mut Warp, access: &Access, mask: u32) -> Result<(), Trouble> {
        let size = usize::from(access.element.bytes);
        let at = self.param_range(access.address.offset as u64, size * access.regs.len())?;
        for (index, reg) in access.regs.iter().enumerate() {
            let from = at + index * size;
            let raw = little(&self.grid.launch.args[from..from + size]);
            let value = extend(raw, access.element.signed, size);
            match reg.bits {
                64 => warp.set64(reg.index, [value; 32], mask),
                16 => warp.set32(reg.index, [value as u32 & 0xFFFF; 32], mask),
                _ => warp.set32(reg.index, [value as u32; 32], mask),
            }
        }
        Ok(())
    }

    fn param_range(&self, address: u64, bytes: usize) -> Result<usize, Trouble> {
        plain_range("parameter", address, bytes, self.grid.kernel.param_bytes)
    }

    fn local_range(&self, address: u64, bytes: usize) -> Result<usize, Trouble> {
        plain_range("local", address, bytes, self.grid.kernel.local)
    }

    /// `ldmatrix`: lanes 8i to 8i+7 give the row addresses of matrix i; lane l gets elements 2(l mod 4) and the
    /// next of row l/4, or of column l/4 when transposed (PTX ISA, "Warp-level matrix load instruction").
    pub(super) fn ldmatrix(
        &mut self,
        warp: &mut Warp,
        dst: &[R],
        transposed: bool,
        address: &Address,
        pc: u32,
    ) -> Result<(), Trouble> {
        let addresses = warp.addresses(address);
        let line = self.line(pc);
        for (matrix, register) in dst.iter().enumerate() {
            let mut rows = [[0u16; 8]; 8];
            for (row, values) in rows.iter_mut().enumerate() {
                let (space, address) = generic_shared(addresses[matrix * 8 + row]);
                if space != MemSpace::Shared {
                    let what = "ldmatrix outside of shared memory".into();
                    return Err(Trouble::new(FaultKind::OutOfBounds, what));
                }
                let at = self.shared.range(address, 16, 16)?;
                for quarter in 0..4 {
                    // The four lanes that receive this row read it.
                    let lane = if transposed { matrix * 8 + row } else { row * 4 + quarter };
                    let who = Self::who(&self.seen, warp.index, lane, line);
                    self.shared.touch(at + quarter * 4, 4, Kind::Read, who, false)?;
                }
                for (column, value) in values.iter_mut().enumerate() {
                    *value = self.shared.load(at + column * 2, 2) as u16;
                }
            }
            if self.grid.options.traffic {
                let row_addresses = (0..8).map(|row| generic_shared(addresses[matrix * 8 + row]).1);
                let worst = ways(row_addresses, 16);
                self.count_passes(worst, worst, worst.saturating_sub(1), pc);
            }
            let value = std::array::from_fn(|lane| {
                let (row, column) = (lane / 4, lane % 4 * 2);
                let pick = |c: usize| if transposed { rows[c][row] } else { rows[row][c] };
                u32::from(pick(column)) | (u32::from(pick(column + 1)) << 16)
            });
            warp.set32(*register, value, super::warp::ALL);
        }
        Ok(())
    }
}

/// A shared address, which may also be given in the generic space.
pub(super) fn generic_shared(address: u64) -> (MemSpace, u64) {
    if address < super::WINDOW { (MemSpace::Shared, address) } else { resolve(address) }
}

/// The space that an access of a stated space goes to.
#[inline]
pub(super) fn place(space: MemSpace, address: u64) -> (MemSpace, u64) {
    match space {
        MemSpace::Generic => resolve(address),
        // The ISA lets shared and local accesses use addresses of their own window only.
        MemSpace::Local if address >= LOCAL_WINDOW => resolve(address),
        space => (space, address),
    }
}

fn plain_range(name: &str, address: u64, bytes: usize, size: usize) -> Result<usize, Trouble> {
    if address.checked_add(bytes as u64).is_none_or(|end| end > size as u64) {
        let what = format!("{bytes} bytes at {name} address {address:#x} of {size} bytes");
        return Err(Trouble::new(FaultKind::OutOfBounds, what));
    }
    if !address.is_multiple_of(bytes as u64) {
        let what = format!("{name} address {address:#x} is not a multiple of {bytes}");
        return Err(Trouble::new(FaultKind::Misaligned, what));
    }
    Ok(address as usize)
}

fn little(bytes: &[u8]) -> u64 {
    let mut raw = [0; 8];
    raw[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(raw)
}

#[inline]
fn extend(raw: u64, signed: bool, bytes: usize) -> u64 {
    if !signed {
        return raw;
    }
    let spare = 64 - 8 * bytes;
    (((raw << spare) as i64) >> spare) as u64
}

#[inline]
fn set(warp: &mut Warp, reg: Reg, lane: usize, value: u64) {
    match reg.bits {
        64 => warp.r64[reg.index as usize][lane] = value,
        16 => warp.r32[reg.index as usize][lane] = value as u32 & 0xFFFF,
        _ => warp.r32[reg.index as usize][lane] = value as u32,
    }
}

#[inline]
fn get(warp: &Warp, reg: Reg, lane: usize) -> u64 {
    match reg.bits {
        64 => warp.r64[reg.index as usize][lane],
        _ => u64::from(warp.r32[reg.index as usize][lane]),
    }
}
