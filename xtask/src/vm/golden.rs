//! Screens taken from outside against those that the program draws on the host from the same picture.

use super::Outcome;
use crate::toolchain::run;
use anyhow::{Context, ensure};
use image::{GrayImage, RgbImage};
use std::path::Path;
use std::process::Command;

/// Where the screen of 1280x800 says how old the picture is and how long the engine took: x and y from, x and y to.
const TIMES: [[u32; 4]; 2] = [[757, 680, 1250, 730], [760, 745, 1270, 795]];

/// A picture as the bytes of a capture device: Y U Y V in limited range (ITU-R BT.601), without colour.
pub fn yuyv(picture: &Path) -> anyhow::Result<Vec<u8>> {
    let grey = image::open(picture)?.to_luma8();
    Ok(grey.iter().flat_map(|v| [limited(*v), 128]).collect())
}

fn limited(grey: u8) -> u8 {
    (16.0 + f64::from(grey) * 219.0 / 255.0).round() as u8
}

/// What comes of a picture's grey through a device's limited range.
fn through(picture: &Path) -> anyhow::Result<GrayImage> {
    let mut grey = image::open(picture)?.to_luma8();
    grey.iter_mut().for_each(|v| *v = ((f64::from(limited(*v)) - 16.0) * 255.0 / 219.0).round() as u8);
    Ok(grey)
}

/// For each `NAME.golden`, which names a synthetic B-scan, compares `NAME.png` with the screen that the program draws here;
/// for each `NAME.drawn.png` with that picture, for each `NAME.same` with the other screen from outside that it names.
pub fn compare(scenario: &str, root: &Path, out: &Path, table: &mut Vec<Outcome>) -> anyhow::Result<()> {
    for name in named(out, ".golden")? {
        let class = std::fs::read_to_string(out.join(format!("{name}.golden")))?.trim().to_owned();
        let golden = draw(root, out, &class).with_context(|| format!("the golden screen of {class}"));
        table.push(judge(scenario, out, &name, golden, "the one drawn on the host"));
    }
    for name in named(out, ".bars")? {
        let seen = read(&out.join(format!("{name}.png")));
        let grey = name == "grey";
        let (good, what) = seen.map_or_else(|error| (false, format!("{error:#}")), |seen| bars(&seen, grey));
        table.push(Outcome { scenario: scenario.into(), good, what: format!("{name}: {what}") });
    }
    for name in named(out, ".jpeg")? {
        let fed = jpeg(&root.join("examples/bscans/phantom-cnv-1.jpeg"))?;
        let picture = Ok(image::load_from_memory(&fed)?.to_rgb8());
        table.push(judge(scenario, out, &name, picture, "the one that was fed"));
    }
    for name in named(out, ".drawn.png")? {
        let picture = read(&out.join(format!("{name}.drawn.png")));
        table.push(judge(scenario, out, &name, picture, "what the program drew"));
    }
    for name in named(out, ".same")? {
        let other = std::fs::read_to_string(out.join(format!("{name}.same")))?.trim().to_owned();
        let picture = read(&out.join(format!("{other}.png")));
        table.push(judge(scenario, out, &name, picture, &other));
    }
    Ok(())
}

/// The names of the files that end in `end`.
fn named(out: &Path, end: &str) -> anyhow::Result<Vec<String>> {
    let files = std::fs::read_dir(out)?.flatten().map(|entry| entry.file_name());
    let mut names: Vec<String> =
        files.filter_map(|file| Some(file.to_string_lossy().strip_suffix(end)?.to_owned())).collect();
    names.sort();
    Ok(names)
}

fn read(path: &Path) -> anyhow::Result<RgbImage> {
    let picture = image::open(path).with_context(|| format!("{} cannot be read", path.display()))?;
    Ok(picture.to_rgb8())
}

/// Compares the screen `name` with another.
fn judge(scenario: &str, out: &Path, name: &str, other: anyhow::Result<RgbImage>, words: &str) -> Outcome {
    let (good, what) = match (other, read(&out.join(format!("{name}.png")))) {
        (Ok(other), Ok(seen)) if other.dimensions() == seen.dimensions() => {
            let differ = differences(&other, &seen);
            (differ == 0, format!("{differ} pixels of the screen differ from {words}"))
        }
        (Ok(other), Ok(seen)) => {
            (false, format!("{:?} on the screen, {:?} {words}", seen.dimensions(), other.dimensions()))
        }
        (Err(error), _) | (_, Err(error)) => (false, format!("{error:#}")),
    };
    Outcome { scenario: scenario.into(), good, what: format!("{name}: {what}") }
}

/// The level stripes of full colours that vivid draws: whether each has its grey and its colour, and the farthest from it.
fn bars(seen: &RgbImage, grey: bool) -> (bool, String) {
    const STRIPES: [[u8; 3]; 8] = [
        [255, 255, 255],
        [255, 255, 0],
        [0, 255, 255],
        [0, 255, 0],
        [255, 0, 255],
        [255, 0, 0],
        [0, 0, 255],
        [0, 0, 0],
    ];
    let (width, height) = seen.dimensions();
    let measure = |[r, g, b]: [u8; 3]| (fovea::frame::luma(r, g, b), r.max(g).max(b) - r.min(g).min(b));
    let mut worst = (0, 0);
    for (k, stripe) in STRIPES.into_iter().enumerate() {
        let y = height * (2 * k as u32 + 1) / 16;
        let (luma, spread) = if grey {
            // The driver's own grey of a colour, with the weights of BT.709.
            let [r, g, b] = stripe.map(f64::from);
            ((0.2126 * r + 0.7152 * g + 0.0722 * b).round() as u8, 0)
        } else {
            measure(stripe)
        };
        for x in [width / 8, width / 2, width * 7 / 8] {
            let (l, s) = measure(seen.get_pixel(x, y).0);
            worst = (worst.0.max(l.abs_diff(luma)), worst.1.max(s.abs_diff(spread)));
        }
    }
    let what = format!("{width}x{height}, grey off by {} at most, colour by {}", worst.0, worst.1);
    // Two roundings to 8 bits.
    (worst.0 <= 3 && worst.1 <= 5, what)
}

/// A picture as a camera's JPEG.
pub fn jpeg(picture: &Path) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    image::codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, 90)
        .encode_image(&image::open(picture)?.to_rgb8())?;
    Ok(bytes)
}

/// A JPEG picture without its Huffman tables (segments DHT), as many cameras send it.
pub fn without_tables(bytes: &[u8]) -> anyhow::Result<Vec<u8>> {
    let (mut out, mut at) = (bytes[..2].to_vec(), 2);
    while bytes.get(at + 1).context("no scan in the JPEG picture")? != &0xda {
        let end = at + 2 + usize::from(u16::from_be_bytes([bytes[at + 2], bytes[at + 3]]));
        if bytes[at + 1] != 0xc4 {
            out.extend(&bytes[at..end]);
        }
        at = end;
    }
    out.extend(&bytes[at..]);
    Ok(out)
}

/// Pixels that differ outside the places where times stand.
fn differences(golden: &RgbImage, seen: &RgbImage) -> usize {
    let timed = |x, y| TIMES.iter().any(|[l, t, r, b]| (*l..*r).contains(&x) && (*t..*b).contains(&y));
    let pairs = golden.enumerate_pixels().zip(seen.pixels());
    pairs.filter(|((x, y, a), b)| a != b && !timed(*x, *y)).count()
}

/// The program's screen of a class's first synthetic B-scan.
fn draw(root: &Path, out: &Path, class: &str) -> anyhow::Result<RgbImage> {
    let kept = out.join(format!("golden-{class}.png"));
    if !kept.is_file() {
        let place = out.join("golden");
        let _ = std::fs::remove_dir_all(&place);
        std::fs::create_dir_all(place.join("feed"))?;
        let picture = root.join(format!("examples/bscans/phantom-{class}-1.jpeg"));
        through(&picture)?.save(place.join("feed/picture.png"))?;
        std::fs::write(place.join("fovea.toml"), "size = [1280, 800]\nengine = \"simd\"\n")?;
        run(Command::new(root.join("target/debug/fovea"))
            .args(["run", "--config", "fovea.toml", "--source", "replay:feed", "--display", "png:screens"])
            .current_dir(&place))?;
        let mut shown = std::fs::read_dir(place.join("screens"))?.flatten().map(|entry| entry.path());
        let name = |path: &Path| path.to_string_lossy().ends_with(&format!("-{class}.png"));
        let screen = shown.find(|path| name(path));
        ensure!(screen.is_some(), "the program did not read {} as {class}", picture.display());
        std::fs::rename(screen.unwrap_or_default(), &kept)?;
        std::fs::remove_dir_all(&place)?;
    }
    read(&kept)
}
