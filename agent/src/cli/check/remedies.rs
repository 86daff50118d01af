//! The remedy in a refusal of a configuration or a bundle, written to the letter, leads out of that trouble.

use strsim::damerau_levenshtein;

use super::judged::Files;
use crate::config::tests::judged::{self as configurations, rows, text_of};
use crate::join::tests::judged::{self as bundles, edited};

/// Remedies that can be followed by a program, at the least.
const LEAST: usize = 200;

/// `text` after what `problem`, of that line, says to write is written; `None` where it says nothing that a program could
/// write.
pub(super) fn followed(line: usize, problem: &str, text: &str) -> Option<String> {
    let mut lines: Vec<String> = text.split('\n').map(str::to_owned).collect();
    let line = lines.get_mut(line - 1)?;
    *line = match problem.split_once("did you mean ") {
        Some((_, meant)) => renamed(line, meant.split(['?', ')']).next()?.trim_matches('"'))?,
        None => {
            let key = problem.split([':', ' ']).next()?;
            let example = example(problem.split_once("such as ")?.1)?;
            match line.split_once("='") {
                // A line of cluster.env.
                Some((key, _)) if !line.contains(" = ") => format!("{key}='{}'", example.trim_matches('\'')),
                _ => with_value(line, key.rsplit('.').next()?, example)?,
            }
        }
    };
    Some(lines.join("\n"))
}

/// The line with the word that is nearest to `meant` called so; `None` where more than a word is meant.
fn renamed(line: &str, meant: &str) -> Option<String> {
    if meant.contains('=') {
        return None;
    }
    let words = line.split(|c: char| !(c.is_alphanumeric() || "_-".contains(c)));
    let nearest = words
        .filter(|word| !word.is_empty())
        .min_by_key(|word| damerau_levenshtein(&word.to_lowercase(), &meant.to_lowercase()))?;
    Some(line.replacen(nearest, meant, 1))
}

/// The value that a remedy begins with, as TOML or as a word.
fn example(remedy: &str) -> Option<&str> {
    let end = match remedy.chars().next()? {
        '"' => remedy[1..].find('"')? + 2,
        '[' => remedy.find(']')? + 1,
        '{' => remedy.find('}')? + 1,
        '\'' => remedy[1..].find('\'')? + 2,
        _ => remedy.find([',', ';', ' ', ')', '\n']).unwrap_or(remedy.len()),
    };
    // One with a gap is no value.
    Some(remedy[..end].trim_end_matches(['.', ':'])).filter(|example| !example.contains('…'))
}

/// A line of TOML with another value of `key`: of the key alone, or of one in a table in braces. An example of an item
/// makes a list of one.
fn with_value(line: &str, key: &str, example: &str) -> Option<String> {
    let (before, value) = line.split_once(&format!("{key} = "))?;
    let rest = match value.strip_suffix(" }") {
        Some(_) => " }",
        None => "",
    };
    let is_list = value.starts_with('[') && !example.starts_with(['[', '{']);
    Some(match is_list {
        true => format!("{before}{key} = [{example}]{rest}"),
        false => format!("{before}{key} = {example}{rest}"),
    })
}

/// Follows the first fault's remedy in the file `name`; what is still wrong, where the remedy didn't help.
fn follow(files: &Files, name: &str, text: &str, count: &mut usize) -> Option<String> {
    let error = files.judged().ok()??;
    let fault = &error.faults()[0];
    let mended = followed(fault.place.line?, &fault.problem, text)?;
    *count += 1;
    files.write(name, &mended);
    match files.judged() {
        Ok(None) => None,
        Ok(Some(left)) if !left.to_string().contains(&fault.problem) => None,
        left => Some(format!("{fault}\n-> {mended:?}\n-> {left:?}")),
    }
}

#[test]
fn remedy_of_a_refusal_leads_out_of_that_trouble() {
    let (files, mut wrong, mut count) = (Files::new(), Vec::new(), 0);
    for (input, ..) in rows(configurations::REFUSED) {
        let text = text_of(&input);
        files.write("c.toml", &text);
        wrong.extend(follow(&files, "c.toml", &text, &mut count));
    }
    files.write_directory_join();
    for (input, ..) in rows(bundles::REFUSED) {
        files.write_bundle();
        let (name, text) = edited(&input);
        let name = format!("b/{name}");
        files.write(&name, &text);
        wrong.extend(follow(&files, &name, &text, &mut count));
    }
    assert!(count >= LEAST, "{count} remedies");
    assert!(
        wrong.is_empty(),
        "{} of {count} remedies:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}
