//! Scripts that once went wrong, as short as they became.

use pcidevs::DomainId;

use super::machine::at;
use super::operations::{At, Operation, Start};
use super::stage::Stage;

#[test]
fn tmp() {
    let mut stage = Stage::new(Start::Booted);
    let one = At(at("0000:05:00.0"));
    println!("{:?}", stage.perform(&Operation::AssignGroup { at: one, guest: DomainId::new(1) }));
    stage.machine().record(true);
    stage.lifecycle.shut_down();
    for call in stage.machine().take_journal() {
        println!("{call}");
    }
}
