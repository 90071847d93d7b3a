//! What names in the graph stand for, and how nodes' settings are read.

use super::super::{Window, head::Grid};
use super::constants::Weights;
use super::{Lowering, Rc};
use crate::model::onnx::{self, data_type};
use Failure::Reason;

/// What a name in the graph stands for.
#[derive(Clone)]
pub enum Value {
    /// An input that is left out.
    Absent,
    /// The f32 picture.
    Image,
    /// A constant, by its number.
    Constant(usize),
    /// A dequantised constant.
    Weights(Rc<Weights>),
    /// A tensor's bytes.
    Bytes(usize),
    /// Values of the quantised network, by their number there.
    Real(usize),
    /// Within the head, after so many layers.
    Head(usize),
    /// The same, quantised.
    HeadBytes(usize),
}

/// Why a node cannot be lowered.
pub enum Failure {
    /// What is wrong with it.
    Reason(String),
    /// A constant that it reads is broken.
    Tensor(onnx::TensorError),
}

impl From<onnx::TensorError> for Failure {
    fn from(error: onnx::TensorError) -> Self {
        Failure::Tensor(error)
    }
}

impl Lowering<'_> {
    pub fn constant(&self, value: Option<&Value>) -> Result<&onnx::Tensor, Failure> {
        match value {
            Some(Value::Constant(i)) => Ok(&self.constants[*i]),
            _ => Err(Reason("a constant is missing".into())),
        }
    }

    pub fn number(&self, value: Option<&Value>) -> Result<f32, Failure> {
        match self.constant(value)?.f32s()?[..] {
            [number] => Ok(number),
            ref many => Err(Reason(format!("{} numbers where one is needed", many.len()))),
        }
    }

    /// Scale, zero point and range of an activation.
    pub fn grid(&self, inputs: &[Value]) -> Result<Grid, Failure> {
        let scales = self.constant(inputs.get(1))?.f32s()?;
        let &[scale] = &scales[..] else { return Err(Reason("an activation needs one scale".into())) };
        if !scale.is_normal() || scale <= 0.0 {
            return Err(Reason(format!("a scale of {scale}")));
        }
        let (zero, low) = match inputs.get(2) {
            None | Some(Value::Absent) => (0, 0),
            zero => {
                let zero = self.constant(zero)?;
                let low = if zero.data_type == Some(data_type::UINT8) { 0 } else { -128 };
                let &[zero] = &zero.bytes()?[..] else {
                    return Err(Reason("an activation needs one zero point".into()));
                };
                (zero, low)
            }
        };
        Ok(Grid { scale, zero: f32::from(zero), low: low as f32, high: (low + 255) as f32 })
    }
}

/// The window of a convolution or pool with this kernel.
pub fn window(node: &onnx::Node, kernel: [usize; 2]) -> Result<Window, Failure> {
    let numbers = |name: &str, count: usize, missing: usize| -> Result<Vec<usize>, Failure> {
        let Some(list) = node.ints(name) else { return Ok(vec![missing; count]) };
        let list: Option<Vec<usize>> =
            list.iter().map(|&v| usize::try_from(v).ok().filter(|&v| v <= 64)).collect();
        list.filter(|l| l.len() == count).ok_or_else(|| Reason(format!("'{name}' is not understood")))
    };
    let (stride, pads) = (numbers("strides", 2, 1)?, numbers("pads", 4, 0)?);
    let auto = node.attribute.iter().find(|a| a.name.as_deref() == Some("auto_pad"));
    if numbers("dilations", 2, 1)? != [1, 1]
        || stride.contains(&0)
        || numbers("ceil_mode", 1, 0)? != [0]
        || auto.is_some_and(|a| a.s.as_deref().is_some_and(|s| s != b"NOTSET"))
    {
        return Err(Reason("dilation, stride 0, ceil_mode or auto_pad".into()));
    }
    let [top, left, bottom, right] = pads[..] else { return Err(Reason("four pads are needed".into())) };
    if top.max(bottom) >= kernel[0] || left.max(right) >= kernel[1] {
        return Err(Reason("padding as wide as the kernel".into()));
    }
    Ok(Window { kernel, stride: [stride[0], stride[1]], padding: [top, left, bottom, right] })
}
