//! The optimizer's moments as tensors and notes that can be sorted: burn's own file has them in no order.

use crate::checkpoint::Weights;
use anyhow::{Context, Result, anyhow};
use burn::optim::ModuleOptimizer;
use burn::tensor::{Bytes, DType};
use burn_pack::{Reader, Scalar, Tensor, Writer};

const PREFIX: &str = "optimizer.";
const PATH: &str = "path.";

/// Adds the state of `optimizer` to `weights`, under `optimizer.`.
///
/// # Errors
/// When the state holds something else than f32.
pub(super) fn put(optimizer: &ModuleOptimizer, weights: &mut Weights) -> Result<()> {
    let record = optimizer.into_bytes().map_err(|e| anyhow!("the optimizer's state: {e:?}"))?;
    let record = Reader::from_bytes(record)?;
    for (name, scalar) in record.scalars() {
        weights.notes.insert(format!("{PREFIX}{name}"), serde_json::to_string(scalar)?);
    }
    for (name, path) in record.metadata() {
        weights.notes.insert(format!("{PREFIX}{PATH}{name}"), path.clone());
    }
    for tensor in record.into_tensors()? {
        let (name, dtype, shape, _, bytes) = tensor.into_parts()?;
        anyhow::ensure!(dtype == DType::F32, "the optimizer's {name} is {dtype:?}, not f32");
        let values = bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        weights.set(format!("{PREFIX}{name}"), &shape, values);
    }
    Ok(())
}

/// The optimizer with the state that [`put`] wrote.
///
/// # Errors
/// When it is not such a state.
pub(super) fn take(optimizer: &ModuleOptimizer, weights: &Weights) -> Result<ModuleOptimizer> {
    let mut tensors = Vec::new();
    for (name, weight) in weights.tensors.iter() {
        let Some(name) = name.strip_prefix(PREFIX) else { continue };
        let (id, _) = name.split_once('.').with_context(|| format!("optimizer.{name}: no parameter's"))?;
        let id = id.parse().with_context(|| format!("optimizer.{name}: no parameter's"))?;
        let bytes: Vec<u8> = weight.values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let bytes = Bytes::from_bytes_vec(bytes);
        tensors.push(Tensor::new(name.into(), DType::F32, weight.shape.clone(), Some(id), bytes));
    }
    let mut record = Writer::new(tensors);
    for (name, value) in &weights.notes {
        let Some(name) = name.strip_prefix(PREFIX) else { continue };
        record = match name.strip_prefix(PATH) {
            Some(id) => record.with_metadata(id, value),
            None => record.with_scalar(name, serde_json::from_str::<Scalar>(value)?),
        };
    }
    optimizer.clone().from_bytes(record.into_bytes()?).map_err(|e| anyhow!("{e:?}"))
}
