//! The workloads: each fills cells with a figure for every strategy.

pub(crate) mod access;
