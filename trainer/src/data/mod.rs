//! `fovea-train data`: what is in a data set, and what is wrong with it.

pub mod archive;
pub mod check;
pub mod find;
pub mod near;

use crate::split;
use crate::svg::{COLOURS, escape};
use anyhow::{Context, Result};
use check::Findings;
use fovea::Class;
use fovea::prepare::Preparation;
use near::Sketch;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::PathBuf;

/// Checks a data set: counts, sizes, duplicates, patients in two places, nearly equal pictures, damaged files.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:\n  fovea-train data --data OCT2017.tar.gz --out check\n  \
    fovea-train data --data OCT2017 --split split.csv --out check\n\n\
    Writes data.svg and data.json into --out. Without --split, the folders train, val and test are the parts.")]
pub struct DataArgs {
    /// Folder (train, val, test or flat; or with an index.csv), or a .tar.gz, .tgz, .tar or .zip of it
    #[arg(long)]
    pub data: PathBuf,
    /// Where an archive is unpacked to; without it beside the archive
    #[arg(long)]
    pub unpack: Option<PathBuf>,
    /// A split made by `prepare`, whose parts are checked
    #[arg(long)]
    pub split: Option<PathBuf>,
    /// Folder of the report
    #[arg(long, default_value = "data-check")]
    pub out: PathBuf,
}

/// Runs `data`.
///
/// # Errors
/// When the data cannot be read at all or the report cannot be written; damaged pictures are listed.
pub fn run(args: &DataArgs) -> Result<()> {
    let _pressed = crate::interrupt()?;
    let folder = archive::folder(&args.data, args.unpack.as_deref())?;
    let preparation = Preparation::default();
    let (rows, mut damaged) = find::read(&folder, |frame| {
        preparation.prepare(frame, None).map(|prepared| Sketch::new(&prepared.whole))
    })?;
    let mut sketched = Vec::with_capacity(rows.len());
    for (row, sketch) in rows {
        match sketch {
            Ok(sketch) => sketched.push((row, sketch)),
            Err(error) => damaged.push((row.path, error.to_string())),
        }
    }
    let findings = match &args.split {
        None => check::check(&sketched, |row| row.origin.clone(), damaged),
        Some(path) => {
            let parts: HashMap<_, _> = split::read(path)?.into_iter().map(|r| (r.path, r.split)).collect();
            check::check(&sketched, check::part_of(&parts), damaged)
        }
    };
    std::fs::create_dir_all(&args.out).with_context(|| format!("{}: cannot be made", args.out.display()))?;
    for (name, text) in
        [("data.svg", picture(&findings)), ("data.json", serde_json::to_string_pretty(&findings)?)]
    {
        let path = args.out.join(name);
        std::fs::write(&path, text).with_context(|| format!("{}: cannot be written", path.display()))?;
    }
    print!("{}", table(&findings));
    println!("written: {0}/data.svg and {0}/data.json", args.out.display());
    Ok(())
}

/// At most so many names of one kind stand on the terminal; the JSON has all.
const SHOWN: usize = 10;

/// The findings in words.
pub fn table(f: &Findings) -> String {
    let mut text = format!("{:<18}", "");
    for class in Class::ALL {
        let _ = write!(text, "{:>16}", class.name());
    }
    text.push_str("   (pictures/patients)\n");
    let mut line = |name: &str, of: &dyn Fn(Class) -> String| {
        let cells: String = Class::ALL.iter().map(|c| format!("{:>16}", of(*c))).collect();
        let _ = writeln!(text, "{name:<18}{cells}");
    };
    for (part, counts) in &f.counts {
        let name = if part.is_empty() { "no part stated" } else { part };
        line(name, &|c| counts.get(&c).map_or("-".into(), |n| format!("{}/{}", n.pictures, n.patients)));
    }
    line("all", &|c| f.classes.get(&c).map_or("-".into(), |n| format!("{}/{}", n.pictures, n.patients)));
    for (size, counts) in &f.sizes {
        line(size, &|c| counts.get(&c).map_or("-".into(), usize::to_string));
    }
    let _ = writeln!(text, "patients: {}", f.patients);
    let mut list = |what: &str, count: usize, items: &mut dyn Iterator<Item = String>| {
        let _ = writeln!(text, "{what}: {count}");
        let shown = items.take(SHOWN).map(|item| writeln!(text, "  {item}")).count();
        if shown > 0 && count > shown {
            let _ = writeln!(text, "  and {} more", count - shown);
        }
    };
    list(
        "groups of files with the same bytes",
        f.same_bytes.len(),
        &mut f.same_bytes.iter().map(|g| g.join(" = ")),
    );
    list("of these under two labels", f.same_bytes_two_labels, &mut std::iter::empty());
    list(
        "patients in two classes",
        f.patients_in_two_classes.len(),
        &mut f.patients_in_two_classes.iter().cloned(),
    );
    list(
        "patients in two parts",
        f.patients_in_two_parts.len(),
        &mut f.patients_in_two_parts.iter().cloned(),
    );
    let near = f.near.iter().map(|n| {
        let labels = if n.labels_differ { ", labels differ" } else { "" };
        let parts = if n.parts_differ { ", parts differ" } else { "" };
        format!("{} ~ {} ({:.3}{labels}{parts})", n.a, n.b, n.correlation)
    });
    list("nearly equal pictures of different patients", f.near.len(), &mut { near });
    list("nearly equal pictures of one patient", f.near_of_one_patient, &mut std::iter::empty());
    list(
        "files that cannot be read",
        f.damaged.len(),
        &mut f.damaged.iter().map(|(p, why)| format!("{p}: {why}")),
    );
    text
}

/// Pictures and patients of each class, and sizes, as bars.
fn picture(f: &Findings) -> String {
    let mut rows: Vec<(String, f64, &str)> = Vec::new();
    for (i, class) in Class::ALL.into_iter().enumerate() {
        let count = f.classes.get(&class).copied().unwrap_or_default();
        rows.push((format!("{class}: pictures"), count.pictures as f64, COLOURS[i]));
        rows.push((format!("{class}: patients"), count.patients as f64, COLOURS[i]));
    }
    for (size, counts) in &f.sizes {
        rows.push((size.clone(), counts.values().sum::<usize>() as f64, "#888888"));
    }
    let faults = [
        ("same bytes twice", f.same_bytes.len()),
        ("patients in two classes", f.patients_in_two_classes.len()),
        ("patients in two parts", f.patients_in_two_parts.len()),
        ("nearly equal, other patient", f.near.len()),
        ("damaged", f.damaged.len()),
    ];
    rows.extend(faults.map(|(name, count)| (name.to_owned(), count as f64, "#d55e00")));
    let largest = rows.iter().map(|r| r.1).fold(1.0, f64::max);
    let height = 40 + rows.len() * 20;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 760 {height}\" width=\"760\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"760\" height=\"{height}\" fill=\"white\"/>\n\
         <text x=\"8\" y=\"22\" font-size=\"15\" font-weight=\"bold\">Data: classes, patients, sizes, faults</text>\n"
    );
    for (i, (name, count, colour)) in rows.iter().enumerate() {
        let y = 34 + i * 20;
        let _ = writeln!(
            text,
            "<text x=\"194\" y=\"{}\" text-anchor=\"end\">{}</text><rect x=\"200\" y=\"{y}\" width=\"{:.1}\" height=\"16\" \
             fill=\"{colour}\"/><text x=\"{:.1}\" y=\"{}\">{count}</text>",
            y + 13,
            escape(name),
            count / largest * 480.0,
            206.0 + count / largest * 480.0,
            y + 13
        );
    }
    text.push_str("</svg>\n");
    text
}

#[cfg(test)]
mod tests;
