//! Streams, events and faults, without the exported functions, of which a process has but one set.

use crate::code;
use crate::driver::{Driver, Event, Handle, Stream};
use crate::settings::{Fault, Kind, Settings, Streams};
use crate::work::Work;
use std::sync::Arc;
use std::time::Duration;

/// A driver with its context, two streams and an event.
fn start(settings: Settings) -> (Arc<Driver>, Handle, [Handle; 2], Handle) {
    let driver = Arc::new(Driver::new(settings));
    let context = driver.retain().unwrap();
    let make = |event: bool| {
        let make = |context: &mut crate::driver::Context, handle| {
            if event {
                context.events.insert(handle, Event::default());
            } else {
                context.streams.insert(handle, Stream::default());
            }
            Ok(handle)
        };
        driver.with(context, make).unwrap()
    };
    let (streams, event) = ([make(false), make(false)], make(true));
    (driver, context, streams, event)
}

fn late(seed: u64) -> Settings {
    Settings { streams: Streams::Late(seed), ..Settings::default() }
}

fn byte(driver: &Driver, context: Handle, at: u64) -> u8 {
    let mut byte = [0];
    driver.memory(context).unwrap().read(at, &mut byte).unwrap();
    byte[0]
}

#[test]
fn settings_are_read_and_refused() {
    let read = |name: &'static str, value: &'static str| {
        Settings::read(|asked| (asked == format!("FOVEA_DRIVER_{name}")).then(|| value.to_owned()))
    };
    assert_eq!(read("CUDA", "10.2").unwrap().version, 10020);
    assert_eq!(read("STREAMS", "late:7").unwrap().streams, Streams::Late(7));
    let faults = read("FAULTS", "hang:3,allocation:1+").unwrap().faults;
    let hang = Fault { kind: Kind::Hang, at: 3, on: false };
    assert_eq!(faults, [hang, Fault { kind: Kind::Allocation, at: 1, on: true }]);
    for (name, value) in [("CUDA", "12"), ("STREAMS", "early"), ("FAULTS", "hang"), ("CHECKS", "yes")] {
        let said = read(name, value).unwrap_err();
        assert_eq!(said, format!("FOVEA_DRIVER_{name}={value} is no setting"));
    }
}

#[test]
fn late_work_waits_until_somebody_asks() {
    let (driver, context, [stream, _], event) = start(late(1));
    let at = driver.memory(context).unwrap().allocate(1).unwrap();
    driver.give(context, stream, [Work::Fill(at, 1, 1), Work::Fill(at, 2, 1)]).unwrap();
    driver.record(context, event, stream).unwrap();
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(byte(&driver, context, at), fovea_simulator::memory::POISON);
    assert_eq!(driver.came(context, event).unwrap_err(), code::NOT_READY);
    while driver.came(context, event) == Err(code::NOT_READY) {
        std::thread::yield_now();
    }
    assert_eq!(byte(&driver, context, at), 2);
}

/// Without an event between them two streams come in any order; with one, in one order.
#[test]
fn streams_wait_for_events_alone() {
    for waits in [false, true] {
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..24 {
            let (driver, context, [one, two], event) = start(late(seed));
            let at = driver.memory(context).unwrap().allocate(1).unwrap();
            driver.give(context, one, [Work::Fill(at, 1, 1)]).unwrap();
            driver.record(context, event, one).unwrap();
            if waits {
                driver.wait_event(context, two, event).unwrap();
            }
            driver.give(context, two, [Work::Fill(at, 2, 1)]).unwrap();
            driver.synchronize(context, None).unwrap();
            seen.insert(byte(&driver, context, at));
        }
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), if waits { vec![2] } else { vec![1, 2] });
    }
}

#[test]
fn a_copy_beyond_its_allocation_fails_and_stays_failed() {
    let (driver, context, [stream, _], _) = start(Settings::default());
    let at = driver.memory(context).unwrap().allocate(4).unwrap();
    driver.give(context, stream, [Work::Fill(at, 0, 5)]).unwrap();
    assert_eq!(driver.synchronize(context, None), Err(code::INVALID_VALUE));
    assert_eq!(driver.retain(), Err(code::INVALID_VALUE));
    driver.reset();
    let again = driver.retain().unwrap();
    assert_eq!(driver.synchronize(again, None), Ok(()));
    assert_eq!(driver.synchronize(context, None), Err(code::CONTEXT_IS_DESTROYED));
}

#[test]
fn faults_come_when_they_are_due() {
    let fault = |at, on| Fault { kind: Kind::Pinned, at, on };
    let comes = |fault| {
        let driver = Driver::new(Settings { faults: vec![fault], ..Settings::default() });
        (0..4).map(|_| driver.happens(Kind::Pinned)).collect::<Vec<_>>()
    };
    assert_eq!(comes(fault(2, false)), [false, true, false, false]);
    assert_eq!(comes(fault(3, true)), [false, false, true, true]);
}
