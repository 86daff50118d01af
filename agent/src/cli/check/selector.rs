//! `--only`: which of the things that `check` looks at are asked about.

use std::ffi::OsStr;
use std::str::FromStr;

use anyhow::Result;
use clap::builder::{PossibleValue, StringValueParser, TypedValueParser};
use clap::{Arg, Command, Error};

use crate::cli::usage;
use crate::part::{Question, Subject};

/// A code, or an area's name.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Word {
    Code(String),
    Area(&'static str),
}

/// Reads a [`Word`]; shells complete the areas, by which one asks without looking a code up.
#[derive(Clone)]
pub(super) struct WordParser;

impl TypedValueParser for WordParser {
    type Value = Word;

    fn parse_ref(&self, command: &Command, argument: Option<&Arg>, value: &OsStr) -> Result<Word, Error> {
        let parser = StringValueParser::new().try_map(|word| word.parse::<Word>());
        parser.parse_ref(command, argument, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(Subject::areas().map(PossibleValue::new)))
    }
}

impl FromStr for Word {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        if let Some(area) = Subject::areas().find(|area| *area == word) {
            return Ok(Self::Area(area));
        }
        let code = word.to_ascii_uppercase();
        let digits = code.strip_prefix("IVA").unwrap_or_default();
        if digits.len() == 3 && digits.bytes().all(|digit| digit.is_ascii_digit()) {
            return Ok(Self::Code(code));
        }
        let areas: Vec<&str> = Subject::areas().collect();
        Err(format!("write a code, such as IVA301, or one of {}", areas.join(", ")))
    }
}

/// The words of `--only`; all is asked about where there is none.
#[derive(Debug, Default)]
pub(super) struct Selector(Vec<Word>);

impl FromIterator<Word> for Selector {
    fn from_iter<T: IntoIterator<Item = Word>>(words: T) -> Self {
        Self(words.into_iter().collect())
    }
}

impl Selector {
    pub(super) fn takes(&self, subject: Subject) -> bool {
        self.takes_code(subject.code)
    }

    pub(super) fn takes_code(&self, code: &'static str) -> bool {
        let area = Subject::new(code, "").area();
        let takes = |word: &Word| match word {
            Word::Code(word) => word == code,
            Word::Area(word) => *word == area,
        };
        self.0.is_empty() || self.0.iter().any(takes)
    }

    /// Fails when a word is the code of no question: a misspelled one would be a check that always succeeds.
    pub(super) fn expect_known(&self, questions: &[Question]) -> Result<()> {
        for word in &self.0 {
            let Word::Code(code) = word else { continue };
            if !questions.iter().any(|question| question.subject.code == code) {
                return Err(usage(format!(
                    "nothing that is looked at here has the code {code}: see istio-vm-agent(8)"
                )));
            }
        }
        Ok(())
    }
}
