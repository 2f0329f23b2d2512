//! The BAR map, rule by rule.

use pcidevs::vpci::{
    AddressRange, BarId, BarMap, BarMapError, BarSpace, Bars, Change, Piece, Reason, Refusal, Region,
};
use pcidevs::{Errno, Sbdf};

const NIC: Sbdf = Sbdf::from_u32(0x0100);
const GPU: Sbdf = Sbdf::from_u32(0x0200);
const DISK: Sbdf = Sbdf::from_u32(0x0300);

/// Everything is a window.
fn map() -> BarMap {
    BarMap::new(&[AddressRange::memory(0..=u64::MAX), AddressRange::io(0..=u64::MAX)], &[]).unwrap()
}

fn bar(bar: u8, base: u64, size: u64) -> Region<'static> {
    Region { bar, space: BarSpace::Memory, base, size, holes: &[] }
}

fn ports(bar: u8, base: u64, size: u64) -> Region<'static> {
    Region { bar, space: BarSpace::Io, base, size, holes: &[] }
}

fn enable(map: &mut BarMap, device: Sbdf, regions: &[Region<'_>]) {
    assert_eq!(map.enable(device, regions), Ok(vec![]));
}

/// A piece of a memory BAR that begins at `base`, from one guest address to before another.
fn piece(device: Sbdf, bar: u8, base: u64, from: u64, to: u64) -> Piece {
    let id = BarId { device, bar };
    Piece { id, offset: from - base, space: BarSpace::Memory, base: from, length: to - from }
}

fn changes(map: &mut BarMap) -> Vec<Change> {
    std::iter::from_fn(|| map.next_change()).collect()
}

fn at(map: &BarMap, address: u64) -> Option<(Sbdf, u64)> {
    map.at(BarSpace::Memory, address).map(|(id, offset)| (id.device, offset))
}

#[test]
fn an_enabled_bar_is_mapped_once_and_answers_from_its_first_byte_to_its_last() {
    let mut map = map();
    enable(&mut map, NIC, &[bar(0, 0x1000, 0x100)]);
    assert_eq!(changes(&mut map), [Change::Map(piece(NIC, 0, 0x1000, 0x1000, 0x1100))]);
    assert_eq!(changes(&mut map), []);
    assert_eq!(
        [0xfff, 0x1000, 0x10ff, 0x1100].map(|address| at(&map, address)),
        [None, Some((NIC, 0)), Some((NIC, 0xff)), None]
    );
    map.disable(NIC, Bars::All);
    assert_eq!(at(&map, 0x1000), None);
    assert_eq!(changes(&mut map), [Change::Unmap(piece(NIC, 0, 0x1000, 0x1000, 0x1100))]);
    assert_eq!(map.in_place().count(), 0);
}

#[test]
fn what_is_enabled_is_counted_and_what_is_refused_is_not() {
    let mut map = BarMap::new(&[AddressRange::memory(0x1000..=0x1fff)], &[]).unwrap();
    assert_eq!((map.len(), map.is_empty(), map.has(NIC)), (0, true, false));
    assert_eq!(map.enable(NIC, &[bar(0, 0x8000, 16)]).unwrap().len(), 1);
    assert_eq!((map.len(), map.is_empty(), map.has(NIC)), (0, true, false));
    enable(&mut map, NIC, &[bar(0, 0x1000, 16), bar(1, 0x1100, 16)]);
    // Covered it is enabled all the same.
    enable(&mut map, GPU, &[bar(0, 0x1000, 16)]);
    assert_eq!((map.len(), map.is_empty()), (3, false));
    assert_eq!([NIC, GPU, DISK].map(|device| map.has(device)), [true, true, false]);
    map.disable(NIC, Bars::One(0));
    assert_eq!((map.len(), map.has(NIC)), (2, true));
    map.disable(NIC, Bars::One(1));
    assert_eq!((map.len(), map.has(NIC), map.is_empty()), (1, false, false));
    map.disable(GPU, Bars::All);
    assert_eq!((map.len(), map.has(GPU), map.is_empty()), (0, false, true));
}

#[test]
fn a_bar_outside_the_windows_is_refused_and_the_others_are_mapped() {
    // Windows that touch are one, and so is one with what is in it.
    let windows = [0x3000..=0x3fff, 0x1000..=0x2fff, 0x1100..=0x11ff].map(AddressRange::memory);
    let mut map = BarMap::new(&windows, &[]).unwrap();
    let regions = [
        bar(0, 0xfff, 2),
        bar(1, 0x2f00, 0x200),
        bar(2, 0x3fff, 2),
        ports(3, 0x2000, 4),
        bar(4, 0x3fff, 1),
        bar(5, 0x8000, 1),
    ];
    let refusals = map.enable(NIC, &regions).unwrap();
    let outside = |bar| Refusal { id: BarId { device: NIC, bar }, reason: Reason::OutsideWindows };
    assert_eq!(refusals, [0, 2, 3, 5].map(outside));
    let expected = [piece(NIC, 1, 0x2f00, 0x2f00, 0x3100), piece(NIC, 4, 0x3fff, 0x3fff, 0x4000)];
    assert_eq!(changes(&mut map), expected.map(Change::Map));
    assert_eq!(at(&map, 0xfff), None);
    assert_eq!(
        refusals[0].to_string(),
        "BAR 0 of 0000:01:00.0 is not mapped: not all of it is in the host bridge's windows"
    );
    assert_eq!(refusals[0].errno(), Errno::EINVAL);
}

#[test]
fn a_bar_over_ram_or_ecam_is_refused() {
    let reserved = [
        AddressRange::memory(0..=0x7fff),
        AddressRange::memory(0xe000..=0xefff),
        // Nothing.
        AddressRange::memory(core::ops::RangeInclusive::new(0x9001, 0x9000)),
    ];
    let mut map = BarMap::new(&[AddressRange::memory(0x4000..=0xffff)], &reserved).unwrap();
    let regions = [
        bar(0, 0x4000, 0x10),
        bar(1, 0x7fff, 2),
        bar(2, 0x8000, 0x10),
        bar(3, 0xefff, 0x10),
        bar(4, 0xd000, 0x3000),
        bar(5, 0x9000, 0x10),
    ];
    let refused: Vec<_> =
        map.enable(NIC, &regions).unwrap().iter().map(|refusal| (refusal.id.bar, refusal.reason)).collect();
    assert_eq!(refused, [0, 1, 3, 4].map(|bar| (bar, Reason::Reserved)));
    assert_eq!(map.visible().map(|piece| piece.id.bar).collect::<Vec<_>>(), [2, 5]);
}

#[test]
fn a_refused_bar_can_be_enabled_elsewhere() {
    let mut map = BarMap::new(&[AddressRange::memory(0x1000..=0x1fff)], &[]).unwrap();
    assert_eq!(map.enable(NIC, &[bar(0, 0, 16)]).unwrap().len(), 1);
    assert_eq!(changes(&mut map), []);
    enable(&mut map, NIC, &[bar(0, 0x1000, 16)]);
    assert_eq!(changes(&mut map), [Change::Map(piece(NIC, 0, 0x1000, 0x1000, 0x1010))]);
}

#[test]
fn a_bar_that_is_enabled_already_refuses_all() {
    let mut map = map();
    enable(&mut map, NIC, &[bar(0, 0x1000, 16)]);
    let id = |bar| BarId { device: NIC, bar };
    let again = map.enable(NIC, &[bar(1, 0x2000, 16), bar(0, 0x3000, 16)]).unwrap_err();
    assert_eq!((again, again.errno()), (BarMapError::AlreadyEnabled(id(0)), Errno::EEXIST));
    let twice = map.enable(NIC, &[bar(1, 0x2000, 16), bar(1, 0x3000, 16)]);
    assert_eq!(twice, Err(BarMapError::AlreadyEnabled(id(1))));
    assert_eq!(map.visible().collect::<Vec<_>>(), [piece(NIC, 0, 0x1000, 0x1000, 0x1010)]);
}

#[test]
fn the_bar_enabled_first_answers_and_the_later_one_is_cut() {
    let mut map = map();
    enable(&mut map, NIC, &[bar(0, 0x1000, 0x1000)]);
    enable(&mut map, GPU, &[bar(0, 0x0800, 0x2000)]);
    let expected = [
        piece(GPU, 0, 0x800, 0x800, 0x1000),
        piece(NIC, 0, 0x1000, 0x1000, 0x2000),
        piece(GPU, 0, 0x800, 0x2000, 0x2800),
    ];
    assert_eq!(changes(&mut map), expected.map(Change::Map));
    assert_eq!(map.visible().collect::<Vec<_>>(), expected);
    assert_eq!(at(&map, 0x1004), Some((NIC, 4)));
    assert_eq!(at(&map, 0x2004), Some((GPU, 0x1804)));
}

#[test]
fn what_the_first_one_covered_appears_when_it_is_disabled_and_nothing_else_changes() {
    let mut map = map();
    enable(&mut map, NIC, &[bar(0, 0x1000, 0x1000)]);
    enable(&mut map, GPU, &[bar(0, 0x0800, 0x2000)]);
    let _ = changes(&mut map);
    map.disable(NIC, Bars::All);
    assert_eq!(
        changes(&mut map),
        [
            Change::Unmap(piece(NIC, 0, 0x1000, 0x1000, 0x2000)),
            Change::Map(piece(GPU, 0, 0x800, 0x1000, 0x2000)),
        ]
    );
    // Enabled again it is the later one.
    enable(&mut map, NIC, &[bar(0, 0x1000, 0x1000)]);
    assert_eq!(changes(&mut map), []);
    map.disable(GPU, Bars::All);
    assert_eq!(
        changes(&mut map),
        [
            Change::Unmap(piece(GPU, 0, 0x800, 0x800, 0x2800)),
            Change::Map(piece(NIC, 0, 0x1000, 0x1000, 0x2000)),
        ]
    );
}

#[test]
fn the_second_of_three_appears_before_the_third() {
    let mut map = map();
    for device in [NIC, GPU, DISK] {
        enable(&mut map, device, &[bar(0, 0x1000, 0x1000)]);
    }
    for (leaves, answers) in [(NIC, GPU), (GPU, DISK)] {
        map.disable(leaves, Bars::All);
        assert_eq!(at(&map, 0x1000), Some((answers, 0)));
    }
}

#[test]
fn the_bars_of_one_device_overlap_in_their_order() {
    let mut map = map();
    enable(&mut map, NIC, &[bar(2, 0x1000, 0x20), bar(0, 0x1010, 0x20)]);
    let expected = [piece(NIC, 2, 0x1000, 0x1000, 0x1020), piece(NIC, 0, 0x1010, 0x1020, 0x1030)];
    assert_eq!(changes(&mut map), expected.map(Change::Map));
    map.disable(NIC, Bars::One(2));
    assert_eq!(
        changes(&mut map),
        [
            Change::Unmap(piece(NIC, 2, 0x1000, 0x1000, 0x1020)),
            Change::Map(piece(NIC, 0, 0x1010, 0x1010, 0x1020)),
        ]
    );
}

#[test]
fn a_hole_is_not_mapped_and_belongs_to_its_bar() {
    let mut map = map();
    let holes = [0x10..0x20, 0x20..0x30, 0xf8..0x200, 5..5, 0x400..u64::MAX];
    enable(&mut map, NIC, &[Region { holes: &holes, ..bar(0, 0x1000, 0x100) }]);
    let expected = [piece(NIC, 0, 0x1000, 0x1000, 0x1010), piece(NIC, 0, 0x1000, 0x1030, 0x10f8)];
    assert_eq!(changes(&mut map), expected.map(Change::Map));
    assert_eq!(at(&map, 0x1018), Some((NIC, 0x18)));
    assert_eq!(map.visible().collect::<Vec<_>>(), [piece(NIC, 0, 0x1000, 0x1000, 0x1100)]);
}

#[test]
fn a_hole_is_cut_out_of_the_bars_of_others_and_the_first_one_answers_in_it() {
    let mut map = map();
    enable(&mut map, NIC, &[bar(0, 0x1000, 0x1000)]);
    let _ = changes(&mut map);
    let holes = [0..0x100, 0x1000..0x1100];
    enable(&mut map, GPU, &[Region { holes: &holes, ..bar(0, 0x1800, 0x2000) }]);
    enable(&mut map, DISK, &[bar(0, 0x2800, 0x1000)]);
    assert_eq!(
        changes(&mut map),
        [
            Change::Unmap(piece(NIC, 0, 0x1000, 0x1800, 0x1900)),
            Change::Map(piece(GPU, 0, 0x1800, 0x2000, 0x2800)),
            Change::Map(piece(GPU, 0, 0x1800, 0x2900, 0x3800)),
        ]
    );
    assert_eq!(at(&map, 0x1810), Some((NIC, 0x810)));
    assert_eq!(at(&map, 0x2810), Some((GPU, 0x1010)));
    map.disable(GPU, Bars::All);
    assert_eq!(
        changes(&mut map),
        [
            Change::Unmap(piece(GPU, 0, 0x1800, 0x2000, 0x2800)),
            Change::Unmap(piece(GPU, 0, 0x1800, 0x2900, 0x3800)),
            Change::Map(piece(NIC, 0, 0x1000, 0x1800, 0x1900)),
            Change::Map(piece(DISK, 0, 0x2800, 0x2800, 0x3800)),
        ]
    );
}

#[test]
fn memory_and_ports_do_not_meet_and_are_disabled_apart() {
    let mut map = map();
    let rom = bar(BarId::ROM, 0x4000, 0x10);
    enable(&mut map, NIC, &[bar(0, 0x1000, 0x10), ports(1, 0x1000, 0x10), rom]);
    let id = |bar| BarId { device: NIC, bar };
    let all = |map: &BarMap| map.visible().map(|piece| (piece.id.bar, piece.space)).collect::<Vec<_>>();
    assert_eq!(all(&map), [(0, BarSpace::Memory), (BarId::ROM, BarSpace::Memory), (1, BarSpace::Io)]);
    assert_eq!(map.at(BarSpace::Io, 0x1004), Some((id(1), 4)));
    map.disable(NIC, Bars::One(BarId::ROM));
    assert_eq!(all(&map), [(0, BarSpace::Memory), (1, BarSpace::Io)]);
    map.disable(NIC, Bars::Of(BarSpace::Memory));
    assert_eq!(all(&map), [(1, BarSpace::Io)]);
    map.disable(GPU, Bars::All);
    assert_eq!(all(&map), [(1, BarSpace::Io)]);
    map.disable(NIC, Bars::Of(BarSpace::Io));
    assert_eq!(all(&map), []);
}

#[test]
fn sizes_from_one_byte_to_half_of_everything_up_to_the_last_byte() {
    let mut map = map();
    let half = 1 << 63;
    let regions = [bar(0, half, half), bar(1, half - 1, 1), ports(2, u64::MAX, 1), bar(3, 0, u64::MAX)];
    enable(&mut map, NIC, &regions);
    let visible: Vec<_> =
        map.visible().map(|piece| (piece.id.bar, piece.offset, piece.base, piece.length)).collect();
    assert_eq!(visible, [(3, 0, 0, half - 1), (1, 0, half - 1, 1), (0, 0, half, half), (2, 0, u64::MAX, 1)]);
    assert_eq!(at(&map, u64::MAX), Some((NIC, half - 1)));
    assert_eq!(map.at(BarSpace::Io, 0), None);

    let refused: Vec<_> = map
        .enable(GPU, &[bar(0, half + 1, half), bar(1, u64::MAX, 2), bar(2, 7, 0), bar(3, u64::MAX, u64::MAX)])
        .unwrap()
        .iter()
        .map(|refusal| refusal.reason)
        .collect();
    assert_eq!(refused, [Reason::TooHigh, Reason::TooHigh, Reason::Empty, Reason::TooHigh]);
}

#[test]
fn a_bar_toggled_before_it_was_mapped_changes_nothing() {
    let mut map = map();
    enable(&mut map, NIC, &[bar(0, 0x1000, 0x10)]);
    map.disable(NIC, Bars::All);
    assert_eq!(changes(&mut map), []);
    enable(&mut map, NIC, &[bar(0, 0x1000, 0x10)]);
    let _ = changes(&mut map);
    map.disable(NIC, Bars::All);
    enable(&mut map, NIC, &[bar(0, 0x1000, 0x10)]);
    assert_eq!(changes(&mut map), []);
    // Elsewhere, it is another.
    map.disable(NIC, Bars::All);
    enable(&mut map, NIC, &[bar(0, 0x1008, 0x10)]);
    assert_eq!(
        changes(&mut map),
        [
            Change::Unmap(piece(NIC, 0, 0x1000, 0x1000, 0x1010)),
            Change::Map(piece(NIC, 0, 0x1008, 0x1008, 0x1018)),
        ]
    );
}

#[test]
fn a_map_that_failed_is_not_unmapped_and_is_tried_again_after_the_next_change() {
    let mut map = map();
    enable(&mut map, NIC, &[bar(0, 0x1000, 0x10), bar(1, 0x2000, 0x10)]);
    let first = Some(Change::Map(piece(NIC, 0, 0x1000, 0x1000, 0x1010)));
    let second = piece(NIC, 1, 0x2000, 0x2000, 0x2010);
    assert_eq!(map.next_change(), first);
    map.failed();
    // It answers all the same, trapped.
    assert_eq!(at(&map, 0x1000), Some((NIC, 0)));
    assert_eq!(changes(&mut map), [Change::Map(second)]);
    assert_eq!(map.in_place().collect::<Vec<_>>(), [second]);
    map.failed();
    assert_eq!(map.in_place().collect::<Vec<_>>(), [second], "nothing is under way");
    enable(&mut map, GPU, &[bar(0, 0x1008, 8)]);
    assert_eq!(map.next_change(), first);
    map.failed();
    map.disable(NIC, Bars::All);
    assert_eq!(
        changes(&mut map),
        [Change::Unmap(second), Change::Map(piece(GPU, 0, 0x1008, 0x1008, 0x1010))]
    );
}

#[test]
fn nothing_is_mapped_over_what_could_not_be_unmapped() {
    let mut map = map();
    enable(&mut map, NIC, &[bar(0, 0x1000, 0x10)]);
    enable(&mut map, GPU, &[bar(0, 0x1008, 0x10)]);
    let _ = changes(&mut map);
    map.disable(NIC, Bars::All);
    let unmap = Change::Unmap(piece(NIC, 0, 0x1000, 0x1000, 0x1010));
    assert_eq!(map.next_change(), Some(unmap));
    // While it is under way the other leaves, too.
    map.disable(GPU, Bars::All);
    map.failed();
    enable(&mut map, GPU, &[bar(0, 0x1000, 0x10)]);
    assert_eq!(map.next_change(), Some(unmap));
    map.failed();
    assert_eq!(changes(&mut map), [Change::Unmap(piece(GPU, 0, 0x1008, 0x1010, 0x1018))]);
    assert_eq!(map.in_place().collect::<Vec<_>>(), [piece(NIC, 0, 0x1000, 0x1000, 0x1010)]);
}

#[test]
fn thousands_of_bars_all_over_each_other() {
    const BARS: u8 = 250;
    let devices = || (0..16).map(Sbdf::from_u32);
    let mut map = map();
    for (number, device) in (0..).zip(devices()) {
        let base = |slot| (number * u64::from(BARS) + u64::from(slot)) * 16;
        let regions: Vec<_> =
            (0..BARS).map(|slot| Region { holes: &[0..1, 16..17], ..bar(slot, base(slot), 64) }).collect();
        enable(&mut map, device, &regions);
    }
    assert_eq!(map.visible().count(), 4000);
    let pieces = |changes: Vec<Change>| {
        let pieces = changes.into_iter().map(|change| match change {
            Change::Map(piece) => (true, piece),
            Change::Unmap(piece) => (false, piece),
        });
        pieces.unzip::<_, _, Vec<_>, Vec<_>>()
    };
    let (are_maps, mapped) = pieces(changes(&mut map));
    assert!(are_maps.iter().all(|is_map| *is_map));
    for device in devices() {
        map.disable(device, Bars::All);
    }
    let (are_maps, unmapped) = pieces(changes(&mut map));
    assert!(are_maps.iter().all(|is_map| !is_map));
    assert_eq!(mapped, unmapped);
    assert_eq!(map.in_place().count(), 0);
}
