//! From a program to the bytes of a guest's memory.
//!
//! ```text
//! 1000  descriptor table: none, flat code (selector 8), flat data (10)
//! 1020  the operands of lgdt and lidt
//! 2000  interrupt table
//! 7000  the stack ends
//! 8000  code, entered in real mode
//! ```

use pcidevs::platform::Width;

use super::memory::{Memory, PAGE};
use super::program::{Condition, Instruction, Label, Program, Register};

/// 64 KiB: what real mode reaches.
pub(crate) const RAM: u32 = 16 * PAGE;
/// Where the program begins.
pub(crate) const ENTRY: u32 = 0x8000;

const DESCRIPTORS: u32 = 0x1000;
const OPERANDS: u16 = 0x1020;
const INTERRUPTS: u32 = 0x2000;
const STACK: u32 = 0x7000;

const FLAT_CODE: u64 = 0x00cf_9b00_0000_ffff;
const FLAT_DATA: u64 = 0x00cf_9300_0000_ffff;
const CODE_SELECTOR: u16 = 0x08;
const DATA_SELECTOR: u8 = 0x10;
/// A present interrupt gate of 32 bits, for the kernel.
const INTERRUPT_GATE: u32 = 0x8e00;

/// How wide operands are that say nothing else.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Real,
    Protected,
}

/// A jump whose distance is not known yet.
struct Distance {
    at: usize,
    to: Label,
    mode: Mode,
}

struct Assembler {
    code: Vec<u8>,
    mode: Mode,
    places: Vec<(Label, u32)>,
    distances: Vec<Distance>,
}

/// Puts a program, and the tables that it needs, into a guest's memory.
pub(crate) fn load(program: &Program, ram: &Memory) {
    let mut assembler =
        Assembler { code: Vec::new(), mode: Mode::Real, places: Vec::new(), distances: Vec::new() };
    program.instructions.iter().for_each(|instruction| assembler.add(*instruction));
    assembler.link();
    ram.write(ENTRY, &assembler.code);
    for (place, descriptor) in (0..).step_by(8).zip([0, FLAT_CODE, FLAT_DATA]) {
        ram.write(DESCRIPTORS + place, &descriptor.to_le_bytes());
    }
    for (place, size, table) in [(0, 3 * 8, DESCRIPTORS), (8, 256 * 8, INTERRUPTS)] {
        let limit = size - 1_u16;
        ram.write(u32::from(OPERANDS) + place, &limit.to_le_bytes());
        ram.write(u32::from(OPERANDS) + place + 2, &table.to_le_bytes());
    }
    for (vector, handler) in &program.handlers {
        let handler = assembler.place(*handler);
        let lower = u32::from(CODE_SELECTOR) << 16 | handler & 0xffff;
        let upper = handler & 0xffff_0000 | INTERRUPT_GATE;
        let gate = INTERRUPTS + u32::from(*vector) * 8;
        ram.write(gate, &lower.to_le_bytes());
        ram.write(gate + 4, &upper.to_le_bytes());
    }
}

impl Assembler {
    fn add(&mut self, instruction: Instruction) {
        match instruction {
            Instruction::Here(label) => self.places.push((label, self.next())),
            Instruction::Set(register, value) => {
                self.wide(&[0xb8 | register as u8]);
                self.bytes(&value.to_le_bytes());
            }
            Instruction::Move { to, from } => self.wide(&[0x89, registers(from, to)]),
            Instruction::OrWith { to, from } => self.wide(&[0x09, registers(from, to)]),
            Instruction::Do(operation, register, value) => {
                self.wide(&[0x81, 0xc0 | (operation as u8) << 3 | register as u8]);
                self.bytes(&value.to_le_bytes());
            }
            Instruction::ShiftRight(register, bits) => self.wide(&[0xc1, 0xe8 | register as u8, bits]),
            Instruction::In(width, port) => {
                if width != Width::Dword {
                    self.add(Instruction::Set(Register::Eax, 0));
                }
                self.port(port);
                self.sized(width, 0xec);
            }
            Instruction::Out(width, port) => {
                self.port(port);
                self.sized(width, 0xee);
            }
            Instruction::Load { to, base, further } => self.memory(0x8b, to, base, further),
            Instruction::Store { base, further, from } => self.memory(0x89, from, base, further),
            Instruction::StoreAt { address, value } => {
                self.bytes(&[0xc7, 0x05]);
                self.bytes(&address.to_le_bytes());
                self.bytes(&value.to_le_bytes());
            }
            Instruction::Jump(condition, to) => {
                self.bytes(match condition {
                    Condition::Always => &[0xe9],
                    Condition::Equal => &[0x0f, 0x84],
                    Condition::Different => &[0x0f, 0x85],
                });
                self.distances.push(Distance { at: self.code.len(), to, mode: self.mode });
                self.bytes(if self.mode == Mode::Real { &[0; 2] } else { &[0; 4] });
            }
            Instruction::EnterProtectedMode => self.enter_protected_mode(),
            Instruction::InterruptsOff => self.bytes(&[0xfa]),
            // One comes at the earliest after the instruction behind `sti`, which is `hlt`: it wakes that in any case.
            Instruction::Wait => self.bytes(&[0xfb, 0xf4]),
            // A far return that drops the flags. Where KVM itself carries out instructions of such a mode it does not know
            // `iret`; and whoever was interrupted waits, and needs no flags.
            Instruction::ReturnFromInterrupt => self.bytes(&[0xca, 4, 0]),
        }
    }

    fn enter_protected_mode(&mut self) {
        let [low, high] = OPERANDS.to_le_bytes();
        self.bytes(&[0xfa]); // cli
        self.bytes(&[0x0f, 0x01, 0x16, low, high]); // lgdt
        self.bytes(&[0x0f, 0x01, 0x1e, low + 8, high]); // lidt
        self.bytes(&[0x0f, 0x20, 0xc0]); // mov eax, cr0
        self.bytes(&[0x0c, 0x01]); // or al, 1
        self.bytes(&[0x0f, 0x22, 0xc0]); // mov cr0, eax
        self.bytes(&[0x66, 0xea]); // jmp to the instruction behind this one, as 32-bit code
        let behind = self.next() + 6;
        self.bytes(&behind.to_le_bytes());
        self.bytes(&CODE_SELECTOR.to_le_bytes());
        self.mode = Mode::Protected;
        self.add(Instruction::Set(Register::Ecx, DATA_SELECTOR.into()));
        self.bytes(&[0x8e, 0xd9, 0x8e, 0xc1, 0x8e, 0xd1]); // mov ds, es and ss, cx
        self.bytes(&[0xbc]); // mov esp
        self.bytes(&STACK.to_le_bytes());
    }

    /// An instruction on 32 bits in either mode.
    fn wide(&mut self, bytes: &[u8]) {
        if self.mode == Mode::Real {
            self.bytes(&[0x66]);
        }
        self.bytes(bytes);
    }

    /// `mov dx`
    fn port(&mut self, port: u16) {
        if self.mode == Mode::Protected {
            self.bytes(&[0x66]);
        }
        self.bytes(&[0xba]);
        self.bytes(&port.to_le_bytes());
    }

    /// An instruction whose lowest bit says that it is not on bytes.
    fn sized(&mut self, width: Width, byte: u8) {
        match width {
            Width::Byte => self.bytes(&[byte]),
            Width::Word if self.mode == Mode::Protected => self.bytes(&[0x66, byte | 1]),
            Width::Word => self.bytes(&[byte | 1]),
            Width::Dword => self.wide(&[byte | 1]),
        }
    }

    /// Between a register and memory beyond another one.
    fn memory(&mut self, instruction: u8, register: Register, base: Register, further: u32) {
        assert!(self.mode == Mode::Protected, "real mode does not reach 32-bit addresses");
        self.bytes(&[instruction, 0x80 | (register as u8) << 3 | base as u8]);
        self.bytes(&further.to_le_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.code.extend_from_slice(bytes);
    }

    /// Where the next instruction will be.
    fn next(&self) -> u32 {
        address(self.code.len())
    }

    fn place(&self, label: Label) -> u32 {
        let place = self.places.iter().find(|(placed, _)| *placed == label);
        place.expect("every label that is used is placed").1
    }

    /// Fills in how far jumps go, counted from behind them.
    fn link(&mut self) {
        for distance in core::mem::take(&mut self.distances) {
            let length = if distance.mode == Mode::Real { 2 } else { 4 };
            let behind = distance.at + length;
            let far = self.place(distance.to).wrapping_sub(address(behind));
            self.code[distance.at..behind].copy_from_slice(&far.to_le_bytes()[..length]);
        }
    }
}

fn registers(from: Register, to: Register) -> u8 {
    0xc0 | (from as u8) << 3 | to as u8
}

fn address(length: usize) -> u32 {
    ENTRY + u32::try_from(length).expect("a program is short")
}
