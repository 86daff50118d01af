//! The syntax of RE2, by which Envoy reads regular expressions: one that it can't read keeps it from starting
//! (re2/parse.cc). What Unicode class or flag there is, is left to Envoy.

/// The most that RE2 repeats.
const MOST: u32 = 1000;
/// Letters that mean something after a backslash.
const ESCAPES: &str = "afnrtvxpPAbBCdDsSwWzQE";

/// The problem of an expression that RE2 can't read.
pub(super) fn problem(expression: &str) -> Option<String> {
    Reader::default().read(expression).err()
}

/// A reader of an expression, with what came before the place that it is at.
#[derive(Default)]
struct Reader {
    depth: usize,
    /// Something is there that may be repeated.
    repeatable: bool,
    /// A repetition is.
    repeated: bool,
}

impl Reader {
    fn read(mut self, expression: &str) -> Result<(), String> {
        let mut rest = expression;
        while let Some(c) = rest.chars().next() {
            let after = &rest[c.len_utf8()..];
            rest = match c {
                '\\' => self.atom(escape(after)?),
                '[' => self.atom(class(after)?),
                '(' => self.open(after)?,
                ')' => self.close(after)?,
                '*' | '+' | '?' => self.repeat(&rest[..1], after)?,
                '{' => match repetition(after)? {
                    Some(end) => self.repeat(&rest[..=end], &after[end..])?,
                    None => self.atom(after),
                },
                '|' => {
                    (self.repeatable, self.repeated) = (false, false);
                    after
                }
                _ => self.atom(after),
            };
        }
        match self.depth {
            0 => Ok(()),
            _ => Err("a ( is never closed".to_owned()),
        }
    }

    fn atom<'a>(&mut self, after: &'a str) -> &'a str {
        (self.repeatable, self.repeated) = (true, false);
        after
    }

    fn open<'a>(&mut self, after: &'a str) -> Result<&'a str, String> {
        (self.depth, self.repeatable, self.repeated) = (self.depth + 1, false, false);
        let Some(kind) = after.strip_prefix('?') else {
            return Ok(after);
        };
        let is_name =
            kind.starts_with("P<") || kind.starts_with('<') && !kind.starts_with("<=") && !kind.starts_with("<!");
        let flags = kind.trim_start_matches(|c| "imsU-".contains(c));
        match is_name || flags.starts_with([':', ')']) {
            true => Ok(if is_name { kind } else { flags }),
            false => Err("RE2 has no such group as begins with (?: it looks neither ahead nor behind".to_owned()),
        }
    }

    fn close<'a>(&mut self, after: &'a str) -> Result<&'a str, String> {
        self.depth = self.depth.checked_sub(1).ok_or("a ) closes nothing")?;
        Ok(self.atom(after))
    }

    fn repeat<'a>(&mut self, written: &str, after: &'a str) -> Result<&'a str, String> {
        if !self.repeatable || self.repeated {
            return Err(format!("{written} repeats nothing"));
        }
        self.repeated = true;
        // The lazy kind.
        Ok(after.strip_prefix('?').unwrap_or(after))
    }
}

/// The expression behind an escape.
fn escape(after: &str) -> Result<&str, String> {
    let mut chars = after.chars();
    let c = chars.next().ok_or("it ends in a \\")?;
    let is_octal = c == '0' || chars.as_str().starts_with(|c| ('0'..='7').contains(&c));
    match c {
        'Q' => Ok(chars.as_str().split_once("\\E").map_or("", |(_, rest)| rest)),
        '0'..='7' if is_octal => Ok(chars.as_str()),
        '0'..='9' => Err(format!("RE2 has no \\{c}, which would refer back")),
        c if c.is_ascii_alphabetic() && !ESCAPES.contains(c) => Err(format!("RE2 has no \\{c}")),
        _ => Ok(chars.as_str()),
    }
}

/// The expression behind a class of characters.
fn class(after: &str) -> Result<&str, String> {
    let mut rest = after.strip_prefix('^').unwrap_or(after);
    let mut is_first = true;
    while let Some(c) = rest.chars().next() {
        let next = &rest[c.len_utf8()..];
        rest = match c {
            ']' if !is_first => return Ok(next),
            '\\' => escape(next)?,
            '[' if next.starts_with(':') => next.split_once(":]").map_or(next, |(_, rest)| rest),
            _ => next,
        };
        is_first = false;
    }
    Err("a [ is never closed".to_owned())
}

/// The length of a repetition after its brace; nothing where the brace is one of the text.
fn repetition(after: &str) -> Result<Option<usize>, String> {
    let Some((inside, _)) = after.split_once('}') else {
        return Ok(None);
    };
    let (least, most) = inside.split_once(',').unwrap_or((inside, inside));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number(least) || !(most.is_empty() || is_number(most)) {
        return Ok(None);
    }
    let number = |text: &str| text.parse().unwrap_or(u32::MAX);
    let (from, to) = (number(least), if most.is_empty() { MOST } else { number(most) });
    match from <= to && to <= MOST {
        true => Ok(Some(inside.len() + 1)),
        false => Err(format!("{{{inside}}} is none of 0 to {MOST} times")),
    }
}

#[cfg(test)]
mod tests {
    use super::problem;

    #[test]
    fn expression_is_read_as_envoy_reads_it() {
        for fine in [
            "",
            "a",
            ".*circuit_breakers.*",
            r"^vhost\.(a|b)?\.[^.]+$",
            "[]a]",
            "[[:alpha:]_]+",
            "a{2,3}?",
            "a{",
            "{pod_ip}",
            "a{,5}",
            "(?i)a",
            "(?:a)*?",
            "(?P<n>a)",
            "(?<n>a)",
            r"\Q(*\E",
            r"\d\pN\x41\012",
            "[a-z&&b]",
            "^*",
            "(a*)*",
            "ä+",
            "[(]",
            "a||b",
            "()",
        ] {
            assert_eq!(problem(fine), None, "{fine}");
        }
        for broken in [
            "(", ")", "[", "[]", "*", "+a", "a**", "a|*", "(?=a)", "(?<!a)", "(?#a)", r"a\", r"\1", r"\Z", "a{1001}",
            "a{3,2}", "a{2}{3}", r"[\", "(?", "(*)", r"\u0041",
        ] {
            assert!(problem(broken).is_some(), "{broken}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_expression_is_judged(expression in r"[a-z0-9äß(){}\[\],?*+|\\^:<PQE-]{0,40}|\PC{0,40}") {
            let _ = problem(&expression);
        }
    }
}
