//! What a person is asked in a terminal.

use std::io::{BufRead, Write};

use anyhow::{Result, ensure};

use super::source::SourceArguments;
use crate::terminal::one_line;

/// The sources, in the order in which they are offered.
const SOURCES: &str = "Where does this VM join?\n  1  a GKE cluster, as this instance's service account\n  \
                       2  a cluster, by its API server and a token\n  3  a cluster, by a kubeconfig\n  \
                       4  files that `istioctl x workload entry configure` wrote\n  5  the same files below an https URL\n";
/// The most tries at one question.
const TRIES: usize = 5;

/// `[join]` by a person's answers.
pub(super) fn source(from: &mut impl BufRead, to: &mut impl Write) -> Result<String> {
    write!(to, "{SOURCES}")?;
    let mut arguments = SourceArguments::default();
    let mut ask = |question: &str, is_good: fn(&str) -> bool| ask(from, to, question, is_good);
    let some = |answer: &str| !answer.is_empty();
    let kind = ask("1 to 5", |answer| matches!(answer, "1" | "2" | "3" | "4" | "5"))?;
    match kind.as_str() {
        "1" => arguments.gke = Some(ask("Cluster, PROJECT/LOCATION/NAME", |it| it.split('/').count() == 3)?),
        "2" => {
            arguments.server = Some(ask("URL of the API server", |it| it.starts_with("https://"))?);
            arguments.ca_file = Some(ask("File with its CA", some)?.into());
            arguments.token_file = Some(ask("File with a token", some)?.into());
        }
        "3" => arguments.kubeconfig = Some(ask("Path of the kubeconfig", some)?.into()),
        "4" => arguments.directory = Some(ask("Folder of the files", some)?.into()),
        _ => arguments.https = Some(ask("URL of their folder", |it| it.starts_with("https://"))?),
    }
    if matches!(kind.as_str(), "1" | "2" | "3") {
        let group = ask("WorkloadGroup, NAMESPACE/NAME", |it| it.split('/').count() == 2)?;
        arguments.workload_group = Some(group);
    }
    Ok(arguments.table()?.unwrap_or_default())
}

/// True when a person agrees to what was shown.
pub(super) fn agreement(from: &mut impl BufRead, to: &mut impl Write) -> Result<bool> {
    let answer = ask(from, to, "Start? [y/N]", |_| true)?;
    Ok(matches!(answer.to_ascii_lowercase().as_str(), "y" | "yes"))
}

fn ask(from: &mut impl BufRead, to: &mut impl Write, question: &str, is_good: fn(&str) -> bool) -> Result<String> {
    for _ in 0..TRIES {
        write!(to, "{question}: ")?;
        to.flush()?;
        let mut line = String::new();
        ensure!(from.read_line(&mut line)? > 0, "there was no answer to {question:?}");
        let answer = line.trim();
        if is_good(answer) {
            return Ok(answer.to_owned());
        }
        writeln!(to, "{:?} is none.", one_line(answer))?;
    }
    anyhow::bail!("there was no answer to {question:?} that makes sense")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{Config, JoinConfig};

    fn answered(lines: &str) -> Result<Config, String> {
        let (mut asked, mut from) = (Vec::new(), lines.as_bytes());
        let text = source(&mut from, &mut asked).map_err(|error| error.to_string())?;
        assert!(from.is_empty(), "not asked for: {from:?}");
        Ok(Config::parse(Path::new("c.toml"), &text).unwrap())
    }

    #[test]
    fn answers_make_a_configuration_of_each_source() {
        let JoinConfig::Gke(gke) = answered("1\np/l/c\nshop/catalog\n").unwrap().join else {
            panic!("another source");
        };
        assert_eq!((gke.cluster.as_str(), gke.workload_group.as_str()), ("c", "catalog"));
        for lines in [
            "2\nhttps://h\n/ca.pem\n/token\nshop/catalog\n",
            "3\n/kubeconfig\nshop/catalog\n",
            "4\n/bundle\n",
            "5\nhttps://h/bundle\n",
        ] {
            answered(lines).unwrap();
        }
    }

    #[test]
    fn answer_that_makes_no_sense_is_asked_for_again_and_not_for_ever() {
        answered("\n9\n4\n\n/bundle\n").unwrap();
        assert!(answered("4\n").unwrap_err().contains("Folder of the files"));
        assert!(answered(&"x\n".repeat(TRIES)).unwrap_err().contains("1 to 5"));
    }

    #[test]
    fn only_a_yes_is_one() {
        for (line, wanted) in [
            ("y\n", true),
            ("YES\n", true),
            ("\n", false),
            ("n\n", false),
            ("yet\n", false),
        ] {
            let agreed = agreement(&mut line.as_bytes(), &mut Vec::new()).unwrap();
            assert_eq!(agreed, wanted, "{line:?}");
        }
        assert!(agreement(&mut &b""[..], &mut Vec::new()).is_err());
    }
}
