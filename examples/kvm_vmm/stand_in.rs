//! A stand-in for the guest where there is no KVM: it carries out the same program, so it makes the same accesses.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use pcidevs::Errno;
use pcidevs::platform::{HookError, Width};
use pcidevs::vpci::Message;

use super::exits::Exits;
use super::hypervisor::{Hypervisor, Line};
use super::memory::Memory;
use super::program::{Condition, Instruction, Operation, Program, Register};

/// The local APIC, which KVM has inside.
const APIC: std::ops::Range<u64> = 0xfee0_0000..0xfee0_1000;

const NO_LINE: HookError = HookError::new(Errno::ENODEV, "the line is not connected");
const NOT_MAPPED: HookError = HookError::new(Errno::ENODEV, "nothing is mapped there");

/// What KVM would be: lines, and what is mapped.
#[derive(Default)]
pub(crate) struct StandIn {
    state: Mutex<State>,
    interrupted: Condvar,
}

#[derive(Default)]
struct State {
    lines: BTreeMap<u32, Message>,
    /// Vectors that were sent and not taken yet.
    pending: Vec<u8>,
    mapped: BTreeMap<u64, Memory>,
}

impl StandIn {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Blocks until an interrupt comes.
    fn next_interrupt(&self) -> u8 {
        let mut state = self.state();
        loop {
            if !state.pending.is_empty() {
                return state.pending.remove(0);
            }
            state = self.interrupted.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// What is mapped at an address, and how far into it that is.
    fn mapped(&self, address: u64) -> Option<(Memory, u64)> {
        let state = self.state();
        let (base, memory) = state.mapped.range(..=address).next_back()?;
        let offset = address - base;
        (offset < memory.size()).then(|| (memory.clone(), offset))
    }
}

impl Hypervisor for StandIn {
    fn connect(&self, line: Line, message: Message) -> Result<(), HookError> {
        self.state().lines.insert(line.0, message);
        Ok(())
    }

    fn disconnect(&self, line: Line) -> Result<(), HookError> {
        self.state().lines.remove(&line.0).map(|_| ()).ok_or(NO_LINE)
    }

    fn send(&self, line: Line) -> Result<(), HookError> {
        let mut state = self.state();
        let message = *state.lines.get(&line.0).ok_or(NO_LINE)?;
        // The vector is the lowest byte.
        state.pending.push(message.data.to_le_bytes()[0]);
        self.interrupted.notify_all();
        Ok(())
    }

    fn map(&self, base: u64, memory: &Memory) -> Result<(), HookError> {
        self.state().mapped.insert(base, memory.clone());
        Ok(())
    }

    fn unmap(&self, base: u64) -> Result<(), HookError> {
        self.state().mapped.remove(&base).map(|_| ()).ok_or(NOT_MAPPED)
    }

    fn in_use(&self) -> (usize, usize) {
        let state = self.state();
        (state.lines.len(), state.mapped.len())
    }
}

/// A processor, as far as the program needs one.
struct Processor<'a> {
    registers: [u32; 8],
    is_equal: bool,
    next: usize,
    /// Where an interrupt handler returns to.
    interrupted: Option<usize>,
    program: &'a Program,
}

/// Carries out a program until the guest is done.
pub(crate) fn run(stand_in: &StandIn, program: &Program, exits: &mut Exits) -> Result<(), String> {
    let mut processor = Processor { registers: [0; 8], is_equal: false, next: 0, interrupted: None, program };
    while let Some(instruction) = program.instructions.get(processor.next) {
        processor.next += 1;
        if processor.step(*instruction, stand_in, exits)?.is_break() {
            return Ok(());
        }
    }
    Err("the program has no end".into())
}

impl Processor<'_> {
    fn step(
        &mut self,
        instruction: Instruction,
        stand_in: &StandIn,
        exits: &mut Exits,
    ) -> Result<ControlFlow<()>, String> {
        match instruction {
            Instruction::Here(_) | Instruction::EnterProtectedMode | Instruction::InterruptsOff => {}
            Instruction::Set(register, value) => *self.at(register) = value,
            Instruction::Move { to, from } => *self.at(to) = *self.at(from),
            Instruction::OrWith { to, from } => *self.at(to) |= *self.at(from),
            Instruction::Do(Operation::Compare, register, value) => {
                self.is_equal = *self.at(register) == value;
            }
            Instruction::Do(Operation::Add, register, value) => {
                *self.at(register) = self.at(register).wrapping_add(value);
            }
            Instruction::Do(Operation::And, register, value) => *self.at(register) &= value,
            Instruction::ShiftRight(register, bits) => *self.at(register) >>= bits,
            Instruction::In(width, port) => {
                let mut data = [0; 4];
                exits.port_read(port, &mut data[..width as usize]);
                *self.at(Register::Eax) = u32::from_le_bytes(data);
            }
            Instruction::Out(width, port) => {
                let data = self.at(Register::Eax).to_le_bytes();
                return Ok(exits.port_write(port, &data[..width as usize]));
            }
            Instruction::Load { to, base, further } => {
                let address = self.at(base).wrapping_add(further);
                *self.at(to) = load(address.into(), stand_in, exits);
            }
            Instruction::Store { base, further, from } => {
                let address = self.at(base).wrapping_add(further);
                store(address.into(), *self.at(from), stand_in, exits);
            }
            Instruction::StoreAt { address, value } => store(address.into(), value, stand_in, exits),
            Instruction::Jump(condition, to) => {
                let is_taken = match condition {
                    Condition::Always => true,
                    Condition::Equal => self.is_equal,
                    Condition::Different => !self.is_equal,
                };
                if is_taken {
                    self.next = self.program.position(to).ok_or("a jump to nowhere")?;
                }
            }
            Instruction::Wait => {
                let vector = stand_in.next_interrupt();
                let handler = self.program.handlers.iter().find(|(handled, _)| *handled == vector);
                let (_, handler) = handler.ok_or_else(|| format!("nobody handles vector {vector:#x}"))?;
                self.interrupted = Some(self.next);
                self.next = self.program.position(*handler).ok_or("a handler nowhere")?;
            }
            Instruction::ReturnFromInterrupt => {
                self.next = self.interrupted.take().ok_or("nothing was interrupted")?;
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn at(&mut self, register: Register) -> &mut u32 {
        &mut self.registers[register as usize]
    }
}

fn load(address: u64, stand_in: &StandIn, exits: &mut Exits) -> u32 {
    if let Some((memory, offset)) = stand_in.mapped(address) {
        return memory.load(offset);
    }
    let mut data = [0; Width::Dword as usize];
    exits.memory_read(address, &mut data);
    u32::from_le_bytes(data)
}

fn store(address: u64, value: u32, stand_in: &StandIn, exits: &mut Exits) {
    match stand_in.mapped(address) {
        Some((memory, offset)) => memory.store(offset, value),
        None if APIC.contains(&address) => {}
        None => exits.memory_write(address, &value.to_le_bytes()),
    }
}
