//! What the guest does: finds its devices, sets one up, is interrupted by it, and watches it go and come back.

use pcidevs::platform::Width::{Byte, Dword, Word};
use pcidevs::vpci::{ADDRESS_PORT, DATA_PORT};

use super::notes::Note;
use super::program::Condition::{Always, Different, Equal};
use super::program::Instruction::{
    Do, EnterProtectedMode, Here, In, InterruptsOff, Jump, Load, Move, OrWith, Out, ReturnFromInterrupt, Set,
    ShiftRight, Store, StoreAt, Wait,
};
use super::program::Operation::{Add, And};
use super::program::Register::{Eax, Ebp, Ebx, Ecx, Edi, Esi};
use super::program::{Label, Program};

/// Where the guest puts the doorbell's BARs.
pub(crate) const BAR: u32 = 0xc000_0000;
pub(crate) const SCRATCH: u32 = 0xc010_0000;
pub(crate) const MAGIC: u32 = 0x600d_cafe;

/// The doorbell, and another device beside it, as device numbers of bus 0.
pub(crate) const DOORBELL_SLOT: u32 = 3;
pub(crate) const BYSTANDER_SLOT: u32 = 5;

/// The interrupt vectors it uses for the two of MSI-X.
pub(crate) const VECTORS: [u8; 2] = [0x40, 0x41];
/// What each adds to the count of interrupts.
pub(crate) const COUNTS: [u32; 2] = [1, 0x100];

/// The messages of a processor whose APIC ID is 0 (Intel SDM vol. 3, "Message Address Register Format").
const MESSAGES: u32 = 0xfee0_0000;
/// Registers of the local APIC: its enable bit is in the spurious vector's.
const SPURIOUS: u32 = 0xfee0_00f0;
const END_OF_INTERRUPT: u32 = 0xfee0_00b0;

const ENABLE: u32 = 1 << 31;
const DEVICE: u32 = 1 << 11;

const ID: u32 = 0x00;
const COMMAND: u32 = 0x04;
const BAR_0: u32 = 0x10;
const BAR_2: u32 = 0x18;
const CAPABILITIES: u32 = 0x34;
const MSIX: u32 = 0x11;
const NOTHING: u32 = u32::MAX;

/// A port of this VMM: it reads 1 once the doorbell is gone for good, as an ACPI event would say.
pub(crate) const IS_GONE: u16 = 0x400;

/// How often the doorbell goes: unplugged, and pulled.
const TIMES: u32 = 2;

/// The whole program.
pub(crate) fn program() -> Program {
    let mut program = Program::default();
    program.enumerate();
    program.add(EnterProtectedMode);
    program.add(StoreAt { address: SPURIOUS, value: 0x1ff });
    program.add(Set(Edi, 0)); // how often the doorbell was there
    let again = program.here();
    program.set_up();
    program.be_interrupted();
    program.watch_it_go();
    let over = program.label();
    program.add(Do(Add, Edi, 1));
    program.jump_if(Edi, Equal, TIMES, over);
    program.watch_it_come();
    program.add(Jump(Always, again));
    program.place(over);
    program.config_read(BYSTANDER_SLOT, ID);
    program.note(Note::Bystander);
    program.note(Note::Done);
    let end = program.here();
    program.add(InterruptsOff);
    program.add(Jump(Always, end));
    for (vector, count) in VECTORS.into_iter().zip(COUNTS) {
        let handler = program.here();
        program.handlers.push((vector, handler));
        program.add(Do(Add, Ebp, count));
        program.add(StoreAt { address: END_OF_INTERRUPT, value: 0 });
        program.add(ReturnFromInterrupt);
    }
    program
}

/// A program that reads configuration space for ever.
pub(crate) fn reader() -> Program {
    let mut program = Program::default();
    let again = program.here();
    program.config_read(DOORBELL_SLOT, ID);
    program.add(Jump(Always, again));
    program
}

impl Program {
    /// Looks for function 0 of every device number of bus 0. In real mode.
    fn enumerate(&mut self) {
        self.add(Set(Ebx, ENABLE));
        self.add(Set(Ebp, 0));
        let (next, absent) = (self.here(), self.label());
        self.add(Move { to: Eax, from: Ebx });
        self.add(Out(Dword, ADDRESS_PORT));
        self.add(In(Dword, DATA_PORT));
        self.jump_if(Eax, Equal, NOTHING, absent);
        self.add(Do(Add, Ebp, 1));
        self.add(Move { to: Ecx, from: Eax });
        self.add(Move { to: Eax, from: Ebx });
        self.note(Note::FoundAt);
        self.add(Move { to: Eax, from: Ecx });
        self.note(Note::FoundId);
        self.place(absent);
        self.add(Do(Add, Ebx, DEVICE));
        self.jump_if(Ebx, Different, ENABLE + 32 * DEVICE, next);
        self.add(Move { to: Eax, from: Ebp });
        self.note(Note::Enumerated);
    }

    /// Sizes, places and maps the BARs, and sets up MSI-X.
    fn set_up(&mut self) {
        self.config_write(BAR_0, NOTHING);
        self.config_read(DOORBELL_SLOT, BAR_0);
        self.note(Note::BarSizing);
        self.config_write(BAR_0, BAR);
        self.config_write(BAR_0 + 4, 0);
        self.config_write(BAR_2, SCRATCH);
        self.config_read(DOORBELL_SLOT, BAR_0);
        self.note(Note::BarAddress);
        // Memory decoding and bus mastering, by a word, as drivers do it.
        self.select(DOORBELL_SLOT, COMMAND);
        self.add(Set(Eax, 6));
        self.add(Out(Word, DATA_PORT));
        self.add(In(Word, DATA_PORT));
        self.note(Note::Command);
        self.find_msix();
        self.program_msix();
    }

    /// Leaves the CF8 address of the capability in `ebx`.
    fn find_msix(&mut self) {
        self.select(DOORBELL_SLOT, CAPABILITIES);
        self.add(In(Byte, DATA_PORT));
        let (next, found) = (self.here(), self.label());
        self.add(Move { to: Ebx, from: Eax });
        self.add(Set(Eax, ENABLE + DOORBELL_SLOT * DEVICE));
        self.add(OrWith { to: Ebx, from: Eax });
        self.add(Move { to: Eax, from: Ebx });
        self.add(Out(Dword, ADDRESS_PORT));
        self.add(In(Dword, DATA_PORT));
        self.add(Move { to: Ecx, from: Eax });
        self.add(Do(And, Ecx, 0xff));
        self.jump_if(Ecx, Equal, MSIX, found);
        self.add(ShiftRight(Eax, 8));
        self.add(Do(And, Eax, 0xff));
        // A list without MSI-X leads back to the beginning of the header, and from there nowhere: the VMM sees that
        // no note comes.
        self.add(Jump(Always, next));
        self.place(found);
        self.add(Move { to: Eax, from: Ebx });
        self.add(Do(And, Eax, 0xff));
        self.note(Note::MsixAt);
    }

    fn program_msix(&mut self) {
        // Where the table is in BAR 0.
        self.add(Move { to: Eax, from: Ebx });
        self.add(Do(Add, Eax, 4));
        self.add(Out(Dword, ADDRESS_PORT));
        self.add(In(Dword, DATA_PORT));
        self.add(Do(And, Eax, !7));
        self.add(Do(Add, Eax, BAR));
        self.add(Move { to: Esi, from: Eax });
        for (entry, vector) in (0..).step_by(16).zip(VECTORS) {
            for (further, value) in [(0, MESSAGES), (4, 0), (8, vector.into()), (12, 0)] {
                self.add(Set(Eax, value));
                self.add(Store { base: Esi, further: entry + further, from: Eax });
            }
        }
        self.add(Load { to: Eax, base: Esi, further: 8 });
        self.note(Note::TableData);
        // The control word is the upper half of the capability's first dword.
        self.add(Move { to: Eax, from: Ebx });
        self.add(Out(Dword, ADDRESS_PORT));
        self.add(Set(Eax, 1 << 15));
        self.add(Out(Word, DATA_PORT + 2));
        self.add(In(Word, DATA_PORT + 2));
        self.note(Note::MsixControl);
    }

    /// Rings, and waits for the doorbell's interrupt; then for one that the device sends by itself.
    fn be_interrupted(&mut self) {
        self.add(Set(Ebp, 0));
        self.add(Set(Esi, BAR));
        self.add(Store { base: Esi, further: 0, from: Esi });
        self.add(Load { to: Eax, base: Esi, further: 0 });
        self.note(Note::Rung);
        self.wait_for(COUNTS[0]);
        self.add(Move { to: Eax, from: Ebp });
        self.note(Note::InterruptedByDoorbell);
        self.wait_for(COUNTS[0] + COUNTS[1]);
        self.add(Move { to: Eax, from: Ebp });
        self.note(Note::InterruptedByBackend);
        self.add(Set(Esi, SCRATCH));
        self.add(Set(Eax, MAGIC));
        self.add(Store { base: Esi, further: 0, from: Eax });
        self.add(Load { to: Eax, base: Esi, further: 0 });
        self.note(Note::Scratch);
    }

    /// Reads the doorbell's ID until it reads ones, and its memory when the VMM says that nothing of it is left.
    fn watch_it_go(&mut self) {
        self.select(DOORBELL_SLOT, ID);
        let still_there = self.here();
        self.add(In(Dword, DATA_PORT));
        self.jump_if(Eax, Different, NOTHING, still_there);
        self.note(Note::Vanished);
        let wait = self.here();
        self.add(In(Dword, IS_GONE));
        self.jump_if(Eax, Different, 1, wait);
        for (address, note) in [(BAR, Note::BarOfNobody), (SCRATCH, Note::ScratchOfNobody)] {
            self.add(Set(Esi, address));
            self.add(Load { to: Eax, base: Esi, further: 0 });
            self.note(note);
        }
    }

    /// Reads the doorbell's ID until it is one.
    fn watch_it_come(&mut self) {
        self.select(DOORBELL_SLOT, ID);
        let still_gone = self.here();
        self.add(In(Dword, DATA_PORT));
        self.jump_if(Eax, Equal, NOTHING, still_gone);
        self.note(Note::Back);
        self.config_read(DOORBELL_SLOT, COMMAND);
        self.note(Note::CommandOfNew);
        self.config_read(DOORBELL_SLOT, BAR_0);
        self.note(Note::BarOfNew);
    }

    /// Waits until so much was counted. An interrupt comes while it waits, and at no other time.
    fn wait_for(&mut self, count: u32) {
        let (look, over) = (self.here(), self.label());
        self.add(InterruptsOff);
        self.jump_if(Ebp, Equal, count, over);
        self.add(Wait);
        self.add(Jump(Always, look));
        self.place(over);
    }

    /// Selects a register of function 0 of a device number; clobbers `eax`.
    fn select(&mut self, device: u32, register: u32) {
        self.add(Set(Eax, ENABLE + device * DEVICE + register));
        self.add(Out(Dword, ADDRESS_PORT));
    }

    /// To `eax`.
    fn config_read(&mut self, device: u32, register: u32) {
        self.select(device, register);
        self.add(In(Dword, DATA_PORT));
    }

    /// To the doorbell.
    fn config_write(&mut self, register: u32, value: u32) {
        self.select(DOORBELL_SLOT, register);
        self.add(Set(Eax, value));
        self.add(Out(Dword, DATA_PORT));
    }

    /// Tells the VMM what is in `eax`.
    fn note(&mut self, note: Note) {
        self.add(Out(Dword, note.port()));
    }

    fn place(&mut self, label: Label) {
        self.add(Here(label));
    }
}
