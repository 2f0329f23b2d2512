//! What the paths took when it was last accepted, and what has changed since.

use std::path::PathBuf;
use std::process::Command;

use serde_json::{Map, Value, json};

/// Where it is kept, from the repository's root.
pub(crate) const FILE: &str = "benches/instructions/baseline.json";

/// The instructions of each path, and what they were counted with.
pub(crate) struct Baseline {
    architecture: String,
    compiler: String,
    paths: Vec<(String, f64)>,
}

/// One path, then and now. A path that is only in one of them is a change that somebody must accept.
pub(crate) struct Change {
    pub(crate) path: String,
    pub(crate) was: Option<f64>,
    pub(crate) is: Option<f64>,
    /// How much longer it may become, in percent.
    margin: f64,
}

impl Change {
    /// In percent.
    pub(crate) fn longer_by(&self) -> Option<f64> {
        let was = self.was?;
        Some((self.is? - was) / was * 100.0)
    }

    pub(crate) fn is_allowed(&self) -> bool {
        self.longer_by().is_some_and(|percent| percent <= self.margin)
    }

    /// Shorter by more than it may become longer: until that is accepted, it may be lost again unnoticed.
    pub(crate) fn is_gain(&self) -> bool {
        self.longer_by().is_some_and(|percent| percent < -self.margin)
    }
}

impl Baseline {
    /// Counted just now, on this machine.
    pub(crate) fn of(paths: Vec<(String, f64)>) -> Self {
        Self { architecture: std::env::consts::ARCH.to_owned(), compiler: compiler(), paths }
    }

    pub(crate) fn is_of_this_architecture(&self) -> bool {
        self.architecture == std::env::consts::ARCH
    }

    /// A note if the code was compiled by another compiler.
    pub(crate) fn other_compiler(&self, now: &Self) -> Option<String> {
        let (then, now) = (&self.compiler, &now.compiler);
        (then != now)
            .then(|| format!("The baseline is from {then}; this is {now}. What changed may be its doing."))
    }

    /// Every path of both, in the order of `now`. `margin`: how much longer a path may become.
    pub(crate) fn compared_with(&self, now: &Self, margin: impl Fn(&str) -> Option<f64>) -> Vec<Change> {
        let at = |paths: &[(String, f64)], path: &str| {
            paths.iter().find(|(known, _)| known == path).map(|(_, instructions)| *instructions)
        };
        let lost = self.paths.iter().filter(|(path, _)| at(&now.paths, path).is_none());
        let all = now.paths.iter().chain(lost).map(|(path, _)| Change {
            path: path.clone(),
            was: at(&self.paths, path),
            is: at(&now.paths, path),
            margin: margin(path).unwrap_or(0.0),
        });
        all.collect()
    }

    pub(crate) fn read() -> Result<Self, String> {
        let text = std::fs::read_to_string(file()).map_err(|error| format!("{FILE}: {error}"))?;
        Self::parse(&text).ok_or(format!("{FILE} is not as this program writes it"))
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        let known: Value = serde_json::from_str(text).ok()?;
        let word = |key: &str| known[key].as_str().map(str::to_owned);
        let paths = known["instructions"].as_object()?.iter();
        let paths: Option<Vec<_>> =
            paths.map(|(path, count)| Some((path.clone(), count.as_f64()?))).collect();
        Some(Self { architecture: word("architecture")?, compiler: word("compiler")?, paths: paths? })
    }

    pub(crate) fn write(&self) -> Result<(), String> {
        std::fs::write(file(), self.text()?).map_err(|error| format!("{FILE}: {error}"))
    }

    pub(crate) fn text(&self) -> Result<String, String> {
        // A tenth of an instruction: what is done every so often is spread over the repetitions.
        let rounded = |count: f64| (count * 10.0).round() / 10.0;
        let paths: Map<String, Value> =
            self.paths.iter().map(|(path, count)| (path.clone(), json!(rounded(*count)))).collect();
        let known =
            json!({"architecture": self.architecture, "compiler": self.compiler, "instructions": paths});
        let text = serde_json::to_string_pretty(&known).map_err(|error| error.to_string())?;
        Ok(text + "\n")
    }
}

fn file() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(FILE)
}

/// What compiles the code here.
fn compiler() -> String {
    let asked = Command::new("rustc").arg("--version").current_dir(env!("CARGO_MANIFEST_DIR")).output();
    asked.map_or_else(
        |_| "an unknown compiler".to_owned(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    )
}
