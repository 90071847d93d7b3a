//! `cargo xtask vm-test`: the appliance before the kernel's own devices, in an emulated machine.

mod golden;
mod guest;
mod machine;

use anyhow::bail;

/// Runs the appliance in a virtual machine with real drivers; needs Debian 12 on x86-64 with qemu-system-x86,
/// busybox-static, kmod, cpio, gcc-12 and make, and the program built by `cargo build --locked`.
#[derive(Debug, clap::Args)]
pub struct VmArgs {
    /// The guest's processor; arm64 wants `scripts/cross build`, gcc-aarch64-linux-gnu, qemu-system-arm and device-tree-compiler too
    #[arg(long, value_enum, default_value_t = Arch::X86_64)]
    arch: Arch,
    /// The scenarios, files of board/vm/scenarios; without names all that the processor has devices for
    scenarios: Vec<String>,
    /// How often the camera is pulled and plugged in again
    #[arg(long, default_value_t = 50)]
    replugs: u32,
    /// The classes of which a picture is read; each takes a minute
    #[arg(long, default_value = "cnv,dme,drusen,normal")]
    classes: String,
    /// Longest time of a scenario in seconds
    #[arg(long, default_value_t = 900)]
    limit: u64,
}

/// The guest's processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Arch {
    #[value(name = "x86-64")]
    X86_64,
    /// QEMU's machine `virt`, whose lines of GPIO (a PL061) reach outside.
    Arm64,
}

/// A line of the table.
struct Outcome {
    scenario: String,
    good: bool,
    what: String,
}

/// Runs the scenarios and prints what held.
pub fn run(args: &VmArgs) -> anyhow::Result<()> {
    let root = crate::root();
    let place = root.join(match args.arch {
        Arch::X86_64 => "target/vm",
        Arch::Arm64 => "target/vm-arm64",
    });
    std::fs::create_dir_all(&place)?;
    let mut names = args.scenarios.clone();
    if names.is_empty() {
        for entry in std::fs::read_dir(root.join("board/vm/scenarios"))? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        // A PC has no lines of GPIO here.
        names.retain(|name| args.arch == Arch::Arm64 || name != "lines");
        names.sort();
    }
    let guest = guest::prepare(&root, &place, args.arch)?;
    let mut table = Vec::new();
    for name in &names {
        println!("--- {name}");
        let out = place.join("out").join(name);
        // Pictures of an earlier run are not those of this one.
        let _ = std::fs::remove_dir_all(&out);
        std::fs::create_dir_all(&out)?;
        machine::run(&guest, name, args, &out, &mut table)?;
        golden::compare(name, &root, &out, &mut table)?;
    }
    println!("\n{:10} {:6} what", "scenario", "");
    for row in &table {
        println!("{:10} {:6} {}", row.scenario, if row.good { "ok" } else { "FAILED" }, row.what);
    }
    let failed = table.iter().filter(|row| !row.good).count();
    println!(
        "{} held, {failed} failed; pictures and logs are in {}",
        table.len() - failed,
        place.join("out").display()
    );
    if failed > 0 {
        bail!("{failed} checks failed");
    }
    Ok(())
}
