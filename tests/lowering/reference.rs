//! The operators as ONNX defines them, in f64 and one after the other: what a lowered graph must agree with.

use fovea::model::onnx::{Graph, Node, Tensor, data_type};
use std::collections::HashMap;

/// A value with its shape.
#[derive(Clone, Debug)]
pub struct Value {
    pub shape: Vec<usize>,
    pub data: Vec<f64>,
}

fn constant(tensor: &Tensor) -> Value {
    let wide = |v: Vec<i32>| v.into_iter().map(f64::from).collect();
    let data = match tensor.data_type {
        Some(data_type::FLOAT) => tensor.f32s().unwrap().into_iter().map(f64::from).collect(),
        Some(data_type::INT32) => wide(tensor.i32s().unwrap()),
        _ => tensor.bytes().unwrap().into_iter().map(f64::from).collect(),
    };
    Value { shape: tensor.shape().unwrap(), data }
}

/// All values of a graph by name. `ties` counts the numbers that lay so near to the middle of two steps that f32 may round
/// them to the other.
pub fn run(graph: &Graph, picture: &[u8], ties: &mut usize) -> HashMap<String, Value> {
    let mut values: HashMap<String, Value> = HashMap::new();
    let mut signed = HashMap::new();
    for tensor in &graph.initializer {
        values.insert(tensor.name.clone().unwrap(), constant(tensor));
        signed.insert(tensor.name.clone().unwrap(), tensor.data_type == Some(data_type::INT8));
    }
    let dims =
        &graph.input[0].r#type.as_ref().unwrap().tensor_type.as_ref().unwrap().shape.as_ref().unwrap().dim;
    let shape = dims.iter().map(|d| d.dim_value.unwrap() as usize).collect();
    // The picture comes as f32.
    let data = picture.iter().map(|&v| f64::from(f32::from(v) / 255.0)).collect();
    values.insert("image".into(), Value { shape, data });
    for node in &graph.node {
        let inputs: Vec<&Value> = node.input.iter().map(|name| &values[name]).collect();
        let low =
            if node.input.get(2).is_some_and(|zero| signed.get(zero) == Some(&true)) { -128.0 } else { 0.0 };
        let value = step(node, &inputs, low, ties);
        values.insert(node.output[0].clone(), value);
    }
    values
}

fn step(node: &Node, inputs: &[&Value], low: f64, ties: &mut usize) -> Value {
    let x = inputs[0];
    let map = |f: &mut dyn FnMut(f64) -> f64| Value {
        shape: x.shape.clone(),
        data: x.data.iter().map(|&v| f(v)).collect(),
    };
    match node.op_type.as_deref().unwrap() {
        "Identity" => x.clone(),
        "Relu" => map(&mut |v| v.max(0.0)),
        "Clip" => map(&mut |v| v.clamp(inputs[1].data[0], inputs[2].data[0])),
        "QuantizeLinear" => {
            let (scale, zero) = (inputs[1].data[0], inputs[2].data[0]);
            map(&mut |v| {
                let exact = v / scale;
                *ties += usize::from((exact - exact.floor() - 0.5).abs() < 1e-4);
                (exact.round_ties_even() + zero).clamp(low, low + 255.0)
            })
        }
        "DequantizeLinear" => {
            let (scales, zeros) = (&inputs[1].data, &inputs[2].data);
            // Only the first axis, and one number for all, occur here.
            let slice = x.data.len() / scales.len();
            let data = x.data.iter().enumerate();
            let data = data.map(|(i, v)| (v - zeros[i / slice]) * scales[i / slice]).collect();
            Value { shape: x.shape.clone(), data }
        }
        "Conv" | "MaxPool" | "AveragePool" => window(node, inputs),
        "Concat" => {
            let shape = vec![1, inputs.iter().map(|v| v.shape[1]).sum(), x.shape[2], x.shape[3]];
            Value { shape, data: inputs.iter().flat_map(|v| v.data.iter().copied()).collect() }
        }
        "GlobalAveragePool" => {
            let cells = x.shape[2] * x.shape[3];
            let data = x.data.chunks(cells).map(|c| c.iter().sum::<f64>() / cells as f64).collect();
            Value { shape: vec![1, x.shape[1], 1, 1], data }
        }
        "Transpose" => {
            let (c, cells) = (x.shape[1], x.shape[2] * x.shape[3]);
            let data = (0..c * cells).map(|i| x.data[i % c * cells + i / c]).collect();
            Value { shape: vec![1, x.shape[2], x.shape[3], c], data }
        }
        "Flatten" => Value { shape: vec![1, x.data.len()], data: x.data.clone() },
        "Gemm" => {
            let (weight, bias) = (inputs[1], inputs[2]);
            let (count, outputs) = (x.data.len(), bias.data.len());
            let turned = node.ints("transB") == Some(vec![1]);
            let at = |o: usize, i: usize| weight.data[if turned { o * count + i } else { i * outputs + o }];
            let sum = |o: usize| (0..count).map(|i| x.data[i] * at(o, i)).sum::<f64>() + bias.data[o];
            Value { shape: vec![1, outputs], data: (0..outputs).map(sum).collect() }
        }
        other => panic!("no reference for {other}"),
    }
}

fn window(node: &Node, inputs: &[&Value]) -> Value {
    let x = inputs[0];
    let list = |name: &str, missing: Vec<i64>| node.ints(name).unwrap_or(missing);
    let kernel = match node.op_type.as_deref() {
        Some("Conv") => inputs[1].shape[2..].iter().map(|&k| k as i64).collect(),
        _ => list("kernel_shape", vec![]),
    };
    let (stride, pads) = (list("strides", vec![1; 2]), list("pads", vec![0; 4]));
    let [c, h, w] = [x.shape[1], x.shape[2], x.shape[3]];
    let out = |side: usize, axis: usize| {
        (side as i64 + pads[axis] + pads[axis + 2] - kernel[axis]) / stride[axis] + 1
    };
    let (oh, ow) = (out(h, 0), out(w, 1));
    let outputs = if node.op_type.as_deref() == Some("Conv") { inputs[1].shape[0] } else { c };
    let mut data = Vec::new();
    for o in 0..outputs {
        for place in 0..oh * ow {
            let mut taps = Vec::new();
            for k in 0..kernel[0] * kernel[1] {
                let y = place / ow * stride[0] + k / kernel[1] - pads[0];
                let x = place % ow * stride[1] + k % kernel[1] - pads[1];
                if (0..h as i64).contains(&y) && (0..w as i64).contains(&x) {
                    taps.push((k as usize, y as usize * w + x as usize));
                }
            }
            data.push(match node.op_type.as_deref() {
                Some("MaxPool") => {
                    taps.iter().map(|&(_, at)| x.data[o * h * w + at]).fold(f64::MIN, f64::max)
                }
                Some("AveragePool") => {
                    taps.iter().map(|&(_, at)| x.data[o * h * w + at]).sum::<f64>() / taps.len() as f64
                }
                _ => {
                    let size = (kernel[0] * kernel[1]) as usize;
                    let weight = |c_: usize, k: usize| inputs[1].data[(o * c + c_) * size + k];
                    let sum: f64 = (0..c)
                        .flat_map(|c_| taps.iter().map(move |&(k, at)| (c_, k, at)))
                        .map(|(c_, k, at)| weight(c_, k) * x.data[c_ * h * w + at])
                        .sum();
                    sum + inputs.get(2).map_or(0.0, |bias| bias.data[o])
                }
            });
        }
    }
    Value { shape: vec![1, outputs, oh as usize, ow as usize], data }
}
