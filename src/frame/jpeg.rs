//! JPEG pictures that are cut, and what cameras leave out of those of a stream.

use std::borrow::Cow;

/// A table of Huffman codes: class and number as in a DHT segment, codes of each length from 1 to 16, values.
type Table = (u8, [u8; 16], &'static [u8]);

/// The typical tables of ITU-T T.81, Annex K.3, which a stream means that has none.
const TABLES: [Table; 4] = [
    (0x00, [0, 1, 5, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0], &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]),
    (
        0x10,
        [0, 2, 1, 3, 3, 2, 4, 3, 5, 5, 4, 4, 0, 0, 1, 0x7d],
        b"\x01\x02\x03\x00\x04\x11\x05\x12\x21\x31\x41\x06\x13\x51\x61\x07\x22\x71\x14\x32\x81\x91\xa1\x08\
          \x23\x42\xb1\xc1\x15\x52\xd1\xf0\x24\x33\x62\x72\x82\x09\x0a\x16\x17\x18\x19\x1a\x25\x26\x27\x28\
          \x29\x2a\x34\x35\x36\x37\x38\x39\x3a\x43\x44\x45\x46\x47\x48\x49\x4a\x53\x54\x55\x56\x57\x58\x59\
          \x5a\x63\x64\x65\x66\x67\x68\x69\x6a\x73\x74\x75\x76\x77\x78\x79\x7a\x83\x84\x85\x86\x87\x88\x89\
          \x8a\x92\x93\x94\x95\x96\x97\x98\x99\x9a\xa2\xa3\xa4\xa5\xa6\xa7\xa8\xa9\xaa\xb2\xb3\xb4\xb5\xb6\
          \xb7\xb8\xb9\xba\xc2\xc3\xc4\xc5\xc6\xc7\xc8\xc9\xca\xd2\xd3\xd4\xd5\xd6\xd7\xd8\xd9\xda\xe1\xe2\
          \xe3\xe4\xe5\xe6\xe7\xe8\xe9\xea\xf1\xf2\xf3\xf4\xf5\xf6\xf7\xf8\xf9\xfa",
    ),
    (0x01, [0, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0], &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]),
    (
        0x11,
        [0, 2, 1, 2, 4, 4, 3, 4, 7, 5, 4, 4, 0, 1, 2, 0x77],
        b"\x00\x01\x02\x03\x11\x04\x05\x21\x31\x06\x12\x41\x51\x07\x61\x71\x13\x22\x32\x81\x08\x14\x42\x91\
          \xa1\xb1\xc1\x09\x23\x33\x52\xf0\x15\x62\x72\xd1\x0a\x16\x24\x34\xe1\x25\xf1\x17\x18\x19\x1a\x26\
          \x27\x28\x29\x2a\x35\x36\x37\x38\x39\x3a\x43\x44\x45\x46\x47\x48\x49\x4a\x53\x54\x55\x56\x57\x58\
          \x59\x5a\x63\x64\x65\x66\x67\x68\x69\x6a\x73\x74\x75\x76\x77\x78\x79\x7a\x82\x83\x84\x85\x86\x87\
          \x88\x89\x8a\x92\x93\x94\x95\x96\x97\x98\x99\x9a\xa2\xa3\xa4\xa5\xa6\xa7\xa8\xa9\xaa\xb2\xb3\xb4\
          \xb5\xb6\xb7\xb8\xb9\xba\xc2\xc3\xc4\xc5\xc6\xc7\xc8\xc9\xca\xd2\xd3\xd4\xd5\xd6\xd7\xd8\xd9\xda\
          \xe2\xe3\xe4\xe5\xe6\xe7\xe8\xe9\xea\xf2\xf3\xf4\xf5\xf6\xf7\xf8\xf9\xfa",
    ),
];

/// The picture with Huffman tables, and without what follows its end.
///
/// # Errors
/// A reason when the bytes are no whole JPEG: a decoder would show the rest of a cut picture as grey.
pub fn repair(bytes: &[u8]) -> Result<Cow<'_, [u8]>, &'static str> {
    const CUT: &str = "the JPEG picture is cut";
    if !bytes.starts_with(&[0xff, 0xd8]) {
        return Err("no JPEG picture");
    }
    let (mut at, mut tables) = (2, false);
    let scan = loop {
        let [0xff, marker] = *bytes.get(at..at + 2).ok_or(CUT)? else {
            return Err("the JPEG picture's header is damaged");
        };
        match marker {
            // Fill bytes, and markers without a length.
            0xff => {
                at += 1;
                continue;
            }
            0x01 | 0xd0..=0xd7 => {
                at += 2;
                continue;
            }
            0xd9 => return Err("the JPEG picture is empty"),
            0xc4 => tables = true,
            0xda => break at,
            _ => {}
        }
        let length = bytes.get(at + 2..at + 4).ok_or(CUT)?;
        at += 2 + usize::from(u16::from_be_bytes([length[0], length[1]]));
    };
    let end = bytes[scan..].windows(2).position(|pair| pair == [0xff, 0xd9]).ok_or(CUT)? + scan + 2;
    if tables {
        return Ok(Cow::Borrowed(&bytes[..end]));
    }
    let mut whole = bytes[..scan].to_vec();
    for (name, counts, values) in TABLES {
        let length = (2 + 1 + counts.len() + values.len()) as u16;
        whole.extend([0xff, 0xc4]);
        whole.extend(length.to_be_bytes());
        whole.push(name);
        whole.extend(counts);
        whole.extend(values);
    }
    whole.extend(&bytes[scan..end]);
    Ok(Cow::Owned(whole))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn jpeg() -> Vec<u8> {
        let picture = std::fs::read_dir("examples/bscans").unwrap().map(|e| e.unwrap().path());
        let picture = picture.filter(|p| crate::frame::is_picture(p)).min().unwrap();
        let mut bytes = Vec::new();
        image::codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, 90)
            .encode_image(&image::open(picture).unwrap().to_rgb8())
            .unwrap();
        bytes
    }

    /// The picture without its DHT segments, as many cameras send it.
    fn bare(bytes: &[u8]) -> Vec<u8> {
        let (mut out, mut at) = (bytes[..2].to_vec(), 2);
        while bytes[at + 1] != 0xda {
            let end = at + 2 + usize::from(u16::from_be_bytes([bytes[at + 2], bytes[at + 3]]));
            if bytes[at + 1] != 0xc4 {
                out.extend(&bytes[at..end]);
            }
            at = end;
        }
        out.extend(&bytes[at..]);
        out
    }

    #[test]
    fn missing_tables_are_put_in() {
        let whole = jpeg();
        assert_eq!(repair(&whole).unwrap(), whole);
        let bare = bare(&whole);
        assert!(bare.len() + 400 < whole.len());
        let mended = repair(&bare).unwrap();
        let decode = |b: &[u8]| image::load_from_memory(b).unwrap().to_rgb8().into_raw();
        assert_eq!(decode(&mended), decode(&whole));
        for (_, counts, values) in TABLES {
            assert_eq!(counts.iter().map(|n| usize::from(*n)).sum::<usize>(), values.len());
            // The encoder wrote the same tables of the standard.
            let table: Vec<u8> = counts.iter().chain(values).copied().collect();
            assert!(whole.windows(table.len()).any(|part| part == table));
        }
    }

    #[test]
    fn cut_pictures_are_refused_everywhere() {
        let whole = jpeg();
        for bytes in [&whole, &bare(&whole)] {
            for end in (0..bytes.len() - 1).step_by(97).chain([bytes.len() - 1, bytes.len() - 2]) {
                assert!(repair(&bytes[..end]).is_err(), "cut at {end} of {}", bytes.len());
            }
        }
        let mut padded = whole.clone();
        padded.extend([0; 512]);
        assert_eq!(repair(&padded).unwrap(), whole);
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered(tail in proptest::collection::vec(any::<u8>(), 0..400)) {
            let mut bytes = vec![0xff, 0xd8, 0xff];
            bytes.extend(tail);
            if let Ok(mended) = repair(&bytes) {
                prop_assert!(mended.ends_with(&[0xff, 0xd9]));
            }
        }
    }
}
