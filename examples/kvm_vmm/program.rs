//! A guest's program: some thirty kinds of instructions, which are assembled for a processor or carried out by a
//! stand-in for one. Both make the same accesses, because it is the same program.

use pcidevs::platform::Width;

/// A register of 32 bits, by its number in an instruction. `edx` names ports, `esp` the stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Register {
    Eax = 0,
    Ecx = 1,
    Ebx = 3,
    Ebp = 5,
    Esi = 6,
    Edi = 7,
}

/// What is done to a register with a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Add = 0,
    And = 4,
    Compare = 7,
}

/// When a jump is taken, after a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    Always,
    Equal,
    Different,
}

/// A place in the program, by its number.
pub(crate) type Label = usize;

/// One instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Instruction {
    Here(Label),
    Set(Register, u32),
    Move {
        to: Register,
        from: Register,
    },
    OrWith {
        to: Register,
        from: Register,
    },
    Do(Operation, Register, u32),
    ShiftRight(Register, u8),
    /// From a port to `eax`, whose other bits are cleared.
    In(Width, u16),
    /// From `eax` to a port.
    Out(Width, u16),
    /// From memory at the address in `base` and further, 4 bytes.
    Load {
        to: Register,
        base: Register,
        further: u32,
    },
    Store {
        base: Register,
        further: u32,
        from: Register,
    },
    StoreAt {
        address: u32,
        value: u32,
    },
    Jump(Condition, Label),
    /// From real mode to protected mode, all of memory flat; clobbers `eax` and `ecx`.
    EnterProtectedMode,
    InterruptsOff,
    /// Interrupts on, and nothing until one has come.
    Wait,
    /// Interrupts stay off.
    ReturnFromInterrupt,
}

/// A program and its interrupt handlers.
#[derive(Debug, Default)]
pub(crate) struct Program {
    pub(crate) instructions: Vec<Instruction>,
    /// Which vector is handled where.
    pub(crate) handlers: Vec<(u8, Label)>,
    labels: usize,
}

impl Program {
    /// A new label, not placed yet.
    pub(crate) fn label(&mut self) -> Label {
        self.labels += 1;
        self.labels - 1
    }

    /// A label that is placed here.
    pub(crate) fn here(&mut self) -> Label {
        let label = self.label();
        self.add(Instruction::Here(label));
        label
    }

    pub(crate) fn add(&mut self, instruction: Instruction) {
        self.instructions.push(instruction);
    }

    /// Jumps if a register holds a value, or if it holds another one.
    pub(crate) fn jump_if(&mut self, register: Register, condition: Condition, value: u32, to: Label) {
        self.add(Instruction::Do(Operation::Compare, register, value));
        self.add(Instruction::Jump(condition, to));
    }

    /// Where a label is, as the number of its instruction.
    pub(crate) fn position(&self, label: Label) -> Option<usize> {
        self.instructions.iter().position(|instruction| *instruction == Instruction::Here(label))
    }
}
