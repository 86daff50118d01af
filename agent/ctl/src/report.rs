//! `report`: a run as a page of Markdown and a picture, from the lines that `run --json` prints.
//!
//! Nothing is asked: what the run itself saw is the report, so that it can be made again, and of a run that failed too.

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod lines;
mod page;
mod picture;

use std::path::Path;
use std::sync::PoisonError;

use anyhow::{Context as _, Result};

use crate::output::Record;

use lines::Told;

/// Writes the report of what was told so far, where it was kept.
pub(crate) fn of_record(record: Option<&Record>, page: &Path) -> Result<()> {
    let lines = record.map(|record| record.lock().unwrap_or_else(PoisonError::into_inner).join("\n"));
    let lines = lines.unwrap_or_default();
    // A run above its last step judges nothing, and says so itself.
    match lines.contains(r#""event":"judged""#) {
        true => write(&lines, page),
        false => Ok(()),
    }
}

/// Writes the report of `lines` to `page`, and its picture beside it, with the ending `.svg`.
#[expect(
    clippy::disallowed_methods,
    reason = "the operator's own files on the operator's machine, which has no Host"
)]
fn write(lines: &str, page: &Path) -> Result<()> {
    let run = lines::parse(lines)?;
    let picture = page.with_extension("svg");
    let name = picture.file_name().unwrap_or_default().to_string_lossy();
    for (path, text) in [
        (picture.as_path(), picture::draw(&run)?),
        (page, page::text(&run, &name)?),
    ] {
        std::fs::write(path, text).with_context(|| format!("failed to write {}", path.display()))?;
    }
    Ok(())
}

/// Writes the report of a file of such lines.
#[expect(
    clippy::disallowed_methods,
    reason = "the operator's own file on the operator's machine, which has no Host"
)]
pub(crate) fn of_file(lines: &Path, page: &Path) -> Result<()> {
    let about = || format!("failed to read {}: `run --json` prints its lines", lines.display());
    let text = std::fs::read_to_string(lines).with_context(about)?;
    write(&text, page).with_context(|| lines.display().to_string())
}

/// One run, in the order in which it was told.
#[derive(Clone, Debug)]
struct Run {
    /// Each with its seconds since the first.
    told: Vec<(f64, Told)>,
    /// The first moment and the last one (RFC 3339).
    from: String,
    to: String,
}

impl Run {
    /// The clusters that the gate has judged, in their first order.
    fn clusters(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for (_, told) in &self.told {
            if let Told::Judged(judged) = told
                && !names.contains(&judged.cluster.as_str())
            {
                names.push(&judged.cluster);
            }
        }
        names
    }

    /// Seconds from the first line to the last.
    fn length(&self) -> f64 {
        self.told.last().map_or(0.0, |(at, _)| *at)
    }
}

#[cfg(test)]
mod tests;
