//! What it costs that a cache line comes over from another core, as others have measured it.

/// Nanoseconds, the best and the worst part of a kind.
#[derive(Clone, Copy)]
pub(crate) struct Transfer {
    pub(crate) low: f64,
    pub(crate) high: f64,
}

impl Transfer {
    /// What is in the midst of factors.
    pub(crate) fn middle(self) -> f64 {
        (self.low * self.high).sqrt()
    }
}

/// A size of machine to predict.
pub(crate) struct Large {
    pub(crate) cores: f64,
    pub(crate) what: &'static str,
    pub(crate) transfer: Transfer,
}

/// 64 cores: Graviton3 to EPYC 7773X. 256 cores, in two sockets: between the sockets of two Xeon 8375C to those of
/// two EPYC 7R13.
pub(crate) const LARGE: [Large; 2] = [
    Large { cores: 64.0, what: "one socket", transfer: Transfer { low: 46.0, high: 115.0 } },
    Large { cores: 256.0, what: "two sockets", transfer: Transfer { low: 108.0, high: 197.0 } },
];

/// Part, how far, nanoseconds. All of them: Nicolas Viennot and contributors, core-to-core-latency, medians of
/// compare-exchanges between pinned threads, 2022 to 2023, <https://github.com/nviennot/core-to-core-latency>.
pub(crate) const MEASURED: [(&str, &str, &str); 8] = [
    ("AWS Graviton3 (2021), 64 cores", "one socket", "46"),
    ("AWS Graviton2 (2020), 64 cores", "one socket", "47"),
    ("Intel Xeon Platinum 8375C (Ice Lake, 2021), 32 cores", "one socket", "51"),
    ("AMD EPYC 7773X (Milan-X, 2022), 64 cores", "one socket", "115"),
    ("AMD EPYC 7R13 (Milan, 2021), 48 cores", "8 cores with one L3; one socket", "23; 107"),
    ("2 x Intel Xeon Platinum 8375C", "between sockets", "108"),
    ("2 x Intel Xeon Gold 6242 (Cascade Lake, 2019)", "between sockets", "136"),
    ("2 x AMD EPYC 7R13", "between sockets", "197"),
];
