//! What the strategies of the benchmark promise of a removal: kept where they say so, and shown broken where they
//! say that.
//!
//! A test of a broken promise passes because it demonstrates the violation: should a strategy learn to keep it,
//! the test fails, and the table in the strategy's file is to be corrected.

mod device;
mod promises {
    mod broken;
    mod kept;
    mod same;
}
mod strategies;
mod strategy;
