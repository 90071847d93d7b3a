//! A look over a file's bytes before they become messages: in memory a message is up to 200 times as large as the two
//! bytes that an empty one takes in the file, so a small hostile file could ask for any amount.

/// The largest file that is read, in bytes.
pub const FILE: usize = 256 << 20;
/// The most fields of all messages together: a thirty-fold of what InceptionV3 needs.
const FIELDS: usize = 1 << 18;
/// The most bytes of lists of numbers; weights belong into `raw_data`.
const LISTS: usize = 16 << 20;

/// The messages whose fields are followed.
#[derive(Clone, Copy)]
enum Kind {
    Model,
    Graph,
    Node,
    Attribute,
    Tensor,
    ValueInfo,
    Type,
    TensorType,
    Shape,
    /// Fields that hold no further messages.
    Leaf,
}

impl Kind {
    /// What the field `tag` holds: a message, or a packed list of numbers (`Err`), or bytes (`None`).
    fn field(self, tag: u64) -> Option<Result<Kind, ()>> {
        Some(match (self, tag) {
            (Kind::Model, 7) => Ok(Kind::Graph),
            (Kind::Model, 8 | 14) | (Kind::Shape, 1) => Ok(Kind::Leaf),
            (Kind::Graph, 1) => Ok(Kind::Node),
            (Kind::Graph, 5) | (Kind::Attribute, 5) => Ok(Kind::Tensor),
            (Kind::Graph, 11 | 12) => Ok(Kind::ValueInfo),
            (Kind::Node, 5) => Ok(Kind::Attribute),
            (Kind::ValueInfo, 2) => Ok(Kind::Type),
            (Kind::Type, 1) => Ok(Kind::TensorType),
            (Kind::TensorType, 2) => Ok(Kind::Shape),
            (Kind::Attribute, 7 | 8) | (Kind::Tensor, 1 | 4 | 5 | 7) => Err(()),
            _ => return None,
        })
    }
}

/// Checks that decoding `bytes` as a model takes less than half a gigabyte beside the tensors' own bytes.
///
/// # Errors
/// What is too large, or cut off.
pub fn check(bytes: &[u8]) -> Result<(), String> {
    if bytes.len() > FILE {
        return Err(format!("{} MB, more than {}", bytes.len() >> 20, FILE >> 20));
    }
    walk(bytes, Kind::Model, &mut Seen { fields: 0, lists: 0 })
}

struct Seen {
    fields: usize,
    lists: usize,
}

fn walk(mut bytes: &[u8], kind: Kind, seen: &mut Seen) -> Result<(), String> {
    while !bytes.is_empty() {
        seen.fields += 1;
        if seen.fields > FIELDS {
            return Err(format!("more than {FIELDS} fields"));
        }
        let key = varint(&mut bytes)?;
        match key & 7 {
            0 => drop(varint(&mut bytes)?),
            1 => drop(take(&mut bytes, 8)?),
            2 => {
                let length = varint(&mut bytes)?;
                let inner = take(&mut bytes, usize::try_from(length).unwrap_or(usize::MAX))?;
                match kind.field(key >> 3) {
                    Some(Ok(inside)) => walk(inner, inside, seen)?,
                    Some(Err(())) => {
                        seen.lists += inner.len();
                        if seen.lists > LISTS {
                            return Err(format!("more than {} MB of lists of numbers", LISTS >> 20));
                        }
                    }
                    None => {}
                }
            }
            5 => drop(take(&mut bytes, 4)?),
            wire => return Err(format!("a field of the unknown wire type {wire}")),
        }
    }
    Ok(())
}

fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Result<&'a [u8], String> {
    let (head, tail) = bytes.split_at_checked(count).ok_or("a field is cut off")?;
    *bytes = tail;
    Ok(head)
}

fn varint(bytes: &mut &[u8]) -> Result<u64, String> {
    let mut value = 0;
    for place in 0..10 {
        let [byte] = take(bytes, 1)? else { break };
        value |= u64::from(byte & 127) << (7 * place);
        if byte & 128 == 0 {
            return Ok(value);
        }
    }
    Err("a number of more than 64 bits".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::onnx::*;
    use prost::Message;

    // Each is a few megabytes in the file and would be gigabytes in memory.
    #[test]
    fn files_that_swell_are_refused() {
        let node = [10u8, 0];
        let graph = |fields: &[u8]| {
            let mut bytes = vec![58];
            prost::encoding::encode_varint(fields.len() as u64, &mut bytes);
            bytes.extend(fields);
            bytes
        };
        let error = check(&graph(&node.repeat(2 << 20))).unwrap_err();
        assert!(error.contains("fields"), "{error}");
        let tensor = Tensor { int64_data: vec![0; LISTS + 1], ..Tensor::default() };
        let model = Model {
            graph: Some(Graph { initializer: vec![tensor], ..Graph::default() }),
            ..Model::default()
        };
        let error = check(&model.encode_to_vec()).unwrap_err();
        assert!(error.contains("lists"), "{error}");
        assert!(check(&graph(&node.repeat(1000))).is_ok());
        assert!(Model::read(&graph(&node.repeat(1000)).into()).is_ok());
    }

    #[test]
    fn cut_off_and_unknown_fields() {
        for (bytes, word) in [
            (&b"\x3a\x05ab"[..], "cut off"),
            (&[0xff; 12], "64 bits"),
            (b"\x0b", "wire type 3"),
            (b"\x08", "cut"),
        ] {
            let error = check(bytes).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
        assert_eq!(check(b""), Ok(()));
    }
}
