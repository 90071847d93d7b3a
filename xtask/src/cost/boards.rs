//! What the boards have, as far as the estimate needs it.

/// A board.
pub struct Board {
    pub name: &'static str,
    pub architecture: u32,
    pub multiprocessors: f64,
    /// Clock of the GPU in GHz.
    pub clock: f64,
    /// Memory in GB/s.
    pub memory: f64,
    /// Multiply-accumulates of a multiprocessor in a clock, by the instructions that the kernels use.
    pub macs: f64,
}

/// NVIDIA's data sheets of the modules. Dense int8: Orin 85 TOPS on 16 multiprocessors at 1.3 GHz, Xavier 22.6 on 8 at 1.38 GHz; on the Nano one
/// 16-bit product of a core and clock.
pub const BOARDS: [Board; 5] = [
    Board {
        name: "Orin Nano 8GB",
        architecture: 87,
        multiprocessors: 8.0,
        clock: 0.625,
        memory: 68.0,
        macs: 2048.0,
    },
    Board {
        name: "Orin NX 16GB",
        architecture: 87,
        multiprocessors: 8.0,
        clock: 0.918,
        memory: 102.4,
        macs: 2048.0,
    },
    Board {
        name: "AGX Orin 64GB",
        architecture: 87,
        multiprocessors: 16.0,
        clock: 1.3,
        memory: 204.8,
        macs: 2048.0,
    },
    Board {
        name: "Xavier NX",
        architecture: 72,
        multiprocessors: 6.0,
        clock: 1.1,
        memory: 59.7,
        macs: 1024.0,
    },
    Board { name: "Nano", architecture: 53, multiprocessors: 1.0, clock: 0.9216, memory: 25.6, macs: 128.0 },
];

/// Microseconds from the end of a graph's node to the start of the next.
pub const NODE: f64 = 3.0;
/// Warp instructions that a multiprocessor starts in a clock.
pub const ISSUE: f64 = 4.0;

/// Bytes of second-level cache that the traffic is counted behind.
pub fn cache(architecture: u32) -> usize {
    match architecture {
        80.. => 2 << 20,
        60.. => 512 << 10,
        _ => 256 << 10,
    }
}

/// Blocks of 128 threads that a multiprocessor holds: limits of registers, shared memory and threads (CUDA C++ Programming
/// Guide, "Technical Specifications per Compute Capability").
pub fn resident(architecture: u32, registers: u32, shared: u32) -> u32 {
    let (memory, reserved, threads) = match architecture {
        110.. => (228, 1, 1536),
        80.. => (164, 1, 1536),
        70.. => (96, 0, 2048),
        _ => (64, 0, 2048),
    };
    let by_registers = 65536 / (registers.next_multiple_of(8) * 128).max(1);
    let by_memory = memory * 1024 / (shared.next_multiple_of(256) + reserved * 1024).max(1);
    by_registers.min(by_memory).min(threads / 128)
}
