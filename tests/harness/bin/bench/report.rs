//! The table that `make bench` writes, as Markdown and as JSON: each figure as the median of its rounds, beside that of
//! another program in the same rounds.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

/// Where a document has the table.
const BEGIN: &str = "<!-- make bench -->";
const END: &str = "<!-- end -->";

/// Rows in the order in which they were measured.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    rows: Vec<Row>,
}

#[derive(Debug, Serialize)]
struct Row {
    /// The figure, and its unit.
    figure: String,
    agent: Summary,
    /// Nothing where there is no such figure of another program.
    beside: Option<Beside>,
}

/// The same figure of another program.
#[derive(Debug, Serialize)]
struct Beside {
    program: String,
    figure: Summary,
    /// The agent's of the other's, round by round.
    ratio: Summary,
}

/// A figure over all rounds.
#[derive(Clone, Copy, Debug, Serialize)]
struct Summary {
    median: f64,
    least: f64,
    most: f64,
}

impl Summary {
    fn of(values: &[f64]) -> Self {
        let mut values = values.to_vec();
        values.sort_by(f64::total_cmp);
        let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
        Self {
            median: at(values.len() / 2),
            least: at(0),
            most: at(values.len().saturating_sub(1)),
        }
    }

    fn text(self, decimals: usize) -> String {
        let Self { median, least, most } = self;
        format!("{median:.decimals$} ({least:.decimals$}–{most:.decimals$})")
    }
}

impl Report {
    /// A figure of the agent alone.
    pub(crate) fn add(&mut self, figure: &str, agent: &[f64]) {
        self.push(figure, agent, None);
    }

    /// A figure of the agent and of `program`, a value a round each.
    pub(crate) fn compare(&mut self, figure: &str, agent: &[f64], program: &str, other: &[f64]) {
        let ratios: Vec<f64> = agent.iter().zip(other).map(|(agent, other)| agent / other).collect();
        let beside = Beside {
            program: program.to_owned(),
            figure: Summary::of(other),
            ratio: Summary::of(&ratios),
        };
        self.push(figure, agent, Some(beside));
    }

    fn push(&mut self, figure: &str, agent: &[f64], beside: Option<Beside>) {
        let row = Row {
            figure: figure.to_owned(),
            agent: Summary::of(agent),
            beside,
        };
        println!("{}", row.line());
        self.rows.push(row);
    }

    /// The table, with a line on how to read it.
    fn table(&self, rounds: usize) -> Result<String> {
        let mut text = format!(
            "Medians of {rounds} rounds in turns; least and most in brackets. A ratio is the agent's figure of the other's, round by \
             round.\n\n| figure | istio-vm-agent | beside it | ratio |\n|---|---|---|---|\n"
        );
        for row in &self.rows {
            writeln!(text, "{}", row.line())?;
        }
        Ok(text)
    }

    /// Puts the table into a document, in the place of the one before.
    pub(crate) fn put_into(&self, document: &Path, rounds: usize) -> Result<()> {
        let text = fs::read_to_string(document).with_context(|| format!("failed to read {}", document.display()))?;
        let parts = text
            .split_once(BEGIN)
            .and_then(|(head, rest)| Some((head, rest.split_once(END)?.1)));
        let (head, tail) = parts.with_context(|| format!("{} has no {BEGIN} and {END}", document.display()))?;
        let table = self.table(rounds)?;
        fs::write(document, format!("{head}{BEGIN}\n{table}{END}{tail}"))?;
        Ok(())
    }

    /// Writes bench.md and bench.json.
    pub(crate) fn write(&self, folder: &Path, rounds: usize) -> Result<()> {
        fs::create_dir_all(folder)?;
        for (name, contents) in [
            ("bench.md", self.table(rounds)?),
            ("bench.json", serde_json::to_string_pretty(self)? + "\n"),
        ] {
            let path = folder.join(name);
            fs::write(&path, contents).with_context(|| format!("failed to write {}", path.display()))?;
            println!("{}", path.display());
        }
        Ok(())
    }
}

impl Row {
    fn line(&self) -> String {
        let (beside, ratio) = match &self.beside {
            Some(Beside { program, figure, ratio }) => (format!("{program}: {}", figure.text(1)), ratio.text(2)),
            None => Default::default(),
        };
        format!("| {} | {} | {beside} | {ratio} |", self.figure, self.agent.text(1))
    }
}
