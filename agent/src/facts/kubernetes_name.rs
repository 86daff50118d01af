//! Names and labels that Kubernetes takes (apimachinery, validation).

/// The longest label, prefix of a label's key aside, and the longest name.
const LONGEST_LABEL: usize = 63;
const LONGEST_NAME: usize = 253;

/// True for a name that is one label of DNS (RFC 1123), as namespaces, Services and revisions have.
pub(crate) fn is_dns_label(name: &str) -> bool {
    name.len() <= LONGEST_LABEL && is_part(name)
}

/// True for a name of most objects, labels of DNS with dots between, which may be longer than DNS has them: it needs no
/// escaping in a URL.
pub(crate) fn is_kubernetes_name(name: &str) -> bool {
    name.len() <= LONGEST_NAME && name.split('.').all(is_part)
}

fn is_part(part: &str) -> bool {
    let ends = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    part.starts_with(ends) && part.ends_with(ends) && part.chars().all(|c| ends(c) || c == '-')
}

/// True for a label's key, which may have a prefix, as `example.com/team`.
pub(crate) fn is_label_key(key: &str) -> bool {
    match key.split_once('/') {
        Some((prefix, name)) => is_kubernetes_name(prefix) && !name.is_empty() && is_label_value(name),
        None => !key.is_empty() && is_label_value(key),
    }
}

/// True for a label's value, which may be empty.
pub(crate) fn is_label_value(value: &str) -> bool {
    value.len() <= LONGEST_LABEL && is_word_of_a_label(value)
}

/// True for a value that has no sign which a label's can't have, however long it is.
pub(crate) fn is_word_of_a_label(value: &str) -> bool {
    let ends = |c: char| c.is_ascii_alphanumeric();
    value.is_empty()
        || value.starts_with(ends) && value.ends_with(ends) && value.chars().all(|c| ends(c) || "-_.".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_kubernetes_takes() {
        let long = "a".repeat(LONGEST_LABEL + 1);
        for name in ["a", "istio-1-31", "0"] {
            assert!(is_dns_label(name) && is_kubernetes_name(name), "{name}");
        }
        for name in ["a.b-c.0", long.as_str()] {
            assert!(!is_dns_label(name) && is_kubernetes_name(name), "{name}");
        }
        for name in [
            "",
            "A",
            "a/b",
            "a?b",
            "../x",
            "a_b",
            "-a",
            "a-",
            "a.",
            "a..b",
            "ä",
            " a",
            &"a".repeat(254),
        ] {
            assert!(!is_kubernetes_name(name) && !is_dns_label(name), "{name}");
        }
    }

    #[test]
    fn labels_are_those_that_kubernetes_takes() {
        for (key, value) in [("app", "shop"), ("example.com/team", "a_b.C-1"), ("Team", "")] {
            assert!(is_label_key(key) && is_label_value(value), "{key}={value}");
        }
        for key in ["", "a/b/c", "/a", "a/", "Team/x", "a b", "-a"] {
            assert!(!is_label_key(key), "{key}");
        }
        for value in ["a b", "a/b", "ü", "-a", "a.", "a\n", &"a".repeat(64)] {
            assert!(!is_label_value(value), "{value}");
        }
    }
}
