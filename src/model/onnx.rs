//! The part of ONNX's protobuf schema (`onnx.proto3` of IR version 8) that a fovea model uses, written by hand: the
//! trainer writes it, the plan reads it. Fields that are not listed here are skipped when reading.
//!
//! The tags are those of the schema; scalars carry presence (`optional`) because ONNX's checker asks which field of an
//! attribute is set.

mod scan;

use prost::Message;
use prost::bytes::Bytes;
pub use scan::{FILE as LARGEST_FILE, check};

/// Element types of [`Tensor`], as ONNX numbers them.
pub mod data_type {
    /// 32-bit float.
    pub const FLOAT: i32 = 1;
    /// Unsigned byte.
    pub const UINT8: i32 = 2;
    /// Signed byte.
    pub const INT8: i32 = 3;
    /// Signed 32-bit integer.
    pub const INT32: i32 = 6;
    /// Signed 64-bit integer.
    pub const INT64: i32 = 7;
}

/// Kinds of [`Attribute`], as ONNX numbers them.
pub mod attribute_type {
    /// `f` is set.
    pub const FLOAT: i32 = 1;
    /// `i` is set.
    pub const INT: i32 = 2;
    /// `s` is set.
    pub const STRING: i32 = 3;
    /// `t` is set.
    pub const TENSOR: i32 = 4;
    /// `floats` is set.
    pub const FLOATS: i32 = 6;
    /// `ints` is set.
    pub const INTS: i32 = 7;
}

/// `ModelProto`: a graph with the versions that it needs.
#[derive(Clone, PartialEq, Message)]
pub struct Model {
    /// Version of the file format; 8 goes with opset 13 to 17.
    #[prost(int64, optional, tag = "1")]
    pub ir_version: Option<i64>,
    /// The program that wrote the file.
    #[prost(string, optional, tag = "2")]
    pub producer_name: Option<String>,
    /// Its version.
    #[prost(string, optional, tag = "3")]
    pub producer_version: Option<String>,
    /// What the model is, for people.
    #[prost(string, optional, tag = "6")]
    pub doc_string: Option<String>,
    /// The network.
    #[prost(message, optional, tag = "7")]
    pub graph: Option<Graph>,
    /// Operator sets used.
    #[prost(message, repeated, tag = "8")]
    pub opset_import: Vec<OperatorSet>,
    /// Free key-value pairs.
    #[prost(message, repeated, tag = "14")]
    pub metadata_props: Vec<StringEntry>,
}

/// `OperatorSetIdProto`.
#[derive(Clone, PartialEq, Message)]
pub struct OperatorSet {
    /// Empty for ONNX's own operators.
    #[prost(string, optional, tag = "1")]
    pub domain: Option<String>,
    /// Its version.
    #[prost(int64, optional, tag = "2")]
    pub version: Option<i64>,
}

/// `StringStringEntryProto`.
#[derive(Clone, PartialEq, Message)]
pub struct StringEntry {
    /// Key.
    #[prost(string, optional, tag = "1")]
    pub key: Option<String>,
    /// Value.
    #[prost(string, optional, tag = "2")]
    pub value: Option<String>,
}

/// `GraphProto`: nodes in an order in which they can run.
#[derive(Clone, PartialEq, Message)]
pub struct Graph {
    /// Operators.
    #[prost(message, repeated, tag = "1")]
    pub node: Vec<Node>,
    /// Its name.
    #[prost(string, optional, tag = "2")]
    pub name: Option<String>,
    /// Constants.
    #[prost(message, repeated, tag = "5")]
    pub initializer: Vec<Tensor>,
    /// Inputs.
    #[prost(message, repeated, tag = "11")]
    pub input: Vec<ValueInfo>,
    /// Outputs.
    #[prost(message, repeated, tag = "12")]
    pub output: Vec<ValueInfo>,
}

/// `NodeProto`: one operator.
#[derive(Clone, PartialEq, Message)]
pub struct Node {
    /// Names of the values that it reads; empty for one left out.
    #[prost(string, repeated, tag = "1")]
    pub input: Vec<String>,
    /// Names of the values that it makes.
    #[prost(string, repeated, tag = "2")]
    pub output: Vec<String>,
    /// Its own name.
    #[prost(string, optional, tag = "3")]
    pub name: Option<String>,
    /// `Conv`, `Relu`, …
    #[prost(string, optional, tag = "4")]
    pub op_type: Option<String>,
    /// Its settings.
    #[prost(message, repeated, tag = "5")]
    pub attribute: Vec<Attribute>,
    /// Empty for ONNX's own operators.
    #[prost(string, optional, tag = "7")]
    pub domain: Option<String>,
}

/// `AttributeProto`: a setting of a node.
#[derive(Clone, PartialEq, Message)]
pub struct Attribute {
    /// Its name.
    #[prost(string, optional, tag = "1")]
    pub name: Option<String>,
    /// A float.
    #[prost(float, optional, tag = "2")]
    pub f: Option<f32>,
    /// An integer.
    #[prost(int64, optional, tag = "3")]
    pub i: Option<i64>,
    /// UTF-8 text.
    #[prost(bytes = "vec", optional, tag = "4")]
    pub s: Option<Vec<u8>>,
    /// A tensor.
    #[prost(message, optional, tag = "5")]
    pub t: Option<Tensor>,
    /// Floats.
    #[prost(float, repeated, packed = "false", tag = "7")]
    pub floats: Vec<f32>,
    /// Integers.
    #[prost(int64, repeated, packed = "false", tag = "8")]
    pub ints: Vec<i64>,
    /// Which of the fields is meant; see [`attribute_type`].
    #[prost(int32, optional, tag = "20")]
    pub r#type: Option<i32>,
}

/// `TensorProto`: a constant. fovea writes `raw_data` (little-endian) only; other writers may fill the typed lists.
#[derive(Clone, PartialEq, Message)]
pub struct Tensor {
    /// Shape; empty for a scalar.
    #[prost(int64, repeated, packed = "false", tag = "1")]
    pub dims: Vec<i64>,
    /// Element type; see [`data_type`].
    #[prost(int32, optional, tag = "2")]
    pub data_type: Option<i32>,
    /// Floats, where `raw_data` is absent.
    #[prost(float, repeated, tag = "4")]
    pub float_data: Vec<f32>,
    /// 8- to 32-bit integers, where `raw_data` is absent.
    #[prost(int32, repeated, tag = "5")]
    pub int32_data: Vec<i32>,
    /// 64-bit integers, where `raw_data` is absent.
    #[prost(int64, repeated, tag = "7")]
    pub int64_data: Vec<i64>,
    /// Its name.
    #[prost(string, optional, tag = "8")]
    pub name: Option<String>,
    /// The elements, little-endian, row by row.
    #[prost(bytes = "bytes", optional, tag = "9")]
    pub raw_data: Option<Bytes>,
}

/// `ValueInfoProto`: name and type of an input or output.
#[derive(Clone, PartialEq, Message)]
pub struct ValueInfo {
    /// Its name.
    #[prost(string, optional, tag = "1")]
    pub name: Option<String>,
    /// Its type.
    #[prost(message, optional, tag = "2")]
    pub r#type: Option<Type>,
}

/// `TypeProto`, tensors only.
#[derive(Clone, PartialEq, Message)]
pub struct Type {
    /// A tensor's element type and shape.
    #[prost(message, optional, tag = "1")]
    pub tensor_type: Option<TensorType>,
}

/// `TypeProto.Tensor`.
#[derive(Clone, PartialEq, Message)]
pub struct TensorType {
    /// Element type; see [`data_type`].
    #[prost(int32, optional, tag = "1")]
    pub elem_type: Option<i32>,
    /// Its shape.
    #[prost(message, optional, tag = "2")]
    pub shape: Option<Shape>,
}

/// `TensorShapeProto`.
#[derive(Clone, PartialEq, Message)]
pub struct Shape {
    /// Dimensions, outermost first.
    #[prost(message, repeated, tag = "1")]
    pub dim: Vec<Dimension>,
}

/// `TensorShapeProto.Dimension`, known sizes only.
#[derive(Clone, PartialEq, Message)]
pub struct Dimension {
    /// The size; absent where the file gives a symbol.
    #[prost(int64, optional, tag = "1")]
    pub dim_value: Option<i64>,
}

/// A tensor that does not hold what its type and shape say.
#[derive(Debug, thiserror::Error)]
#[error("tensor {name}: {reason}; export the model again with a fitting fovea-train")]
pub struct TensorError {
    /// The tensor's name.
    pub name: String,
    /// What is wrong.
    pub reason: String,
}

impl Model {
    /// Decodes a file's bytes, at most [`LARGEST_FILE`]; `raw_data` of tensors are parts of them, not copies. No input makes it
    /// take more than 512 MiB.
    ///
    /// # Errors
    /// Why the bytes are no ONNX file, or too much.
    pub fn read(bytes: &Bytes) -> Result<Self, String> {
        scan::check(bytes)?;
        Self::decode(bytes.clone()).map_err(|error| error.to_string())
    }
}

impl Tensor {
    fn raw(name: &str, dims: &[usize], data_type: i32, bytes: Vec<u8>) -> Self {
        Self {
            name: Some(name.into()),
            dims: dims.iter().map(|&d| d as i64).collect(),
            data_type: Some(data_type),
            raw_data: Some(bytes.into()),
            ..Self::default()
        }
    }

    /// A tensor of floats; `dims` empty for a scalar.
    pub fn of_f32(name: &str, dims: &[usize], values: &[f32]) -> Self {
        Self::raw(name, dims, data_type::FLOAT, values.iter().flat_map(|v| v.to_le_bytes()).collect())
    }

    /// A tensor of signed bytes.
    pub fn of_i8(name: &str, dims: &[usize], values: &[i8]) -> Self {
        Self::raw(name, dims, data_type::INT8, values.iter().map(|&v| v as u8).collect())
    }

    /// A tensor of unsigned bytes.
    pub fn of_u8(name: &str, dims: &[usize], values: &[u8]) -> Self {
        Self::raw(name, dims, data_type::UINT8, values.to_vec())
    }

    /// A tensor of 32-bit integers.
    pub fn of_i32(name: &str, dims: &[usize], values: &[i32]) -> Self {
        Self::raw(name, dims, data_type::INT32, values.iter().flat_map(|v| v.to_le_bytes()).collect())
    }

    fn error(&self, reason: impl Into<String>) -> TensorError {
        TensorError { name: self.name.clone().unwrap_or_default(), reason: reason.into() }
    }

    /// The shape as sizes.
    ///
    /// # Errors
    /// A negative or absurd dimension.
    pub fn shape(&self) -> Result<Vec<usize>, TensorError> {
        let shape: Option<Vec<usize>> = self.dims.iter().map(|&d| usize::try_from(d).ok()).collect();
        let shape = shape.ok_or_else(|| self.error(format!("negative dimension in {:?}", self.dims)))?;
        match shape.iter().try_fold(1usize, |all, &d| all.checked_mul(d)) {
            Some(all) if all <= 1 << 31 => Ok(shape),
            _ => Err(self.error(format!("{:?} is too large", self.dims))),
        }
    }

    /// Raw elements of `N` bytes each, or `None` where the typed lists hold them.
    fn elements<const N: usize>(&self, data_type: i32) -> Result<Option<&[[u8; N]]>, TensorError> {
        if self.data_type != Some(data_type) {
            return Err(self.error(format!("element type {:?} where {data_type} is needed", self.data_type)));
        }
        let count: usize = self.shape()?.iter().product();
        let Some(raw) = &self.raw_data else { return Ok(None) };
        if count.checked_mul(N) != Some(raw.len()) {
            return Err(self.error(format!("{} bytes for {count} elements of {N} bytes", raw.len())));
        }
        Ok(Some(raw.as_chunks::<N>().0))
    }

    fn listed<T, U>(&self, list: &[T], convert: impl Fn(&T) -> Option<U>) -> Result<Vec<U>, TensorError> {
        let count: usize = self.shape()?.iter().product();
        let values: Option<Vec<U>> = list.iter().map(convert).collect();
        values
            .filter(|values| values.len() == count)
            .ok_or_else(|| self.error(format!("{} fitting elements of {count}", list.len())))
    }

    /// The elements of a float tensor.
    ///
    /// # Errors
    /// Another element type, or a number of elements that is not the shape's.
    pub fn f32s(&self) -> Result<Vec<f32>, TensorError> {
        match self.elements(data_type::FLOAT)? {
            Some(raw) => Ok(raw.iter().copied().map(f32::from_le_bytes).collect()),
            None => self.listed(&self.float_data, |v| Some(*v)),
        }
    }

    /// The elements of a signed-byte tensor.
    ///
    /// # Errors
    /// As [`Self::f32s`].
    pub fn i8s(&self) -> Result<Vec<i8>, TensorError> {
        Ok(self.two_complements()?.iter().map(|byte| byte.cast_signed()).collect())
    }

    /// The bytes of a signed-byte tensor, not copied where they are `raw_data`.
    ///
    /// # Errors
    /// As [`Self::f32s`].
    pub fn two_complements(&self) -> Result<Bytes, TensorError> {
        match (self.elements::<1>(data_type::INT8)?, &self.raw_data) {
            (Some(_), Some(raw)) => Ok(raw.clone()),
            _ => {
                let byte = |v: &i32| i8::try_from(*v).ok().map(i8::cast_unsigned);
                self.listed(&self.int32_data, byte).map(Bytes::from)
            }
        }
    }

    /// The elements of an unsigned-byte tensor.
    ///
    /// # Errors
    /// As [`Self::f32s`].
    pub fn u8s(&self) -> Result<Vec<u8>, TensorError> {
        match self.elements::<1>(data_type::UINT8)? {
            Some(raw) => Ok(raw.as_flattened().to_vec()),
            None => self.listed(&self.int32_data, |v| u8::try_from(*v).ok()),
        }
    }

    /// The elements of a tensor of signed or unsigned bytes.
    ///
    /// # Errors
    /// As [`Self::f32s`].
    pub fn bytes(&self) -> Result<Vec<i16>, TensorError> {
        match self.data_type {
            Some(data_type::UINT8) => Ok(self.u8s()?.into_iter().map(i16::from).collect()),
            _ => Ok(self.i8s()?.into_iter().map(i16::from).collect()),
        }
    }

    /// The elements of a 32-bit integer tensor.
    ///
    /// # Errors
    /// As [`Self::f32s`].
    pub fn i32s(&self) -> Result<Vec<i32>, TensorError> {
        match self.elements(data_type::INT32)? {
            Some(raw) => Ok(raw.iter().copied().map(i32::from_le_bytes).collect()),
            None => self.listed(&self.int32_data, |v| Some(*v)),
        }
    }
}

impl Attribute {
    /// An integer setting.
    pub fn int(name: &str, value: i64) -> Self {
        Self { name: Some(name.into()), i: Some(value), r#type: Some(attribute_type::INT), ..Self::default() }
    }

    /// A list of integers.
    pub fn ints(name: &str, values: &[i64]) -> Self {
        Self {
            name: Some(name.into()),
            ints: values.to_vec(),
            r#type: Some(attribute_type::INTS),
            ..Self::default()
        }
    }
}

impl Node {
    /// A node of ONNX's own operators, named after its first output.
    pub fn new(op: &str, input: &[&str], output: &str, attribute: Vec<Attribute>) -> Self {
        Self {
            op_type: Some(op.into()),
            name: Some(format!("{output}/{op}")),
            input: input.iter().map(|&name| name.into()).collect(),
            output: vec![output.into()],
            attribute,
            domain: None,
        }
    }

    /// The float of the setting `name`; `None` without it.
    pub fn float(&self, name: &str) -> Option<f32> {
        self.attribute.iter().find(|a| a.name.as_deref() == Some(name))?.f
    }

    /// Integers of the setting `name`, one or many; `None` without it.
    pub fn ints(&self, name: &str) -> Option<Vec<i64>> {
        let found = self.attribute.iter().find(|a| a.name.as_deref() == Some(name))?;
        Some(found.i.map_or_else(|| found.ints.clone(), |i| vec![i]))
    }
}

impl ValueInfo {
    /// An f32 input or output of a known shape.
    pub fn of_f32(name: &str, dims: &[usize]) -> Self {
        let dim = dims.iter().map(|&d| Dimension { dim_value: Some(d as i64) }).collect();
        let tensor_type = TensorType { elem_type: Some(data_type::FLOAT), shape: Some(Shape { dim }) };
        Self { name: Some(name.into()), r#type: Some(Type { tensor_type: Some(tensor_type) }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model() -> Model {
        let graph = Graph {
            node: vec![Node::new(
                "Conv",
                &["image", "w"],
                "y",
                vec![Attribute::ints("pads", &[0, 1, 0, 1]), Attribute::int("group", 0)],
            )],
            name: Some("net".into()),
            initializer: vec![
                Tensor::of_f32("w", &[2, 1], &[1.5, -2.0]),
                Tensor::of_i8("q", &[3], &[-63, 0, 63]),
                Tensor::of_i32("b", &[1], &[i32::MIN]),
                Tensor::of_u8("zero", &[], &[0]),
            ],
            input: vec![ValueInfo::of_f32("image", &[1, 1, 299, 299])],
            output: vec![ValueInfo::of_f32("y", &[1, 4])],
        };
        Model {
            ir_version: Some(8),
            graph: Some(graph),
            opset_import: vec![OperatorSet { domain: Some(String::new()), version: Some(13) }],
            ..Model::default()
        }
    }

    #[test]
    fn round_trip() {
        let before = model();
        let after = Model::decode(before.encode_to_vec().as_slice()).unwrap();
        assert_eq!(before, after);
        let graph = after.graph.unwrap();
        assert_eq!(graph.initializer[0].f32s().unwrap(), [1.5, -2.0]);
        assert_eq!(graph.initializer[1].i8s().unwrap(), [-63, 0, 63]);
        assert_eq!(graph.initializer[2].i32s().unwrap(), [i32::MIN]);
        assert_eq!(graph.initializer[3].u8s().unwrap(), [0]);
        assert_eq!(graph.node[0].ints("pads").unwrap(), [0, 1, 0, 1]);
        assert_eq!(graph.node[0].ints("group").unwrap(), [0]);
        assert_eq!(graph.node[0].ints("strides"), None);
    }

    // The bytes of the wire, by hand from the schema: a wrong tag would pass a round trip.
    #[test]
    fn tags_are_those_of_the_schema() {
        let attribute = Attribute::ints("a", &[3]);
        assert_eq!(attribute.encode_to_vec(), [0x0a, 1, b'a', 0x40, 3, 0xa0, 1, 7]);
        let attribute = Attribute::int("i", 0);
        assert_eq!(attribute.encode_to_vec(), [0x0a, 1, b'i', 0x18, 0, 0xa0, 1, 2]);
        let tensor = Tensor::of_i8("t", &[2], &[-1, 1]);
        assert_eq!(tensor.encode_to_vec(), [0x08, 2, 0x10, 3, 0x42, 1, b't', 0x4a, 2, 0xff, 1]);
        let info = ValueInfo::of_f32("x", &[5]);
        assert_eq!(
            info.encode_to_vec(),
            [0x0a, 1, b'x', 0x12, 10, 0x0a, 8, 0x08, 1, 0x12, 4, 0x0a, 2, 0x08, 5]
        );
        let opset = OperatorSet { domain: None, version: Some(13) };
        assert_eq!(opset.encode_to_vec(), [0x10, 13]);
    }

    #[test]
    fn wrong_tensors_are_errors() {
        let mut tensor = Tensor::of_f32("w", &[2], &[1.0, 2.0]);
        assert!(tensor.i8s().is_err());
        tensor.dims = vec![3];
        assert!(tensor.f32s().unwrap_err().to_string().contains("tensor w"));
        tensor.dims = vec![-1];
        assert!(tensor.f32s().is_err());
        tensor.dims = vec![i64::MAX, i64::MAX];
        assert!(tensor.f32s().is_err());
        let listed = Tensor {
            dims: vec![2],
            data_type: Some(data_type::INT8),
            int32_data: vec![1, 200],
            ..Tensor::default()
        };
        assert!(listed.i8s().is_err());
    }
}
