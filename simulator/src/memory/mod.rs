//! Device memory: allocations with exact bounds and room between them, poisoned when fresh and when freed.
//!
//! Addresses are not pointers of the host, so a host that dereferences one faults as it would beside a real card.
//! Pinned host memory has both, and they differ: a kernel must be given the device address.

mod raw;

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};

pub(crate) use raw::Bytes;
use thiserror::Error;

/// What fresh memory holds.
pub const POISON: u8 = 0xCD;

/// First address of device memory.
const FIRST: u64 = 0x7_0000_0000;
/// Least room between allocations, so that an overrun meets nothing.
const GAP: u64 = 4096;
/// The driver aligns allocations to this many bytes.
const ALIGN: u64 = 256;

/// A range of device memory that cannot be used.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum MemoryError {
    /// Not enough memory left.
    #[error("{wanted} bytes wanted, {left} of {capacity} left")]
    Full {
        /// Bytes asked for.
        wanted: u64,
        /// Bytes left.
        left: u64,
        /// Bytes of the device.
        capacity: u64,
    },
    /// The range is not inside one allocation.
    #[error("{bytes} bytes at {address:#x} are not inside an allocation")]
    Range {
        /// First address.
        address: u64,
        /// Length in bytes.
        bytes: usize,
    },
    /// The address begins no allocation.
    #[error("no allocation begins at {0:#x}")]
    NoAllocation(u64),
}

/// One allocation.
#[derive(Debug)]
pub(crate) struct Region {
    pub(crate) base: u64,
    pub(crate) bytes: Bytes,
    pub(crate) pinned: bool,
    /// Kernels may use it.
    mapped: bool,
}

impl Region {
    pub(crate) fn end(&self) -> u64 {
        self.base + self.bytes.len() as u64
    }
}

#[derive(Debug)]
struct Table {
    regions: BTreeMap<u64, Arc<Region>>,
    next: u64,
    used: u64,
}

/// The memory of one device.
#[derive(Debug)]
pub struct DeviceMemory {
    table: RwLock<Table>,
    capacity: u64,
}

impl DeviceMemory {
    /// Memory of this many bytes.
    pub fn new(capacity: u64) -> Self {
        let table = Table { regions: BTreeMap::new(), next: FIRST, used: 0 };
        Self { table: RwLock::new(table), capacity }
    }

    fn read_table<T>(&self, act: impl FnOnce(&Table) -> T) -> T {
        act(&self.table.read().unwrap_or_else(|e| e.into_inner()))
    }

    /// Allocates device memory filled with [`POISON`]; the address is a multiple of 256.
    ///
    /// # Errors
    /// [`MemoryError::Full`].
    pub fn allocate(&self, bytes: usize) -> Result<u64, MemoryError> {
        self.place(bytes, false, true)
    }

    /// Allocates pinned host memory, which kernels may use where it is mapped; see [`DeviceMemory::host_pointer`].
    ///
    /// # Errors
    /// [`MemoryError::Full`].
    pub fn allocate_pinned(&self, bytes: usize, mapped: bool) -> Result<u64, MemoryError> {
        self.place(bytes, true, mapped)
    }

    fn place(&self, bytes: usize, pinned: bool, mapped: bool) -> Result<u64, MemoryError> {
        let mut table = self.table.write().unwrap_or_else(|e| e.into_inner());
        let left = self.capacity - table.used;
        let full = MemoryError::Full { wanted: bytes as u64, left, capacity: self.capacity };
        if bytes as u64 > left {
            return Err(full);
        }
        let base = table.next;
        let region = Region { base, bytes: Bytes::new(bytes, POISON).ok_or(full)?, pinned, mapped };
        table.next = (region.end() + GAP).next_multiple_of(ALIGN);
        table.used += bytes as u64;
        table.regions.insert(base, Arc::new(region));
        Ok(base)
    }

    /// Frees what begins at this address; its bytes are poisoned first.
    ///
    /// # Errors
    /// [`MemoryError::NoAllocation`].
    pub fn free(&self, address: u64) -> Result<(), MemoryError> {
        let mut table = self.table.write().unwrap_or_else(|e| e.into_inner());
        let region = table.regions.remove(&address).ok_or(MemoryError::NoAllocation(address))?;
        table.used -= region.bytes.len() as u64;
        region.bytes.fill(0, region.bytes.len(), POISON);
        Ok(())
    }

    /// Frees everything.
    pub fn clear(&self) {
        let mut table = self.table.write().unwrap_or_else(|e| e.into_inner());
        table.regions.clear();
        table.used = 0;
    }

    /// Bytes free and bytes in all.
    pub fn info(&self) -> (u64, u64) {
        (self.capacity - self.read_table(|t| t.used), self.capacity)
    }

    fn within<T>(
        &self,
        address: u64,
        bytes: usize,
        act: impl FnOnce(&Region, usize) -> T,
    ) -> Result<T, MemoryError> {
        let range = MemoryError::Range { address, bytes };
        let region = self.region_at(address).ok_or(range.clone())?;
        let offset = (address - region.base) as usize;
        if offset + bytes > region.bytes.len() {
            return Err(range);
        }
        Ok(act(&region, offset))
    }

    /// Copies from the host.
    ///
    /// # Errors
    /// [`MemoryError::Range`].
    pub fn write(&self, address: u64, from: &[u8]) -> Result<(), MemoryError> {
        self.within(address, from.len(), |region, at| region.bytes.write(at, from))
    }

    /// Copies to the host.
    ///
    /// # Errors
    /// [`MemoryError::Range`].
    pub fn read(&self, address: u64, into: &mut [u8]) -> Result<(), MemoryError> {
        let bytes = into.len();
        self.within(address, bytes, |region, at| region.bytes.read(at, into))
    }

    /// Sets bytes.
    ///
    /// # Errors
    /// [`MemoryError::Range`].
    pub fn fill(&self, address: u64, bytes: usize, value: u8) -> Result<(), MemoryError> {
        self.within(address, bytes, |region, at| region.bytes.fill(at, bytes, value))
    }

    /// The host's pointer to pinned memory at this device address.
    pub fn host_pointer(&self, address: u64) -> Option<*mut u8> {
        let region = self.region_at(address)?;
        region.pinned.then(|| region.bytes.pointer().wrapping_add((address - region.base) as usize))
    }

    /// The device address, and the length to the end, of pinned memory that this host pointer lies in.
    pub fn device_address(&self, pointer: *const u8) -> Option<(u64, usize)> {
        self.read_table(|table| {
            table.regions.values().filter(|r| r.pinned).find_map(|r| {
                let offset = (pointer as usize).checked_sub(r.bytes.pointer() as usize)?;
                (offset < r.bytes.len().max(1)).then(|| (r.base + offset as u64, r.bytes.len() - offset))
            })
        })
    }

    /// The address by which kernels know mapped memory at this host pointer.
    pub fn mapped_address(&self, pointer: *const u8) -> Option<u64> {
        let (address, _) = self.device_address(pointer)?;
        self.region_at(address).filter(|region| region.mapped).map(|_| address)
    }

    /// First address and length of the allocation around an address.
    pub fn allocation(&self, address: u64) -> Option<(u64, usize)> {
        self.region_at(address).map(|r| (r.base, r.bytes.len()))
    }

    fn region_at(&self, address: u64) -> Option<Arc<Region>> {
        self.read_table(|table| {
            let (_, region) = table.regions.range(..=address).next_back()?;
            (address < region.end()).then(|| region.clone())
        })
    }

    /// All allocations, by address.
    pub(crate) fn snapshot(&self) -> Vec<Arc<Region>> {
        self.read_table(|table| table.regions.values().cloned().collect())
    }
}

#[cfg(test)]
mod tests;
