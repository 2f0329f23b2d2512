//! What one guest may use up.

/// Quotas of a guest's connections. The host's (domain 0) have none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Limits {
    /// Nodes that it owns.
    pub nodes: usize,
    /// Bytes of a node: its path and its value.
    pub node_bytes: usize,
    /// Watches.
    pub watches: usize,
    /// Open transactions.
    pub transactions: usize,
}

impl Default for Limits {
    /// What a real store begins with.
    fn default() -> Self {
        Self { nodes: 1000, node_bytes: 2048, watches: 128, transactions: 10 }
    }
}
