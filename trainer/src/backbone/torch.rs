//! Files of `torch.save`: a zip with a pickle and each storage's bytes, or before PyTorch 1.6 a row of pickles with the
//! storages behind them.

use super::pickle::{Kind, Reader, Value, View};
use crate::checkpoint::{Weight, Weights, WeightsError};
use crate::network::Conv;
use std::collections::{BTreeMap, HashMap};
use std::io::{Cursor, Read};
use std::path::Path;
use std::rc::Rc;
use zip::ZipArchive;

/// How a file of before PyTorch 1.6 begins: the number 0x1950a86a20f9469cfc6c as a pickle.
pub(super) const LEGACY: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";

/// Longest pickle that is read; InceptionV3's has 60 kB.
const LONGEST: u64 = 64 << 20;

/// Where storages' bytes lie.
enum Storages<'a> {
    Zip { archive: ZipArchive<Cursor<&'a [u8]>>, folder: String },
    Slices(HashMap<Rc<str>, &'a [u8]>),
}

/// Reads what the convolutions `all` need, under whatever prefix (`module.`, `state_dict.`) the file has.
///
/// # Errors
/// [`WeightsError::Format`] where it is no such file, [`WeightsError::Tensor`] for a tensor that cannot be read.
pub fn read(path: &Path, all: &[&Conv]) -> Result<Weights, WeightsError> {
    let bytes = std::fs::read(path).map_err(|source| WeightsError::Io { path: path.into(), source })?;
    let (root, mut storages) =
        open(&bytes).map_err(|reason| WeightsError::Format { path: path.into(), reason })?;
    let mut views = BTreeMap::new();
    flatten(&root, "", &mut views);
    let mut weights = Weights::default();
    let Some(first) = all.first() else { return Ok(weights) };
    let marker = format!("{}.conv.weight", first.name);
    let prefix = views
        .keys()
        .filter_map(|name| name.strip_suffix(&marker))
        .filter(|prefix| prefix.is_empty() || prefix.ends_with('.'))
        .min_by_key(|prefix| prefix.len())
        .unwrap_or_default();
    for conv in all {
        for part in ["conv.weight", "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var"] {
            let name = format!("{}.{part}", conv.name);
            let tensor = format!("{prefix}{name}");
            let Some(view) = views.get(&tensor) else { continue };
            let [kh, kw] = conv.kernel;
            let values = storages
                .values(view, conv.output * conv.input * kh * kw)
                .map_err(|reason| WeightsError::Tensor { path: path.into(), tensor, reason })?;
            weights.tensors.insert(name, Weight { shape: view.shape.clone(), values });
        }
    }
    Ok(weights)
}

fn open(bytes: &[u8]) -> Result<(Value, Storages<'_>), String> {
    if bytes.starts_with(LEGACY) {
        return legacy(bytes);
    }
    let mut archive = ZipArchive::new(Cursor::new(bytes)).map_err(|e| format!("the zip is damaged: {e}"))?;
    let pickle = archive.file_names().find(|name| *name == "data.pkl" || name.ends_with("/data.pkl"));
    let pickle = pickle.ok_or("a zip without data.pkl, so not of torch.save")?.to_owned();
    let folder = pickle.trim_end_matches("data.pkl").to_owned();
    if entry(&mut archive, &format!("{folder}byteorder"), 16).is_ok_and(|order| order == b"big") {
        return Err("written on a big-endian machine".into());
    }
    let pickle = entry(&mut archive, &pickle, LONGEST)?;
    Ok((Reader::new(&pickle).read()?, Storages::Zip { archive, folder }))
}

/// At most `most` bytes of an entry.
fn entry(archive: &mut ZipArchive<Cursor<&[u8]>>, name: &str, most: u64) -> Result<Vec<u8>, String> {
    let file = archive.by_name(name).map_err(|e| format!("{name} cannot be read: {e}"))?;
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes).map_err(|e| format!("{name} cannot be read: {e}"))?;
    Ok(bytes)
}

/// The magic number, the version, the machine, the object and the storages' keys, then each storage: count and bytes.
fn legacy(bytes: &[u8]) -> Result<(Value, Storages<'_>), String> {
    let mut reader = Reader::new(bytes);
    reader.read()?;
    reader.read()?;
    let Value::Dict(machine, _) = reader.read()? else { return Err("the machine is not described".into()) };
    if machine.iter().any(|(key, value)| &**key == "little_endian" && *value == Value::Bool(false)) {
        return Err("written on a big-endian machine".into());
    }
    let root = reader.read()?;
    let Value::List(keys, _) = reader.read()? else { return Err("the storages are not listed".into()) };
    let (mut rest, mut slices) = (reader.rest(), HashMap::new());
    for key in keys {
        let Value::Text(key) = key else { return Err("a storage's key is no text".into()) };
        let kind = reader.storages.get(&key).ok_or_else(|| format!("storage {key} is not used"))?;
        // A file that was cut off has the storages before: the first tensor that is missing is named.
        let Some((count, data)) = rest.split_first_chunk::<8>() else { break };
        let length =
            usize::try_from(u64::from_le_bytes(*count)).ok().and_then(|n| n.checked_mul(kind.size()));
        let Some((data, behind)) = length.and_then(|length| data.split_at_checked(length)) else { break };
        slices.insert(key, data);
        rest = behind;
    }
    Ok((root, Storages::Slices(slices)))
}

/// Tensors in dictionaries, at any depth, under names joined by dots.
fn flatten(value: &Value, name: &str, views: &mut BTreeMap<String, Rc<View>>) {
    match value {
        Value::Tensor(view) => drop(views.insert(name.into(), Rc::clone(view))),
        Value::Dict(pairs, _) => {
            for (key, value) in pairs {
                let below = if name.is_empty() { key.to_string() } else { format!("{name}.{key}") };
                flatten(value, &below, views);
            }
        }
        _ => {}
    }
}

impl Storages<'_> {
    /// A tensor's values row by row; one of more than `most` numbers is refused, for a view can claim any size.
    fn values(&mut self, view: &View, most: usize) -> Result<Vec<f32>, String> {
        let wide = || format!("is {:?}, larger than what fits", view.shape);
        let product = |a: usize, b: usize| a.checked_mul(b);
        let count = view.shape.iter().try_fold(1, |all, &n| product(all, n)).ok_or_else(wide)?;
        if count > most {
            return Err(wide());
        }
        if let Kind::Other(_) = view.kind {
            return Err("does not hold floats".into());
        }
        if count == 0 {
            return Ok(Vec::new());
        }
        let reach = view
            .shape
            .iter()
            .zip(&view.strides)
            .try_fold(view.offset, |sum, (&n, &stride)| sum.checked_add(product(n - 1, stride)?));
        let size = view.kind.size();
        let end = reach.and_then(|last| product(last.checked_add(1)?, size)).ok_or_else(wide)?;
        let held;
        let bytes = match self {
            Storages::Zip { archive, folder } => {
                held = entry(archive, &format!("{folder}data/{}", view.key), end as u64)?;
                &held[..]
            }
            Storages::Slices(slices) => slices.get(&view.key).copied().unwrap_or_default(),
        };
        let bytes = bytes.get(..end).ok_or("lies behind the end of its storage: the file was cut off")?;
        let number = |at: usize| {
            let b = &bytes[at * size..(at + 1) * size];
            match view.kind {
                Kind::F64 => f64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]) as f32,
                Kind::F16 => half::f16::from_le_bytes([b[0], b[1]]).to_f32(),
                Kind::Bf16 => half::bf16::from_le_bytes([b[0], b[1]]).to_f32(),
                _ => f32::from_le_bytes([b[0], b[1], b[2], b[3]]),
            }
        };
        let place = |mut flat: usize| {
            let mut at = view.offset;
            for (&n, &stride) in view.shape.iter().zip(&view.strides).rev() {
                at += flat % n * stride;
                flat /= n;
            }
            at
        };
        Ok((0..count).map(|flat| number(place(flat))).collect())
    }
}
