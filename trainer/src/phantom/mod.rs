//! Synthetic retinal OCT B-scans with the masks of their lesions.
//!
//! Real pictures may not be bundled, and no mask of a lesion comes with them: phantoms stand in for both. A phantom is
//! a retina of ten edges ([`anatomy`]), bent and filled by [`lesion`]s, seen through a model of the machine ([`render`]).

pub mod anatomy;
pub mod lesion;
pub mod render;
pub mod rng;

use anatomy::{Layers, Pose};
use anyhow::{Context, bail};
use fovea::Class;
use image::codecs::jpeg::JpegEncoder;
use lesion::Lesions;
use rayon::prelude::*;
use render::Phantom;
use rng::Rng;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// A picture's size, written `WIDTHxHEIGHT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Width in pixels.
    pub width: usize,
    /// Height in pixels.
    pub height: usize,
}

impl FromStr for Size {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text.split_once('x').and_then(|(w, h)| Some((w.parse().ok()?, h.parse().ok()?)));
        match parsed {
            Some((width, height)) if (128..=4096).contains(&width) && (128..=4096).contains(&height) => {
                Ok(Self { width, height })
            }
            _ => Err(format!("'{text}' is no size: write WIDTHxHEIGHT, each 128 to 4096, as 512x496")),
        }
    }
}

/// Draws synthetic B-scans with the masks of their lesions.
#[derive(Clone, Debug, clap::Args)]
pub struct PhantomArgs {
    /// Where they go; the folder must be empty or absent
    #[arg(long)]
    pub out: PathBuf,
    /// How many; the four classes take turns
    #[arg(long, default_value_t = 8)]
    pub count: u32,
    /// The same seed gives the same pictures
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Their size in pixels
    #[arg(long, default_value = "512x496")]
    pub size: Size,
    /// No folders of classes and no index: `phantom-cnv-1.jpeg` … side by side, for showing
    #[arg(long)]
    pub flat: bool,
    /// JPEG of quality 90 instead of PNG (masks stay PNG)
    #[arg(long)]
    pub jpeg: bool,
}

/// Draws number `number` of a seed.
pub fn draw(seed: u64, number: u32, class: Class, size: Size) -> Phantom {
    let mut rng = Rng::new(seed, u64::from(number));
    let pose = Pose::draw(&mut rng, size.width, size.height);
    let lesions = Lesions::draw(&mut rng, &pose, class);
    let layers = Layers::build(&pose, &lesions);
    render::render(&mut rng, &pose, &lesions, layers)
}

/// A phantom's place among the files.
struct Entry {
    class: Class,
    number: u32,
    patient: String,
    file: PathBuf,
    mask: PathBuf,
}

impl Entry {
    fn new(args: &PhantomArgs, number: u32) -> Self {
        // CNV, DME, DRUSEN, NORMAL in turn, so that any count is balanced.
        let class = Class::ALL[number as usize % 4];
        let patient = format!("P{}{number:05}", args.seed);
        let kind = if args.jpeg { "jpeg" } else { "png" };
        let (file, mask) = if args.flat {
            let name = format!("phantom-{}-{}", class.name().to_ascii_lowercase(), number / 4 + 1);
            (PathBuf::from(format!("{name}.{kind}")), format!("{name}.png"))
        } else {
            let name = format!("{class}-{patient}-1");
            (Path::new(class.name()).join(format!("{name}.{kind}")), format!("{name}.png"))
        };
        Self { class, number, patient, file, mask: Path::new("masks").join(mask) }
    }
}

/// Writes the phantoms, their masks and, unless flat, `index.csv` in the data set's layout.
///
/// # Errors
/// When the folder is not empty or cannot be written.
pub fn run(args: &PhantomArgs) -> anyhow::Result<()> {
    let out = &args.out;
    if out.read_dir().is_ok_and(|mut entries| entries.next().is_some()) {
        bail!("{}: the folder is not empty; name a new one after --out", out.display());
    }
    let entries: Vec<Entry> = (0..args.count).map(|number| Entry::new(args, number)).collect();
    for folder in entries.iter().flat_map(|e| [&e.file, &e.mask]).filter_map(|path| path.parent()) {
        let folder = out.join(folder);
        std::fs::create_dir_all(&folder).with_context(|| format!("{}: cannot be made", folder.display()))?;
    }
    let bar = if args.count > 8 {
        crate::bar(args.count as usize, "phantoms")
    } else {
        indicatif::ProgressBar::hidden()
    };
    let lines: Vec<String> = entries
        .par_iter()
        .map(|entry| {
            let line = write(args, entry);
            bar.inc(1);
            line
        })
        .collect::<anyhow::Result<_>>()?;
    bar.finish_and_clear();
    if !args.flat {
        let index = format!("class,file,patient,width,height,origin,sha256\n{}", lines.concat());
        let path = out.join("index.csv");
        std::fs::write(&path, index).with_context(|| format!("{}: cannot be written", path.display()))?;
    }
    println!("{} phantoms of seed {} in {}", args.count, args.seed, out.display());
    Ok(())
}

/// Draws and writes one phantom and returns its line of the index.
fn write(args: &PhantomArgs, entry: &Entry) -> anyhow::Result<String> {
    let Size { width, height } = args.size;
    let phantom = draw(args.seed, entry.number, entry.class, args.size);
    let bytes = encode(&phantom.pixels, width, height, args.jpeg)?;
    let save = |path: &Path, bytes: &[u8]| {
        let path = args.out.join(path);
        std::fs::write(&path, bytes).with_context(|| format!("{}: cannot be written", path.display()))
    };
    save(&entry.file, &bytes)?;
    if entry.class != Class::Normal {
        save(&entry.mask, &encode(&phantom.mask, width, height, false)?)?;
    }
    let hash: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    let name = entry.file.file_name().unwrap_or_default().to_string_lossy();
    Ok(format!("{},{name},{},{width},{height},phantom,{hash}\n", entry.class, entry.patient))
}

fn encode(pixels: &[u8], width: usize, height: usize, jpeg: bool) -> anyhow::Result<Vec<u8>> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    let picture = image::GrayImage::from_raw(width as u32, height as u32, pixels.to_vec())
        .context("a phantom's buffer does not fit its size")?;
    if jpeg {
        picture.write_with_encoder(JpegEncoder::new_with_quality(&mut bytes, 90))?;
    } else {
        picture.write_to(&mut bytes, image::ImageFormat::Png)?;
    }
    Ok(bytes.into_inner())
}

#[cfg(test)]
mod tests;
