//! The report of an import: the files that it writes and the fate of each setting, for people and for programs.

use std::fmt::Write;
use std::path::PathBuf;

use anyhow::Result;
use serde::Serialize;

use crate::cli::Output;
use crate::host::change::diff;
use crate::host::{Host, Read};
use crate::sidecar::Note;
use crate::terminal::one_line;

/// Longer than any file that it would replace.
const MAX_BYTES: usize = 1 << 20;
/// The file whose text is never shown.
const TOKEN: &str = "istio-token";

#[derive(Serialize)]
pub(super) struct Report {
    pub(super) files: Vec<File>,
    pub(super) settings: Vec<Note>,
    pub(super) certificate: String,
}

/// A file to be written.
#[derive(Serialize)]
pub(super) struct File {
    path: PathBuf,
    /// The differences; absent where there are none.
    diff: Option<String>,
}

impl File {
    pub(super) fn compare(host: &Host, path: PathBuf, text: &str) -> Result<Self> {
        let there = host
            .read(&path, Read::max(MAX_BYTES).following_links())?
            .unwrap_or_default();
        let name = path.display().to_string();
        let diff = (there != text).then(|| {
            if path.ends_with(TOKEN) {
                return format!("a token of {} bytes, which is not shown\n", text.trim().len());
            }
            diff(&there, text, &name)
        });
        Ok(Self { path, diff })
    }
}

impl Report {
    /// The report once all is written: the names are enough.
    pub(super) fn written(mut self) -> Self {
        for file in &mut self.files {
            file.diff = None;
        }
        self
    }

    pub(super) fn print(&self, output: Output) -> Result<String> {
        Ok(match output {
            Output::Json => serde_json::to_string_pretty(self)? + "\n",
            Output::Text => self.text(),
        })
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for File { path, diff } in &self.files {
            // Writing to a String can't fail.
            let _ = match diff {
                Some(diff) => writeln!(text, "# {}\n{}\n", path.display(), diff.trim_end()),
                None => writeln!(text, "# {}", path.display()),
            };
        }
        let _ = writeln!(text, "certificate: {}", one_line(&self.certificate));
        for Note { setting, taken, detail } in &self.settings {
            let level = if *taken { "ok" } else { "NOT TAKEN" };
            let _ = writeln!(text, "{level:<11}{}", one_line(&format!("{setting}: {detail}")));
        }
        text
    }
}
