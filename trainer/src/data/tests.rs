use super::*;
use std::io::Write as _;
use std::path::Path;

/// A set as OCT2017 comes: `OCT2017 /train/CNV/CNV-1-1.png`, with what systems leave behind and a damaged file.
fn entries() -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    for (i, class) in Class::ALL.into_iter().enumerate() {
        for (part, patient) in [("train", 1), ("test", 2)] {
            let picture = image::GrayImage::from_fn(64, 40, |x, y| {
                image::Luma([((x * (3 + i as u32) + y * y * patient) % 256) as u8])
            });
            let mut bytes = std::io::Cursor::new(Vec::new());
            picture.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
            all.push((format!("OCT2017 /{part}/{class}/{class}-{i}{patient}-1.png"), bytes.into_inner()));
        }
    }
    all.push(("OCT2017 /train/CNV/CNV-99-1.png".into(), b"\x89PNG, cut off".to_vec()));
    all.push(("OCT2017 /train/.DS_Store".into(), vec![0; 9]));
    all.push(("OCT2017 /train/CNV/._CNV-1-1.png".into(), vec![0; 9]));
    all.push(("OCT2017 /README.txt".into(), b"read me".to_vec()));
    all
}

fn expect(folder: &Path) {
    let (rows, damaged) = find::read(folder, |_| ()).unwrap();
    assert_eq!(rows.len(), 8);
    assert_eq!(damaged.len(), 1, "{damaged:?}");
    assert!(damaged[0].0.ends_with("CNV-99-1.png"));
    let origins: std::collections::BTreeSet<&str> = rows.iter().map(|r| r.0.origin.as_str()).collect();
    assert_eq!(origins.into_iter().collect::<Vec<_>>(), ["test", "train"]);
    assert!(rows.iter().any(|(r, ())| r.path == "OCT2017 /test/DME/DME-12-1.png" && r.patient == "12"));
    assert!(!folder.join("OCT2017 /README.txt").exists(), "only pictures are unpacked");
}

#[test]
fn archives_as_downloaded_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let tar_gz = folder.path().join("OCT2017.tar.gz");
    let encoder =
        flate2::write::GzEncoder::new(std::fs::File::create(&tar_gz).unwrap(), flate2::Compression::fast());
    let mut tar = tar::Builder::new(encoder);
    let zip_path = folder.path().join("oct.ZIP");
    let mut zip = zip::ZipWriter::new(std::fs::File::create(&zip_path).unwrap());
    for (name, bytes) in entries() {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, &name, bytes.as_slice()).unwrap();
        zip.start_file(&name, zip::write::FileOptions::default()).unwrap();
        zip.write_all(&bytes).unwrap();
    }
    // A name that would leave the folder.
    zip.start_file("../../CNV/CNV-5-5.png", zip::write::FileOptions::default()).unwrap();
    zip.write_all(&entries()[0].1).unwrap();
    zip.finish().unwrap();
    tar.into_inner().unwrap().finish().unwrap();
    for (path, to) in [(&tar_gz, "OCT2017"), (&zip_path, "oct")] {
        let unpacked = archive::folder(path, None).unwrap();
        assert_eq!(unpacked, folder.path().join(to));
        expect(&unpacked);
        // Again: nothing is written twice, and what is cut short is mended.
        let victim = unpacked.join("OCT2017 /test/DME/DME-12-1.png");
        std::fs::write(&victim, b"short").unwrap();
        archive::folder(path, None).unwrap();
        expect(&unpacked);
    }
    let other = archive::folder(&tar_gz, Some(&folder.path().join("elsewhere"))).unwrap();
    expect(&other);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 5);
    // A cut archive says so.
    let bytes = std::fs::read(&tar_gz).unwrap();
    std::fs::write(&tar_gz, &bytes[..bytes.len() / 2]).unwrap();
    let error = format!("{:#}", archive::folder(&tar_gz, Some(&folder.path().join("cut"))).unwrap_err());
    assert!(error.contains("cannot be unpacked") && error.contains("download it again"), "{error}");
    assert!(archive::folder(&folder.path().join("set.rar"), None).is_err());
}

#[test]
fn the_check_runs_from_folder_to_picture() {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in entries() {
        let path = folder.path().join("set").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    let out = folder.path().join("out");
    let args = DataArgs { data: folder.path().join("set"), unpack: None, split: None, out: out.clone() };
    run(&args).unwrap();
    let json: serde_json::Value =
        serde_json::from_slice(&std::fs::read(out.join("data.json")).unwrap()).unwrap();
    assert_eq!(json["counts"]["train"]["CNV"]["pictures"], 1);
    assert_eq!(json["damaged"].as_array().unwrap().len(), 1);
    let svg = std::fs::read_to_string(out.join("data.svg")).unwrap();
    assert!(svg.contains("CNV: patients") && svg.contains("64x40"));
}
