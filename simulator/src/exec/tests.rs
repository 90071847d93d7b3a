//! Small kernels, right and with planted errors.

mod alu;
mod float;
mod forms;
mod grid;
mod table;
mod warp;
mod words;

use crate::{Counters, DeviceMemory, Fault, FaultKind, Launch, Module, Options, Schedule, launch, pack_args};

const SCHEDULES: [Schedule; 4] =
    [Schedule::Late, Schedule::Eager, Schedule::EagerReversed, Schedule::Random(7)];

/// Runs `body` with a pointer to `words` words in `%rd1`, the thread's index in `%r1` and its block in `%r2`.
fn run(
    body: &str,
    threads: u32,
    blocks: u32,
    words: &mut [u32],
    options: &Options,
) -> Result<Counters, Fault> {
    let source = format!(
        ".version 7.4\n.target sm_87\n.address_size 64\n.visible .entry k(.param .u64 k_0)\n{{\n\
         .reg .pred %p<8>;\n.reg .b32 %r<40>;\n.reg .b64 %rd<20>;\n.shared .align 16 .b8 s[1024];\n\
         ld.param.u64 %rd0, [k_0];\ncvta.to.global.u64 %rd1, %rd0;\nmov.u32 %r1, %tid.x;\n\
         mov.u32 %r2, %ctaid.x;\nmul.wide.u32 %rd2, %r1, 4;\nadd.s64 %rd3, %rd1, %rd2;\ncvt.u32.u64 %r3, %rd2;\n\
         mov.u32 %r4, s;\nadd.s32 %r4, %r4, %r3;\n{body}\nret;\n}}\n"
    );
    let memory = DeviceMemory::new(1 << 20);
    let module = Module::load(&source, &memory).unwrap();
    let kernel = module.kernel("k").unwrap();
    let at = memory.allocate(words.len() * 4).unwrap();
    let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
    memory.write(at, &bytes).unwrap();
    let args = pack_args(&module, kernel, &[&at.to_le_bytes()]).unwrap();
    let shape = Launch { grid: [blocks, 1, 1], block: [threads, 1, 1], dynamic_shared: 0, args };
    let counters = launch(&module, kernel, &shape, &memory, options).map_err(|f| *f)?;
    let mut bytes = vec![0; words.len() * 4];
    memory.read(at, &mut bytes).unwrap();
    for (word, raw) in words.iter_mut().zip(bytes.chunks_exact(4)) {
        *word = u32::from_le_bytes(raw.try_into().unwrap());
    }
    Ok(counters)
}

fn with(schedule: Schedule) -> Options {
    Options { schedule, threads: 1, ..Options::default() }
}

#[test]
fn lanes_part_and_meet_again() {
    // Odd lanes count down, even lanes square; then all add 1.
    let body = "and.b32 %r5, %r1, 1;\nsetp.eq.s32 %p1, %r5, 0;\n@%p1 bra EVEN;\nsub.s32 %r6, 100, %r1;\nbra.uni MEET;\n\
                EVEN:\nmul.lo.s32 %r6, %r1, %r1;\nMEET:\nadd.s32 %r6, %r6, 1;\nst.global.u32 [%rd3], %r6;";
    for schedule in SCHEDULES {
        let mut words = [0; 40];
        let counters = run(body, 40, 1, &mut words, &with(schedule)).unwrap();
        let want: Vec<u32> = (0..40).map(|t| if t % 2 == 0 { t * t + 1 } else { 101 - t }).collect();
        assert_eq!(words[..], want[..]);
        assert_eq!(counters.divergent_branches, 2);
    }
}

#[test]
fn a_store_past_the_end_is_a_fault_with_its_line() {
    let fault = run("st.global.u32 [%rd3], %r1;", 33, 1, &mut [0; 32], &with(Schedule::Late)).unwrap_err();
    assert_eq!(fault.kind, FaultKind::OutOfBounds);
    assert_eq!((fault.text.as_str(), fault.warp), ("st.global.u32 [%rd3], %r1;", 1));
    let fault = run("st.global.u32 [%rd1+2], %r1;", 1, 1, &mut [0; 2], &with(Schedule::Late)).unwrap_err();
    assert_eq!(fault.kind, FaultKind::Misaligned);
}

#[test]
fn a_missing_barrier_is_found_and_a_present_one_is_not() {
    let reverse = "sub.s32 %r7, 252, %r3;\nmov.u32 %r8, s;\nadd.s32 %r7, %r7, %r8;\nld.shared.u32 %r9, [%r7];\n\
                   st.global.u32 [%rd3], %r9;";
    let right = format!("st.shared.u32 [%r4], %r1;\nbar.sync 0;\n{reverse}");
    let wrong = format!("st.shared.u32 [%r4], %r1;\n{reverse}");
    for schedule in SCHEDULES {
        let mut words = [0; 64];
        run(&right, 64, 1, &mut words, &with(schedule)).unwrap();
        assert_eq!(words[..], (0..64).rev().collect::<Vec<u32>>()[..]);
        let fault = run(&wrong, 64, 1, &mut words, &with(schedule)).unwrap_err();
        assert!(matches!(fault.kind, FaultKind::Race | FaultKind::Uninitialised), "{fault}");
    }
}

#[test]
fn a_copy_must_be_waited_for() {
    let copy = "cp.async.ca.shared.global [%r4], [%rd3], 4;\ncp.async.commit_group;\n";
    let rest = "ld.shared.u32 %r9, [%r4];\nadd.s32 %r9, %r9, 1;\nst.global.u32 [%rd3], %r9;";
    for schedule in SCHEDULES {
        let mut words: Vec<u32> = (0..32).collect();
        run(&format!("{copy}cp.async.wait_group 0;\n{rest}"), 32, 1, &mut words, &with(schedule)).unwrap();
        assert_eq!(words, (1..33).collect::<Vec<u32>>());
        for wait in ["", "cp.async.wait_group 1;\n"] {
            let fault = run(&format!("{copy}{wait}{rest}"), 32, 1, &mut words, &with(schedule)).unwrap_err();
            assert!(matches!(fault.kind, FaultKind::Race | FaultKind::Uninitialised), "{fault}");
        }
    }
}

#[test]
fn blocks_that_meet_on_a_word_race_unless_they_use_atomics() {
    let options = Options { global_races: true, ..with(Schedule::Late) };
    let fault = run("st.global.u32 [%rd1], %r2;", 1, 2, &mut [0; 1], &options).unwrap_err();
    assert_eq!(fault.kind, FaultKind::Race);
    let mut words = [0; 1];
    run("red.global.add.u32 [%rd1], 3;", 32, 5, &mut words, &options).unwrap();
    assert_eq!(words, [480]);
}

#[test]
fn a_barrier_in_divergent_code_is_a_fault() {
    let body = "setp.lt.u32 %p1, %r1, 16;\n@%p1 bra SKIP;\nbar.sync 0;\nSKIP:\nst.global.u32 [%rd3], %r1;";
    let fault = run(body, 32, 1, &mut [0; 32], &with(Schedule::Late)).unwrap_err();
    assert_eq!(fault.kind, FaultKind::Divergence);
}
