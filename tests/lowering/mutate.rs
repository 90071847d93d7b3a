//! Files that are nearly right: seeded changes of bytes and of the graph's own fields.

use super::graphs::Noise;
use fovea::model::onnx::{Model, Node};

/// Changes a few bytes: flips, cuts, doubles, moves and overwrites pieces.
pub fn bytes(bytes: &mut Vec<u8>, noise: &mut Noise) {
    for _ in 0..1 + noise.below(3) {
        let size = bytes.len();
        if size == 0 {
            return;
        }
        let at = noise.below(size);
        let length = 1 + noise.below(64).min(size - at - 1);
        match noise.below(6) {
            0 => bytes[at] ^= 1 << noise.below(8),
            1 => bytes[at] = [0, 1, 127, 128, 255][noise.below(5)],
            2 => bytes.truncate(at),
            3 => {
                let piece = bytes[at..at + length].to_vec();
                let to = noise.below(size);
                bytes.splice(to..to, piece);
            }
            4 => drop(bytes.drain(at..at + length)),
            _ => (at..at + length).for_each(|i| bytes[i] = noise.next() as u8),
        }
    }
}

/// Numbers that go wrong more often than others.
const INTEGERS: [i64; 10] = [0, -1, 1, 2, 3, 63, 64, 16384, i64::MAX, i64::MIN];
const FLOATS: [f32; 8] = [0.0, -1.0, f32::NAN, f32::INFINITY, 1e-45, 1e-38, 3e38, 0.5];

/// Changes one thing of the graph: a setting, a shape, a scale, a name, a node's place.
pub fn graph(model: &mut Model, noise: &mut Noise) {
    let Some(graph) = &mut model.graph else { return };
    let integer = INTEGERS[noise.below(INTEGERS.len())];
    let float = FLOATS[noise.below(FLOATS.len())];
    let (nodes, tensors) = (graph.node.len(), graph.initializer.len());
    let (a, b) = (noise.below(nodes), noise.below(nodes));
    let t = noise.below(tensors);
    let tensor = &mut graph.initializer[t];
    match noise.below(12) {
        0 => {
            let node: &mut Node = &mut graph.node[a];
            for attribute in &mut node.attribute {
                let place = noise.below(attribute.ints.len());
                attribute.ints.get_mut(place).into_iter().for_each(|v| *v = integer);
                attribute.i = attribute.i.map(|_| integer);
            }
        }
        1 => {
            let place = noise.below(tensor.dims.len());
            tensor.dims.get_mut(place).into_iter().for_each(|d| *d = integer);
        }
        2 | 3 => {
            // Scales are the tensors of floats.
            let floats = graph.initializer.iter_mut().filter(|t| t.data_type == Some(1));
            if let Some(tensor) = floats.collect::<Vec<_>>().into_iter().nth(t / 3) {
                let mut raw = tensor.raw_data.take().unwrap_or_default().to_vec();
                let place = noise.below(raw.len() / 4) * 4;
                raw.get_mut(place..place + 4)
                    .into_iter()
                    .for_each(|b| b.copy_from_slice(&float.to_le_bytes()));
                tensor.raw_data = Some(raw.into());
            }
        }
        4 => {
            let name = graph.node[b].output[0].clone();
            let inputs = &mut graph.node[a].input;
            let place = noise.below(inputs.len());
            inputs.get_mut(place).into_iter().for_each(|i| i.clone_from(&name));
        }
        5 => graph.node.swap(a, b),
        6 => drop(graph.node.remove(a)),
        7 => {
            let mut node = graph.node[a].clone();
            node.output = vec![format!("{}/again", node.output[0])];
            graph.node.insert(b, node);
        }
        8 => tensor.name = graph.node[a].output.first().cloned(),
        9 => tensor.data_type = Some(integer as i32),
        10 => graph.node[a].op_type = graph.node[b].op_type.clone(),
        _ => {
            let mut raw = tensor.raw_data.take().unwrap_or_default().to_vec();
            let place = noise.below(raw.len());
            raw.get_mut(place).into_iter().for_each(|b| *b = noise.next() as u8);
            tensor.raw_data = Some(raw.into());
        }
    }
}
