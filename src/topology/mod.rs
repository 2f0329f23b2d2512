//! Reading real machines.
