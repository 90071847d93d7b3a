//! The guest: a Debian kernel, modules, and a file system in memory with busybox and the appliance.

use super::Arch;
use crate::toolchain::run;
use anyhow::{Context, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The kernel of Debian 12 that the guest runs.
const KERNEL: &str = "6.1.0-56";
/// Modules of that kernel, with what they need.
const MODULES: [&str; 9] = [
    "virtio_pci",
    "virtio_gpu",
    "virtio_input",
    "9p",
    "9pnet_virtio",
    "vivid",
    "i6300esb",
    "evdev",
    "videodev",
];
/// Packages of the tool that works the capture devices.
const TOOLS: [&str; 7] =
    ["v4l-utils", "libv4l-0", "libv4l2rds0", "libv4lconvert0", "libjpeg62-turbo", "libstdc++6", "libudev1"];

/// Libraries that an arm64 guest brings along; those of x86-64 are this machine's own.
const LIBRARIES: [&str; 5] = ["libc6", "libgcc-s1", "zlib1g", "libbpf1", "libelf1"];

impl Arch {
    /// Debian's name.
    fn debian(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// The folder of its libraries.
    fn triplet(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64-linux-gnu",
            Self::Arm64 => "aarch64-linux-gnu",
        }
    }

    fn packages(self, names: &[&str]) -> Vec<String> {
        names.iter().map(|name| format!("{name}:{}", self.debian())).collect()
    }
}

/// What a machine is started with.
pub struct Guest {
    pub kernel: PathBuf,
    pub files: PathBuf,
}

/// Fetches packages into `place` and unpacks them into a folder of the name; done once.
fn unpack(place: &Path, name: &str, packages: &[String]) -> anyhow::Result<PathBuf> {
    let folder = place.join(name);
    if folder.is_dir() {
        return Ok(folder);
    }
    println!("fetching {}", packages.join(" "));
    let (debs, half) = (place.join(format!("{name}.debs")), place.join(format!("{name}.half")));
    let _ = std::fs::remove_dir_all(&half);
    let _ = std::fs::remove_dir_all(&debs);
    std::fs::create_dir_all(&debs)?;
    run(Command::new(crate::root().join("scripts/cross")).arg("packages").args(packages).current_dir(&debs))?;
    for entry in std::fs::read_dir(&debs)? {
        run(Command::new("dpkg-deb").arg("-x").arg(entry?.path()).arg(&half))?;
    }
    std::fs::rename(&half, &folder)?;
    Ok(folder)
}

/// Builds v4l2loopback, which Debian has as source, against the kernel's headers.
fn loopback(place: &Path, arch: Arch) -> anyhow::Result<PathBuf> {
    let built = place.join("v4l2loopback/v4l2loopback.ko");
    if built.is_file() {
        return Ok(built);
    }
    let packages = [
        format!("linux-headers-{KERNEL}-{0}:{0}", arch.debian()),
        format!("linux-headers-{KERNEL}-common"),
        "linux-kbuild-6.1".into(),
        "v4l2loopback-dkms".into(),
    ];
    let tree = unpack(place, "headers", &packages)?;
    let source = tree.join("usr/src");
    let headers = source.join(format!("linux-headers-{KERNEL}-{}", arch.debian()));
    let common = source.join(format!("linux-headers-{KERNEL}-common"));
    // The package's makefile names the place where it would be installed, and links lead there.
    let makefile = headers.join("Makefile");
    let installed = format!("/usr/src/linux-headers-{KERNEL}-common");
    let text = std::fs::read_to_string(&makefile)?;
    let here = common.display().to_string();
    if !text.contains(&here) {
        std::fs::write(&makefile, text.replace(&installed, &here))?;
    }
    for folder in [&headers, &common] {
        for name in ["scripts", "tools"] {
            let link = folder.join(name);
            let _ = std::fs::remove_file(&link);
            let _ = std::fs::remove_dir_all(&link);
            std::os::unix::fs::symlink(tree.join("usr/lib/linux-kbuild-6.1").join(name), link)?;
        }
    }
    let module = place.join("v4l2loopback");
    let _ = std::fs::remove_dir_all(&module);
    let found = std::fs::read_dir(&source)?
        .flatten()
        .find(|entry| entry.file_name().to_string_lossy().starts_with("v4l2loopback-"))
        .context("the package v4l2loopback-dkms holds no source")?;
    run(Command::new("cp").arg("-r").arg(found.path()).arg(&module))?;
    std::fs::write(module.join("Kbuild"), "obj-m := v4l2loopback.o\n")?;
    let build = format!("M={}", module.display());
    let compiler: &[&str] = match arch {
        Arch::X86_64 => &["CC=gcc-12"],
        Arch::Arm64 => &["ARCH=arm64", "CROSS_COMPILE=aarch64-linux-gnu-", "CC=aarch64-linux-gnu-gcc"],
    };
    run(Command::new("make").arg("-C").arg(&headers).args([build.as_str(), "modules"]).args(compiler))?;
    Ok(built)
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    if let Some(folder) = to.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::copy(from, to).with_context(|| format!("{} cannot be copied", from.display()))?;
    Ok(())
}

/// The libraries of a program, as the loader finds them here, with `more` looked at first.
fn libraries(program: &Path, more: &str, to: &Path) -> anyhow::Result<()> {
    for line in run(Command::new("ldd").arg(program).env("LD_LIBRARY_PATH", more))?.lines() {
        let path = line.split_whitespace().find(|word| word.starts_with('/'));
        if let Some(path) = path.map(Path::new) {
            let name = path.file_name().context("a library without a name")?;
            copy(path, &to.join("lib").join(name))?;
        }
    }
    Ok(())
}

/// The appliance and busybox of this machine, with its libraries.
fn own_programs(root: &Path, files: &Path, tools: &Path, control: &Path) -> anyhow::Result<()> {
    copy(Path::new("/bin/busybox"), &files.join("bin/busybox"))?;
    let program = root.join("target/debug/fovea");
    ensure!(program.is_file(), "{} is not built; run cargo build --locked first", program.display());
    run(Command::new("strip").arg("-o").arg(files.join("fovea/fovea")).arg(&program))?;
    libraries(&program, "", files)?;
    let more = tools.join("usr/lib").join(Arch::X86_64.triplet());
    libraries(control, &more.display().to_string(), files)?;
    copy(&files.join("lib/ld-linux-x86-64.so.2"), &files.join("lib64/ld-linux-x86-64.so.2"))
}

/// The appliance as it is built for boards, and all libraries of the guest's packages.
fn arm_programs(root: &Path, place: &Path, files: &Path, tools: &Path) -> anyhow::Result<()> {
    let program = root.join("target/cross/aarch64-unknown-linux-gnu/release/fovea");
    ensure!(program.is_file(), "{} is not built; run scripts/cross build first", program.display());
    copy(&program, &files.join("fovea/fovea"))?;
    let system =
        unpack(place, "system", &Arch::Arm64.packages(&[&["busybox-static"][..], &LIBRARIES].concat()))?;
    copy(&system.join("bin/busybox"), &files.join("bin/busybox"))?;
    for tree in [&system, tools] {
        for folder in ["lib", "usr/lib"].map(|lib| tree.join(lib).join(Arch::Arm64.triplet())) {
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                // Links are followed, so that each name is a file.
                if entry.file_name().to_string_lossy().contains(".so") && entry.path().is_file() {
                    copy(&entry.path(), &files.join("lib").join(entry.file_name()))?;
                }
            }
        }
    }
    Ok(())
}

/// Puts everything together.
///
/// # Errors
/// Without a network the first time, and when a tool is missing.
pub fn prepare(root: &Path, place: &Path, arch: Arch) -> anyhow::Result<Guest> {
    let kernel = unpack(place, "kernel", &[format!("linux-image-{KERNEL}-{0}:{0}", arch.debian())])?;
    let tools = unpack(place, "tools", &arch.packages(&TOOLS))?;
    let files = place.join("files");
    let _ = std::fs::remove_dir_all(&files);
    let release = format!("{KERNEL}-{}", arch.debian());
    let modules = kernel.join("lib/modules").join(&release);
    if !modules.join("modules.dep").is_file() {
        run(Command::new("depmod").arg("-b").arg(&kernel).arg(&release))?;
    }
    let loopback = loopback(place, arch)?;
    for name in MODULES {
        let list = run(Command::new("modprobe").arg("-d").arg(&kernel).args([
            "-S",
            &release,
            "--show-depends",
            name,
        ]))?;
        for line in list.lines() {
            if let Some(path) = line.strip_prefix("insmod ").map(|path| Path::new(path.trim())) {
                copy(path, &files.join(path.strip_prefix(&kernel)?))?;
            }
        }
    }
    copy(&loopback, &files.join("lib/modules").join(&release).join("extra/v4l2loopback.ko"))?;
    for list in ["modules.order", "modules.builtin"] {
        copy(&modules.join(list), &files.join("lib/modules").join(&release).join(list))?;
    }
    run(Command::new("depmod").arg("-b").arg(&files).arg(&release))?;
    std::fs::create_dir_all(files.join("fovea/models"))?;
    let control = tools.join("usr/bin/v4l2-ctl");
    copy(&control, &files.join("bin/v4l2-ctl"))?;
    match arch {
        Arch::X86_64 => own_programs(root, &files, &tools, &control)?,
        Arch::Arm64 => arm_programs(root, place, &files, &tools)?,
    }
    run(Command::new("cp")
        .arg("-r")
        .arg(root.join("models/oct-inception-v3"))
        .arg(files.join("fovea/models")))?;
    run(Command::new("cp").arg("-r").arg(root.join("board/vm/scenarios")).arg(&files))?;
    for class in ["cnv", "dme", "drusen", "normal"] {
        let picture = root.join(format!("examples/bscans/phantom-{class}-1.jpeg"));
        std::fs::create_dir_all(files.join("feed"))?;
        std::fs::write(files.join(format!("feed/{class}.yuyv")), super::golden::yuyv(&picture)?)?;
    }
    let whole = super::golden::jpeg(&root.join("examples/bscans/phantom-cnv-1.jpeg"))?;
    std::fs::write(files.join("feed/whole.jpeg"), &whole)?;
    std::fs::write(files.join("feed/bare.jpeg"), super::golden::without_tables(&whole)?)?;
    for folder in ["proc", "sys", "dev", "tmp", "out"] {
        std::fs::create_dir_all(files.join(folder))?;
    }
    copy(&root.join("board/vm/init"), &files.join("init"))?;
    run(Command::new("chmod").arg("755").arg(files.join("init")).arg(files.join("bin/busybox")))?;
    let archive = place.join("guest.cpio");
    // Not compressed: an emulated processor unpacks slowly.
    let pack = format!("find . | cpio --quiet -o -H newc > {}", archive.display());
    run(Command::new("sh").args(["-c", &pack]).current_dir(&files))?;
    Ok(Guest { kernel: kernel.join("boot").join(format!("vmlinuz-{release}")), files: archive })
}
