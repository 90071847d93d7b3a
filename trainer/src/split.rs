//! `prepare`: an index of labelled B-scans, split into train, validation and test by patient.

use crate::data::{archive, find};
use anyhow::{Context, bail};
use fovea::Class;
use rand::{SeedableRng, seq::SliceRandom};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Which part of the data a picture belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// The weights are fitted to these.
    Train,
    /// Checkpoints, scales, temperature and thresholds are chosen on these.
    Validation,
    /// Nothing is chosen on these.
    Test,
}

impl Split {
    /// All of them in order.
    pub const ALL: [Split; 3] = [Split::Train, Split::Validation, Split::Test];

    /// The name in split.csv.
    pub fn name(self) -> &'static str {
        ["train", "validation", "test"][self as usize]
    }
}

/// A picture of the index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// Path under the data folder, `CLASS/FILE`.
    pub path: String,
    /// Its label.
    pub class: Class,
    /// The patient's number in the data set.
    pub patient: String,
    /// The part that it belongs to.
    pub split: Split,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Where the data set had it; may be empty.
    pub origin: String,
    /// SHA-256 of the file, in hexadecimal.
    pub sha256: String,
}

const HEADER: &str = "path,class,patient,split,width,height,origin,sha256";

/// What is wrong with an index.
#[derive(Debug, thiserror::Error)]
pub enum SplitError {
    /// A patient stands in two parts.
    #[error(
        "patient {patient} is in {a} and in {b}: this split leaks; make it anew with `fovea-train prepare`"
    )]
    Leak {
        /// The patient.
        patient: String,
        /// One part.
        a: &'static str,
        /// Another part.
        b: &'static str,
    },
    /// The same bytes stand in two parts.
    #[error("{a} and {b} are the same picture in different parts: this split leaks; remove one of them")]
    Twin {
        /// One path.
        a: String,
        /// The other path.
        b: String,
    },
    /// A part lacks a class.
    #[error("no {class} in {part}: give more patients, or larger shares with --validation and --test")]
    Lacks {
        /// The class.
        class: Class,
        /// The part.
        part: &'static str,
    },
}

/// Index a folder of labelled B-scans and split it by patient.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  fovea-train prepare --data OCT2017 --out split.csv\n  \
    fovea-train prepare --data OCT2017.tar.gz --out split.csv\n\n\
    The archive's own parts (train, val, test) are kept as the origin; the split is made anew, by patient. DATA holds <CLASS>/<CLASS>-<PATIENT>-<NUMBER>.jpeg, or an index.csv with the columns class, file and patient.")]
pub struct PrepareArgs {
    /// Folder with `<CLASS>/<file>` (under train, val, test or not) or an index.csv, or a .tar.gz, .tgz, .tar or .zip of it
    #[arg(long)]
    pub data: PathBuf,
    /// Where an archive is unpacked to; without it beside the archive
    #[arg(long)]
    pub unpack: Option<PathBuf>,
    /// Where the index goes
    #[arg(long, default_value = "split.csv")]
    pub out: PathBuf,
    /// Share of patients for validation
    #[arg(long, default_value_t = 0.1)]
    pub validation: f64,
    /// Share of patients for test
    #[arg(long, default_value_t = 0.1)]
    pub test: f64,
    /// Seed of the split
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

/// Runs `prepare`.
///
/// # Errors
/// When the folder cannot be read, holds no picture, or the split would leak.
pub fn prepare(args: &PrepareArgs) -> anyhow::Result<()> {
    if !(0.0..0.5).contains(&args.validation) || !(0.0..0.5).contains(&args.test) {
        bail!("--validation and --test are shares from 0 to 0.5");
    }
    let folder = archive::folder(&args.data, args.unpack.as_deref())?;
    let (rows, damaged) = find::read(&folder, |_| ())?;
    for (path, reason) in &damaged {
        eprintln!("left out: {path}: {reason}");
    }
    if !damaged.is_empty() {
        println!("{} pictures left out: they cannot be read", damaged.len());
    }
    let mut rows: Vec<Row> = rows.into_iter().map(|(row, ())| row).collect();
    let all = rows.len();
    rows.sort_by(|a, b| a.path.cmp(&b.path));
    let mut seen: HashMap<String, Class> = HashMap::new();
    let mut conflicts = BTreeSet::new();
    for row in &rows {
        if seen.insert(row.sha256.clone(), row.class).is_some_and(|class| class != row.class) {
            conflicts.insert(row.sha256.clone());
        }
    }
    let mut kept = BTreeSet::new();
    rows.retain(|row| !conflicts.contains(&row.sha256) && kept.insert(row.sha256.clone()));
    if rows.len() < all {
        println!("{} pictures left out: the same bytes twice, or under two labels", all - rows.len());
    }
    assign(&mut rows, args.validation, args.test, args.seed);
    check(&rows)?;
    for part in [
        Some(Split::Train),
        (args.validation > 0.0).then_some(Split::Validation),
        (args.test > 0.0).then_some(Split::Test),
    ]
    .into_iter()
    .flatten()
    {
        for class in Class::ALL {
            if !rows.iter().any(|row| row.split == part && row.class == class) {
                return Err(SplitError::Lacks { class, part: part.name() }.into());
            }
        }
    }
    write(&rows, &args.out)?;
    print!("{}", table(&rows));
    println!("written: {}", args.out.display());
    if folder != args.data {
        println!("the pictures are in {}: give this as --data to the next commands", folder.display());
    }
    Ok(())
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Gives whole patients to validation and test, for each set of classes that patients have, until the share of that
/// set's pictures is reached.
pub fn assign(rows: &mut [Row], validation: f64, test: f64, seed: u64) {
    let mut patients: BTreeMap<String, (BTreeSet<Class>, usize)> = BTreeMap::new();
    for row in rows.iter() {
        let entry = patients.entry(row.patient.clone()).or_default();
        entry.0.insert(row.class);
        entry.1 += 1;
    }
    let mut strata: BTreeMap<BTreeSet<Class>, Vec<(String, usize)>> = BTreeMap::new();
    for (patient, (classes, count)) in patients {
        strata.entry(classes).or_default().push((patient, count));
    }
    let mut random = rand::rngs::StdRng::seed_from_u64(seed);
    let mut given: HashMap<String, Split> = HashMap::new();
    for members in strata.values_mut() {
        members.shuffle(&mut random);
        let total: usize = members.iter().map(|(_, count)| count).sum();
        let mut members = members.iter();
        for (part, share) in [(Split::Test, test), (Split::Validation, validation)] {
            let (mut taken, want) = (0, share * total as f64);
            while (taken as f64) < want - 0.5 {
                let Some((patient, count)) = members.next() else { break };
                given.insert(patient.clone(), part);
                taken += count;
            }
        }
    }
    for row in rows {
        row.split = given.get(&row.patient).copied().unwrap_or(Split::Train);
    }
}

/// Refuses a patient or a picture in two parts.
///
/// # Errors
/// [`SplitError::Leak`] and [`SplitError::Twin`].
pub fn check(rows: &[Row]) -> Result<(), SplitError> {
    let (mut parts, mut bytes) = (HashMap::new(), HashMap::new());
    for row in rows {
        let first = *parts.entry(&row.patient).or_insert(row.split);
        if first != row.split {
            return Err(SplitError::Leak {
                patient: row.patient.clone(),
                a: first.name(),
                b: row.split.name(),
            });
        }
        let twin: &Row = bytes.entry(&row.sha256).or_insert(row);
        if twin.split != row.split {
            return Err(SplitError::Twin { a: twin.path.clone(), b: row.path.clone() });
        }
    }
    Ok(())
}

/// Pictures and patients of each class in each part.
pub fn table(rows: &[Row]) -> String {
    let mut text = format!(
        "{:<12}{:>10}{:>10}{:>10}{:>10}{:>10}{:>10}\n",
        "", "CNV", "DME", "DRUSEN", "NORMAL", "pictures", "patients"
    );
    for part in Split::ALL {
        let of = |class: Option<Class>| {
            rows.iter().filter(move |r| r.split == part && class.is_none_or(|c| r.class == c))
        };
        let _ = write!(text, "{:<12}", part.name());
        for class in Class::ALL {
            let _ = write!(text, "{:>10}", of(Some(class)).count());
        }
        let patients: BTreeSet<&str> = of(None).map(|r| r.patient.as_str()).collect();
        let _ = writeln!(text, "{:>10}{:>10}", of(None).count(), patients.len());
    }
    text
}

fn write(rows: &[Row], path: &Path) -> anyhow::Result<()> {
    let mut text = format!("{HEADER}\n");
    for r in rows {
        let _ = writeln!(
            text,
            "{},{},{},{},{},{},{},{}",
            r.path,
            r.class,
            r.patient,
            r.split.name(),
            r.width,
            r.height,
            r.origin,
            r.sha256
        );
    }
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(path, text).with_context(|| format!("{}: cannot be written", path.display()))
}

/// Reads a split.csv and refuses one that leaks.
///
/// # Errors
/// When the file cannot be read, a line is wrong, or the split leaks.
pub fn read(path: &Path) -> anyhow::Result<Vec<Row>> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("{}: cannot be read; make it with `fovea-train prepare`", path.display()))?;
    let mut lines = text.lines();
    if lines.next() != Some(HEADER) {
        bail!("{}: the first line must be {HEADER}", path.display());
    }
    let mut rows = Vec::new();
    for (number, line) in lines.enumerate() {
        let wrong = || format!("{}:{}: not a line of split.csv", path.display(), number + 2);
        let cells: Vec<&str> = line.split(',').collect();
        let [file, class, patient, split, width, height, origin, sha256] = cells[..] else { bail!(wrong()) };
        rows.push(Row {
            path: file.into(),
            class: class.parse().with_context(wrong)?,
            patient: patient.into(),
            split: Split::ALL.into_iter().find(|s| s.name() == split).with_context(wrong)?,
            width: width.parse().with_context(wrong)?,
            height: height.parse().with_context(wrong)?,
            origin: origin.into(),
            sha256: sha256.into(),
        });
    }
    check(&rows)?;
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Vec<Row> {
        (0..400)
            .map(|i| Row {
                path: format!("{i}"),
                class: Class::ALL[(i / 100) as usize],
                patient: (i / 3).to_string(),
                split: Split::Train,
                width: 512,
                height: 496,
                origin: String::new(),
                sha256: i.to_string(),
            })
            .collect()
    }

    #[test]
    fn split_is_by_patient_stratified_and_seeded() {
        let mut a = rows();
        assign(&mut a, 0.1, 0.2, 5);
        check(&a).unwrap();
        for class in Class::ALL {
            let count = |part| a.iter().filter(|r| r.class == class && r.split == part).count();
            assert!((18..=26).contains(&count(Split::Test)) && (8..=13).contains(&count(Split::Validation)));
        }
        let (mut b, mut c) = (rows(), rows());
        assign(&mut b, 0.1, 0.2, 5);
        assign(&mut c, 0.1, 0.2, 6);
        assert!(a == b && a != c);
    }

    #[test]
    fn leaks_are_refused() {
        let mut a = rows();
        a[0].split = Split::Test;
        assert!(matches!(check(&a), Err(SplitError::Leak { .. })));
        let mut a = rows();
        for r in &mut a[..3] {
            r.split = Split::Test;
        }
        a[0].sha256 = a[9].sha256.clone();
        assert!(matches!(check(&a), Err(SplitError::Twin { .. })));
    }

    #[test]
    fn names_without_a_patient_are_refused_and_files_round_trip() {
        let folder = tempfile::tempdir().unwrap();
        for class in Class::ALL {
            std::fs::create_dir(folder.path().join(class.name())).unwrap();
        }
        let file = folder.path().join("CNV/one.png");
        image::GrayImage::new(40, 40).save(&file).unwrap();
        assert!(find::read(folder.path(), |_| ()).unwrap_err().to_string().contains("CNV/one.png"));
        std::fs::rename(&file, folder.path().join("CNV/CNV-7-1.png")).unwrap();
        let found: Vec<Row> =
            find::read(folder.path(), |_| ()).unwrap().0.into_iter().map(|(row, ())| row).collect();
        assert_eq!((found[0].patient.as_str(), found[0].width), ("7", 40));
        let csv = folder.path().join("split.csv");
        write(&found, &csv).unwrap();
        assert_eq!(read(&csv).unwrap(), found);
    }
}
