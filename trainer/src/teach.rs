//! `fovea-train teach`: a quiz sheet of phantoms for people who learn to read B-scans.

use crate::phantom::{self, Size};
use crate::report::html::{head, heat, picture};
use anyhow::{Context, Result, bail};
use fovea::explain::Map;
use fovea::{Class, Frame, Reader};
use rand::{SeedableRng, rngs::StdRng, seq::SliceRandom};
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

/// Writes a quiz sheet of synthetic B-scans with the answers, the lesions' places and the model's heatmaps behind it.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:\n  fovea-train teach --out quiz.html\n  \
    fovea-train teach --count 24 --seed 9 --model models/oct-inception-v3 --out quiz.html\n\n\
    The page stands alone and may be passed on: no patient is in it. A JSON of the answers lies beside it.")]
pub struct TeachArgs {
    /// The page
    #[arg(long, default_value = "quiz.html")]
    pub out: PathBuf,
    /// Pictures, as even over the classes as they allow
    #[arg(long, default_value_t = 12)]
    pub count: u32,
    /// The same seed gives the same sheet
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Model package whose answers and heatmaps are shown too
    #[arg(long)]
    pub model: Option<PathBuf>,
}

/// What to look for.
fn signs(class: Class) -> &'static str {
    match class {
        Class::Cnv => {
            "New vessels grow through the pigment epithelium: material under or on it lifts the retina, with dark fluid \
             beside it. Refer urgently."
        }
        Class::Dme => {
            "Leaking vessels: the retina is thickened and the dip of the fovea lost, with dark round cysts inside and often \
             small bright exudates. Refer urgently."
        }
        Class::Drusen => {
            "Deposits under the pigment epithelium: its line is bumpy, the layers above follow, and there is no fluid. \
             Refer routinely."
        }
        Class::Normal => {
            "All layers run evenly, the fovea dips, the pigment epithelium is a smooth line. Observe."
        }
    }
}

/// Share of the picture that the lesion takes, and its bounding box (left, top, right, bottom) where there is one.
fn extent(mask: &[u8], width: usize) -> (f64, Option<[usize; 4]>) {
    let mut bounds: Option<[usize; 4]> = None;
    let mut count = 0;
    for (i, _) in mask.iter().enumerate().filter(|(_, v)| **v > 127) {
        let (x, y) = (i % width, i / width);
        count += 1;
        let b = bounds.get_or_insert([x, y, x, y]);
        *b = [b[0].min(x), b[1].min(y), b[2].max(x), b[3].max(y)];
    }
    (count as f64 / mask.len().max(1) as f64, bounds)
}

/// Runs `teach`.
///
/// # Errors
/// When the model cannot be opened or the page cannot be written.
pub fn run(args: &TeachArgs) -> Result<()> {
    let _pressed = crate::interrupt()?;
    if !(1..=500).contains(&args.count) {
        bail!("--count is 1 to 500: every picture stands in the page");
    }
    let mut reader = match &args.model {
        Some(folder) => Some(Reader::new(Arc::new(fovea::model::Package::open(folder)?), "auto", None)?),
        None => None,
    };
    let (page, answers) = sheet(args, reader.as_mut())?;
    let json = args.out.with_extension("json");
    for (path, text) in [(&args.out, page), (&json, format!("{:#}\n", serde_json::Value::from(answers)))] {
        std::fs::write(path, text).with_context(|| {
            format!("{}: cannot be written; check the folder and the free space", path.display())
        })?;
    }
    println!("written: {} and {}", args.out.display(), json.display());
    Ok(())
}

/// The page and the answers.
fn sheet(args: &TeachArgs, mut reader: Option<&mut Reader>) -> Result<(String, Vec<serde_json::Value>)> {
    // The order must not tell the class.
    let mut numbers: Vec<u32> = (0..args.count).collect();
    numbers.shuffle(&mut StdRng::seed_from_u64(args.seed));
    let size = Size { width: 512, height: 496 };
    let (mut questions, mut solutions, mut answers) = (String::new(), String::new(), Vec::new());
    let bar = crate::bar(numbers.len(), "drawing");
    for (place, number) in numbers.into_iter().enumerate() {
        crate::export::runner::check_stop()?;
        let (place, class) = (place + 1, Class::ALL[number as usize % 4]);
        let drawn = phantom::draw(args.seed, number, class, size);
        let frame = Frame::new(drawn.width as u32, drawn.height as u32, drawn.pixels, "phantom")?;
        let boxes: String = Class::ALL.iter().map(|c| format!("&#9744; {c} &nbsp; ")).collect();
        let plain = picture(&frame, &format!("picture {place}"))?;
        let _ =
            writeln!(questions, "<figure>{plain}<figcaption><b>{place}.</b> {boxes}</figcaption></figure>");
        // The mask as a map of one cell a pixel of a coarse grid would blur it; a bright copy shows it exactly.
        let marked: Vec<u8> = frame
            .pixels()
            .iter()
            .zip(&drawn.mask)
            .map(|(v, m)| if *m > 127 { 128 + v / 2 } else { v / 2 })
            .collect();
        let marked = Frame::new(frame.width(), frame.height(), marked, "lesion")?;
        let mut images = plain + &picture(&marked, &format!("lesion of picture {place}"))?;
        let (share, bounds) = extent(&drawn.mask, drawn.width);
        let mut answer = serde_json::json!({
            "picture": place, "class": class, "seed": args.seed, "number": number,
            "lesion_share": share, "lesion_box": bounds,
        });
        let mut told = String::new();
        if let Some(reader) = reader.as_deref_mut() {
            let read = reader.read(&frame)?;
            let map = Map::of_features(&reader.contribution(&read, read.diagnosis.class).map);
            images += &heat(&frame, read.place, &map, &format!("the model's heatmap of picture {place}"))?;
            let (said, sure) = (read.diagnosis.finding.name(), read.diagnosis.confidence() * 100.0);
            told = format!(
                " The model says {said} ({} at {sure:.0} %); its reasons are warm.",
                read.diagnosis.class
            );
            answer["model"] = said.into();
        }
        let lesion =
            if bounds.is_some() { " The lesion is the bright part of the second picture." } else { "" };
        let _ = writeln!(
            solutions,
            "<figure>{images}<figcaption><b>{place}. {class}.</b> {}{lesion}{told}</figcaption></figure>",
            signs(class)
        );
        answers.push(answer);
        bar.inc(1);
    }
    bar.finish_and_clear();
    let page = format!(
        "{}<p>Synthetic B-scans: no patient is in them, and they are simpler than real ones. Tick a class for each \
         picture; the answers follow after the last. Seed {}.</p>\n{questions}<h2 style=\"break-before:page\">Answers</h2>\n\
         {solutions}</body></html>\n",
        head("Reading OCT B-scans: a quiz"),
        args.seed
    );
    Ok((page, answers))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sheet_asks_and_answers() {
        let args = TeachArgs { out: "quiz.html".into(), count: 8, seed: 4, model: None };
        let (page, answers) = sheet(&args, None).unwrap();
        // Each picture once as a question, and twice in the answer.
        assert_eq!(page.matches("data:image/jpeg;base64,").count(), 24);
        for class in Class::ALL {
            let of: Vec<_> = answers.iter().filter(|a| a["class"] == class.name()).collect();
            assert_eq!(of.len(), 2);
            for answer in of {
                assert_eq!(answer["lesion_box"].is_null(), class == Class::Normal, "{answer}");
            }
        }
        let order: Vec<_> = answers.iter().map(|a| a["number"].as_u64().unwrap()).collect();
        assert!(order != (0..8).collect::<Vec<_>>(), "the order tells the classes");
        assert_eq!(sheet(&args, None).unwrap().0, page);
        // Nothing before the answers tells a class but the boxes, which hold all four each.
        let questions = page.split("Answers</h2>").next().unwrap();
        assert_eq!(questions.matches("DRUSEN").count(), 8);
    }

    #[test]
    fn extents_by_hand() {
        let mut mask = vec![0; 100];
        mask[23] = 255;
        mask[45] = 255;
        assert_eq!(extent(&mask, 10), (0.02, Some([3, 2, 5, 4])));
        assert_eq!(extent(&[0; 100], 10), (0.0, None));
    }
}
