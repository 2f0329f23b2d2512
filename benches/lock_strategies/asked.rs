//! What the command line asks for.

use crate::measuring::rounds::Effort;

/// How much to run.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// All sizes, all rounds.
    Full,
    /// Two minutes: the sizes that decide.
    Quick,
    /// Seconds: does everything run?
    Smoke,
}

/// What to run.
pub(crate) struct Asked {
    pub(crate) extent: Extent,
    /// Only the strategies whose name contains this, in lower case.
    pub(crate) filter: Option<String>,
    /// Write tables, figures and pictures under `docs/`.
    pub(crate) writes: bool,
}

impl Asked {
    /// Complains about what it does not know.
    pub(crate) fn from_command_line() -> Result<Self, String> {
        Self::of(std::env::args().skip(1))
    }

    fn of(arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        // Without `--bench` it was `cargo test` that started this.
        let (mut benched, mut quick, mut smoke, mut write, mut filter) = (false, false, false, false, None);
        let mut arguments = arguments;
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--bench" => benched = true,
                "--quick" => quick = true,
                "--test" => smoke = true,
                "--write" => write = true,
                "--filter" => {
                    filter = Some(arguments.next().ok_or("--filter wants a strategy's name")?.to_lowercase());
                }
                other => {
                    return Err(format!("unknown: {other} (known: --quick, --test, --write, --filter NAME)"));
                }
            }
        }
        let extent = match (smoke || !benched, quick) {
            (true, _) => Extent::Smoke,
            (false, true) => Extent::Quick,
            (false, false) => Extent::Full,
        };
        let write = write || std::env::var_os("PCIDEVS_BENCH_WRITE").is_some();
        let writes = write || extent == Extent::Full && filter.is_none();
        Ok(Self { extent, filter, writes })
    }

    pub(crate) fn wants(&self, strategy: &str) -> bool {
        self.filter.as_ref().is_none_or(|asked| strategy.to_lowercase().contains(asked))
    }

    pub(crate) fn effort(&self) -> Effort {
        use std::time::Duration;
        match self.extent {
            Extent::Full => Effort { rounds: 31, ..Effort::FULL },
            Extent::Quick => Effort { rounds: 9, ..Effort::QUICK },
            Extent::Smoke => {
                Effort { rounds: 2, turn: Duration::from_micros(50), warm_up: Duration::from_micros(10) }
            }
        }
    }
}
