//! The kernel's thermal zones.

use std::path::{Path, PathBuf};

/// Some zones, and whether they are hot.
pub struct Thermal {
    files: Vec<PathBuf>,
    slow_at: f32,
    back_at: f32,
    hot: bool,
}

impl Thermal {
    /// The zones of these types below `root` (`/`): hot from `slow_at` degrees Celsius until `back_at` or less.
    pub fn open(root: &Path, types: &[String], slow_at: f32, back_at: f32) -> Self {
        let zones = std::fs::read_dir(root.join("sys/class/thermal")).into_iter().flatten().flatten();
        let wanted = |path: &PathBuf| {
            let kind = std::fs::read_to_string(path.join("type")).unwrap_or_default();
            types.iter().any(|wanted| wanted == kind.trim())
        };
        let files = zones.map(|zone| zone.path()).filter(wanted).map(|zone| zone.join("temp")).collect();
        Self { files, slow_at, back_at: back_at.min(slow_at), hot: false }
    }

    /// The hottest zone in degrees Celsius; none where no zone can be read.
    pub fn hottest(&self) -> Option<f32> {
        let read = |file: &PathBuf| std::fs::read_to_string(file).ok()?.trim().parse::<f32>().ok();
        self.files.iter().filter_map(read).map(|thousandths| thousandths / 1000.0).reduce(f32::max)
    }

    /// Looks: the temperature when it is hot. A zone that cannot be read any more changes nothing.
    pub fn hot(&mut self) -> Option<f32> {
        let now = self.hottest()?;
        self.hot = now >= if self.hot { self.back_at } else { self.slow_at };
        self.hot.then_some(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_hot_from_one_limit_to_the_other() {
        let root = tempfile::tempdir().unwrap();
        let zone = |number: u32, kind: &str| {
            let folder = root.path().join(format!("sys/class/thermal/thermal_zone{number}"));
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join("type"), format!("{kind}\n")).unwrap();
            folder.join("temp")
        };
        let (cpu, gpu, other) = (zone(0, "cpu-thermal"), zone(1, "gpu-thermal"), zone(2, "battery"));
        let mut thermal =
            Thermal::open(root.path(), &["cpu-thermal".into(), "gpu-thermal".into()], 85.0, 78.0);
        assert_eq!(thermal.hot(), None, "nothing can be read");
        std::fs::write(other, "99000").unwrap();
        std::fs::write(&gpu, "40000").unwrap();
        let mut at = |temperature: &str| {
            std::fs::write(&cpu, temperature).unwrap();
            thermal.hot()
        };
        assert_eq!(at("84900\n"), None);
        assert_eq!(at("85000\n"), Some(85.0));
        assert_eq!(at("79000\n"), Some(79.0));
        assert_eq!(at("77000\n"), None);
        assert_eq!(at("80000\n"), None);
    }
}
