//! What the command line and the environment ask of the parts that are not criterion's.

use super::rounds::Effort;

/// What to run.
pub(crate) struct Asked {
    pub(crate) quick: bool,
    /// Write what was measured under `docs/`.
    pub(crate) writes: bool,
    parts: Parts,
}

enum Parts {
    All,
    /// One section of the interleaved part.
    Section(String),
    /// There is an option or a filter for criterion.
    Criterion,
}

/// The section that stands for the whole interleaved part.
const WHOLE: &str = "ratios";

impl Asked {
    /// Criterion parses the same arguments later and complains about what it does not know.
    pub(crate) fn of(sections: &[&str]) -> Self {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        let mut others =
            arguments.iter().filter(|argument| !matches!(argument.as_str(), "--bench" | "--quick"));
        let parts = match others.next() {
            None => Parts::All,
            Some(asked) if asked == WHOLE || sections.contains(&asked.as_str()) => {
                Parts::Section(asked.clone())
            }
            Some(_) => Parts::Criterion,
        };
        Self {
            quick: arguments.iter().any(|argument| argument == "--quick"),
            writes: std::env::var_os("PCIDEVS_BENCH_WRITE").is_some(),
            parts,
        }
    }

    /// Whether to run a section of the interleaved part.
    pub(crate) fn wants(&self, section: &str) -> bool {
        match &self.parts {
            Parts::All => true,
            Parts::Section(asked) => asked == section || asked == WHOLE,
            Parts::Criterion => false,
        }
    }

    /// Whether to run the interleaved part, or some of it.
    pub(crate) fn wants_rounds(&self) -> bool {
        !matches!(self.parts, Parts::Criterion)
    }

    /// Whether to run criterion.
    pub(crate) fn wants_statistics(&self) -> bool {
        !matches!(self.parts, Parts::Section(_))
    }

    pub(crate) fn effort(&self) -> Effort {
        if self.quick { Effort::QUICK } else { Effort::FULL }
    }
}
