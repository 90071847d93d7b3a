//! Allocation, bounds, poison.

use super::{DeviceMemory, MemoryError, POISON};

#[test]
fn fresh_memory_is_poisoned_and_bounds_are_exact() {
    let memory = DeviceMemory::new(1 << 20);
    let a = memory.allocate(100).unwrap();
    let b = memory.allocate(100).unwrap();
    assert!(a.is_multiple_of(256) && b.is_multiple_of(256) && b >= a + 100 + 4096);
    let mut got = [0; 100];
    memory.read(a, &mut got).unwrap();
    assert_eq!(got, [POISON; 100]);
    memory.write(a + 99, &[7]).unwrap();
    assert_eq!(memory.write(a + 99, &[7, 8]), Err(MemoryError::Range { address: a + 99, bytes: 2 }));
    assert_eq!(memory.fill(a + 100, 1, 0), Err(MemoryError::Range { address: a + 100, bytes: 1 }));
    memory.free(a).unwrap();
    assert_eq!(memory.free(a), Err(MemoryError::NoAllocation(a)));
    assert!(memory.read(a, &mut [0]).is_err());
}

#[test]
fn a_full_device_says_so() {
    let memory = DeviceMemory::new(1000);
    let a = memory.allocate(600).unwrap();
    assert_eq!(memory.allocate(500), Err(MemoryError::Full { wanted: 500, left: 400, capacity: 1000 }));
    memory.free(a).unwrap();
    assert_eq!(memory.info(), (1000, 1000));
    memory.allocate(1000).unwrap();
}

#[test]
fn pinned_memory_has_two_addresses() {
    let memory = DeviceMemory::new(1 << 20);
    let device = memory.allocate_pinned(64, true).unwrap();
    let host = memory.host_pointer(device + 8).unwrap();
    assert_ne!(host as u64, device + 8);
    assert_eq!(memory.device_address(host), Some((device + 8, 56)));
    assert_eq!(memory.mapped_address(host), Some(device + 8));
    assert_eq!(memory.host_pointer(memory.allocate(8).unwrap()), None);
    // What is not mapped has an address for copies alone.
    let other = memory.host_pointer(memory.allocate_pinned(8, false).unwrap()).unwrap();
    assert!(memory.device_address(other).is_some());
    assert_eq!(memory.mapped_address(other), None);
    assert_eq!(memory.mapped_address(std::ptr::dangling()), None);
}
