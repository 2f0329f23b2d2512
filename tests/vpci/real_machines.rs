//! Every function of every recorded machine behind the model, for a guest and for the host: what a walk finds is what
//! the contract lets it see, computed here from the recorded bytes alone.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pcidevs::address::Segment;
use pcidevs::topology::{Function as Recorded, Machine, ReadError};
use pcidevs::vpci::{Bar, BarKind, Function, PassThrough, PassThroughError, Viewer, VirtualFunction};
use pcidevs::{Member, Owner, Sbdf};

use crate::guest::Guest;
use crate::hardware::Hardware;
use crate::recorded::{Bytes, MSI, MSIX, REBAR, SRIOV, VENDOR};
use crate::recordings::{Config, shared_data};
use crate::walk::{SizedBar, Walker};

/// A recorded function, and what it is behind the model.
struct Case<'a> {
    recorded: &'a Recorded,
    bytes: Bytes,
    bars: BTreeMap<u8, Bar>,
    vf: Option<VirtualFunction>,
    hardware: Hardware,
}

impl<'a> Case<'a> {
    /// Of those with a whole header.
    fn of(machine: &'a Machine, recorded: &'a Recorded) -> Option<Self> {
        if recorded.config.len() < 64 {
            return None;
        }
        let bytes = Bytes::of(recorded);
        let (vf, bars) = match recorded.physfn {
            Some(pf) => {
                let (vf, bars) = virtual_function(machine, recorded, pf);
                (Some(vf), bars)
            }
            None => (None, bytes.bars(0x10, if bytes.is_bridge() { 2 } else { 6 }, 1 << 20)),
        };
        let mut bars: BTreeMap<u8, Bar> = bars.into_iter().map(|(slot, bar, _)| (slot, bar)).collect();
        for (slot, size) in bytes.resizable() {
            if let Some(bar) = bars.get_mut(&slot) {
                *bar = resized(*bar, size);
            }
        }
        let hardware = Hardware::new(&Config(recorded.config.clone()));
        Some(Self { recorded, bytes, bars, vf, hardware })
    }

    fn build(&self, viewer: Viewer, is_first: bool) -> Result<Function, PassThroughError> {
        let bars = std::array::from_fn(|slot| self.bars.get(&u8::try_from(slot).unwrap()).copied());
        let mut builder = PassThrough::new(viewer).resizable();
        if let Some(vf) = self.vf {
            builder = builder.virtual_function(vf);
        } else {
            builder = builder.bars(bars).virtual_bars(self.virtual_bars());
        }
        if is_first {
            builder = builder.multifunction();
        }
        builder.build(self.hardware.clone())
    }

    fn virtual_bars(&self) -> [Option<Bar>; 6] {
        let mut bars = [None; 6];
        if let Some((at, _)) = self.bytes.extended().iter().find(|(_, id)| *id == SRIOV) {
            for (slot, bar, _) in self.bytes.bars(usize::from(*at) + 0x24, 6, 1 << 16) {
                bars[usize::from(slot)] = Some(bar);
            }
        }
        bars
    }

    /// Its BARs as they are sized.
    fn sized(&self) -> Vec<SizedBar> {
        let sized = |(slot, bar): (&u8, &Bar)| {
            let register = match &self.vf {
                Some(_) => None,
                None => Some(self.bytes.u32(0x10 + 4 * usize::from(*slot))),
            };
            let flags = register.map(|register| register & if register & 1 == 1 { 3 } else { 0xf });
            SizedBar { slot: *slot, flags: flags.unwrap_or_else(|| flags_of(*bar)), size: bar.size() }
        };
        self.bars.iter().map(sized).collect()
    }

    /// The model takes what there is of resizable BARs only if it knows the size of the BAR: here it is made up.
    fn has_right_sizes(&self, at: u16) -> bool {
        let count = self.bytes.u32(usize::from(at) + 8) >> 5 & 7;
        (1..=6).contains(&count)
            && (0..count as usize).all(|entry| {
                let offered = u64::from(self.bytes.u32(usize::from(at) + 4 + 8 * entry) >> 4);
                let slot = u8::try_from(self.bytes.u32(usize::from(at) + 8 + 8 * entry) & 7).unwrap();
                self.bars
                    .get(&slot)
                    .is_some_and(|bar| bar.size() >= 1 << 20 && offered & bar.size() >> 20 != 0)
            })
    }
}

fn flags_of(bar: Bar) -> u32 {
    let is_64 = bar.kind() == BarKind::Memory64;
    u32::from(is_64) * 4 + u32::from(bar.is_prefetchable()) * 8
}

fn resized(bar: Bar, size: u64) -> Bar {
    let resized = match bar.kind() {
        BarKind::Memory64 => Bar::memory64(size),
        _ => Bar::memory32(size.try_into().unwrap()),
    };
    if flags_of(bar) & 8 != 0 { resized.prefetchable() } else { resized }
}

/// What a physical function says of a virtual one.
fn virtual_function(
    machine: &Machine,
    recorded: &Recorded,
    pf: Sbdf,
) -> (VirtualFunction, Vec<(u8, Bar, u64)>) {
    let bytes = Bytes::of(machine.function(pf).unwrap());
    let (at, _) = bytes.extended().into_iter().find(|(_, id)| *id == SRIOV).unwrap();
    let at = usize::from(at);
    let (offset, stride) = (u32::from(bytes.u16(at + 0x14)), u32::from(bytes.u16(at + 0x16)));
    let from_first = u32::from(recorded.address.bdf()) - u32::from(pf.bdf()) - offset;
    let index = from_first.checked_div(stride).unwrap_or(0);
    let bars = bytes.bars(at + 0x24, 6, 1 << 16);
    let vf = VirtualFunction::new(bytes.u16(0), bytes.u16(at + 0x1a));
    let vf = bars
        .iter()
        .fold(vf, |vf, (slot, bar, first)| vf.bar(*slot, *bar, first + u64::from(index) * bar.size()));
    (vf, bars)
}

/// All machines that are there, by name.
fn machines() -> Vec<(String, Machine)> {
    let mut machines = vec![("bundled".into(), Machine::bundled().unwrap())];
    let Some(folder) = shared_data() else { return machines };
    for file in files(&folder) {
        match Machine::read(&file) {
            Ok(machine) => machines.push((file.display().to_string(), machine)),
            Err(ReadError::UnknownFormat | ReadError::NoFunctions(_)) => {}
            Err(error) => panic!("{}: {error}", file.display()),
        }
    }
    machines
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// What has a header that is modelled; the others are refused, for the reason they have.
fn built(machine: &Machine, viewer: Viewer) -> Vec<(Case<'_>, bool)> {
    let cases: Vec<_> = machine.functions.iter().filter_map(|recorded| Case::of(machine, recorded)).collect();
    let is_built = |case: &Case<'_>| {
        let outcome = case.build(viewer, false);
        let header = case.bytes.u8(0xe) & 0x7f;
        let is_dead = case.recorded.config.iter().all(|byte| *byte == 0xff);
        let expected = if is_dead || case.bytes.u16(0) == 0xffff && case.vf.is_none() {
            Some(PassThroughError::Absent)
        } else if header > 1 {
            Some(PassThroughError::HeaderType(header))
        } else {
            None
        };
        assert_eq!(outcome.as_ref().err(), expected.as_ref(), "{}", case.recorded.address);
        outcome.is_ok()
    };
    cases.into_iter().map(|case| (is_built(&case), case)).map(|(built, case)| (case, built)).collect()
}

/// Puts a function at this place; own addresses do not matter to who walks.
fn place(guest: &Guest, at: Sbdf, function: Function) {
    let own = Sbdf::from_bdf(Segment::new(1), at.bdf());
    guest.registry.add(own, Some(function)).unwrap();
    guest.registry.move_devices(&[Member::at(own, at)], Owner::Guest(guest.domain.id())).unwrap();
}

/// Gives a guest all functions of a machine: those of one device are one device to it, each device has the next slot.
fn seen_by_guest(cases: &[(Case<'_>, bool)]) -> (Guest, Vec<(Sbdf, usize)>) {
    let mut devices: BTreeMap<Sbdf, Vec<usize>> = BTreeMap::new();
    for (index, (case, _)) in cases.iter().enumerate().filter(|(_, (_, is_built))| *is_built) {
        let address = case.recorded.address;
        devices.entry(Sbdf::from_bdf(address.segment(), address.bdf() & !7)).or_default().push(index);
    }
    let (guest, mut placed) = (Guest::new(), Vec::new());
    for (slot, functions) in (0_u16..).zip(devices.values()) {
        for (function, index) in (0_u16..).zip(functions) {
            let at = Sbdf::from_bdf(Segment::new(0), slot << 3 | function);
            let is_first = function == 0 && functions.len() > 1;
            place(&guest, at, cases[*index].0.build(Viewer::Guest, is_first).unwrap());
            placed.push((at, *index));
        }
    }
    (guest, placed)
}

#[test]
fn a_guest_finds_what_the_contract_lets_it_see() {
    let mut total = (0, 0, 0, 0, 0);
    for (name, machine) in machines() {
        let cases = built(&machine, Viewer::Guest);
        let (guest, placed) = seen_by_guest(&cases);
        let mut walker = Walker::new(&guest);
        let last = placed.last().map_or(0, |(at, _)| at.bus().number());
        let expected: Vec<Sbdf> = placed.iter().map(|(at, _)| *at).collect();
        assert_eq!(walker.probe(0..=last.saturating_add(1)), expected, "{name}");
        for (at, index) in &placed {
            let case = &cases[*index].0;
            let what = format!("{name}: {}", case.recorded.address);
            check_guest_header(&mut walker, *at, case, &what);
            assert_eq!(walker.size_bars(*at), case.sized(), "{what}");
            let modelled = case.bytes.modelled(&case.bars);
            assert_eq!(walker.capabilities(*at), modelled, "{what}");
            let rebar = case.bytes.extended().into_iter().find(|(_, id)| *id == REBAR);
            let rebar = rebar.filter(|(place, _)| case.has_right_sizes(*place));
            let shown: Vec<_> =
                walker.extended_capabilities(*at).into_iter().filter(|(_, id)| *id != 0).collect();
            assert_eq!(shown, rebar.into_iter().collect::<Vec<_>>(), "{what}");
            check_hidden(&mut walker, *at, &modelled, rebar.is_some(), &what);
            let (functions, bars, capabilities, hidden, resizable) = total;
            let all = case.bytes.capabilities().len() + case.bytes.extended().len();
            total = (
                functions + 1,
                bars + case.bars.len(),
                capabilities + modelled.len(),
                hidden + all - modelled.len(),
                resizable + usize::from(rebar.is_some()),
            );
        }
    }
    println!("functions, BARs, capabilities shown, hidden, ReBAR shown: {total:?}");
    assert!(total.0 >= 59 && total.2 > 100 && total.3 > 50, "{total:?}");
}

fn check_guest_header(walker: &mut Walker, at: Sbdf, case: &Case<'_>, what: &str) {
    let bytes = &case.bytes;
    let ids = match case.vf {
        Some(vf) => u32::from(vf.vendor()) | u32::from(vf.device()) << 16,
        None => bytes.u32(0),
    };
    assert_eq!(walker.read::<4>(at, 0), ids, "{what}");
    assert_eq!(walker.read::<4>(at, 8), bytes.u32(8), "{what}: class and revision");
    assert_eq!(walker.read::<2>(at, 4), 0, "{what}: everything is off");
    assert_eq!(walker.read::<1>(at, 0xe) & 0x7f, u32::from(bytes.u8(0xe) & 0x7f), "{what}");
    let pin = if case.vf.is_some() { 0 } else { u32::from(bytes.u8(0x3d)) };
    let pin = if pin > 4 { 0 } else { pin };
    assert_eq!(walker.read::<1>(at, 0x3d), pin, "{what}");
    if !bytes.is_bridge() {
        assert_eq!(walker.read::<4>(at, 0x2c), bytes.u32(0x2c), "{what}: subsystem");
    }
}

/// Behind the header, and outside the capabilities it is shown, a guest reads ones.
fn check_hidden(walker: &mut Walker, at: Sbdf, shown: &[(u16, u8)], resizes: bool, what: &str) {
    // No capability is longer; what is right behind one is another's check.
    let is_near = |offset: u16| shown.iter().any(|(start, _)| (*start..start + 0x3c).contains(&offset));
    for offset in (0x40..0x100).step_by(4).filter(|offset| !is_near(*offset)) {
        let is_vendor = shown.iter().any(|(start, id)| *id == VENDOR && *start < offset);
        assert!(is_vendor || walker.read::<4>(at, offset) == u32::MAX, "{what}: {offset:#x}");
    }
    if !resizes {
        assert_eq!(walker.read::<4>(at, 0x100), 0, "{what}: an empty list");
        for offset in (0x104..0x1000).step_by(4) {
            assert_eq!(walker.read::<4>(at, offset), u32::MAX, "{what}: {offset:#x}");
        }
    }
}

#[test]
fn the_host_finds_its_hardware() {
    let mut total = (0, 0, 0, 0);
    for (name, machine) in machines() {
        let cases = built(&machine, Viewer::Host);
        for segment in machine.segments() {
            let guest = Guest::new();
            let mut expected = Vec::new();
            let here = |case: &Case<'_>| case.recorded.address.segment() == segment;
            let here: Vec<_> = cases.iter().filter(|(case, is_built)| *is_built && here(case)).collect();
            let identity = |bdf: u16| {
                here.iter().find(|(case, _)| case.recorded.address.bdf() == bdf).map(|(case, _)| &case.bytes)
            };
            for (case, _) in &here {
                let at = Sbdf::from_bdf(Segment::new(0), case.recorded.address.bdf());
                place(&guest, at, case.build(Viewer::Host, false).unwrap());
                let first = identity(at.bdf() & !7).filter(|bytes| bytes.u16(0) != 0xffff);
                let is_probed =
                    first.is_some_and(|first| at.bdf().trailing_zeros() >= 3 || first.u8(0xe) & 0x80 != 0);
                if is_probed && case.bytes.u16(0) != 0xffff {
                    expected.push(at);
                }
            }
            let mut walker = Walker::new(&guest);
            assert_eq!(walker.probe(0..=255), expected, "{name}: {segment}");
            for (case, _) in here {
                let at = Sbdf::from_bdf(Segment::new(0), case.recorded.address.bdf());
                let what = format!("{name}: {}", case.recorded.address);
                let (shown, skipped) = check_host(&mut walker, at, case, &what);
                let (functions, probed, all_shown, all_skipped) = total;
                total = (functions + 1, probed, all_shown + shown, all_skipped + skipped);
            }
            total.1 += expected.len();
        }
    }
    println!("functions, probed, capabilities shown, skipped: {total:?}");
    assert!(total.0 >= 59 && total.1 >= 22 && total.2 > 200, "{total:?}");
}

/// How many capabilities are shown and skipped.
fn check_host(walker: &mut Walker, at: Sbdf, case: &Case<'_>, what: &str) -> (usize, usize) {
    let bytes = &case.bytes;
    let modelled = bytes.modelled(&case.bars);
    let all = bytes.capabilities();
    let is_shown =
        |capability: &(u16, u8)| ![MSI, MSIX].contains(&capability.1) || modelled.contains(capability);
    let expected: Vec<_> = all.iter().copied().filter(is_shown).collect();
    let shown = walker.capabilities(at);
    assert_eq!(shown, expected, "{what}");
    let mut seen = shown.len();
    let mut trapped: Vec<std::ops::Range<u16>> = vec![4..8, 0x34..0x35];
    if case.vf.is_none() {
        trapped.push(0x10..if bytes.is_bridge() { 0x18 } else { 0x28 });
    }
    trapped.extend(all.iter().map(|(at, _)| *at..at + 2));
    for (start, id) in modelled.iter().filter(|(_, id)| [MSI, MSIX].contains(id)) {
        trapped.push(*start..start + bytes.length((*start, *id), &case.bars).unwrap());
    }
    let extended = bytes.extended();
    let is_shown = |(start, id): &(u16, u16)| *id != REBAR || case.has_right_sizes(*start);
    let expected: Vec<_> = extended.iter().copied().filter(is_shown).collect();
    if bytes.has_extended() {
        let shown: Vec<_> = walker.extended_capabilities(at).into_iter().filter(|(_, id)| *id != 0).collect();
        assert_eq!(shown, expected, "{what}");
        seen += shown.len();
        trapped.extend(extended.iter().map(|(start, _)| *start..start + 4));
        trapped.push(0x100..0x104);
    }
    let resizable = expected.iter().filter(|(_, id)| *id == REBAR);
    trapped.extend(resizable.map(|(start, _)| *start..start + 0x34));
    for offset in (0_u16..0x1000).filter(|offset| !trapped.iter().any(|range| range.contains(offset))) {
        assert_eq!(walker.read::<1>(at, offset), u32::from(bytes.u8(offset.into())), "{what}: {offset:#x}");
    }
    // Its BARs are where they were.
    for slot in case.bars.keys().filter(|_| case.vf.is_none()) {
        let register = 0x10 + 4 * u16::from(*slot);
        assert_eq!(walker.read::<4>(at, register), bytes.u32(register.into()), "{what}: BAR {slot}");
    }
    let command = u32::from(bytes.u16(4)) & if case.vf.is_some() { 4 } else { 0x077f };
    assert_eq!(
        walker.read::<2>(at, 4) & if case.vf.is_some() { 4 } else { 0xffff },
        command,
        "{what}: command"
    );
    (seen, all.len() + extended.len() - seen.min(all.len() + extended.len()))
}
