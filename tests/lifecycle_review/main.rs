//! What a hostile reader found in the life cycle: one test for each thing that must not happen.

mod endings;
mod isolation;
mod machine;
mod undoing;
