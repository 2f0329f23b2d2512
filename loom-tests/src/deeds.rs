//! What those in a [`World`] may do, each on devices and guests drawn at random.
//!
//! Why something is refused is not looked at, but two things must not come: a panic, and, where no hook fails, the
//! failure of a hook.

use pcidevs::lifecycle::{TransitionError, Unplug, Visibility};
use pcidevs::platform::{AttachmentKind, ResetKind};
use pcidevs::{DomainId, Holder, Member, Owner, Sbdf};
use shuttle::rand::{Rng, thread_rng};

use crate::machine::reaches;
use crate::world::{
    ALL, BEHIND, BEHIND_TWO, BRIDGE, Deed, GROUP, GUESTS, PF, TWIN, TWIN_TWO, VF, VF_TWO, World,
};

/// Everything.
pub const ANYTHING: &[Deed] = &[
    assign,
    assign,
    assign,
    deassign,
    deassign,
    free,
    quarantine,
    repair,
    release, // whose it is
    add,
    add,
    remove,
    remove_all,
    gone,
    wait,
    cancel,
    hide, // whether it is there
    prepare,
    give_back_table,
    attach,
    access,
    hold, // interrupts, guests
    time_out,
    fault,
    reset,
    report_reset,
    unplug,
    open_group,
    run_deferred, // what happens to it
];

/// What an administrator of guests does.
pub const MOVES: &[Deed] = &[assign, assign, deassign, free, quarantine, release, run_deferred];

/// Devices come, and go.
pub const HOTPLUG: &[Deed] = &[add, add, remove, remove_all, gone, wait, cancel];

/// What a guest, its vCPUs and its devices do.
pub const TRAFFIC: &[Deed] = &[access, access, hold, attach, time_out, fault, unplug, run_deferred];

fn any<T: Copy>(of: &[T]) -> T {
    of[thread_rng().gen_range(0..of.len())]
}

fn chance() -> bool {
    thread_rng().r#gen()
}

fn guest() -> DomainId {
    any(&GUESTS)
}

fn device() -> Sbdf {
    any(&ALL)
}

/// One with requester IDs of its own, which may leave alone.
///
/// Not those behind the bridge: one of two that share an ID, leaving, counts on what it sees of the other, and that may
/// be leaving as well, or come back (docs/lifecycle.md, known limits).
fn lone() -> Sbdf {
    any(&[PF, VF, VF_TWO, TWIN, TWIN_TWO])
}

/// One device, two that need not have to do with each other, or two that have to go together.
fn set() -> Vec<Sbdf> {
    match thread_rng().gen_range(0..6) {
        0 => vec![BEHIND, BEHIND_TWO],
        1 => vec![TWIN, TWIN_TWO],
        2 => vec![VF, any(&[PF, VF_TWO, TWIN])],
        _ => vec![any(&[PF, VF, VF_TWO, TWIN, TWIN_TWO])],
    }
}

fn members(set: &[Sbdf]) -> Vec<Member> {
    set.iter().map(|at| Member::new(*at)).collect()
}

fn ended<T>(world: &World, what: impl FnOnce() -> String, became: &Result<T, TransitionError>) {
    if let Err(error @ TransitionError::Failed(_)) = became {
        assert!(world.machine.platform().injected() > 0, "no hook fails here: {error}");
    }
    world.tell(what, &became.as_ref().map(drop));
}

/// A set goes to a guest.
pub fn assign(world: &World) {
    let (set, guest) = (set(), guest());
    ended(world, || format!("assign {set:?} to {guest}"), &world.machine.assign(&members(&set), guest));
}

/// It comes back.
pub fn deassign(world: &World) {
    let (set, guest) = (set(), guest());
    let became = world.machine.deassign(&members(&set), Owner::Guest(guest));
    ended(world, || format!("deassign {set:?} from {guest}"), &became);
}

/// It comes out of quarantine.
pub fn free(world: &World) {
    let set = set();
    let became = world.machine.deassign(&members(&set), Owner::Quarantine);
    ended(world, || format!("free {set:?}"), &became);
}

/// It goes there.
pub fn quarantine(world: &World) {
    let set = set();
    ended(world, || format!("quarantine {set:?}"), &world.machine.quarantine(&members(&set)));
}

/// A device is repaired, if nothing is left of its DMA.
pub fn repair(world: &World) {
    let at = device();
    ended(world, || format!("repair {at}"), &world.machine.repair(at));
}

/// A guest ends.
pub fn release(world: &World) {
    let guest = guest();
    ended(world, || format!("release {guest}"), &world.release(guest));
}

/// A device is reported.
pub fn add(world: &World) {
    let at = device();
    ended(world, || format!("add {at}"), &world.add(at));
}

/// A device is removed.
pub fn remove(world: &World) {
    let at = lone();
    ended(world, || format!("remove {at}"), &world.machine.remove_device(at));
}

/// A card or what is behind a bridge is removed: all of it.
pub fn remove_all(world: &World) {
    if chance() {
        ended(world, || format!("remove slot {PF}"), &world.machine.remove_slot(PF));
    } else {
        ended(world, || format!("remove subtree {BRIDGE}"), &world.machine.remove_subtree(BRIDGE));
    }
}

/// A device is not there any more.
pub fn gone(world: &World) {
    let at = lone();
    ended(world, || format!("gone {at}"), &world.machine.report_gone(at));
}

/// A device is to be removed, and is looked at twice.
pub fn wait(world: &World) {
    let at = lone();
    match world.machine.begin_removal(at) {
        Ok(mut ticket) => {
            let became = ticket.try_complete();
            ended(world, || format!("first look at the ticket of {at}"), &became);
            if matches!(became, Ok(false)) {
                ended(world, || format!("last look at the ticket of {at}"), &ticket.try_complete());
            }
        }
        refused => ended(world, || format!("ticket of {at}"), &refused),
    }
}

/// A device is to be removed, and then not.
pub fn cancel(world: &World) {
    let at = lone();
    let became = world.machine.begin_removal(at).and_then(|ticket| ticket.cancel());
    ended(world, || format!("cancelled ticket of {at}"), &became);
}

/// A device is the hypervisor's.
pub fn hide(world: &World) {
    let at = any(&[TWIN, VF]);
    ended(world, || format!("hide {at}"), &world.machine.hide(at, Visibility::None));
}

/// The host takes the MSI-X table.
pub fn prepare(world: &World) {
    let at = device();
    ended(world, || format!("prepare {at}"), &world.machine.msi_prepare(at));
}

/// The host gives it back.
pub fn give_back_table(world: &World) {
    let at = device();
    ended(world, || format!("give back the table of {at}"), &world.machine.msi_release(at));
}

/// A guest sets up an MSI vector.
pub fn attach(world: &World) {
    let at = device();
    if let Ok(mut device) = world.machine.lock(at) {
        let vector = world.vectors.attachment(AttachmentKind::MsiVector);
        let refused = device.attach(vector).map_err(|error| error.reason);
        drop(device);
        if refused.is_err() {
            world.vectors.give_back();
        }
        world.tell(|| format!("attach to {at}"), &refused);
    }
}

/// A guest that sees a device has its DMA, and nobody else has.
pub fn access(world: &World) {
    let (at, guest) = (device(), guest());
    let Some(domain) = world.machine.domain(guest) else { return };
    let devices = world.machine.devices_of(Owner::Guest(guest)).expect("memory");
    for device in devices.iter().flat_map(|devices| devices.iter()).map(|device| device.address()).chain([at])
    {
        if let Ok(locked) = domain.lock(device) {
            let at = locked.address();
            let reached = reaches(&world.machine, at);
            assert_eq!(reached, Some(Owner::Guest(guest)), "{guest} sees {at}");
        }
    }
}

/// A backend uses a device for a while.
pub fn hold(world: &World) {
    let at = device();
    if let Ok(Some(hold)) = world.machine.hold(at, Holder::Named("backend"))
        && let Ok(mut device) = hold.lock()
    {
        device.register ^= 0x100;
        device.register ^= 0x100;
    }
}

/// A flush timed out.
pub fn time_out(world: &World) {
    let at = device();
    ended(world, || format!("flush timeout of {at}"), &world.machine.report_flush_timeout(at));
}

/// A device faults more than is good.
pub fn fault(world: &World) {
    let at = device();
    let last = (0..11).map(|_| world.machine.report_fault(at)).last();
    world.tell(|| format!("faults of {at}"), &last);
}

/// A device is reset.
pub fn reset(world: &World) {
    let at = device();
    ended(world, || format!("reset {at}"), &world.machine.reset(at, ResetKind::Flr));
}

/// The host has reset one.
pub fn report_reset(world: &World) {
    let at = device();
    ended(world, || format!("reset by the host {at}"), &world.machine.report_reset(at, ResetKind::Flr));
}

/// A guest is asked to let a device go, and answers.
pub fn unplug(world: &World) {
    let at = device();
    let answer = any(&[Unplug::Acked, Unplug::Acked, Unplug::Rejected, Unplug::TimedOut]);
    let asked = world.machine.request_unplug(at);
    let became = asked.and_then(|()| world.machine.unplug_answered(at, answer));
    ended(world, || format!("unplug {at}, {answer:?}"), &became);
}

/// Somebody opens the group, or closes it.
pub fn open_group(world: &World) {
    world.machine.platform().set_group_in_use(GROUP, chance());
}

/// What was deferred is tried.
pub fn run_deferred(world: &World) {
    let left = world.machine.run_deferred();
    world.tell(|| "left to be done".into(), &left);
}
