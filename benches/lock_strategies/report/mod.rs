//! What was found: tables for people, the same as JSON, and pictures.
//!
//! The tables are printed at the end of every run. A run that writes puts all of it under `docs/measurements`; every
//! file there that this benchmark made before is made anew.

mod figures;
mod tables;

use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::asked::{Asked, Extent};
use crate::measured::Measured;
use crate::measuring::report::machine;
use crate::pictures;
use crate::required::Required;

/// The name of the benchmark and the beginning of its files' names.
pub(crate) const NAME: &str = "lock_strategies";

pub(crate) struct Report<'a> {
    asked: &'a Asked,
    measured: &'a Measured,
    required: &'a [Required],
    machine: String,
}

impl<'a> Report<'a> {
    pub(crate) fn of(asked: &'a Asked, measured: &'a Measured, required: &'a [Required]) -> Self {
        Self { asked, measured, required, machine: machine() }
    }

    /// How much was run, for whoever reads the figures later.
    fn extent(&self) -> &'static str {
        match self.asked.extent {
            Extent::Full => "full",
            Extent::Quick => "quick",
            Extent::Smoke => "smoke",
        }
    }

    /// The tables, as Markdown that is also readable on a terminal.
    pub(crate) fn text(&self) -> String {
        tables::text(self)
    }

    /// Writes the tables, the figures and the pictures; gives back the files.
    pub(crate) fn write(&self) -> io::Result<Vec<PathBuf>> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/measurements");
        fs::create_dir_all(&folder)?;
        let mut files =
            vec![(format!("{NAME}.json"), serde_json::to_string_pretty(&figures::json(self))? + "\n")];
        let pictures = pictures::all(self.measured, &self.machine);
        let links =
            pictures.iter().map(|picture| (picture.title.as_str(), format!("{NAME}-{}.svg", picture.name)));
        files.push((format!("{NAME}.md"), tables::document(self, &links.collect::<Vec<_>>())));
        files.extend(
            pictures.iter().map(|picture| (format!("{NAME}-{}.svg", picture.name), picture.svg.clone())),
        );
        let mut written = Vec::new();
        for (name, text) in files {
            let path = folder.join(name);
            fs::write(&path, text)?;
            written.push(path);
        }
        Ok(written)
    }
}
