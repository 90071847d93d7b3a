//! The trainer's arithmetic in f32 on the CPU. It is a crate of its own so that it is built without checks of every addition
//! in the development profile too (`Cargo.toml` of the workspace), where the rest of the trainer has them.

pub mod direct;
pub mod layers;
pub mod product;
#[cfg(target_arch = "x86_64")]
mod tiles;
mod window;

pub use window::{Pool, Window};
