//! ISTIO_AGENT_FLAGS: arguments of pilot-agent, between blanks.

/// `(flag, value)` of each argument; a flag without a value has an empty one.
pub(super) fn parse(text: &str) -> Vec<(&str, &str)> {
    let mut flags: Vec<(&str, &str)> = Vec::new();
    for word in text.split_ascii_whitespace() {
        match flags.last_mut() {
            Some((_, value)) if !word.starts_with('-') && value.is_empty() => *value = word,
            _ => flags.push(word.split_once('=').unwrap_or((word, ""))),
        }
    }
    flags
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_of_both_forms_are_read() {
        let flags = parse(" --proxyLogLevel debug --concurrency=2 --profiling  --domain a.b ");
        let wanted = [
            ("--proxyLogLevel", "debug"),
            ("--concurrency", "2"),
            ("--profiling", ""),
            ("--domain", "a.b"),
        ];
        assert_eq!(flags, wanted);
        assert_eq!(parse(""), []);
    }

    proptest::proptest! {
        #[test]
        fn flags_of_any_text_are_read(text in "\\PC{0,40}") {
            parse(&text);
        }
    }
}
