//! The lines that the operator appended to /etc/hosts for Istio's own agent: `address istiod.istio-system.svc`.

/// A hosts file in two.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Split {
    /// The file without them.
    pub(super) kept: String,
    /// The lines that were taken, as lines of a hosts file; one that has other names as well has left those behind.
    pub(super) taken: String,
}

/// Takes the lines for `names` out. All that has nothing to do with them stays as it is, byte for byte.
pub(super) fn split(text: &str, names: &[String]) -> Split {
    let mut split = Split::default();
    for line in text.split_inclusive('\n') {
        let content = line.split('#').next().unwrap_or_default();
        let mut words = content.split_ascii_whitespace();
        let address = words.next().unwrap_or_default();
        let (ours, others): (Vec<&str>, Vec<&str>) =
            words.partition(|word| names.iter().any(|name| name.eq_ignore_ascii_case(word)));
        match (ours.as_slice(), others.as_slice()) {
            ([], _) => split.kept.push_str(line),
            (_, []) => split.taken.push_str(line),
            (ours, others) => {
                split.taken += &format!("{address} {}\n", ours.join(" "));
                split.kept += &format!("{address} {}{}", others.join(" "), &line[content.trim_end().len()..]);
            }
        }
    }
    split
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names() -> Vec<String> {
        vec!["istiod.istio-system.svc".to_owned()]
    }

    #[test]
    fn hosts_line_that_was_appended_goes_and_nothing_else() {
        let text = "127.0.0.1\tlocalhost\n# istiod.istio-system.svc\n\n10.0.0.2 istiod.istio-system.svc # mine";
        let wanted = Split {
            kept: "127.0.0.1\tlocalhost\n# istiod.istio-system.svc\n\n".to_owned(),
            taken: "10.0.0.2 istiod.istio-system.svc # mine".to_owned(),
        };
        assert_eq!(split(text, &names()), wanted);
    }

    #[test]
    fn hosts_names_beside_istiods_stay() {
        let text = "10.0.0.2 gateway ISTIOD.istio-system.svc gw # both\n";
        let wanted = Split {
            kept: "10.0.0.2 gateway gw # both\n".to_owned(),
            taken: "10.0.0.2 ISTIOD.istio-system.svc\n".to_owned(),
        };
        assert_eq!(split(text, &names()), wanted);
    }

    proptest! {
        #[test]
        fn lines_that_do_not_name_it_are_kept_byte_for_byte(text in "(\\PC|[\r\n\t]|1.2.3.4 a){0,60}") {
            prop_assert_eq!(split(&text, &names()).kept, text);
        }

        #[test]
        fn hosts_file_of_any_text_is_split(text in "([ \t\r\n#é]|istiod.istio-system.svc|10.0.0.2|a){0,30}") {
            let once = split(&text, &names());
            prop_assert_eq!(&split(&once.kept, &names()).kept, &once.kept);
        }
    }
}
