//! R12: all of it works when memory runs out. Every allocation of every operation fails in turn.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::{Cell, RefCell};

use pcidevs::vpci::{AddressRange, BarMap, BarMapError, BarSpace, Bars, Region};
use pcidevs::{
    AddRefused, CreateDomainError, DomainId, Holder, Member, MoveError, NoMemory, Owner, Registry,
    RemoveError, Sbdf,
};

std::thread_local! {
    /// Allocations of this thread until one fails; negative: none fails.
    static LEFT: Cell<i64> = const { Cell::new(-1) };
}

struct Failing;

// SAFETY: the system's allocator, or null, which is what an allocator without memory returns.
unsafe impl GlobalAlloc for Failing {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if fails() {
            return std::ptr::null_mut();
        }
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if fails() {
            return std::ptr::null_mut();
        }
        // SAFETY: the caller's promise.
        unsafe { System.realloc(memory, layout, size) }
    }
}

fn fails() -> bool {
    LEFT.with(|left| {
        let now = left.get();
        if now > 0 {
            left.set(now - 1);
        }
        now == 0
    })
}

#[global_allocator]
static ALLOCATOR: Failing = Failing;

/// Runs `operation` with the k-th allocation failing, and all after it, for k = 0, 1, … until it needs no more.
/// `prepare` makes the state anew, `unchanged` looks at it after a failure.
fn each_allocation_fails<S, R>(
    prepare: impl Fn() -> S,
    operation: impl Fn(&S) -> Result<R, NoMemory>,
    unchanged: impl Fn(&S),
) {
    for allowed in 0.. {
        let state = prepare();
        LEFT.set(allowed);
        let result = operation(&state);
        LEFT.set(-1);
        match result {
            Ok(_) => return,
            Err(NoMemory) => unchanged(&state),
        }
        assert!(allowed < 1000, "an operation that never has enough");
    }
}

const ONE: Sbdf = Sbdf::from_u32(0x10_0100);
const TWO: Sbdf = Sbdf::from_u32(0x10_0208);
const GUEST: DomainId = DomainId::new(1);

fn registry() -> Registry<u32> {
    let registry = Registry::new().unwrap();
    registry.add(ONE, 1).unwrap();
    registry.add(TWO, 2).unwrap();
    registry
}

fn only_memory<T>(result: Result<T, MoveError>) -> Result<T, NoMemory> {
    result.map_err(|error| match error {
        MoveError::NoMemory(no_memory) => no_memory,
        other => panic!("{other}"),
    })
}

#[test]
fn r12_new() {
    each_allocation_fails(|| (), |()| Registry::<u32>::new(), |()| {});
}

#[test]
fn r12_add_gives_the_data_back_and_leaves_nothing() {
    each_allocation_fails(
        || Registry::<u32>::new().unwrap(),
        |registry| {
            registry.add(ONE, 7).map_err(|error| match error.reason {
                AddRefused::NoMemory(no_memory) if error.data == 7 => no_memory,
                other => panic!("{other}"),
            })
        },
        |registry| {
            assert!(registry.get(ONE).is_none());
            assert_eq!(registry.devices().count(), 0);
            registry.add(ONE, 8).unwrap();
        },
    );
}

#[test]
fn r12_add_beside_a_device_that_is_gone_but_held() {
    each_allocation_fails(
        || {
            let registry = registry();
            let old = registry.get(ONE).unwrap();
            registry.report_gone(ONE).unwrap();
            (registry, old)
        },
        |(registry, _)| registry.add(ONE, 7).map_err(|_| NoMemory),
        |(registry, old)| {
            assert!(registry.get(ONE).is_none() && old.lock().is_err());
            registry.add(ONE, 7).unwrap();
        },
    );
}

#[test]
fn r12_hold_and_keep() {
    each_allocation_fails(
        registry,
        |registry| registry.hold(ONE, Holder::Named("one")).map(drop),
        |registry| assert_eq!(registry.status(ONE).unwrap().uses, 0),
    );
    each_allocation_fails(
        registry,
        |registry| registry.lock(ONE).unwrap().keep(Holder::Named("one")).map(drop),
        |registry| registry.remove_device(ONE).unwrap(),
    );
}

#[test]
fn r12_moves_are_undone() {
    each_allocation_fails(
        || {
            let registry = registry();
            registry.create_domain(GUEST).unwrap();
            registry
        },
        |registry| {
            let set = [Member::at(ONE, ONE), Member::at(TWO, Sbdf::from_u32(0x8000))];
            only_memory(registry.move_devices(&set, Owner::Guest(GUEST)))
        },
        |registry| {
            for address in [ONE, TWO] {
                let status = registry.status(address).unwrap();
                assert_eq!((status.owner, status.uses), (Some(Owner::Host), 0));
            }
            let guest = registry.domain(GUEST).unwrap();
            assert!(guest.devices().unwrap().is_empty() && guest.lock(ONE).is_err());
            registry.move_devices(&[ONE.into(), TWO.into()], Owner::Guest(GUEST)).unwrap();
        },
    );
}

#[test]
fn r12_domains_snapshots_and_tickets() {
    each_allocation_fails(
        registry,
        |registry| {
            registry.create_domain(GUEST).map_err(|error| match error {
                CreateDomainError::NoMemory(no_memory) => no_memory,
                other => panic!("{other}"),
            })
        },
        |registry| assert!(registry.domain(GUEST).is_none()),
    );
    each_allocation_fails(registry, |registry| registry.devices_of(Owner::Host).map(drop), |_| {});
    each_allocation_fails(
        registry,
        |registry| {
            registry.begin_removal(ONE).map(drop).map_err(|error| match error {
                RemoveError::NoMemory(no_memory) => no_memory,
                other => panic!("{other}"),
            })
        },
        |registry| assert!(registry.get(ONE).is_some()),
    );
}

#[test]
fn r12_busy_is_exact_without_memory_for_the_names() {
    let registry = registry();
    let held = registry.hold(ONE, Holder::Named("one")).unwrap().unwrap();
    let unnamed = registry.get(ONE).unwrap();
    LEFT.set(0);
    let removed = registry.remove_device(ONE);
    LEFT.set(-1);
    let Err(RemoveError::Busy(busy)) = removed else { panic!("{removed:?}") };
    assert_eq!((busy.uses, busy.unnamed, busy.truncated, busy.holders.len()), (2, 1, true, 0));
    drop((held, unnamed));
}

#[test]
fn r12_remove_put_and_report_gone_need_no_memory() {
    let registry = registry();
    registry.create_domain(GUEST).unwrap();
    registry.move_devices(&[TWO.into()], Owner::Guest(GUEST)).unwrap();
    let held = registry.hold(TWO, Holder::Named("two")).unwrap().unwrap();
    LEFT.set(0);
    registry.remove_device(ONE).unwrap();
    registry.report_gone(TWO).unwrap();
    drop(held);
    drop(registry);
    LEFT.set(-1);
}

#[test]
fn r12_publishing_more_leaves_what_was_published() {
    each_allocation_fails(
        || {
            let registry = registry();
            registry.lock(ONE).unwrap().publish(&[7]).unwrap();
            registry
        },
        |registry| registry.lock(ONE).unwrap().publish(&[8; 64]),
        |registry| {
            assert_eq!(registry.read_published(ONE, 0), Some(7));
            assert_eq!(registry.read_published(ONE, 1), None);
        },
    );
}

#[test]
fn r12_enabling_bars_changes_nothing_and_disabling_them_needs_no_memory() {
    let bar =
        |base| Region { bar: 0, space: BarSpace::Memory, base, size: 0x4000, holes: &[0x1000..0x2000, 0..8] };
    let windows = [AddressRange::memory(0x1_0000..=0x4_ffff)];
    let pieces = |map: &BarMap| (map.visible().collect::<Vec<_>>(), map.in_place().collect::<Vec<_>>());
    let small = || {
        let mut map = BarMap::new(&windows, &windows[1..]).unwrap();
        map.enable(ONE, &[bar(0x1_0000)]).unwrap();
        assert!(map.next_change().is_some());
        map
    };
    each_allocation_fails(|| (), |()| BarMap::new(&windows, &windows), |()| {});
    let before = pieces(&small());
    // Some are refused, which needs memory, too; the others are over each other.
    let more: Vec<_> = (1..20)
        .map(|bar_number| Region { bar: bar_number, ..bar(0xf000 + u64::from(bar_number) * 0x200) })
        .collect();
    each_allocation_fails(
        || RefCell::new(small()),
        |map| {
            map.borrow_mut().enable(TWO, &more).map_err(|error| match error {
                BarMapError::NoMemory(no_memory) => no_memory,
                other => panic!("{other}"),
            })
        },
        |map| {
            assert_eq!(pieces(&map.borrow()), before);
            LEFT.set(0);
            let mut map = map.borrow_mut();
            map.disable(ONE, Bars::All);
            while map.next_change().is_some() {}
            LEFT.set(-1);
            assert_eq!(map.in_place().count(), 0);
        },
    );
    // In every state of what is mapped already, and whichever leaves first.
    for (steps, first, last) in (0..60).flat_map(|steps| [(steps, ONE, TWO), (steps, TWO, ONE)]) {
        let mut map = small();
        assert!(!map.enable(TWO, &more).unwrap().is_empty());
        LEFT.set(0);
        for _ in 0..steps {
            let _ = map.next_change();
        }
        map.disable(first, Bars::One(3));
        let _ = map.next_change();
        map.disable(first, Bars::All);
        map.failed();
        let _ = map.next_change();
        map.disable(last, Bars::All);
        while map.next_change().is_some() {}
        LEFT.set(-1);
        assert_eq!(map.in_place().count(), 0);
    }
}
