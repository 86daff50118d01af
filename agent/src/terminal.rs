//! Text that may go to a terminal. Much of what is printed was said by others: istiod, Envoy, the application, a
//! bundle, Docker. A terminal would take some of it for commands, and a reader some of it for ours.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};

use crate::config::env;

/// `text` with everything that doesn't print as itself escaped as JSON does, so that JSON stays JSON and means the same:
/// escape sequences of a terminal (C0, DEL, C1), marks that change the direction or hide what follows. Lines and tabs
/// stay.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    if text.chars().all(is_printable) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len());
    for char in text.chars() {
        if is_printable(char) {
            safe.push(char);
            continue;
        }
        for unit in char.encode_utf16(&mut [0; 2]) {
            // Writing to a String can't fail.
            let _ = write!(safe, "\\u{unit:04x}");
        }
    }
    Cow::Owned(safe)
}

/// The same in one line: a word of somebody else's can't look like a line of ours.
pub(crate) fn one_line(text: &str) -> Cow<'_, str> {
    match printable(text) {
        safe if safe.contains(['\n', '\t']) => Cow::Owned(safe.replace('\n', "\\n").replace('\t', " ")),
        safe => safe,
    }
}

/// The same in paragraphs: lines after the first are indented, so that they can't look like a line of ours.
pub(crate) fn indented(text: &str) -> Cow<'_, str> {
    match printable(text) {
        safe if safe.contains('\n') => Cow::Owned(safe.replace('\n', "\n    ")),
        safe => safe,
    }
}

/// Colors of a terminal. They are put around what is printable already, which has no escape sequence of its own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Paint {
    has_colors: bool,
}

/// A color, by what it says (ECMA-48, Select Graphic Rendition).
#[derive(Clone, Copy, Debug)]
pub(crate) enum Tone {
    /// Green.
    Good,
    /// Yellow.
    Warning,
    /// Red and bold.
    Bad,
}

impl Paint {
    /// No colors.
    pub(crate) const PLAIN: Self = Self { has_colors: false };

    /// Colors, wherever they go.
    #[cfg(test)]
    pub(crate) const COLORED: Self = Self { has_colors: true };

    /// Colors where stdout is a terminal that has some and the user wants any.
    pub(crate) fn of_stdout() -> Self {
        let kind = env::terminal();
        let is_able = kind.is_some_and(|kind| kind != "dumb");
        Self {
            has_colors: is_able && !env::no_color() && io::stdout().is_terminal(),
        }
    }

    /// `text` in that color.
    pub(crate) fn paint(self, tone: Tone, text: &str) -> Cow<'_, str> {
        if !self.has_colors || text.is_empty() {
            return Cow::Borrowed(text);
        }
        let code = match tone {
            Tone::Good => "32",
            Tone::Warning => "33",
            Tone::Bad => "1;31",
        };
        Cow::Owned(format!("\u{1b}[{code}m{text}\u{1b}[0m"))
    }

    /// Escape codes that empty the screen before it is drawn again; empty where there is no terminal.
    pub(crate) fn clear(self) -> &'static str {
        match self.has_colors {
            true => "\u{1b}[H\u{1b}[2J",
            false => "",
        }
    }
}

fn is_printable(char: char) -> bool {
    match char {
        '\n' | '\t' | '"' | '\'' | '\\' => true,
        ' '..='~' => true,
        // The standard library's own table: control, format, surrogate, private and unassigned characters, odd blanks.
        _ => char.escape_debug().len() == 1,
    }
}

/// Writes log lines, each of them in one piece, so that they look as they should.
#[derive(Debug)]
pub(crate) struct Lines<W>(pub(crate) W);

impl<W: Write> Write for Lines<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        let safe = match text.strip_suffix('\n') {
            Some(line) => Cow::Owned(format!("{}\n", indented(line))),
            None => indented(&text),
        };
        self.0.write_all(safe.as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Controls but lines and tabs, and what reorders or hides text (Unicode, UAX 9 and "Trojan Source").
    fn is_harmful(char: char) -> bool {
        let marks = [
            '\u{61c}'..='\u{61c}',
            '\u{200b}'..='\u{200f}',
            '\u{2028}'..='\u{202e}',
            '\u{2060}'..='\u{206f}',
        ];
        (char.is_control() && !matches!(char, '\n' | '\t')) || marks.iter().any(|range| range.contains(&char))
    }

    #[test]
    fn text_that_a_terminal_would_obey_is_shown() {
        let text = "ok \u{1b}]0;x\u{7}\r\u{9b}2J\u{7f} \u{202e}evil\u{2069}\u{feff} é 日本 \u{e0041}\n\tnext";
        let shown =
            "ok \\u001b]0;x\\u0007\\u000d\\u009b2J\\u007f \\u202eevil\\u2069\\ufeff é 日本 \\udb40\\udc41\n\tnext";
        assert_eq!(printable(text), shown);
        assert_eq!(one_line("a\nHealth  ready"), "a\\nHealth  ready");
        assert_eq!(indented("a\nb"), "a\n    b");
    }

    #[test]
    fn colors_are_for_terminals() {
        assert_eq!(Paint::PLAIN.paint(Tone::Bad, "DOWN"), "DOWN");
        let colored = Paint::COLORED;
        assert_eq!(colored.paint(Tone::Good, "ready"), "\u{1b}[32mready\u{1b}[0m");
        assert_eq!(colored.paint(Tone::Bad, ""), "");
    }

    #[test]
    fn line_of_the_log_ends_where_it_ends() {
        let mut log = Vec::new();
        Lines(&mut log)
            .write_all(b"WARN said: a\r\nINFO forged \xff\n")
            .unwrap();
        assert_eq!(
            String::from_utf8(log).unwrap(),
            "WARN said: a\\u000d\n    INFO forged \u{fffd}\n"
        );
    }

    proptest! {
        #[test]
        fn text_gets_out_harmless(text in any::<String>(), marks in "[\u{1}-\u{1f}\u{7f}-\u{9f}\u{200b}-\u{206f}\u{61c}]{0,9}") {
            let text = format!("{text}{marks}");
            for safe in [printable(&text), one_line(&text), indented(&text)] {
                prop_assert!(!safe.chars().any(is_harmful), "{safe:?}");
            }
            prop_assert!(!one_line(&text).contains('\n'));
            prop_assert!(indented(&text).lines().skip(1).all(|line| line.starts_with("    ")));
        }

        #[test]
        fn json_means_the_same(text in any::<String>(), marks in "[\u{7f}-\u{9f}\u{200b}-\u{206f}]{0,9}") {
            let value = serde_json::json!({ text.clone(): [format!("{text}{marks}")] });
            let printed = serde_json::to_string_pretty(&value).unwrap();
            prop_assert_eq!(serde_json::from_str::<serde_json::Value>(&printable(&printed)).unwrap(), value);
        }
    }
}
