//! Words about a verb that can't be done: about its arguments for people, about all else for programs too.

use std::fmt::Display;

use anyhow::{Error, Result};
use clap::CommandFactory;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use serde_json::json;

use super::Arguments;
use super::remains::Remains;
use crate::config::ConfigError;

/// Version of the JSON document: it changes when a key goes or means something else.
const VERSION: u32 = 1;

/// An error of arguments that clap finds nothing wrong with.
pub(super) fn usage(problem: impl Display) -> Error {
    Arguments::command().error(ErrorKind::ValueValidation, problem).into()
}

/// Leaves the verbs that only units call out of those that there are, and of those that a misspelled one is like.
pub(super) fn without_hidden(mut error: clap::Error) -> clap::Error {
    let command = Arguments::command();
    let is_public = |verb: &String| command.find_subcommand(verb).is_some_and(|verb| !verb.is_hide_set());
    for kind in [ContextKind::SuggestedSubcommand, ContextKind::ValidSubcommand] {
        if let Some(ContextValue::Strings(mut verbs)) = error.remove(kind) {
            verbs.retain(is_public);
            if !verbs.is_empty() {
                error.insert(kind, ContextValue::Strings(verbs));
            }
        }
    }
    error
}

/// The document in place of the one that was asked for: `errors` as `config validate` has them, and the exit code.
///
/// # Errors
/// Never, as long as all of it is text and numbers.
pub(super) fn document(error: &Error, code: u8) -> Result<String> {
    let errors = if let Some(error) = error.downcast_ref::<ConfigError>() {
        serde_json::to_value(error.faults())?
    } else if let Some(remains) = error.downcast_ref::<Remains>() {
        remains
            .problems()
            .map(|problem| json!({ "problem": problem }))
            .collect()
    } else {
        json!([{ "problem": format!("{error:#}") }])
    };
    let document = json!({ "version": VERSION, "exit_code": code, "errors": errors });
    Ok(serde_json::to_string_pretty(&document)? + "\n")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use anyhow::anyhow;
    use clap::Parser;
    use serde_json::Value;

    use super::*;

    #[test]
    fn no_verb_that_only_units_call_is_told_of() {
        let told = |arguments: &[&str]| {
            let error = Arguments::try_parse_from([&["istio-vm-agent"], arguments].concat()).unwrap_err();
            without_hidden(error).to_string()
        };
        let status = told(&["statsu"]);
        assert!(status.contains("'status'") && !status.contains("'hosts'"), "{status}");
        let hosts = told(&["host"]);
        assert!(!hosts.contains("'hosts'"), "{hosts}");
        let none = told(&["--config", "/c"]);
        assert!(none.contains("status") && !none.contains("dns-standby"), "{none}");
    }

    #[test]
    fn an_error_is_a_document_with_each_place() {
        let error = ConfigError::about("c.toml", "log.level: is wrong");
        let value = |error: Error| serde_json::from_str::<Value>(&document(&error, 78).unwrap()).unwrap();
        let told = value(
            ConfigError::all([error, ConfigError::new(Path::new("/b"), "is missing")])
                .unwrap()
                .into(),
        );
        assert_eq!((&told["version"], &told["exit_code"]), (&json!(1), &json!(78)));
        assert_eq!(told["errors"][0]["place"], "c.toml");
        assert_eq!(told["errors"][1]["problem"], "is missing");
        let told = value(anyhow!("inner").context("outer"));
        assert_eq!(told["errors"], json!([{ "problem": "outer: inner" }]));
    }
}
