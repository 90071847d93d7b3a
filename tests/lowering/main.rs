//! Lowering: networks in the shapes of the quantisation tools against a walk over the same graph in f64, what cannot be
//! lowered, and files that want to do harm.

mod graphs;
mod hostile;
mod patterns;
mod reference;
