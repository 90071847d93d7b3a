//! A process that has the simulator's driver.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A folder with the driver's library under the name that programs look for.
pub struct Driver {
    folder: tempfile::TempDir,
    settings: Vec<(&'static str, String)>,
}

/// What a process said.
pub struct Said {
    pub out: String,
    pub err: String,
    pub code: Option<i32>,
}

impl Said {
    /// The words are on the output or among the errors.
    #[track_caller]
    pub fn expect(&self, words: &str) -> &Self {
        assert!(
            self.out.contains(words) || self.err.contains(words),
            "no '{words}' in:\n{}\n{}",
            self.out,
            self.err
        );
        self
    }

    #[track_caller]
    pub fn ends_with(&self, code: i32) -> &Self {
        assert_eq!(self.code, Some(code), "{}\n{}", self.out, self.err);
        self
    }
}

/// The library, which Cargo builds beside this program.
fn library() -> PathBuf {
    let program = std::env::current_exe().unwrap();
    let name = "libfovea_simulator_driver.so";
    let places = program.ancestors().skip(1).take(2).map(|folder| folder.join(name));
    places.into_iter().find(|path| path.is_file()).expect("the simulator's driver was not built")
}

impl Driver {
    /// A driver for a device of this architecture.
    pub fn new(architecture: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::copy(library(), folder.path().join("libcuda.so.1")).unwrap();
        Self { folder, settings: vec![("FOVEA_DRIVER_SM", architecture.to_string())] }
    }

    /// With a setting of `fovea_simulator_driver::settings`.
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.settings.push((name, value.into()));
        self
    }

    /// Without a function: its name in the library's table becomes another.
    pub fn without(self, symbol: &str) -> Self {
        let path = self.folder.path().join("libcuda.so.1");
        let mut bytes = std::fs::read(&path).unwrap();
        let name: Vec<u8> = [0].iter().chain(symbol.as_bytes()).chain(&[0]).copied().collect();
        let found: Vec<usize> =
            (0..bytes.len() - name.len()).filter(|at| bytes[*at..].starts_with(&name)).collect();
        assert!(!found.is_empty(), "the library has no {symbol}");
        for at in found {
            bytes[at + name.len() - 2] = b'_';
        }
        std::fs::write(path, bytes).unwrap();
        self
    }

    /// Runs a program with the driver.
    pub fn run(&self, program: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Said {
        let mut command = Command::new(program);
        command.env("LD_LIBRARY_PATH", self.folder.path()).env("XDG_CACHE_HOME", self.folder.path());
        command.args(arguments).envs(variables.iter().copied());
        command.envs(self.settings.iter().map(|(name, value)| (*name, value.as_str())));
        let Output { status, stdout, stderr } = command.output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Said { out: text(stdout), err: text(stderr), code: status.code() }
    }

    /// Runs a task of `child` in this program again.
    pub fn child(&self, task: &str) -> Said {
        self.child_in(task, &self.folder.path().display().to_string())
    }

    /// The same with a folder of other libraries behind the driver's.
    pub fn child_with(&self, task: &str, libraries: &Path) -> Said {
        self.child_in(task, &format!("{}:{}", self.folder.path().display(), libraries.display()))
    }

    fn child_in(&self, task: &str, libraries: &str) -> Said {
        let program = std::env::current_exe().unwrap();
        let variables = [("FOVEA_TEST_GPU", task), ("LD_LIBRARY_PATH", libraries)];
        self.run(&program, &["--exact", "child::child", "--nocapture"], &variables)
    }

    /// Kernels in the cache.
    pub fn kept(&self) -> Vec<PathBuf> {
        let entries = self.folder.path().join("fovea/kernels").read_dir().into_iter().flatten().flatten();
        entries
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|e| e == "ptx"))
            .collect()
    }
}
