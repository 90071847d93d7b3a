//! Keras's HDF5: the weights of `applications.InceptionV3` (with top or without), a saved model, or Keras 3's
//! `.weights.h5`. Keras names layers by counting, so the n-th convolution is the n-th of the network.

use crate::checkpoint::{Weight, Weights, WeightsError};
use crate::network::Conv;
use hdf5_pure::{Dataset, File, Group};
use std::collections::BTreeMap;
use std::path::Path;

/// Groups below groups that are looked into: `layers/NAME/layers/conv2d_1/vars/0` needs five.
const DEPTH: usize = 8;
/// Datasets of a file that is no backbone; a full InceptionV3 has 378.
const MOST: usize = 20_000;

/// What a dataset holds: of the layer with this number.
type Part = (Kind, u32, &'static str);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Convolution,
    Norm,
}

/// Reads what the convolutions `all` need.
///
/// # Errors
/// [`WeightsError::Format`] where it is no HDF5 file, [`WeightsError::Tensor`] for the first tensor that does not fit.
pub fn read(path: &Path, all: &[&Conv]) -> Result<Weights, WeightsError> {
    let format = |reason: String| WeightsError::Format { path: path.into(), reason };
    let file = File::open_streaming(path).map_err(|e| format(e.to_string()))?;
    let mut finds = Finds::default();
    finds.collect(&file.root(), &mut Vec::new());
    let found = finds.parts;
    let numbers = |kind: Kind| {
        let mut numbers: Vec<u32> = found.keys().filter(|p| p.0 == kind).map(|p| p.1).collect();
        numbers.dedup();
        numbers
    };
    let (convolutions, norms) = (numbers(Kind::Convolution), numbers(Kind::Norm));
    let mut weights = Weights::default();
    for (i, conv) in all.iter().enumerate() {
        let [kh, kw] = conv.kernel;
        let kernel = [kh, kw, conv.input, conv.output];
        let damage = finds.damage.as_ref().map_or(String::new(), |damage| format!("; {damage}"));
        let wrong = |tensor: String, reason: &str| {
            let reason = format!("{reason} (it would be {}{damage})", conv.name);
            WeightsError::Tensor { path: path.into(), tensor, reason }
        };
        let get = |kind: Kind, numbers: &[u32], part: &'static str, shape: &[usize]| {
            let layer = if kind == Kind::Convolution { "conv2d" } else { "batch_normalization" };
            let Some(&number) = numbers.get(i) else {
                return Err(wrong(format!("{part} of {layer} number {}", i + 1), "is not there"));
            };
            match found.get(&(kind, number, part)) {
                None => Err(wrong(format!("{part} of {layer}_{number}"), "is not there")),
                Some((name, dataset)) => {
                    values(dataset, shape).map_err(|reason| wrong(name.clone(), &reason))
                }
            }
        };
        let name = &conv.name;
        let values = get(Kind::Convolution, &convolutions, "kernel", &kernel)?;
        let shape = vec![conv.output, conv.input, kh, kw];
        weights
            .tensors
            .insert(format!("{name}.conv.weight"), Weight { shape, values: oihw(&values, kernel) });
        for (part, ours) in
            [("beta", "bias"), ("moving_mean", "running_mean"), ("moving_variance", "running_var")]
        {
            let values = get(Kind::Norm, &norms, part, &[conv.output])?;
            weights.set(format!("{name}.bn.{ours}"), &[conv.output], values);
        }
        if norms.get(i).is_some_and(|&n| found.contains_key(&(Kind::Norm, n, "gamma"))) {
            let values = get(Kind::Norm, &norms, "gamma", &[conv.output])?;
            weights.set(format!("{name}.bn.weight"), &[conv.output], values);
        }
    }
    Ok(weights)
}

/// `[rows, columns, input, output]` to `[output, input, rows, columns]`.
fn oihw(values: &[f32], [kh, kw, input, output]: [usize; 4]) -> Vec<f32> {
    let mut out = Vec::with_capacity(values.len());
    for o in 0..output {
        for i in 0..input {
            out.extend((0..kh * kw).map(|place| values[(place * input + i) * output + o]));
        }
    }
    out
}

/// The values of a dataset that must have this shape; nothing is read where it has another.
fn values(dataset: &Dataset, shape: &[usize]) -> Result<Vec<f32>, String> {
    let has = dataset.shape().map_err(|e| format!("cannot be read ({e})"))?;
    if has.iter().map(|&n| usize::try_from(n).ok()).ne(shape.iter().map(|&n| Some(n))) {
        return Err(format!("is {has:?} where {shape:?} is needed"));
    }
    let values = dataset.read_f32().map_err(|e| format!("cannot be read ({e})"))?;
    if values.len() != shape.iter().product::<usize>() {
        return Err(format!("holds {} numbers where {shape:?} is needed", values.len()));
    }
    Ok(values)
}

/// What was found in a file.
#[derive(Default)]
struct Finds {
    /// Datasets with their paths.
    parts: BTreeMap<Part, (String, Dataset)>,
    seen: usize,
    /// The first place that could not be read: what lies there may be what is missing.
    damage: Option<String>,
}

impl Finds {
    /// Finds convolutions' and norms' datasets in a group and below. `path` holds the names of the groups above.
    fn collect(&mut self, group: &Group, path: &mut Vec<String>) {
        let place = path.join("/");
        let (mut names, mut groups) = match (group.datasets(), group.groups()) {
            (Ok(names), Ok(groups)) => (names, groups),
            (Err(error), _) | (_, Err(error)) => {
                let damage = format!("the file is damaged at /{place}: {error}");
                self.damage.get_or_insert(damage);
                return;
            }
        };
        names.sort();
        groups.sort();
        self.seen += names.len() + groups.len();
        if self.seen > MOST || path.len() > DEPTH {
            self.damage.get_or_insert("more in it than a network has".into());
            return;
        }
        for name in &names {
            if let (Some(part), Ok(dataset)) = (part(path, name, names.len()), group.dataset(name)) {
                // An optimizer's slots have the same names, deeper down: the first is the layer's own.
                self.parts.entry(part).or_insert_with(|| (format!("{place}/{name}"), dataset));
            }
        }
        for name in groups.into_iter().filter(|name| !name.starts_with("optimizer")) {
            if let Ok(below) = group.group(&name) {
                path.push(name);
                self.collect(&below, path);
                path.pop();
            }
        }
    }
}

/// What the dataset `name` of a layer is; `siblings` are the datasets in its group.
fn part(path: &[String], name: &str, siblings: usize) -> Option<Part> {
    let (kind, number) = path.iter().rev().find_map(|group| {
        numbered(group, "conv2d")
            .map(|n| (Kind::Convolution, n))
            .or_else(|| numbered(group, "batch_normalization").map(|n| (Kind::Norm, n)))
    })?;
    let part = match (kind, name.trim_end_matches(":0")) {
        (Kind::Convolution, "kernel") => "kernel",
        (Kind::Norm, "gamma") => "gamma",
        (Kind::Norm, "beta") => "beta",
        (Kind::Norm, "moving_mean") => "moving_mean",
        (Kind::Norm, "moving_variance") => "moving_variance",
        // Keras 3 numbers the variables in the order in which the layer made them.
        (kind, digit) if path.last().is_some_and(|group| group == "vars") => {
            let index: usize = digit.parse().ok()?;
            match kind {
                Kind::Convolution => *["kernel"].get(index)?,
                Kind::Norm if siblings == 3 => *["beta", "moving_mean", "moving_variance"].get(index)?,
                Kind::Norm => *["gamma", "beta", "moving_mean", "moving_variance"].get(index)?,
            }
        }
        _ => return None,
    };
    Some((kind, number, part))
}

/// The number at the end of a layer's name: `conv2d` is 0, `conv2d_12` and `batch_normalization_v1_12` are 12.
fn numbered(name: &str, layer: &str) -> Option<u32> {
    let rest = name.strip_prefix(layer)?;
    let rest = rest.strip_prefix("_v1").unwrap_or(rest);
    match rest.strip_prefix('_') {
        Some(digits) => digits.parse().ok(),
        None => rest.is_empty().then_some(0),
    }
}
