//! Dequantised constants: weights and biases.

use super::values::{Failure, Failure::Reason};
use crate::model::onnx::{self, data_type};
use prost::bytes::Bytes;

/// A constant with scales and zero points.
pub struct Weights {
    /// The number of the constant.
    pub constant: usize,
    /// Its shape.
    pub shape: Vec<usize>,
    /// One, or one for each slice along `axis`.
    pub scales: Vec<f32>,
    /// As many; empty where all are 0.
    zeros: Vec<i16>,
    axis: usize,
}

impl Weights {
    pub fn new(
        tensor: &onnx::Tensor,
        constant: usize,
        scales: &onnx::Tensor,
        zeros: Option<&onnx::Tensor>,
        axis: i64,
    ) -> Result<Self, Failure> {
        let (shape, scales) = (tensor.shape()?, scales.f32s()?);
        if scales.iter().any(|s| !s.is_finite() || *s <= 0.0) {
            return Err(Reason("a scale that is 0, negative or not finite".into()));
        }
        let zeros = match zeros {
            None => Vec::new(),
            Some(zeros) if tensor.data_type == Some(data_type::INT32) => {
                if zeros.i32s()?.iter().any(|&z| z != 0) {
                    return Err(Reason("an s32 constant must have zero point 0".into()));
                }
                Vec::new()
            }
            Some(zeros) => zeros.bytes()?,
        };
        if !zeros.is_empty() && zeros.len() != scales.len() {
            return Err(Reason(format!("{} zero points for {} scales", zeros.len(), scales.len())));
        }
        let rank = shape.len() as i64;
        let axis = if axis < 0 { axis + rank } else { axis };
        let axis = if scales.len() == 1 { 0 } else { usize::try_from(axis).unwrap_or(usize::MAX) };
        if scales.len() != 1 && shape.get(axis) != Some(&scales.len()) {
            return Err(Reason(format!("{} scales for {shape:?}", scales.len())));
        }
        let zeros = if zeros.iter().all(|&z| z == 0) { Vec::new() } else { zeros };
        Ok(Self { constant, shape, scales, zeros, axis })
    }

    /// The scale of each of the first axis' slices.
    pub fn by_output(&self) -> Result<Vec<f32>, Failure> {
        let outputs = self.shape.first().copied().unwrap_or(1);
        match self.scales[..] {
            [scale] => Ok(vec![scale; outputs]),
            _ if self.axis == 0 => Ok(self.scales.clone()),
            _ => Err(Reason("weights must have a scale for each output channel".into())),
        }
    }

    /// Bytes less their zero points, as two's complements; `tensor` is the constant.
    pub fn steps(&self, tensor: &onnx::Tensor) -> Result<Bytes, Failure> {
        if self.zeros.is_empty() && tensor.data_type == Some(data_type::INT8) {
            return Ok(tensor.two_complements()?);
        }
        let mut values = tensor.bytes()?;
        if !self.zeros.is_empty() {
            self.slices(&mut values, |slice, values| {
                values.iter_mut().for_each(|v| *v -= self.zeros[slice % self.zeros.len()]);
            });
        }
        let fit = |v: i16| {
            let byte = i8::try_from(v).map(i8::cast_unsigned);
            byte.map_err(|_| Reason("weights beyond 8 bits about their zero point".into()))
        };
        values.into_iter().map(fit).collect()
    }

    /// The real values of a matrix or of biases.
    pub fn floats(&self, tensor: &onnx::Tensor) -> Result<Vec<f32>, Failure> {
        let mut values: Vec<f32> = match tensor.data_type {
            Some(data_type::INT32) => tensor.i32s()?.into_iter().map(|v| v as f32).collect(),
            _ => self.steps(tensor)?.iter().map(|byte| f32::from(byte.cast_signed())).collect(),
        };
        self.slices(&mut values, |slice, values| {
            values.iter_mut().for_each(|v| *v *= self.scales[slice % self.scales.len()]);
        });
        Ok(values)
    }

    /// Calls `f` with each slice along the axis, again for every index of the axes before it.
    fn slices<T>(&self, values: &mut [T], f: impl Fn(usize, &mut [T])) {
        if self.scales.len() == 1 {
            return f(0, values);
        }
        let length: usize = self.shape[self.axis + 1..].iter().product();
        for (i, slice) in values.chunks_exact_mut(length.max(1)).enumerate() {
            f(i % self.scales.len(), slice);
        }
    }
}
