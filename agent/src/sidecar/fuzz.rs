//! Properties of the settings and files of Istio's own agent, whoever wrote them.

use super::{flags as arguments, hosts_lines as lines};

pub(crate) use super::backup::fuzz::backup;
pub(crate) use super::import::fuzz::settings;

/// ISTIO_AGENT_FLAGS.
pub(crate) fn flags(text: &str) {
    let parsed = arguments::parse(text);
    assert!(parsed.len() <= text.split_ascii_whitespace().count());
    assert!(
        parsed
            .iter()
            .map(|(flag, value)| flag.len() + value.len())
            .sum::<usize>()
            <= text.len()
    );
}

/// /etc/hosts.
pub(crate) fn hosts_lines(text: &str) {
    let names = ["istiod.istio-system.svc".to_owned()];
    let split = lines::split(text, &names);
    assert_eq!(lines::split(&split.kept, &names).taken, "", "all is taken");
    assert_eq!(lines::split(&split.taken, &names).kept, "", "nothing else is");
    assert!(
        !split.taken.is_empty() || split.kept == text,
        "what is not ours stays as it is"
    );
}
