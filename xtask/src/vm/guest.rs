//! The guest: a Debian kernel, modules, and a file system in memory with busybox and the appliance.

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
    run(Command::new("apt-get")
        .args(["-q", "-o", "APT::Sandbox::User=root", "download"])
        .args(packages)
        .current_dir(&debs))?;
    for entry in std::fs::read_dir(&debs)? {
        run(Command::new("dpkg-deb").arg("-x").arg(entry?.path()).arg(&half))?;
    }
    std::fs::rename(&half, &folder)?;
    Ok(folder)
}

/// Builds v4l2loopback, which Debian has as source, against the kernel's headers.
fn loopback(place: &Path) -> anyhow::Result<PathBuf> {
    let built = place.join("v4l2loopback/v4l2loopback.ko");
    if built.is_file() {
        return Ok(built);
    }
    let packages = [
        format!("linux-headers-{KERNEL}-amd64"),
        format!("linux-headers-{KERNEL}-common"),
        "linux-kbuild-6.1".into(),
        "v4l2loopback-dkms".into(),
    ];
    let tree = unpack(place, "headers", &packages)?;
    let source = tree.join("usr/src");
    let headers = source.join(format!("linux-headers-{KERNEL}-amd64"));
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
    run(Command::new("make").arg("-C").arg(&headers).args([build.as_str(), "CC=gcc-12", "modules"]))?;
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

/// Puts everything together.
///
/// # Errors
/// Without a network the first time, and when a tool is missing.
pub fn prepare(root: &Path, place: &Path) -> anyhow::Result<Guest> {
    let kernel = unpack(place, "kernel", &[format!("linux-image-{KERNEL}-amd64")])?;
    let tools = unpack(place, "tools", &TOOLS.map(String::from))?;
    let files = place.join("files");
    let _ = std::fs::remove_dir_all(&files);
    let release = format!("{KERNEL}-amd64");
    let modules = kernel.join("lib/modules").join(&release);
    if !modules.join("modules.dep").is_file() {
        run(Command::new("depmod").arg("-b").arg(&kernel).arg(&release))?;
    }
    let loopback = loopback(place)?;
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
    copy(Path::new("/bin/busybox"), &files.join("bin/busybox"))?;
    let program = root.join("target/debug/fovea");
    ensure!(program.is_file(), "{} is not built; run cargo build --locked first", program.display());
    let stripped = files.join("fovea/fovea");
    std::fs::create_dir_all(files.join("fovea/models"))?;
    run(Command::new("strip").arg("-o").arg(&stripped).arg(&program))?;
    libraries(&program, "", &files)?;
    let control = tools.join("usr/bin/v4l2-ctl");
    copy(&control, &files.join("bin/v4l2-ctl"))?;
    let more = tools.join("usr/lib/x86_64-linux-gnu");
    libraries(&control, &more.display().to_string(), &files)?;
    copy(&files.join("lib/ld-linux-x86-64.so.2"), &files.join("lib64/ld-linux-x86-64.so.2"))?;
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
