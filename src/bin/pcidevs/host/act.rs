//! One operation on the host manager.

use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use pcidevs::Sbdf;
use pcidevs::host::{
    Attachable, DriverChoice, Guarding, GuestName, HostError, HostManager, HostStatus, Kernel,
    NetworkIdentity, Released, Store,
};

use super::print::Report;
use super::{Attach, Command, Detach, Reattach, Release};

/// What came of it, or why nothing did.
type Done = Result<Report, String>;

/// How long something may take before it is said what that is.
const PATIENCE: Duration = Duration::from_secs(2);

/// Carries the command out, and says on stderr what takes long.
pub(super) fn carry_out(command: &Command, manager: &HostManager, is_copy: bool) -> Report {
    let (done, end) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut told = Vec::new();
            while end.recv_timeout(PATIENCE / 4) == Err(RecvTimeoutError::Timeout) {
                for (device, what, since) in manager.under_way() {
                    if since >= PATIENCE && !told.contains(&what) {
                        eprintln!("pcidevs: {device}: still waiting for the kernel: {what}");
                        told.push(what);
                    }
                }
            }
        });
        let report = act(command, manager, is_copy);
        // Its end is what the other thread hears.
        drop(done);
        report
    })
}

/// A copy of a machine does not change by itself, so there is nothing to wait for.
fn act(command: &Command, manager: &HostManager, is_copy: bool) -> Report {
    let patience = |seconds: u32| if is_copy { Duration::ZERO } else { Duration::from_secs(seconds.into()) };
    let done = match command {
        Command::Detach(Detach { driver, force, devices }) => {
            done(manager.detach(&devices.devices, driver, guarding(*force)))
        }
        Command::Attach(options) => attach(manager, options),
        Command::Release(Release { guest, manager: of, reattach: Reattach { wait, devices } }) => {
            name(of, guest).and_then(|guest| {
                let released = manager.release(&devices.devices, &guest);
                released.map_err(said).and_then(|released| wait_for(manager, released, patience(*wait)))
            })
        }
        Command::Reattach(Reattach { wait, devices }) => {
            let released = manager.reattach(&devices.devices);
            released.map_err(said).and_then(|released| wait_for(manager, released, patience(*wait)))
        }
        Command::Adopt(devices) => done(manager.adopt(&devices.devices)),
        Command::Reset(devices) => done(devices.devices.iter().try_for_each(|device| manager.reset(*device))),
        Command::Repair(devices) => {
            done(devices.devices.iter().try_for_each(|device| manager.repair(*device)))
        }
        Command::Recover(_) | Command::Status(_) => Ok(Report::default()),
    };
    let mut report = done.unwrap_or_else(Report::refused);
    if report.is_whole() {
        report.moved = moved(command, manager);
    }
    report
}

/// Where the devices of a command are that has succeeded, if it does not say so itself.
fn moved(command: &Command, manager: &HostManager) -> Vec<HostStatus> {
    let devices = match command {
        Command::Detach(Detach { devices, .. })
        | Command::Attach(Attach { detach: Detach { devices, .. }, .. })
        | Command::Adopt(devices)
        | Command::Repair(devices)
        | Command::Reset(devices) => &devices.devices,
        _ => return Vec::new(),
    };
    devices.iter().filter_map(|device| manager.status(*device)).collect()
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn said(error: HostError) -> String {
    error.to_string()
}

fn done(result: Result<(), HostError>) -> Done {
    result.map(|()| Report::default()).map_err(said)
}

fn guarding(force: bool) -> Guarding {
    if force { Guarding::Off } else { Guarding::On }
}

fn name(manager: &str, guest: &str) -> Result<GuestName, String> {
    GuestName::new(manager, guest).map_err(|error| error.to_string())
}

fn attach(manager: &HostManager, options: &Attach) -> Done {
    let Detach { driver, force, devices } = &options.detach;
    let guest = name(&options.manager, &options.guest)?;
    let identity = match (options.mac, options.vlan) {
        (None, None) => None,
        // Two devices with one address would not both be heard.
        _ if devices.devices.len() != 1 => {
            return Err("--mac and --vlan are of one device: attach it alone".into());
        }
        (mac, vlan) => Some(NetworkIdentity::new(mac, vlan).map_err(|error| error.to_string())?),
    };
    let wanted = devices.devices.iter().map(|device| Attachable {
        address: *device,
        managed: !options.unmanaged,
        driver: DriverChoice::Configured(driver.clone()),
        network: identity,
    });
    done(manager.attach(&wanted.collect::<Vec<_>>(), &guest, guarding(*force)))
}

/// Waits for what could not go back at once.
fn wait_for(manager: &HostManager, mut released: Released, patience: Duration) -> Done {
    if !released.deferred.is_empty() && !patience.is_zero() {
        for device in &released.deferred {
            let seconds = patience.as_secs();
            eprintln!("pcidevs: {device}: waiting for its group, {seconds} seconds at most");
        }
        let mut later = manager.wait_for_deferred(patience).map_err(said)?;
        released.returned.append(&mut later.returned);
        released.failures.append(&mut later.failures);
        released.failed.append(&mut later.failed);
        // What is not deferred any more has gone back, in this attempt or an earlier one.
        let (deferred, returned): (Vec<Sbdf>, Vec<Sbdf>) =
            released.deferred.iter().partition(|device| later.deferred.contains(device));
        let is_new = |device: &Sbdf| {
            !released.returned.contains(device) && released.failed.iter().all(|(failed, _)| failed != device)
        };
        let returned: Vec<Sbdf> = returned.into_iter().filter(is_new).collect();
        released.returned.extend(returned);
        released.deferred = deferred;
    }
    Ok(Report::released(released))
}

/// Looks, without a lock.
pub(super) fn status(
    kernel: Arc<dyn Kernel>,
    store: Arc<dyn Store>,
    devices: &[Sbdf],
) -> Result<Report, HostError> {
    let (manager, recovery) = HostManager::observe(kernel, store)?;
    let mut list = manager.list()?;
    if let Some(missing) = devices.iter().find(|device| list.iter().all(|known| known.address != **device)) {
        return Err(HostError::NotFound(*missing));
    }
    list.retain(|known| devices.is_empty() || devices.contains(&known.address));
    let mut report = Report::status(list);
    report.recovered(&recovery);
    Ok(report)
}
