//! Named places where the protocol can be weakened on purpose.
//!
//! A model that cannot fail proves nothing. Every ordering and every check the protocol depends on asks here
//! first, under its own name; `PCIDEVS_MUTANT=name[,name...]` in the environment breaks it. One build, for loom or
//! for shuttle, therefore runs all mutants, and the same switches, under the test-only feature `mutants`, show that
//! `soak` notices a broken build. In every other build [`weakened`] is the constant `false` and costs nothing.

use core::sync::atomic::Ordering;

macro_rules! sites {
    ($($(#[doc = $doc:literal])* $site:ident = $name:literal,)*) => {
        /// An ordering or a check that a mutant can take away.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Site { $($(#[doc = $doc])* $site,)* }

        #[cfg(any(loom, shuttle, feature = "mutants"))]
        impl Site {
            const fn name(self) -> &'static str {
                match self { $(Self::$site => $name,)* }
            }
        }

        /// The names of all sites, in the order of their declaration.
        #[cfg(any(loom, shuttle, feature = "mutants"))]
        pub(crate) const NAMES: &[&str] = &[$($name,)*];
    };
}

sites! {
    /// Acquire of a successful get: pairs with the Release of opening.
    GetAcquire = "get-acquire",
    /// A get looks at the state before it counts.
    GetChecksState = "get-checks-state",
    /// Release of a put: pairs with the Acquire of closing.
    PutRelease = "put-release",
    /// Acquire of the last put of a device reported gone: pairs with the Release of the other puts.
    LastPutAcquire = "last-put-acquire",
    /// The put that leaves only the creation reference wakes the ticket.
    PutWakes = "put-wakes",
    /// Acquire of closing: pairs with the Release of puts.
    CloseAcquire = "close-acquire",
    /// Closing demands that the creation reference is the only one.
    CloseChecksCount = "close-checks-count",
    /// Closing happens under the device lock.
    CloseUnderLock = "close-under-lock",
    /// A ticket closes only what is still in removal.
    TicketChecksState = "ticket-checks-state",
    /// A waiter reads the word again after it has registered.
    WaiterRereads = "waiter-rereads",
    /// Release of opening: pairs with the Acquire of get, upgrade and locked access.
    OpenRelease = "open-release",
    /// Release of vacating: pairs with the Acquire of the next opening.
    VacateRelease = "vacate-release",
    /// Acquire of the opener's look at a vacant slot: pairs with the Release of vacating.
    VacantAcquire = "vacant-acquire",
    /// Acquire of a locked access's look at the word: pairs with the Release of opening.
    LockedAcquire = "locked-acquire",
    /// A locked access refuses closed and gone devices.
    LockedChecksState = "locked-checks-state",
    /// `report_gone` locks and unlocks the device once, so that readers inside are out.
    GoneDrains = "gone-drains",
    /// A slot whose device is gone but still held is not used for the next device.
    GoneTakesAnotherSlot = "gone-takes-another-slot",
    /// An upgrade compares the generation.
    UpgradeChecksGeneration = "upgrade-checks-generation",
    /// Acquire of an upgrade: pairs with the Release of opening.
    UpgradeAcquire = "upgrade-acquire",
    /// Each opening has a generation of its own.
    OpenAdvancesGeneration = "open-advances-generation",
    /// Release of the publication of a table entry: pairs with the Acquire of lookups.
    TableRelease = "table-release",
    /// Acquire of lookups in a table.
    TableAcquire = "table-acquire",
    /// A live device holds the memory of its registry.
    DeviceHoldsMemory = "device-holds-memory",
    /// Release of dropping a share of memory.
    ShareRelease = "share-release",
    /// Acquire of the last drop of a share of memory.
    ShareAcquire = "share-acquire",
    /// Release of a set's commit: pairs with the Acquire of readers that resolve a move.
    CommitRelease = "commit-release",
    /// Acquire of readers that resolve a move.
    CommitAcquire = "commit-acquire",
    /// A commit looks for members that were reported gone.
    CommitChecksGone = "commit-checks-gone",
    /// A commit looks whether the guest is being released.
    CommitChecksDying = "commit-checks-dying",
    /// The commit happens while all lists concerned are locked.
    CommitUnderLists = "commit-under-lists",
    /// A transition looks for members that were reported gone before each of its hooks.
    StepChecksGone = "step-checks-gone",
    /// An assignment ends the old owner's view of the device before its DMA changes hands.
    UnbindFirst = "unbind-first",
    /// A claim is exclusive.
    ClaimExclusive = "claim-exclusive",
    /// A removal does not begin while a transition has claimed the device.
    BeginChecksClaim = "begin-checks-claim",
    /// An acknowledgement starts over if an address was freed meanwhile.
    AcknowledgeRechecks = "acknowledge-rechecks",
    /// Who forgets a guest is who closed it.
    DestroyOnce = "destroy-once",
    /// A handle of a guest reaches the devices of that life of its number only.
    AccessChecksLife = "access-checks-life",
    /// An access by guest address checks that the guest owns the device.
    AccessChecksOwner = "access-checks-owner",
    /// A guest that is losing a device reads ones while the steps of that run.
    MovingIsVeiled = "moving-is-veiled",
    /// A closer opens the device again, and looks whether it was lost, under the device lock.
    ReopenUnderLock = "reopen-under-lock",
    /// A device that is gone while a transition has it is the transition's to clear up after.
    GoneLeavesClaimed = "gone-leaves-claimed",
    /// A device that was published looks whether what it depends on has gone meanwhile.
    PublishChecksLinks = "publish-checks-links",
    /// An address is not given again before the IOMMU entries of its device are cleared.
    ReserveChecksKept = "reserve-checks-kept",
    /// Release of who takes a mark away: pairs with the Acquire of the next device's opener.
    MarksRelease = "marks-release",
    /// Release of who destroys a device and takes its marks away: as above, for who still finds it gone.
    MarksAwayRelease = "marks-away-release",
    /// Acquire of the look whether an address is kept: pairs with the Release of who frees it.
    MarksAcquire = "marks-acquire",
    /// Release of opening a device again whose teardown failed: pairs with the Acquire of get and locked access.
    ReopenRelease = "reopen-release",
    /// Nothing is attached to a device that a transition has.
    AttachChecksClaim = "attach-checks-claim",
    /// Who reports a device gone wakes its ticket.
    GoneWakes = "gone-wakes",
    /// A device is kept while a flush timeout switches its translations off.
    FlushTimeoutKeeps = "flush-timeout-keeps",
    /// The faults that silence a device are its own: they are read under its lock.
    FaultsUnderLock = "faults-under-lock",
    /// `report_gone` looks again when the device has moved to another list.
    GoneFollowsMove = "gone-follows-move",
    /// A name is removed before its reference is put.
    NameBeforePut = "name-before-put",
    /// Release of a new board of published registers: pairs with the Acquire of readers.
    BoardRelease = "board-release",
    /// Acquire of a reader's look for the board.
    BoardAcquire = "board-acquire",
    /// Release of showing published registers: pairs with the Acquire of a reader's first look at the version.
    ShownRelease = "shown-release",
    /// Acquire of a reader's first look at the version.
    ShownAcquire = "shown-acquire",
    /// A reader reads nothing while the board is veiled.
    ReadChecksShown = "read-checks-shown",
    /// A guest reads only what is shown to it.
    ReadChecksAudience = "read-checks-audience",
    /// Acquire fence between a published register and the last look at the version.
    ReadFences = "read-fences",
    /// A reader looks at the version again.
    ReadLooksAgain = "read-looks-again",
    /// Release of a published register: pairs with the reader's fence.
    RegisterRelease = "register-release",
    /// A move's mark veils what is published.
    MarkVeils = "mark-veils",
    /// A closing veils what is published.
    CloseVeils = "close-veils",
    /// The drain of a device reported gone veils what is published.
    DrainVeils = "drain-veils",
    /// One thread at a time carries out the effects of a function.
    OneExecutor = "one-executor",
    /// One thread at a time carries out the steps of a guest's BAR map.
    OneMapper = "one-mapper",
    /// The end of a binding waits for the effect that is being carried out.
    UndoWaitsForEffect = "undo-waits-for-effect",
    /// Decoding shows what is mapped, and not what was asked for.
    DecodingShowsWhatIs = "decoding-shows-what-is",
    /// Release fence between the odd version of a table of routes and its entries: pairs with a reader's fence.
    RoutesOddFence = "routes-odd-fence",
    /// Release of a written table of routes: pairs with the Acquire of readers.
    RoutesRelease = "routes-release",
    /// Acquire of a reader's first look at the version of a table of routes.
    RoutesAcquire = "routes-acquire",
    /// Acquire fence between a route and the last look at the version.
    RoutesFence = "routes-fence",
    /// A reader of a table of routes looks at the version again.
    RoutesLookAgain = "routes-look-again",
    /// A remembered route is used only as long as the version is the same.
    RememberedChecksVersion = "remembered-checks-version",
}

#[cfg(not(any(loom, shuttle, feature = "mutants")))]
#[inline(always)]
pub(crate) const fn weakened(_: Site) -> bool {
    false
}

#[cfg(any(loom, shuttle, feature = "mutants"))]
pub(crate) fn weakened(site: Site) -> bool {
    use std::sync::OnceLock;
    static MUTANTS: OnceLock<Vec<&'static str>> = OnceLock::new();
    let mutants = MUTANTS.get_or_init(|| {
        let Ok(names) = std::env::var("PCIDEVS_MUTANT") else { return Vec::new() };
        let known = |name| NAMES.iter().copied().find(|known| *known == name);
        names
            .split(',')
            .map(|name| known(name).unwrap_or_else(|| panic!("PCIDEVS_MUTANT: no site is named {name:?}")))
            .collect()
    });
    !mutants.is_empty() && mutants.contains(&site.name())
}

/// `ordering`, or `Relaxed` where a mutant weakens `site`.
#[inline(always)]
pub(crate) fn ordering(site: Site, ordering: Ordering) -> Ordering {
    if weakened(site) { Ordering::Relaxed } else { ordering }
}
