//! One operation on the tool stack.

use pcidevs::xen::assignable::{Added, Afterwards};
use pcidevs::xen::manager::{Waiting, XenError, XenManager};
use pcidevs::{DomainId, Owner, Sbdf};

use super::print::Report;
use super::{Add, Attach, Command, Detach, List, Remove, wanted};

/// What came of it, or why nothing did.
type Done = Result<Report, String>;

/// Carries the command out. `expect` is told the guest of an attach before it is looked for.
pub(super) fn carry_out(command: &Command, manager: &XenManager, expect: &dyn Fn(DomainId)) -> Report {
    let done = match command {
        Command::AssignableAdd(options) => Ok(add(manager, options)),
        Command::AssignableRemove(options) => Ok(remove(manager, options)),
        Command::AssignableList(_) => {
            manager.assignable().map(Report::assignable).map_err(|error| error.to_string())
        }
        Command::Attach(options) => attach(manager, options, expect),
        Command::Detach(options) => detach(manager, options, expect),
        Command::List(options) => list(manager, options),
    };
    let mut report = done.unwrap_or_else(Report::refused);
    report.troubles = manager.troubles().to_vec();
    report
}

/// Each device by itself: one that cannot does not keep the others.
fn add(manager: &XenManager, Add { name, devices, .. }: &Add) -> Report {
    if name.is_some() && devices.len() > 1 {
        return Report::refused("a name is one device's".into());
    }
    let mut report = Report::default();
    for device in devices {
        let said = |added| if added == Added::Before { "is assignable already" } else { "is assignable" };
        let added = manager.assignable_add(*device, name.as_deref());
        report.device(*device, added.map(|added| said(added).to_owned()));
    }
    report
}

fn remove(manager: &XenManager, Remove { leave_unbound, devices, .. }: &Remove) -> Report {
    let afterwards = if *leave_unbound { Afterwards::LeaveUnbound } else { Afterwards::Rebind };
    let mut report = Report::default();
    for device in devices {
        let removed = manager.assignable_remove(*device, afterwards).map(|driver| match driver {
            Some(driver) => format!("is with {driver} again"),
            None => "has no driver".to_owned(),
        });
        report.device(*device, removed);
    }
    report
}

fn attach(manager: &XenManager, options: &Attach, expect: &dyn Fn(DomainId)) -> Done {
    let guest = wanted::guest(manager, &options.guest)?;
    expect(guest);
    let (mut set, mut seized) = (Vec::new(), Vec::new());
    for spec in &options.devices {
        let exports = wanted::exports(manager, spec)?;
        if spec.seize == Some(true) {
            seized.extend(exports.iter().map(|export| export.device));
        }
        set.extend(exports);
    }
    let mut taken = Vec::new();
    for device in seized {
        if manager.owner(device) == Some(Owner::Host) {
            match manager.assignable_add(device, None) {
                Ok(_) => taken.push(device),
                Err(error) => return Err(give_back(manager, &taken, &error)),
            }
        }
    }
    let waiting = if options.wait { Waiting::UntilConnected } else { Waiting::No };
    match manager.attach(guest, &set, waiting) {
        Ok(attached) => {
            let mut report = Report::default();
            for export in &set {
                report.device(export.device, Ok(format!("is domain {guest}'s")));
            }
            report.pending = attached.pending.map(|pending| pending.to_string());
            Ok(report)
        }
        Err(error) => Err(give_back(manager, &taken, &error)),
    }
}

/// What was seized for a guest that does not get it goes back.
fn give_back(manager: &XenManager, taken: &[Sbdf], error: &XenError) -> String {
    let given = taken.iter().filter_map(|device| {
        let error = manager.assignable_remove(*device, Afterwards::Rebind).err()?;
        Some(format!("; giving {device} back: {error}"))
    });
    std::iter::once(error.to_string()).chain(given).collect()
}

fn detach(manager: &XenManager, options: &Detach, expect: &dyn Fn(DomainId)) -> Done {
    let guest = wanted::guest(manager, &options.guest)?;
    expect(guest);
    let mut set = Vec::new();
    for spec in &options.devices {
        let of_guest = |device: &Sbdf| {
            // `*` means those that it has.
            spec.addresses().len() == 1 || manager.owner(*device) == Some(Owner::Guest(guest))
        };
        set.extend(wanted::devices(manager, spec)?.into_iter().filter(of_guest));
    }
    let mut report = Report::default();
    if options.all {
        match manager.release(guest) {
            Ok(released) => {
                for device in released.devices {
                    report.device(device, Ok("is assignable; its guest does not run any more".into()));
                }
                if !released.by_driver {
                    report.troubles.push("the driver has not said that it let the devices go".into());
                }
                return Ok(report);
            }
            // It runs: it has to let go.
            Err(XenError::Alive(_)) => {
                let exports = manager.exports().map_err(|error| error.to_string())?;
                let theirs = exports.into_iter().filter(|(owner, _)| *owner == guest);
                set = theirs.flat_map(|(_, devices)| devices).map(|one| one.device).collect();
            }
            Err(error) => return Err(error.to_string()),
        }
    }
    manager.detach(guest, &set).map_err(|error| error.to_string())?;
    for device in set {
        report.device(device, Ok("is assignable".into()));
    }
    Ok(report)
}

fn list(manager: &XenManager, List { guest, .. }: &List) -> Done {
    let only = guest.as_deref().map(|text| wanted::guest(manager, text)).transpose()?;
    let mut exports = manager.exports().map_err(|error| error.to_string())?;
    exports.retain(|(guest, _)| only.is_none_or(|only| only == *guest));
    Ok(Report::exports(exports))
}
