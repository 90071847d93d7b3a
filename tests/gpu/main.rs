//! The engine `cuda` through the real dynamic loading, against the simulator's driver in the place of libcuda.so.1.
//!
//! Each case is a process of its own: this program again with the test `child`, which finds the driver's library through
//! `LD_LIBRARY_PATH` and its device and faults in `FOVEA_DRIVER_*`.

mod child;
mod driver;
mod probe;
mod suite;
mod supervised;
mod tools;
