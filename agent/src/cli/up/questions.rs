//! Questions to a person in a terminal.

use std::io::{BufRead, Write};

use anyhow::{Result, ensure};

use super::source::SourceArguments;
use crate::host::Host;
use crate::terminal::one_line;

/// The sources, in the order in which they are offered.
const SOURCES: &str = "Where does this VM join?\n  1  a GKE cluster, as this instance's service account\n  \
                       2  a cluster, by its API server and a token\n  3  a cluster, by a kubeconfig\n  \
                       4  files that `istioctl x workload entry configure` wrote\n  5  the same files below an https URL\n";
/// The most tries at one question.
const TRIES: usize = 5;

/// `[join]` by a person's answers, beside what the `arguments` say already.
pub(super) fn source(
    host: &Host,
    mut arguments: SourceArguments,
    from: &mut impl BufRead,
    to: &mut impl Write,
) -> Result<String> {
    write!(to, "{SOURCES}")?;
    let mut ask = |question: &str, is_good: &dyn Fn(&str) -> bool| ask(from, to, question, is_good);
    let is_there = |answer: &str| {
        let path = std::path::absolute(answer);
        path.is_ok_and(|path| host.exists(&path))
    };
    let is_empty_or_there = |answer: &str| answer.is_empty() || is_there(answer);
    let is_url = |answer: &str| answer.starts_with("https://");
    let kind = ask("1 to 5", &|answer| matches!(answer, "1" | "2" | "3" | "4" | "5"))?;
    match kind.as_str() {
        "1" => arguments.gke = Some(ask("Cluster, PROJECT/LOCATION/NAME", &|it| it.split('/').count() == 3)?),
        "2" => {
            arguments.server = Some(ask("URL of the API server", &is_url)?);
            let ca = ask("File with its CA (empty: whom this VM trusts)", &is_empty_or_there)?;
            arguments.ca_file = Some(ca).filter(|ca| !ca.is_empty()).map(Into::into);
            arguments.token_file = Some(ask("File with a token", &is_there)?.into());
        }
        "3" => arguments.kubeconfig = Some(ask("Path of the kubeconfig", &is_there)?.into()),
        "4" => arguments.directory = Some(ask("Folder of the files", &is_there)?.into()),
        _ => arguments.https = Some(ask("URL of their folder", &is_url)?),
    }
    if matches!(kind.as_str(), "1" | "2" | "3") {
        let group = ask("WorkloadGroup, NAMESPACE/NAME", &|it| it.split('/').count() == 2)?;
        arguments.workload_group = Some(group);
        if arguments.ingress.is_none() {
            let question = "Address at which VMs reach istiod (empty: that of the Service istio-eastwestgateway)";
            arguments.ingress =
                Some(ask(question, &|it| !it.contains(char::is_whitespace))?).filter(|it| !it.is_empty());
        }
    }
    Ok(arguments.table()?.unwrap_or_default())
}

/// True when a person agrees to what was shown.
pub(super) fn agreement(from: &mut impl BufRead, to: &mut impl Write) -> Result<bool> {
    let answer = ask(from, to, "Start? [y/N]", &|_| true)?;
    Ok(matches!(answer.to_ascii_lowercase().as_str(), "y" | "yes"))
}

fn ask(from: &mut impl BufRead, to: &mut impl Write, question: &str, is_good: &dyn Fn(&str) -> bool) -> Result<String> {
    for _ in 0..TRIES {
        write!(to, "{question}: ")?;
        to.flush()?;
        let mut line = String::new();
        ensure!(from.read_line(&mut line)? > 0, "there was no answer to {question:?}");
        let answer = line.trim();
        if is_good(answer) {
            return Ok(answer.to_owned());
        }
        writeln!(to, "{:?} is none that can be used.", one_line(answer))?;
    }
    anyhow::bail!("there was no answer to {question:?} that makes sense")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{Config, JoinConfig};
    use crate::host::System;

    /// The answers on a VM that has these files.
    fn answered_beside(arguments: SourceArguments, lines: &str) -> Result<Config, String> {
        let root = tempfile::tempdir().unwrap();
        for file in ["ca.pem", "token", "kubeconfig", "bundle"] {
            std::fs::write(root.path().join(file), "").unwrap();
        }
        let host = Host::new(root.path(), System);
        let (mut asked, mut from) = (Vec::new(), lines.as_bytes());
        let text = source(&host, arguments, &mut from, &mut asked).map_err(|error| error.to_string())?;
        assert!(from.is_empty(), "not asked for: {from:?}");
        Ok(Config::parse(Path::new("c.toml"), &text).unwrap())
    }

    fn answered(lines: &str) -> Result<Config, String> {
        answered_beside(SourceArguments::default(), lines)
    }

    #[test]
    fn answers_make_a_configuration_of_each_source() {
        let JoinConfig::Gke(gke) = answered("1\np/l/c\nshop/catalog\n\n").unwrap().join else {
            panic!("another source");
        };
        assert_eq!((gke.cluster.as_str(), gke.workload_group.as_str()), ("c", "catalog"));
        for lines in [
            "2\nhttps://h\n/ca.pem\n/token\nshop/catalog\n\n",
            "3\n/kubeconfig\nshop/catalog\n\n",
            "4\n/bundle\n",
            "5\nhttps://h/bundle\n",
        ] {
            answered(lines).unwrap();
        }
    }

    #[test]
    fn istiod_behind_no_gateway_service_is_asked_for_unless_it_is_an_argument() {
        let kubernetes = |config: Config| match config.join {
            JoinConfig::Kubernetes(kubernetes) => (kubernetes.ingress, kubernetes.ca_file),
            other => panic!("another source: {other:?}"),
        };
        let answers = "2\nhttps://h\n\n/token\nshop/catalog\n";
        let given = Some("10.0.0.9".to_owned());
        let asked = answered(&format!("{answers}10.0.0.9\n")).unwrap();
        assert_eq!(kubernetes(asked), (given.clone(), None));
        let arguments = SourceArguments {
            ingress: given.clone(),
            ..SourceArguments::default()
        };
        assert_eq!(kubernetes(answered_beside(arguments, answers).unwrap()), (given, None));
        let by_service = answered(&format!("{answers}\n")).unwrap();
        assert_eq!(kubernetes(by_service), (None, None));
    }

    #[test]
    fn answer_that_makes_no_sense_is_asked_for_again_and_not_for_ever() {
        answered("\n9\n4\n\n/bundel\n/bundle\n").unwrap();
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
