//! The BAR map behaves as a list of enabled BARs that is asked byte by byte.

use pcidevs::Sbdf;
use pcidevs::vpci::{AddressRange, BarId, BarMap, BarSpace, Bars, Change, Piece, Reason, Region};
use proptest::prelude::*;

/// So many bytes of each space are looked at.
const BYTES: usize = 48;
/// They begin at address 0, or end with the last address.
const ORIGINS: [u64; 2] = [0, u64::MAX - (BYTES as u64 - 1)];
const SPACES: [BarSpace; 2] = [BarSpace::Memory, BarSpace::Io];

/// In bytes from the origin.
#[derive(Clone, Debug)]
struct Bar {
    slot: u8,
    space: usize,
    base: usize,
    size: usize,
    holes: Vec<(usize, usize)>,
}

#[derive(Clone, Debug)]
enum Op {
    Enable(u16, Vec<Bar>),
    Disable(u16, Bars),
    /// So many steps are carried out, and after these one fails.
    Steps(usize, bool),
    /// While a step is carried out, which may fail, BARs are enabled or disabled.
    Overtaken(bool, Box<Op>),
    /// All steps, without a fault.
    Settle,
}

fn bar() -> impl Strategy<Value = Bar> {
    let holes = prop::collection::vec((0..20_usize, 0..20_usize), 0..3);
    (0..4_u8, 0..5_usize, 0..BYTES + 2, 0..20_usize, holes).prop_map(|(slot, space, base, size, holes)| Bar {
        slot,
        space: space / 4,
        base,
        size,
        holes,
    })
}

fn bars() -> impl Strategy<Value = Bars> {
    prop_oneof![
        Just(Bars::All),
        (0..2_usize).prop_map(|n| Bars::Of(SPACES[n])),
        (0..4_u8).prop_map(Bars::One)
    ]
}

fn change_of_bars() -> impl Strategy<Value = Op> {
    prop_oneof![
        5 => (0..4_u16, prop::collection::vec(bar(), 0..4)).prop_map(|(device, bars)| Op::Enable(device, bars)),
        3 => (0..4_u16, bars()).prop_map(|(device, bars)| Op::Disable(device, bars)),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => change_of_bars(),
        2 => (0..5_usize, any::<bool>()).prop_map(|(steps, fails)| Op::Steps(steps, fails)),
        4 => (any::<bool>(), change_of_bars()).prop_map(|(fails, op)| Op::Overtaken(fails, Box::new(op))),
        1 => Just(Op::Settle),
    ]
}

fn device(number: u16) -> Sbdf {
    Sbdf::from_u32(u32::from(number) << 8)
}

/// Which byte of which BAR.
type Byte = Option<(BarId, u64)>;
type Bytes = [[Byte; BYTES]; 2];

/// What may be: the first 8 bytes are outside the windows, bytes 40 and 41 are something else's.
fn reason(bar: &Bar) -> Option<Reason> {
    if bar.size == 0 {
        return Some(Reason::Empty);
    }
    let mut bytes = bar.base..bar.base + bar.size;
    if bytes.clone().any(|byte| !(8..BYTES).contains(&byte)) {
        return Some(Reason::OutsideWindows);
    }
    bytes.any(|byte| byte == 40 || byte == 41).then_some(Reason::Reserved)
}

/// Whether one piece would do. The same BAR may be mapped beside itself, from before it was moved.
fn goes_on(before: &Piece, piece: &Piece) -> bool {
    let next = |piece: &Piece| (piece.id, piece.space, piece.offset, piece.base);
    let Piece { length, offset, base, .. } = *before;
    next(piece) == next(&Piece { offset: offset + length, base: base.wrapping_add(length), ..*before })
}

struct Bench {
    origin: u64,
    map: BarMap,
    /// In the order in which they were enabled.
    enabled: Vec<(BarId, Bar)>,
    /// What the embedder has mapped.
    mapped: Bytes,
    /// Since BARs were last enabled or disabled, no step failed.
    no_fault: bool,
}

impl Bench {
    fn new(origin: u64) -> Self {
        let range =
            |space, from: u64, to: u64| AddressRange { space, addresses: origin + from..=origin + to };
        // Windows that overlap, and touch.
        let windows = SPACES.map(|space| [range(space, 8, 20), range(space, 15, 30), range(space, 31, 47)]);
        let reserved = SPACES.map(|space| range(space, 40, 41));
        let map = BarMap::new(windows.as_flattened(), &reserved).unwrap();
        Self { origin, map, enabled: vec![], mapped: [[None; BYTES]; 2], no_fault: true }
    }

    /// Who answers, and what of it is to be mapped.
    fn expected(&self) -> (Bytes, Bytes) {
        let (mut answers, mut wanted) = ([[None; BYTES]; 2], [[None; BYTES]; 2]);
        for (space, byte) in (0..2).flat_map(|space| (0..BYTES).map(move |byte| (space, byte))) {
            let mut covering = self
                .enabled
                .iter()
                .filter(|(_, bar)| bar.space == space && (bar.base..bar.base + bar.size).contains(&byte));
            let hole = covering.clone().any(|(_, bar)| {
                bar.holes.iter().any(|(from, to)| (bar.base + from..bar.base + to).contains(&byte))
            });
            let first = covering.next().map(|(id, bar)| (*id, (byte - bar.base) as u64));
            answers[space][byte] = first;
            wanted[space][byte] = first.filter(|_| !hole);
        }
        (answers, wanted)
    }

    fn enable(&mut self, number: u16, bars: &[Bar]) {
        let id = |bar: &Bar| BarId { device: device(number), bar: bar.slot };
        let holes: Vec<Vec<_>> = bars
            .iter()
            .map(|bar| bar.holes.iter().map(|(from, to)| *from as u64..*to as u64).collect())
            .collect();
        let regions: Vec<_> = bars
            .iter()
            .zip(&holes)
            .map(|(bar, holes)| Region {
                bar: bar.slot,
                space: SPACES[bar.space],
                base: self.origin.wrapping_add(bar.base as u64),
                size: bar.size as u64,
                holes,
            })
            .collect();
        let is_enabled = |bar: &Bar| self.enabled.iter().any(|(enabled, _)| *enabled == id(bar));
        let twice = (0..bars.len()).any(|n| bars[..n].iter().any(|other| other.slot == bars[n].slot));
        let result = self.map.enable(device(number), &regions);
        if twice || bars.iter().any(is_enabled) {
            assert!(result.is_err());
            return;
        }
        // One that begins beyond the last address begins at the first one, which is as wrong; one that only ends there
        // is too high.
        let reason = |bar: &Bar| match reason(bar)? {
            Reason::OutsideWindows if self.origin != 0 && bar.base < BYTES && bar.base + bar.size > BYTES => {
                Some(Reason::TooHigh)
            }
            reason => Some(reason),
        };
        let refused: Vec<_> = bars.iter().filter_map(|bar| Some((id(bar), reason(bar)?))).collect();
        let answer: Vec<_> = result.unwrap().iter().map(|refusal| (refusal.id, refusal.reason)).collect();
        assert_eq!(answer, refused);
        self.enabled
            .extend(bars.iter().filter(|bar| reason(bar).is_none()).map(|bar| (id(bar), bar.clone())));
        self.no_fault = true;
    }

    fn disable(&mut self, number: u16, bars: Bars) {
        self.map.disable(device(number), bars);
        self.enabled.retain(|(id, bar)| {
            let is_one = match bars {
                Bars::All => true,
                Bars::Of(space) => space == SPACES[bar.space],
                Bars::One(one) => one == bar.slot,
            };
            !(id.device == device(number) && is_one)
        });
        self.no_fault = true;
    }

    /// Its space and first byte.
    fn place(&self, piece: &Piece) -> (usize, usize) {
        let space = SPACES.iter().position(|space| *space == piece.space).unwrap();
        (space, usize::try_from(piece.base - self.origin).unwrap())
    }

    /// The bytes of pieces, which are in order and as few as can be.
    fn bytes(&self, pieces: impl Iterator<Item = Piece>) -> Bytes {
        let mut bytes = [[None; BYTES]; 2];
        let mut last: Option<(usize, usize, Piece)> = None;
        for piece in pieces {
            let (space, base) = self.place(&piece);
            if let Some((space_before, end, before)) = last {
                assert!((space_before, end) <= (space, base), "in order");
                assert!(!goes_on(&before, &piece), "in one");
            }
            for byte in 0..piece.length {
                let there = &mut bytes[space][base + usize::try_from(byte).unwrap()];
                *there = Some((piece.id, piece.offset + byte));
            }
            last = Some((space, base + usize::try_from(piece.length).unwrap(), piece));
        }
        bytes
    }

    /// The next step, which has to be needed and possible.
    fn next_step(&mut self) -> Option<(bool, Piece)> {
        let (is_map, piece) = match self.map.next_change()? {
            Change::Map(piece) => (true, piece),
            Change::Unmap(piece) => (false, piece),
        };
        let (_, wanted) = self.expected();
        for (space, byte, this) in self.bytes_of(&piece) {
            assert_eq!(self.mapped[space][byte], if is_map { None } else { this }, "{piece:?}");
            assert_eq!(wanted[space][byte] == this, is_map, "{piece:?} is not needed");
        }
        Some((is_map, piece))
    }

    fn carry_out(&mut self, (is_map, piece): (bool, Piece)) {
        for (space, byte, this) in self.bytes_of(&piece) {
            self.mapped[space][byte] = if is_map { this } else { None };
        }
    }

    fn bytes_of(&self, piece: &Piece) -> impl Iterator<Item = (usize, usize, Byte)> + use<> {
        let ((space, base), id) = (self.place(piece), piece.id);
        assert!(piece.length > 0);
        let offsets = piece.offset..piece.offset + piece.length;
        (base..).zip(offsets).map(move |(byte, offset)| (space, byte, Some((id, offset))))
    }

    /// Carries steps out and fails the last of them; whether there were as many.
    fn steps(&mut self, count: usize, last_fails: bool) -> bool {
        let mut before: Option<(bool, Piece)> = None;
        for left in (0..count).rev() {
            let Some(step) = self.next_step() else { return false };
            let (is_map, piece) = step;
            if let Some((was_map, before)) = before {
                assert!(is_map || !was_map, "unmapped first");
                assert!(is_map != was_map || !goes_on(&before, &piece), "in one");
            }
            before = Some(step);
            if last_fails && left == 0 {
                self.map.failed();
                self.no_fault = false;
            } else {
                self.carry_out(step);
            }
        }
        true
    }

    fn change_bars(&mut self, op: &Op) {
        match op {
            Op::Enable(number, bars) => self.enable(*number, bars),
            Op::Disable(number, bars) => self.disable(*number, *bars),
            other => panic!("{other:?}"),
        }
    }

    /// A step that fails after others were asked for is among those that are tried again.
    fn overtaken(&mut self, fails: bool, op: &Op) {
        let step = self.next_step();
        self.no_fault &= step.is_none() || !fails;
        self.change_bars(op);
        match step {
            Some(_) if fails => self.map.failed(),
            Some(step) => self.carry_out(step),
            None => {}
        }
    }

    fn check(&self) {
        let (answers, _) = self.expected();
        for (space, byte) in (0..2).flat_map(|space| (0..BYTES).map(move |byte| (space, byte))) {
            assert_eq!(self.map.at(SPACES[space], self.origin + byte as u64), answers[space][byte]);
        }
        assert_eq!(self.bytes(self.map.visible()), answers);
        assert_eq!(self.bytes(self.map.in_place()), self.mapped);
    }

    fn settle(&mut self) {
        assert!(!self.steps(10 * BYTES, false), "steps without end");
        if self.no_fault {
            assert_eq!(self.mapped, self.expected().1);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 3000, ..ProptestConfig::default() })]

    #[test]
    fn enabled_bars_answer_and_are_mapped_as_byte_by_byte(
        origin in prop::sample::select(&ORIGINS),
        ops in prop::collection::vec(op(), 1..40),
    ) {
        let mut bench = Bench::new(origin);
        for op in ops {
            match op {
                Op::Enable(..) | Op::Disable(..) => bench.change_bars(&op),
                Op::Overtaken(fails, op) => bench.overtaken(fails, &op),
                Op::Steps(count, fails) => { bench.steps(count, fails); }
                Op::Settle => bench.settle(),
            }
            bench.check();
        }
        for number in 0..4 {
            bench.disable(number, Bars::All);
        }
        bench.settle();
        bench.check();
        prop_assert_eq!(bench.mapped, [[None; BYTES]; 2]);
    }
}
