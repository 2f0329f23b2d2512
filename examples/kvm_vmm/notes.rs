//! What the guest tells: writes to ports of this VMM's own.

use std::fmt;

/// Where they are: one port for each note, 4 bytes apart.
const FIRST_PORT: u16 = 0x500;

/// What a guest has found or done. The value is what it wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Note {
    FoundAt,
    FoundId,
    Enumerated,
    BarSizing,
    BarAddress,
    Command,
    MsixAt,
    MsixControl,
    TableData,
    Rung,
    InterruptedByDoorbell,
    InterruptedByBackend,
    Scratch,
    Vanished,
    BarOfNobody,
    ScratchOfNobody,
    Back,
    CommandOfNew,
    BarOfNew,
    Bystander,
    Done,
}

use Note::{
    Back, BarAddress, BarOfNew, BarOfNobody, BarSizing, Bystander, Command, CommandOfNew, Done, Enumerated,
    FoundAt, FoundId, InterruptedByBackend, InterruptedByDoorbell, MsixAt, MsixControl, Rung, Scratch,
    ScratchOfNobody, TableData, Vanished,
};

const ALL: [Note; 21] = [
    FoundAt,
    FoundId,
    Enumerated,
    BarSizing,
    BarAddress,
    Command,
    MsixAt,
    MsixControl,
    TableData,
    Rung,
    InterruptedByDoorbell,
    InterruptedByBackend,
    Scratch,
    Vanished,
    BarOfNobody,
    ScratchOfNobody,
    Back,
    CommandOfNew,
    BarOfNew,
    Bystander,
    Done,
];

impl Note {
    pub(crate) const fn port(self) -> u16 {
        FIRST_PORT + 4 * self as u16
    }

    pub(crate) fn of_port(port: u16) -> Option<Self> {
        ALL.into_iter().find(|note| note.port() == port)
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FoundAt => "a function at CF8 address",
            FoundId => "  its device and vendor ID",
            Enumerated => "looked at all device numbers; functions found",
            BarSizing => "BAR 0 after ones were written",
            BarAddress => "BAR 0 put at",
            Command => "the command register after memory decoding was switched on",
            MsixAt => "the MSI-X capability at",
            MsixControl => "its control word after it was switched on",
            TableData => "what its first entry sends, read back from the table in BAR 0",
            Rung => "rang the doorbell in BAR 0; rings so far",
            InterruptedByDoorbell => "interrupted by vector 0; interrupts so far",
            InterruptedByBackend => "interrupted by vector 1; interrupts so far",
            Scratch => "wrote to BAR 2, mapped directly, and read",
            Vanished => "the function reads",
            BarOfNobody => "  where its BAR 0 was, I read",
            ScratchOfNobody => "  where its BAR 2 was, I read",
            Back => "there it is again; its device and vendor ID",
            CommandOfNew => "  its status and command registers",
            BarOfNew => "  its BAR 0",
            Bystander => "the other function's device and vendor ID",
            Done => "done",
        })
    }
}
