//! What came of an operation, for a person or as JSON.

use std::io::{self, Write};

use pcidevs::host::DriverName;
use pcidevs::xen::assignable::{AssignableDevice, AssignableState};
use pcidevs::xen::manager::XenError;
use pcidevs::xen::pciback::Exported;
use pcidevs::{DomainId, Sbdf};
use serde_json::{Value, json};

/// Everything there is to say.
#[derive(Default)]
pub(super) struct Report {
    /// Why the operation did not happen.
    error: Option<String>,
    /// What became of each device.
    devices: Vec<(Sbdf, Result<String, String>)>,
    /// The guest has the devices, and was not seen to have taken them.
    pub(super) pending: Option<String>,
    /// What cannot be read, or is doubtful.
    pub(super) troubles: Vec<String>,
    /// What a dry run would have written.
    pub(super) writes: Option<Vec<String>>,
    assignable: Option<Vec<AssignableDevice>>,
    exports: Option<Vec<(DomainId, Vec<Exported>)>>,
}

impl Report {
    pub(super) fn refused(error: String) -> Self {
        Self { error: Some(error), ..Self::default() }
    }

    pub(super) fn assignable(listed: Vec<AssignableDevice>) -> Self {
        Self { assignable: Some(listed), ..Self::default() }
    }

    pub(super) fn exports(exports: Vec<(DomainId, Vec<Exported>)>) -> Self {
        Self { exports: Some(exports), ..Self::default() }
    }

    pub(super) fn device(&mut self, device: Sbdf, done: Result<String, XenError>) {
        self.devices.push((device, done.map_err(|error| error.to_string())));
    }

    /// Whether everything that was asked for has happened, as far as anybody knows.
    pub(super) fn is_whole(&self) -> bool {
        self.error.is_none() && self.pending.is_none() && self.devices.iter().all(|(_, done)| done.is_ok())
    }

    fn json(&self) -> Value {
        let done = self.devices.iter().map(|(device, done)| {
            json!({
                "address": device.to_string(),
                "ok": done.is_ok(),
                "text": done.as_ref().ok(),
                "error": done.as_ref().err(),
            })
        });
        let mut json = json!({
            "ok": self.is_whole(),
            "error": self.error,
            "pending": self.pending,
            "troubles": self.troubles,
            "devices": done.collect::<Vec<_>>(),
        });
        let Some(object) = json.as_object_mut() else { return json };
        if let Some(writes) = &self.writes {
            object.insert("writes".into(), json!(writes));
        }
        if let Some(listed) = &self.assignable {
            object.insert("assignable".into(), listed.iter().map(assignable).collect());
        }
        if let Some(exports) = &self.exports {
            object.insert("exports".into(), exports.iter().map(exported).collect());
        }
        json
    }

    fn lines(&self, out: &mut dyn Write) -> io::Result<()> {
        for line in self.writes.iter().flatten() {
            writeln!(out, "{line}")?;
        }
        for (device, text) in
            self.devices.iter().filter_map(|(device, done)| Some((device, done.as_ref().ok()?)))
        {
            writeln!(out, "{device} {text}")?;
        }
        for one in self.assignable.iter().flatten() {
            let original = one.original.as_ref().map_or("-", DriverName::as_str);
            let name = one.name.as_deref().unwrap_or("-");
            writeln!(out, "{:<13} {:<20} {name:<16} {}", one.device, original, state(one.state).1)?;
        }
        for (guest, devices) in self.exports.iter().flatten() {
            for one in devices {
                let seen = one.guest_address.as_deref().unwrap_or("-");
                writeln!(out, "{guest:<6} {:<13} {seen:<13} {}", one.device, one.state)?;
            }
        }
        Ok(())
    }

    fn problems(&self, err: &mut dyn Write) -> io::Result<()> {
        for text in &self.troubles {
            writeln!(err, "pcidevs: {text}")?;
        }
        for (_, done) in &self.devices {
            if let Err(error) = done {
                writeln!(err, "pcidevs: {error}")?;
            }
        }
        if let Some(pending) = &self.pending {
            writeln!(err, "pcidevs: the guest has the devices, and was not seen to take them: {pending}")?;
        }
        self.error.iter().try_for_each(|error| writeln!(err, "pcidevs: {error}"))
    }
}

/// In one word, and in some.
fn state(state: AssignableState) -> (&'static str, String) {
    match state {
        AssignableState::Free => ("free", "free".into()),
        AssignableState::Exported(guest) => ("exported", format!("pciback export of domain {guest}")),
        AssignableState::Interrupted => (
            "interrupted",
            "interrupted: assignable-add goes on, assignable-remove brings back what the host had".into(),
        ),
        AssignableState::Vanished => ("vanished", "vanished".into()),
    }
}

fn assignable(one: &AssignableDevice) -> Value {
    let guest = match one.state {
        AssignableState::Exported(guest) => Some(guest.number()),
        _ => None,
    };
    json!({
        "address": one.device.to_string(),
        "state": state(one.state).0,
        "guest": guest,
        "driver": one.original.as_ref().map(DriverName::as_str),
        "name": one.name,
    })
}

fn exported((guest, devices): &(DomainId, Vec<Exported>)) -> Value {
    let device = |one: &Exported| {
        json!({
            "address": one.device.to_string(),
            "state": one.state as u8,
            "guest_address": one.guest_address,
        })
    };
    json!({ "guest": guest.number(), "devices": devices.iter().map(device).collect::<Vec<_>>() })
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
