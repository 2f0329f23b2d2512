//! With the feature `tracing`, every event of a device's life is an event of the crate of that name.

use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use pcidevs::lifecycle::{DeviceInfo, Lifecycle};
use pcidevs::platform::{ConfigBytes, Fault, Hook, HookError, Simulated};
use pcidevs::{DomainId, Errno, Sbdf};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// Keeps the level and the message of what is sent to the target `pcidevs`.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<(Level, String)>>>);

struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}

impl Subscriber for Kept {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "pcidevs"
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut message = Message(String::new());
        event.record(&mut message);
        self.0.lock().expect("no panic").push((*event.metadata().level(), message.0));
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[test]
fn transitions_are_traced_and_those_that_fail_as_warnings() {
    let kept = Kept::default();
    tracing::subscriber::with_default(kept.clone(), || {
        let machine = Lifecycle::new(Simulated::<()>::new()).expect("memory").by("the test");
        let nic: Sbdf = "3a:00.0".parse().expect("an address");
        machine.platform().plug(nic, ConfigBytes::endpoint(0x8086, 0x10d3));
        machine.add(nic, DeviceInfo::default(), ()).expect("added");
        machine.create_domain(DomainId::new(1)).expect("created");
        machine.platform().fail_next(Hook::Reset, Fault::Error(HookError::new(Errno::EIO, "no")));
        machine.assign(&[nic.into()], DomainId::new(1)).expect_err("a hook fails");
    });
    let kept = kept.0.lock().expect("no panic");
    let levels: Vec<_> = kept.iter().map(|(level, _)| *level).collect();
    assert_eq!(levels, [Level::INFO, Level::WARN], "{kept:?}");
    assert!(kept[0].1.contains("0000:3a:00.0 #1 by the test: add to host"), "{kept:?}");
    assert!(
        kept[1].1.contains("assign from host to domain 1") && kept[1].1.contains("reset: no (EIO)"),
        "{kept:?}"
    );
}
