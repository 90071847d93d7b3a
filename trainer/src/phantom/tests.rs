use super::anatomy::{EDGES, Edge};
use super::*;

const SIZE: Size = Size { width: 512, height: 496 };

#[test]
fn layers_are_ordered_and_in_the_picture() {
    for size in [SIZE, Size { width: 768, height: 496 }, Size { width: 200, height: 160 }] {
        for number in 0..24 {
            let phantom = draw(3, number, Class::ALL[number as usize % 4], size);
            for x in 0..size.width {
                let column = phantom.layers.column(x);
                assert!(column.is_sorted(), "{number} column {x}: {column:?}");
                assert!(column[0] > 0.0 && column[EDGES - 1] < size.height as f32, "{number} column {x}");
            }
        }
    }
}

#[test]
fn masks_lie_in_the_retina_and_a_normal_eye_has_none() {
    for number in 0..32 {
        let class = Class::ALL[number as usize % 4];
        let phantom = draw(5, number, class, SIZE);
        let mut sick = 0;
        for (i, _) in phantom.mask.iter().enumerate().filter(|(_, v)| **v != 0) {
            let (x, y) = (i % SIZE.width, (i / SIZE.width) as f32 + 0.5);
            sick += 1;
            let (top, low) = (phantom.layers.at(x, Edge::Ilm), phantom.layers.at(x, Edge::Bruch));
            assert!((top..=low).contains(&y), "{class} {number}: row {y} of column {x}");
        }
        assert_eq!(sick == 0, class == Class::Normal, "{class} {number}: {sick}");
        // A lesion of fewer pixels could not be seen after the picture is shrunk to the network's input.
        assert!(class == Class::Normal || sick > 250, "{class} {number}: {sick}");
    }
}

#[test]
fn bright_and_dark_layers_are_as_in_real_pictures() {
    // Means over normal B-scans of the Kermany set: vitreous 24-29, ganglion cells 93, outer nuclear 57, RPE 173 (peak).
    let mut sums = [0.0f64; 4];
    let mut counts = [0.0f64; 4];
    for number in 0..8 {
        let phantom = draw(9, number, Class::Normal, SIZE);
        for x in (0..SIZE.width).step_by(3) {
            let at = |edge| phantom.layers.at(x, edge);
            let mid = |a: Edge, b: Edge| (at(a) + at(b)) / 2.0;
            let rows = [
                at(Edge::Ilm) - 25.0,
                mid(Edge::Nfl, Edge::Ipl),
                mid(Edge::Opl, Edge::Elm),
                mid(Edge::RpeTop, Edge::RpeBottom),
            ];
            for (k, row) in rows.into_iter().enumerate() {
                let value = phantom.pixels[row as usize * SIZE.width + x];
                if value < 255 {
                    sums[k] += f64::from(value);
                    counts[k] += 1.0;
                }
            }
        }
    }
    let means: Vec<f64> = sums.iter().zip(counts).map(|(sum, n)| sum / n).collect();
    for (mean, range) in means.iter().zip([14.0..36.0, 80.0..115.0, 45.0..72.0, 160.0..215.0]) {
        assert!(range.contains(mean), "{means:?}");
    }
}

fn hash(folder: &Path) -> Vec<u8> {
    let mut files: Vec<PathBuf> = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in folder.read_dir().unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    files.sort();
    let mut hash = Sha256::new();
    for file in files {
        hash.update(file.strip_prefix(folder).unwrap().to_string_lossy().as_bytes());
        hash.update(std::fs::read(&file).unwrap());
    }
    hash.finalize().to_vec()
}

#[test]
fn a_seed_gives_the_same_bytes_and_files_are_read_by_the_library() {
    let folder = tempfile::tempdir().unwrap();
    let args = |name: &str, seed: u64| PhantomArgs {
        out: folder.path().join(name),
        count: 4,
        seed,
        size: Size { width: 256, height: 248 },
        flat: false,
        jpeg: name == "jpeg",
    };
    for (name, seed) in [("one", 1), ("two", 1), ("three", 2), ("jpeg", 1)] {
        run(&args(name, seed)).unwrap();
    }
    let of = |name: &str| hash(&folder.path().join(name));
    assert_eq!(of("one"), of("two"));
    // The file names carry the seed: compare a picture's own bytes too.
    assert_ne!(of("one"), of("three"));
    let pixels = |seed| draw(seed, 0, Class::Cnv, SIZE).pixels;
    assert_ne!(pixels(1), pixels(2));

    for name in ["one", "jpeg"] {
        let root = folder.path().join(name);
        let index = std::fs::read_to_string(root.join("index.csv")).unwrap();
        assert_eq!(index.lines().next(), Some("class,file,patient,width,height,origin,sha256"));
        assert_eq!(index.lines().count(), 5);
        for line in index.lines().skip(1) {
            let cells: Vec<&str> = line.split(',').collect();
            let path = root.join(cells[0]).join(cells[1]);
            let frame = fovea::Frame::read(&path).unwrap();
            assert_eq!((frame.width(), frame.height(), frame.chroma), (256, 248, 0));
            assert!(cells[1].starts_with(&format!("{}-{}-", cells[0], cells[2])), "{line}");
            let mask = root.join("masks").join(cells[1].replace("jpeg", "png"));
            assert_eq!(mask.is_file(), cells[0] != "NORMAL", "{line}");
            let bytes = Sha256::digest(std::fs::read(&path).unwrap());
            assert_eq!(bytes.iter().map(|b| format!("{b:02x}")).collect::<String>(), cells[6]);
        }
    }
    let error = run(&args("one", 1)).unwrap_err().to_string();
    assert!(error.contains("not empty"), "{error}");
}

#[test]
fn sizes_are_read_and_refused() {
    assert_eq!("512x496".parse(), Ok(SIZE));
    for text in ["512", "0x0", "100x500", "5000x500", "ax7", "-1x300"] {
        assert!(text.parse::<Size>().unwrap_err().contains("512x496"), "{text}");
    }
}
