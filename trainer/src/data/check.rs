//! What is wrong with a data set, and what is in it.

use super::near::{Sketch, pairs};
use crate::split::{Row, Split};
use fovea::Class;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Pictures, patients of a class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Count {
    /// Pictures.
    pub pictures: usize,
    /// Patients.
    pub patients: usize,
}

/// Two pictures of different patients that are nearly equal.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Near {
    /// One.
    pub a: String,
    /// The other.
    pub b: String,
    /// Correlation of the shrunken pictures.
    pub correlation: f32,
    /// They have different labels.
    pub labels_differ: bool,
    /// They stand in different parts.
    pub parts_differ: bool,
}

/// The findings.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Findings {
    /// By origin (or part of a split), then class.
    pub counts: BTreeMap<String, BTreeMap<Class, Count>>,
    /// By class over all.
    pub classes: BTreeMap<Class, Count>,
    /// Patients in all.
    pub patients: usize,
    /// Pictures of each size and class, `WIDTHxHEIGHT`.
    pub sizes: BTreeMap<String, BTreeMap<Class, usize>>,
    /// Paths that hold the same bytes.
    pub same_bytes: Vec<Vec<String>>,
    /// Of these, groups with more than one label.
    pub same_bytes_two_labels: usize,
    /// Patients with pictures of more than one class.
    pub patients_in_two_classes: Vec<String>,
    /// Patients in more than one part.
    pub patients_in_two_parts: Vec<String>,
    /// Nearly equal pictures of different patients.
    pub near: Vec<Near>,
    /// Nearly equal pictures of one patient: neighbouring slices, most of them.
    pub near_of_one_patient: usize,
    /// Files that cannot be read, with the reason.
    pub damaged: Vec<(String, String)>,
}

/// Checks rows; `part` names the part that a row belongs to, or is empty.
pub fn check(
    rows: &[(Row, Sketch)],
    part: impl Fn(&Row) -> String,
    damaged: Vec<(String, String)>,
) -> Findings {
    let mut findings = Findings { damaged, ..Findings::default() };
    let mut members: BTreeMap<(String, Class), BTreeSet<&str>> = BTreeMap::new();
    let mut of_class: BTreeMap<Class, BTreeSet<&str>> = BTreeMap::new();
    let mut patients: BTreeMap<&str, (BTreeSet<Class>, BTreeSet<String>)> = BTreeMap::new();
    let mut bytes: HashMap<&str, Vec<&Row>> = HashMap::new();
    for (row, _) in rows {
        let name = part(row);
        findings.counts.entry(name.clone()).or_default().entry(row.class).or_default().pictures += 1;
        findings.classes.entry(row.class).or_default().pictures += 1;
        members.entry((name.clone(), row.class)).or_default().insert(&row.patient);
        of_class.entry(row.class).or_default().insert(&row.patient);
        let entry = patients.entry(&row.patient).or_default();
        entry.0.insert(row.class);
        entry.1.insert(name);
        let size = format!("{}x{}", row.width, row.height);
        *findings.sizes.entry(size).or_default().entry(row.class).or_default() += 1;
        bytes.entry(&row.sha256).or_default().push(row);
    }
    for ((name, class), set) in members {
        findings.counts.entry(name).or_default().entry(class).or_default().patients = set.len();
    }
    for (class, set) in of_class {
        findings.classes.entry(class).or_default().patients = set.len();
    }
    findings.patients = patients.len();
    for (patient, (classes, parts)) in &patients {
        if classes.len() > 1 {
            findings.patients_in_two_classes.push((*patient).to_owned());
        }
        if parts.len() > 1 {
            findings.patients_in_two_parts.push((*patient).to_owned());
        }
    }
    let mut same: Vec<Vec<&Row>> = bytes.into_values().filter(|group| group.len() > 1).collect();
    same.sort_by(|a, b| a[0].path.cmp(&b[0].path));
    findings.same_bytes_two_labels =
        same.iter().filter(|group| group.iter().any(|r| r.class != group[0].class)).count();
    findings.same_bytes =
        same.into_iter().map(|group| group.into_iter().map(|r| r.path.clone()).collect()).collect();
    // Equal bytes are told already.
    let sketches: Vec<Sketch> = rows.iter().map(|(_, sketch)| sketch.clone()).collect();
    for (a, b, correlation) in pairs(&sketches, |a, b| rows[a].0.sha256 != rows[b].0.sha256) {
        let (a, b) = (&rows[a].0, &rows[b].0);
        if a.patient == b.patient {
            findings.near_of_one_patient += 1;
            continue;
        }
        findings.near.push(Near {
            a: a.path.clone(),
            b: b.path.clone(),
            correlation,
            labels_differ: a.class != b.class,
            parts_differ: part(a) != part(b),
        });
    }
    findings
}

/// The part of a row by a split's assignment.
pub fn part_of(split: &HashMap<String, Split>) -> impl Fn(&Row) -> String {
    move |row| split.get(&row.path).map_or("not in the split".into(), |part| part.name().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(path: &str, class: Class, patient: &str, origin: &str, seed: u64) -> (Row, Sketch) {
        let row = Row {
            path: path.into(),
            class,
            patient: patient.into(),
            split: Split::Train,
            width: 512,
            height: if seed == 4 { 512 } else { 496 },
            origin: origin.into(),
            sha256: format!("{path}{seed}"),
        };
        (row, Sketch::new(&crate::export::testing::picture(seed)))
    }

    #[test]
    fn every_fault_is_found() {
        let mut rows = vec![
            row("a", Class::Cnv, "1", "train", 1),
            row("b", Class::Cnv, "1", "test", 2),
            row("c", Class::Dme, "2", "train", 3),
            row("d", Class::Drusen, "2", "train", 4),
            row("e", Class::Normal, "3", "test", 5),
            // A slice like another of one patient, and the same in other bytes under another patient and label.
            row("f", Class::Normal, "3", "test", 5),
            row("g", Class::Dme, "4", "train", 5),
            row("h", Class::Normal, "5", "test", 6),
        ];
        rows[7].0.sha256 = rows[0].0.sha256.clone();
        let f = check(&rows, |r| r.origin.clone(), vec![("x".into(), "broken".into())]);
        assert_eq!(f.same_bytes, [["a", "h"]]);
        assert_eq!(f.same_bytes_two_labels, 1);
        assert_eq!(
            (f.patients, f.patients_in_two_classes, f.patients_in_two_parts),
            (5, vec!["2".into()], vec!["1".into()])
        );
        assert_eq!(f.classes[&Class::Cnv], Count { pictures: 2, patients: 1 });
        assert_eq!(f.counts["test"][&Class::Normal], Count { pictures: 3, patients: 2 });
        assert_eq!((f.sizes["512x512"][&Class::Drusen], f.damaged.len()), (1, 1));
        let strangers: Vec<_> =
            f.near.iter().map(|n| (n.a.as_str(), n.b.as_str(), n.labels_differ, n.parts_differ)).collect();
        assert_eq!(strangers, [("f", "g", true, true)]);
        assert_eq!(f.near_of_one_patient, 1);
    }
}
