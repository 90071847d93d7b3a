//! The seeds of the fuzz targets: small models in the shapes of every tool, manifests, configurations and pictures. The same
//! bytes every time.

use super::graphs::{Builder, Style};
use prost::Message;
use std::path::Path;

/// Writes the corpus: `cargo test --test lowering -- --ignored --exact corpus::write`.
#[test]
#[ignore = "writes fuzz/corpus; the files are in the repository"]
fn write() -> std::io::Result<()> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let write = |target: &str, name: &str, bytes: &[u8]| -> std::io::Result<()> {
        std::fs::create_dir_all(corpus.join(target))?;
        std::fs::write(corpus.join(target).join(name), bytes)
    };
    for style in Style::ALL {
        let name = format!("{style:?}").to_lowercase();
        write("model", &name, &Builder::new(style, 7).network().encode_to_vec())?;
    }
    let digits = "0123456789abcdef".repeat(4);
    let manifest = |head: &str, more: &str| {
        format!(
            "format = 1\nname = \"small\"\nversion = \"1\"\nlabels = [\"CNV\", \"DME\", \"DRUSEN\", \"NORMAL\"]\n\
             head = \"{head}\"\n\n[preparation]\nside = 299\nfilter = \"triangle\"\nmargin_white = 240\n\n\
             [calibration]\ntemperature = 1.5\nthreshold = 0.6\n{more}\n[files]\n\"model.onnx\" = \"{digits}\"\n\n\
             [golden]\nlogits = [1.0, -2.5, 0.0, 3e-3]\n"
        )
    };
    write("manifest", "gap", manifest("gap", "").as_bytes())?;
    let more = "\n[gate]\nlimit = 3.5\n\n[training]\nnote = 'x'\n\n[scales]\nimage = 0.0039\n";
    write("manifest", "conv", manifest("conv", more).as_bytes())?;
    write(
        "config",
        "all",
        b"source = 'replay:scans?fps=2'\ndisplay = 'png:screen'\nmodel = 'm'\nengine = 'simd'\n\
          region = [1, 2, 640, 480]\nhold = 3\nstale_after = 2.5\nanswer_within = 10.0\nsize = [1280, 800]\n",
    )?;
    write("config", "wrong", b"hold = 0\nsauce = 1\nsize = [1, 1]\n")?;
    let grey = image::GrayImage::from_fn(40, 33, |x, y| image::Luma([(x * 6 + y) as u8]));
    let colour = image::RgbImage::from_fn(34, 32, |x, y| image::Rgb([x as u8, y as u8, (x * y) as u8]));
    let wide = image::ImageBuffer::<image::Luma<u16>, _>::from_fn(32, 32, |x, y| {
        image::Luma([(x * 999 + y) as u16])
    });
    for (name, format) in [
        ("png", image::ImageFormat::Png),
        ("jpeg", image::ImageFormat::Jpeg),
        ("bmp", image::ImageFormat::Bmp),
        ("tiff", image::ImageFormat::Tiff),
    ] {
        for (kind, picture) in [
            ("grey", image::DynamicImage::from(grey.clone())),
            ("colour", image::DynamicImage::from(colour.clone())),
            ("wide", image::DynamicImage::from(wide.clone())),
        ] {
            let mut bytes = Vec::new();
            // JPEG and BMP have no 16 bits.
            if picture.write_to(&mut std::io::Cursor::new(&mut bytes), format).is_ok() {
                write("picture", &format!("{kind}.{name}"), &bytes)?;
            }
        }
    }
    Ok(())
}
