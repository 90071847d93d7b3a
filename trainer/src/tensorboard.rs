//! Scalars as TensorBoard reads them: TensorFlow's record format (`tensorflow/core/lib/io/record_writer.h`) around
//! `Event` messages (`tensorflow/core/util/event.proto`).

use prost::Message;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

/// A value under a name at a step, with the time it was known.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// Seconds since 1970.
    pub time: f64,
    /// Steps done.
    pub step: i64,
    /// Names and values.
    pub values: Vec<(&'static str, f64)>,
}

#[derive(Clone, PartialEq, Message)]
struct Event {
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(string, optional, tag = "3")]
    file_version: Option<String>,
    #[prost(message, optional, tag = "5")]
    summary: Option<Summary>,
}

#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    value: Vec<Value>,
}

#[derive(Clone, PartialEq, Message)]
struct Value {
    #[prost(string, tag = "1")]
    tag: String,
    #[prost(float, optional, tag = "2")]
    simple_value: Option<f32>,
}

/// CRC-32C (Castagnoli; RFC 3720, appendix B.4), reflected.
fn crc32c(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut i = 0;
        while i < 256 {
            let (mut value, mut bit) = (i as u32, 0);
            while bit < 8 {
                value = if value & 1 == 1 { value >> 1 ^ 0x82f6_3b78 } else { value >> 1 };
                bit += 1;
            }
            table[i] = value;
            i += 1;
        }
        table
    };
    !bytes.iter().fold(!0, |crc, &byte| crc >> 8 ^ TABLE[usize::from(crc as u8 ^ byte)])
}

/// The format's mask, so that a record that holds records is not its own checksum.
fn masked(bytes: &[u8]) -> [u8; 4] {
    crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
}

fn record(event: &Event, out: &mut Vec<u8>) {
    let data = event.encode_to_vec();
    let length = (data.len() as u64).to_le_bytes();
    out.extend(length);
    out.extend(masked(&length));
    out.extend(&data);
    out.extend(masked(&data));
}

/// A whole event file.
fn encode(points: &[Point]) -> Vec<u8> {
    let mut out = Vec::new();
    let time = points.first().map_or(0.0, |p| p.time);
    let version = Some("brain.Event:2".into());
    record(&Event { wall_time: time, step: 0, file_version: version, summary: None }, &mut out);
    for point in points {
        let value =
            |(tag, value): &(&str, f64)| Value { tag: (*tag).into(), simple_value: Some(*value as f32) };
        let summary = Some(Summary { value: point.values.iter().map(value).collect() });
        record(&Event { wall_time: point.time, step: point.step, file_version: None, summary }, &mut out);
    }
    out
}

/// Makes the event file hold these points. What it holds already is left, so that a TensorBoard that follows it goes on.
///
/// # Errors
/// When it cannot be read or written.
pub fn write(points: &[Point], path: &Path) -> std::io::Result<()> {
    let bytes = encode(points);
    let mut file = std::fs::File::options().create(true).append(true).read(true).open(path)?;
    let held = std::fs::read(path)?;
    match bytes.strip_prefix(&held[..]) {
        Some(rest) => file.write_all(rest),
        None => {
            file.set_len(0)?;
            file.seek(SeekFrom::Start(0))?;
            file.write_all(&bytes)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // The checks of RFC 3720, and the first bytes of every event file that TensorFlow writes.
    #[test]
    fn checksums_and_the_first_record_are_known() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
        let bytes = encode(&[Point { time: 1.5e9, step: 1, values: vec![] }]);
        assert_eq!(bytes[..12], [0x18, 0, 0, 0, 0, 0, 0, 0, 0xa3, 0x7f, 0x4b, 0x22]);
        assert_eq!(bytes[12..36], *b"\x09\x00\x00\x00\xc0\x0b\x5a\xd6\x41\x1a\x0dbrain.Event:2");
    }

    #[test]
    fn files_grow_and_are_written_anew_where_they_are_of_another_run() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.out.tfevents.0.fovea");
        let point = |step| Point { time: 1.5e9, step, values: vec![("loss/training", 0.5)] };
        write(&[point(1)], &path).unwrap();
        let first = std::fs::read(&path).unwrap();
        write(&[point(1), point(2)], &path).unwrap();
        let second = std::fs::read(&path).unwrap();
        assert!(second.len() > first.len() && second.starts_with(&first));
        write(&[point(3)], &path).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), encode(&[point(3)]));
        // Every record carries its length and both checksums.
        let (mut rest, mut records) = (&second[..], 0);
        while !rest.is_empty() {
            let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
            assert_eq!(rest[8..12], masked(&rest[..8]));
            let data = &rest[12..12 + length];
            assert_eq!(rest[12 + length..16 + length], masked(data));
            records += 1;
            rest = &rest[16 + length..];
        }
        assert_eq!(records, 3);
    }
}
