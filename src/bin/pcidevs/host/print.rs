//! What came of an operation, for a person or as JSON.

use std::io::{self, Write};

use pcidevs::Sbdf;
use pcidevs::host::{DriverName, HostState, HostStatus, NetworkRecord, Recovered, Recovery, Released};
use serde_json::{Value, json};

/// Everything there is to say.
#[derive(Default)]
pub(super) struct Report {
    /// Why the operation did not happen.
    error: Option<String>,
    released: Released,
    /// What recovery had to do, or could not.
    recovered: Vec<(Option<Sbdf>, String)>,
    /// What a dry run would have written.
    pub(super) writes: Option<Vec<String>>,
    devices: Option<Vec<HostStatus>>,
    /// Where the devices are that were moved.
    pub(super) moved: Vec<HostStatus>,
}

impl Report {
    pub(super) fn refused(error: String) -> Self {
        Self { error: Some(error), ..Self::default() }
    }

    pub(super) fn released(released: Released) -> Self {
        Self { released, ..Self::default() }
    }

    pub(super) fn status(devices: Vec<HostStatus>) -> Self {
        Self { devices: Some(devices), ..Self::default() }
    }

    /// Adds what opening the manager found.
    pub(super) fn recovered(&mut self, recovery: &Recovery) {
        let notes = &mut self.recovered;
        notes.extend(recovery.damage.iter().map(|damage| (None, damage.to_string())));
        notes.extend(
            recovery.unsaved.iter().map(|errno| (None, format!("the journal is not written: {errno}"))),
        );
        for (device, what) in &recovery.devices {
            let text = match what {
                Recovered::Kept => continue,
                Recovered::RolledBack => "an operation that was cut off was undone".to_owned(),
                Recovered::Unbound => {
                    "somebody has taken it from its driver; its next move puts it on one".to_owned()
                }
                Recovered::Deferred => "an operation that was cut off waits: somebody has it open".to_owned(),
                Recovered::Vanished => "it is away, and forgotten".to_owned(),
                Recovered::Replaced => "another device is there, and was not touched".to_owned(),
                Recovered::Rebooted => "the machine was booted: the host has it".to_owned(),
                Recovered::Broken(reason) => format!("broken: {reason}; repair it"),
                other => format!("{other:?}"),
            };
            notes.push((Some(*device), text));
        }
        notes.extend(recovery.refused.iter().map(|(device, error)| (Some(*device), error.to_string())));
    }

    /// Whether everything that was asked for has happened.
    pub(super) fn is_whole(&self) -> bool {
        self.error.is_none() && self.released.failed.is_empty() && self.released.deferred.is_empty()
    }

    fn json(&self) -> Value {
        let texts = |devices: &[Sbdf]| devices.iter().map(Sbdf::to_string).collect::<Vec<_>>();
        let Released { returned, deferred, detached, failed, failures, .. } = &self.released;
        let pair = |(device, text): (String, String)| json!({ "device": device, "error": text });
        let failed = failed.iter().map(|(device, error)| pair((device.to_string(), error.to_string())));
        let notes = self
            .recovered
            .iter()
            .map(|(device, text)| json!({ "device": device.map(|device| device.to_string()), "text": text }));
        let mut json = json!({
            "ok": self.is_whole(),
            "error": self.error,
            "returned": texts(returned),
            "deferred": texts(deferred),
            "detached": texts(detached),
            "failed": failed.collect::<Vec<_>>(),
            "failures": failures.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "recovery": notes.collect::<Vec<_>>(),
        });
        if let (Some(writes), Some(object)) = (&self.writes, json.as_object_mut()) {
            object.insert("writes".into(), json!(writes));
        }
        if let (Some(devices), Some(object)) = (&self.devices, json.as_object_mut()) {
            object.insert("devices".into(), devices.iter().map(device).collect());
        }
        json
    }

    fn lines(&self, out: &mut dyn Write) -> io::Result<()> {
        for line in self.writes.iter().flatten() {
            writeln!(out, "{line}")?;
        }
        if self.writes.is_none() {
            for known in &self.moved {
                let driver = known.driver.as_ref().map_or("no driver", DriverName::as_str);
                writeln!(out, "{}: {}, on {driver}", known.address, state(&known.state))?;
            }
        }
        for known in self.devices.iter().flatten() {
            let driver = known.driver.as_ref().map_or("-", DriverName::as_str);
            let group = known.group.map_or("-".to_owned(), |group| group.0.to_string());
            write!(out, "{:<13} {:<24} group {group:<5} {}", known.address, driver, state(&known.state))?;
            if known.needs_reset {
                write!(out, ", to be reset")?;
            }
            if let Some(network) = &known.network {
                write!(out, "{}", identity(&known.state, network))?;
            }
            if let Some(what) = &known.stuck {
                write!(out, ", stuck: {what}")?;
            }
            writeln!(out)?;
        }
        let Released { returned, deferred, detached, .. } = &self.released;
        for (devices, text) in [
            (returned, "with the host again"),
            (deferred, "waits for its group: `reattach` tries again"),
            (detached, "stays detached"),
        ] {
            for device in devices {
                writeln!(out, "{device}: {text}")?;
            }
        }
        Ok(())
    }

    fn problems(&self, err: &mut dyn Write) -> io::Result<()> {
        for (device, text) in &self.recovered {
            match device {
                Some(device) => writeln!(err, "pcidevs: {device}: {text}")?,
                None => writeln!(err, "pcidevs: {text}")?,
            }
        }
        for failure in &self.released.failures {
            writeln!(err, "pcidevs: {failure}")?;
        }
        for (device, error) in &self.released.failed {
            writeln!(err, "pcidevs: {device}: {error}")?;
        }
        self.error.iter().try_for_each(|error| writeln!(err, "pcidevs: {error}"))
    }
}

fn identity(state: &HostState, network: &NetworkRecord) -> String {
    if !matches!(state, HostState::Guest(_)) {
        return ", its network identity to be put back".into();
    }
    let mac = network.wanted.mac.map(|mac| format!(", mac {mac}")).unwrap_or_default();
    let vlan = network.wanted.vlan.map(|vlan| format!(", vlan {vlan}")).unwrap_or_default();
    mac + &vlan
}

fn state(state: &HostState) -> String {
    match state {
        HostState::Host => "host".into(),
        HostState::Foreign => "foreign: on a stub, and not by us".into(),
        HostState::Quarantine => "detached".into(),
        HostState::Deferred => "deferred: waits for its group".into(),
        // A name may hold anything but control characters.
        HostState::Guest(guest) => format!("guest {guest}"),
        HostState::Broken { reason } => format!("broken: {reason}"),
        other => format!("{other:?}"),
    }
}

fn device(known: &HostStatus) -> Value {
    let (name, guest, reason) = match &known.state {
        HostState::Host => ("host", None, None),
        HostState::Foreign => ("foreign", None, None),
        HostState::Quarantine => ("quarantine", None, None),
        HostState::Deferred => ("deferred", None, None),
        HostState::Guest(guest) => {
            ("guest", Some(json!({ "manager": guest.manager(), "guest": guest.guest() })), None)
        }
        HostState::Broken { reason } => ("broken", None, Some(reason)),
        _ => ("unknown", None, None),
    };
    json!({
        "address": known.address.to_string(),
        "state": name,
        "guest": guest,
        "reason": reason,
        "driver": known.driver.as_ref().map(DriverName::as_str),
        "group": known.group.map(|group| group.0),
        "stuck": known.stuck,
        "needs_reset": known.needs_reset,
        "managed": known.managed,
        "network": known.network,
    })
}

/// Says it: the result on stdout, what is wrong on stderr; as JSON all on stdout.
pub(super) fn print(report: &Report, as_json: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if as_json {
        writeln!(out, "{}", report.json())?;
        return out.flush();
    }
    report.problems(&mut io::stderr().lock())?;
    report.lines(&mut out)?;
    out.flush()
}
