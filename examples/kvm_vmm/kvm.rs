//! The guest on KVM: one vCPU, memory slots, and irqfds whose messages are GSI routes.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::{Mutex, MutexGuard, PoisonError};

use kvm_bindings::{
    KVM_API_VERSION, KVM_IRQ_ROUTING_MSI, KvmIrqRouting, kvm_irq_routing_entry, kvm_userspace_memory_region,
};
use kvm_ioctls::{Cap, Kvm, VcpuExit, VcpuFd, VmFd};
use pcidevs::Errno;
use pcidevs::platform::HookError;
use pcidevs::vpci::Message;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::assembler::{self, ENTRY, RAM};
use super::exits::Exits;
use super::hypervisor::{Hypervisor, Line};
use super::memory::Memory;
use super::program::Program;

/// Three pages below 4 GiB that Intel's processors need for real mode, and one for page tables.
const TASK_STATE: usize = 0xfffb_d000;
const IDENTITY_MAP: u64 = 0xfffb_c000;

const RAM_SLOT: u32 = 0;

/// Linux's numbers.
const NO_ENTRY: i32 = 2;
const INTERRUPTED: i32 = 4;

const NO_LINE: HookError = HookError::new(Errno::ENODEV, "the line is not connected");
const NOT_MAPPED: HookError = HookError::new(Errno::ENODEV, "nothing is mapped there");

/// A virtual machine.
pub(crate) struct Machine {
    vm: VmFd,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    lines: BTreeMap<u32, (EventFd, Message)>,
    /// By the address in the guest; memory stays as long as it is in a slot.
    mapped: BTreeMap<u64, (u32, Memory)>,
}

/// A guest that can run.
pub(crate) struct Cpu(VcpuFd);

/// What a hook says of a failed call. Its text goes to the log.
fn failed(reason: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> HookError {
    move |error| {
        eprintln!("KVM: {reason}: {error}");
        HookError::new(Errno::EIO, reason)
    }
}

impl Machine {
    /// A machine with this program in its RAM, or why there can be none here.
    pub(crate) fn new(program: &Program) -> Result<(Self, Cpu), String> {
        let kvm = Kvm::new().map_err(|error| match error.errno() {
            NO_ENTRY => "no /dev/kvm".to_string(),
            _ => format!("no /dev/kvm that is usable: {error}"),
        })?;
        if u32::try_from(kvm.get_api_version()) != Ok(KVM_API_VERSION) || !kvm.check_extension(Cap::Irqfd) {
            return Err("no /dev/kvm that has irqfds".into());
        }
        let unusable = |error: kvm_ioctls::Error| format!("no /dev/kvm that is usable: {error}");
        let vm = kvm.create_vm().map_err(unusable)?;
        vm.set_identity_map_address(IDENTITY_MAP).map_err(unusable)?;
        vm.set_tss_address(TASK_STATE).map_err(unusable)?;
        vm.create_irq_chip().map_err(unusable)?;
        let machine = Self { vm, state: Mutex::default() };
        let ram = Memory::new(RAM);
        assembler::load(program, &ram);
        machine.set_slot(RAM_SLOT, 0, &ram, ram.size()).map_err(unusable)?;
        machine.state().mapped.insert(0, (RAM_SLOT, ram));
        let cpu = machine.vm.create_vcpu(0).map_err(unusable)?;
        let mut special = cpu.get_sregs().map_err(unusable)?;
        (special.cs.base, special.cs.selector) = (0, 0);
        cpu.set_sregs(&special).map_err(unusable)?;
        let mut registers = cpu.get_regs().map_err(unusable)?;
        // Bit 1 of the flags is always set.
        (registers.rip, registers.rflags) = (ENTRY.into(), 1 << 1);
        cpu.set_regs(&registers).map_err(unusable)?;
        Ok((machine, Cpu(cpu)))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fills a slot; with size 0, empties it.
    fn set_slot(&self, slot: u32, base: u64, memory: &Memory, size: u64) -> Result<(), kvm_ioctls::Error> {
        let region = kvm_userspace_memory_region {
            slot,
            flags: 0,
            guest_phys_addr: base,
            memory_size: size,
            userspace_addr: memory.address(),
        };
        // SAFETY: the memory exists, with this size, as long as it is in `mapped`, which it leaves after its slot is
        // empty, or with the machine; it is atomics, so the guest may write it at any time.
        unsafe { self.vm.set_user_memory_region(region) }
    }

    /// Tells KVM which line sends what: always all of them.
    fn set_routes(&self, state: &State) -> Result<(), HookError> {
        let entries: Vec<_> = state.lines.iter().map(|(line, (_, message))| route(*line, *message)).collect();
        let routes = KvmIrqRouting::from_entries(&entries)
            .map_err(|_| HookError::new(Errno::ENOSPC, "too many lines"))?;
        self.vm.set_gsi_routing(&routes).map_err(failed("routing the lines"))
    }
}

fn route(line: u32, message: Message) -> kvm_irq_routing_entry {
    let mut entry =
        kvm_irq_routing_entry { gsi: line, type_: KVM_IRQ_ROUTING_MSI, ..kvm_irq_routing_entry::default() };
    let [b0, b1, b2, b3, b4, b5, b6, b7] = message.address.to_le_bytes();
    entry.u.msi.address_lo = u32::from_le_bytes([b0, b1, b2, b3]);
    entry.u.msi.address_hi = u32::from_le_bytes([b4, b5, b6, b7]);
    entry.u.msi.data = message.data;
    entry
}

impl Hypervisor for Machine {
    fn connect(&self, line: Line, message: Message) -> Result<(), HookError> {
        let mut state = self.state();
        if let Some((_, known)) = state.lines.get_mut(&line.0) {
            let before = core::mem::replace(known, message);
            let set = self.set_routes(&state);
            if let (Err(_), Some((_, known))) = (&set, state.lines.get_mut(&line.0)) {
                *known = before;
            }
            return set;
        }
        let event = EventFd::new(EFD_NONBLOCK)
            .map_err(|_| HookError::new(Errno::ENOMEM, "no eventfd is to be had"))?;
        let event = &state.lines.entry(line.0).or_insert((event, message)).0;
        let registered =
            event.try_clone().map_err(|_| HookError::new(Errno::ENOMEM, "no eventfd is to be had"));
        let done = registered.and_then(|event| {
            self.set_routes(&state)?;
            self.vm.register_irqfd(&event, line.0).map_err(failed("registering an irqfd"))
        });
        if done.is_err() {
            state.lines.remove(&line.0);
        }
        done
    }

    fn disconnect(&self, line: Line) -> Result<(), HookError> {
        let mut state = self.state();
        let (event, _) = state.lines.get(&line.0).ok_or(NO_LINE)?;
        // When it returns nothing of the eventfd is on its way any more.
        self.vm.unregister_irqfd(event, line.0).map_err(failed("removing an irqfd"))?;
        state.lines.remove(&line.0);
        self.set_routes(&state)
    }

    fn send(&self, line: Line) -> Result<(), HookError> {
        let state = self.state();
        let (event, _) = state.lines.get(&line.0).ok_or(NO_LINE)?;
        event.write(1).map_err(|_| HookError::new(Errno::EIO, "the eventfd takes no more"))
    }

    fn map(&self, base: u64, memory: &Memory) -> Result<(), HookError> {
        let mut state = self.state();
        let is_taken = |slot: &u32| state.mapped.values().any(|(taken, _)| taken == slot);
        let slot = (RAM_SLOT + 1..u32::MAX).find(|slot| !is_taken(slot)).ok_or(NOT_MAPPED)?;
        self.set_slot(slot, base, memory, memory.size()).map_err(failed("filling a memory slot"))?;
        state.mapped.insert(base, (slot, memory.clone()));
        Ok(())
    }

    fn unmap(&self, base: u64) -> Result<(), HookError> {
        let mut state = self.state();
        let (slot, memory) = state.mapped.get(&base).ok_or(NOT_MAPPED)?;
        self.set_slot(*slot, base, memory, 0).map_err(failed("emptying a memory slot"))?;
        state.mapped.remove(&base);
        Ok(())
    }

    fn in_use(&self) -> (usize, usize) {
        let state = self.state();
        (state.lines.len(), state.mapped.len() - 1)
    }
}

impl Cpu {
    /// Runs the guest until it is done.
    pub(crate) fn run(&mut self, exits: &mut Exits) -> Result<(), String> {
        while self.run_once(exits)?.is_continue() {}
        Ok(())
    }

    fn run_once(&mut self, exits: &mut Exits) -> Result<ControlFlow<()>, String> {
        match self.0.run() {
            Ok(VcpuExit::IoIn(port, data)) => exits.port_read(port, data),
            Ok(VcpuExit::IoOut(port, data)) => return Ok(exits.port_write(port, data)),
            Ok(VcpuExit::MmioRead(address, data)) => exits.memory_read(address, data),
            Ok(VcpuExit::MmioWrite(address, data)) => exits.memory_write(address, data),
            Ok(VcpuExit::Intr) => {}
            Ok(exit) => return Err(format!("the guest left unexpectedly: {exit:?}")),
            Err(error) if error.errno() == INTERRUPTED => {}
            Err(error) => return Err(format!("the guest cannot run: {error}")),
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Runs the guest for so many exits to ports, which `read` and `write` answer.
    pub(crate) fn run_ports(
        &mut self,
        count: u32,
        mut read: impl FnMut(u16, &mut [u8]),
        mut write: impl FnMut(u16, &[u8]),
    ) -> Result<(), String> {
        for _ in 0..count {
            match self.0.run() {
                Ok(VcpuExit::IoIn(port, data)) => read(port, data),
                Ok(VcpuExit::IoOut(port, data)) => write(port, data),
                Ok(exit) => return Err(format!("the guest left unexpectedly: {exit:?}")),
                Err(error) => return Err(format!("the guest cannot run: {error}")),
            }
        }
        Ok(())
    }
}
