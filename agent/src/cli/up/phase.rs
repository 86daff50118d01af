//! The line of a phase: on a terminal it changes while the phase goes on, elsewhere it is printed once, in the end.

use std::io::{IsTerminal, Write, stdout};

use anyhow::Result;
use tokio::time::Instant;

use crate::docker::Progress;
use crate::terminal::one_line;

/// Width of the column of names.
const NAME: usize = 15;
/// Characters of a bar.
const BAR: u64 = 20;
/// Columns of a terminal, beyond which a line that changes would leave parts of itself behind.
const WIDTH: usize = 79;
/// Goes to the first column and empties the line (ECMA-48).
const AGAIN: &str = "\r\u{1b}[K";
const MEGABYTE: f64 = 1e6;

pub(super) struct Phase {
    name: &'static str,
    is_live: bool,
    /// When a bar was drawn last.
    drawn: Option<Instant>,
}

impl Phase {
    pub(super) fn begin(name: &'static str) -> Result<Self> {
        let phase = Self {
            name,
            is_live: stdout().is_terminal(),
            drawn: None,
        };
        phase.tell("…")?;
        Ok(phase)
    }

    /// Says how it is, until it says something else.
    pub(super) fn tell(&self, text: &str) -> Result<()> {
        if self.is_live {
            let line = row(self.name, text);
            let line: String = line.chars().take(WIDTH).collect();
            write!(stdout(), "{AGAIN}{line}")?;
            stdout().flush()?;
        }
        Ok(())
    }

    /// Draws how much of something has come, ten times a second at most.
    pub(super) fn bar(&mut self, of: &str, progress: Progress) {
        let is_due = self.drawn.is_none_or(|drawn| drawn.elapsed().as_millis() >= 100);
        if is_due {
            self.drawn = Some(Instant::now());
            // What can't be shown keeps nothing from coming.
            let _ = self.tell(&format!("{} {of}", bar(progress)));
        }
    }

    pub(super) fn end(&mut self, text: &str) -> Result<()> {
        let again = if self.is_live { AGAIN } else { "" };
        writeln!(stdout(), "{again}{}", row(self.name, text))?;
        self.is_live = false;
        Ok(())
    }
}

impl Drop for Phase {
    /// An error gets a line of its own.
    fn drop(&mut self) {
        if self.is_live {
            let _ = writeln!(stdout());
        }
    }
}

fn row(name: &str, text: &str) -> String {
    format!("{name:<NAME$}{}", one_line(text))
}

fn bar(Progress { here, all }: Progress) -> String {
    let done = (here.min(all) * BAR).checked_div(all).unwrap_or_default();
    let (full, rest) = ("#".repeat(done as usize), ".".repeat((BAR - done) as usize));
    let megabytes = |bytes: u64| bytes as f64 / MEGABYTE;
    format!("[{full}{rest}] {:.0} of {:.0} MB", megabytes(here), megabytes(all))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bar_shows_how_much_is_here() {
        let of = |here, all| bar(Progress { here, all });
        assert_eq!(of(0, 0), "[....................] 0 of 0 MB");
        assert_eq!(of(25_000_000, 100_000_000), "[#####...............] 25 of 100 MB");
        assert_eq!(of(2, 1), "[####################] 0 of 0 MB");
    }

    #[test]
    fn row_is_one_line_whatever_it_says() {
        assert_eq!(row("Envoy", "a\nb\u{1b}[31m"), "Envoy          a\\nb\\u001b[31m");
    }
}
