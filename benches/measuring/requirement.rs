//! What must be reached, as ratios within one run.

use super::rounds::{Series, Spread};

/// One requirement and what was measured.
pub(crate) struct Row {
    pub(crate) what: String,
    pub(crate) ratio: Spread,
    pub(crate) at_most: f64,
}

impl Row {
    pub(crate) fn new(what: &str, ratio: &Series, at_most: f64) -> Self {
        Self { what: what.to_owned(), ratio: ratio.spread(), at_most }
    }

    pub(crate) fn reached(&self) -> bool {
        self.ratio.median <= self.at_most
    }
}

/// A figure of memory, and what it must not exceed, if that is required.
pub(crate) struct Bytes {
    pub(crate) what: String,
    pub(crate) amount: f64,
    pub(crate) at_most: Option<f64>,
}

impl Bytes {
    pub(crate) fn new(what: &str, amount: f64, at_most: Option<f64>) -> Self {
        Self { what: what.to_owned(), amount, at_most }
    }
}
