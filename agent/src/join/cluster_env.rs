//! cluster.env: `KEY=value` lines as a POSIX shell would source them, parsed and never executed.
//!
//! A value that a shell would expand or run is an error, so that none means something else here than there.

use std::collections::BTreeMap;
use std::iter::Peekable;
use std::str::Chars;

use super::origin::{ParseError, Position};

/// More assignments than this is not a cluster.env.
const MAX_ASSIGNMENTS: usize = 10_000;
/// The first character of a file that passed through an editor of Windows.
pub(super) const BYTE_ORDER_MARK: char = '\u{feff}';

/// The variables, unknown ones included.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct ClusterEnv {
    pub(super) values: BTreeMap<String, String>,
    /// Where each is set.
    pub(super) lines: BTreeMap<String, Position>,
    /// Where one is set that a later line sets to something else.
    pub(super) overridden: Vec<(Position, String)>,
}

/// Parses a whole file. Of a key that is set twice the later value counts, as in a shell.
pub(super) fn parse(text: &str) -> Result<ClusterEnv, ParseError> {
    let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
    let mut reader = Reader {
        rest: text.chars().peekable(),
        line: 1,
        column: 1,
        last: Position::Column(1, 1),
    };
    let mut env = ClusterEnv::default();
    let mut count = 0;
    while reader.next_assignment()? {
        let start = reader.here();
        count += 1;
        if count > MAX_ASSIGNMENTS {
            let problem = format!("has more than {MAX_ASSIGNMENTS} assignments: it is another file");
            return Err(ParseError::at(start, problem));
        }
        let key = reader.key()?;
        let value = reader.value(start).map_err(|error| ParseError {
            problem: format!("{key}: {}", error.problem),
            ..error
        })?;
        let earlier = env.lines.insert(key.clone(), start);
        let differs = env.values.get(&key).is_some_and(|before| *before != value);
        env.overridden
            .extend(earlier.filter(|_| differs).map(|at| (at, key.clone())));
        env.values.insert(key, value);
    }
    Ok(env)
}

struct Reader<'a> {
    rest: Peekable<Chars<'a>>,
    /// Line of the next character.
    line: usize,
    column: usize,
    /// The place of the character that was read last.
    last: Position,
}

impl Reader<'_> {
    /// Goes to the start of the next key, over blank lines and comments; false at the end of the file.
    fn next_assignment(&mut self) -> Result<bool, ParseError> {
        while let Some(&next) = self.rest.peek() {
            match next {
                '#' => while self.next_if(|c| c != '\n').is_some() {},
                c if is_blank(c) || c == '\n' => {
                    self.bump();
                }
                _ => return Ok(true),
            }
        }
        Ok(false)
    }

    /// `KEY=` or `export KEY=`.
    fn key(&mut self) -> Result<String, ParseError> {
        let start = self.here();
        let mut word = self.name();
        if word == "export" && self.rest.peek().is_some_and(|c| is_blank(*c)) {
            while self.next_if(is_blank).is_some() {}
            word = self.name();
        }
        let valid = word.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        if !valid || self.next_if(|c| c == '=').is_none() {
            // Not quoted: of another file than was meant it may be a secret.
            let problem = "is not KEY=value, with a key of letters, digits and _";
            return Err(ParseError::at(start, problem));
        }
        Ok(word)
    }

    fn name(&mut self) -> String {
        let mut name = String::new();
        while let Some(c) = self.next_if(|c| c.is_ascii_alphanumeric() || c == '_') {
            name.push(c);
        }
        name
    }

    /// The value and the rest of its line.
    fn value(&mut self, started: Position) -> Result<String, ParseError> {
        let mut value = String::new();
        let mut first = true;
        while let Some(c) = self.bump() {
            match c {
                '\n' => return Ok(value),
                '\'' => self.single_quoted(&mut value, started)?,
                '"' => self.double_quoted(&mut value, started)?,
                '\\' => match self.bump() {
                    Some('\n') | None => {}
                    Some(escaped) => value.push(escaped),
                },
                '~' if first => return Err(self.unquoted(c)),
                '$' | '`' | ';' | '&' | '|' | '<' | '>' | '(' | ')' => return Err(self.unquoted(c)),
                '\0' => return Err(ParseError::at(self.last, "has a NUL byte: remove it")),
                c if is_blank(c) => return self.end_of_line().map(|()| value),
                c => value.push(c),
            }
            first = false;
        }
        Ok(value)
    }

    /// Reads the blanks and the comment that may follow a value, and refuses all else.
    fn end_of_line(&mut self) -> Result<(), ParseError> {
        while self.next_if(is_blank).is_some() {}
        match self.rest.peek() {
            None | Some('\n' | '#') => Ok(()),
            Some(_) => Err(ParseError::at(
                self.here(),
                "has more after its value: put a value that holds blanks in single quotes",
            )),
        }
    }

    fn single_quoted(&mut self, value: &mut String, started: Position) -> Result<(), ParseError> {
        loop {
            match self.bump() {
                Some('\'') => return Ok(()),
                Some('\0') => return Err(ParseError::at(self.last, "has a NUL byte: remove it")),
                Some(c) => value.push(c),
                None => {
                    return Err(ParseError::at(
                        started,
                        "unterminated ': the file is truncated, or the quote is wrong",
                    ));
                }
            }
        }
    }

    fn double_quoted(&mut self, value: &mut String, started: Position) -> Result<(), ParseError> {
        loop {
            match self.bump() {
                Some('"') => return Ok(()),
                Some(c @ ('$' | '`')) => return Err(self.unquoted(c)),
                Some('\0') => return Err(ParseError::at(self.last, "has a NUL byte: remove it")),
                // POSIX 2.2.3: a backslash quotes these and is itself before all else.
                Some('\\') => match self.bump() {
                    Some('\n') => {}
                    Some(c @ ('$' | '`' | '"' | '\\')) => value.push(c),
                    Some(c) => value.extend(['\\', c]),
                    None => {}
                },
                Some(c) => value.push(c),
                None => {
                    return Err(ParseError::at(
                        started,
                        "unterminated \": the file is truncated, or the quote is wrong",
                    ));
                }
            }
        }
    }

    /// The error for a sign without quotes. Text that a shell computes has no value here; other signs may be meant as
    /// they are.
    fn unquoted(&self, c: char) -> ParseError {
        let remedy = match c {
            '$' | '`' | '~' => {
                "write the value that a shell makes of it, as `bash -c '. FILE; echo \"$KEY\"'` prints it; or, where \
                 the sign itself is meant, put the value in single quotes"
            }
            _ => "put the value in single quotes",
        };
        ParseError::at(
            self.last,
            format!("a shell would act on this {c}, and the file is never executed: {remedy}"),
        )
    }

    /// The next character, counting lines.
    fn bump(&mut self) -> Option<char> {
        let c = self.rest.next()?;
        self.last = self.here();
        (self.line, self.column) = match c {
            '\n' => (self.line + 1, 1),
            _ => (self.line, self.column + 1),
        };
        Some(c)
    }

    fn next_if(&mut self, is_wanted: impl Fn(char) -> bool) -> Option<char> {
        match self.rest.peek() {
            Some(c) if is_wanted(*c) => self.bump(),
            _ => None,
        }
    }

    fn here(&self) -> Position {
        Position::Column(self.line, self.column)
    }
}

/// Carriage returns are blanks, for files that passed through Windows.
fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn values(text: &str) -> BTreeMap<String, String> {
        parse(text).unwrap().values
    }

    #[test]
    fn quotes_are_read_as_a_shell_reads_them() {
        let cases = [
            ("A='b'", "b"),
            ("A=", ""),
            ("A=''", ""),
            ("A=b", "b"),
            ("A=*", "*"),
            ("export A=b", "b"),
            ("\u{feff}A=b", "b"),
            ("A=b # comment", "b"),
            ("A=b#c", "b#c"),
            ("A='b' \t", "b"),
            ("A='b'\r\n", "b"),
            ("# no\n\n  A=b\n", "b"),
            (r"A='it'\''s'", "it's"),
            (r#"A='it'"'"'s'"#, "it's"),
            (r#"A="a \"b\" \$c \\ \d""#, r#"a "b" $c \ \d"#),
            (r"A=a\ b", "a b"),
            ("A=a\\\nb", "ab"),
            ("A=\"a\\\nb\"", "ab"),
            ("A='$HOME `id` $(id)'", "$HOME `id` $(id)"),
            ("A='one\ntwo'", "one\ntwo"),
            ("A=1\nA=2", "2"),
        ];
        for (text, wanted) in cases {
            assert_eq!(values(text)["A"], wanted, "{text:?}");
        }
    }

    #[test]
    fn lines_are_counted_through_values_of_many_lines() {
        let lines = parse("A='1\n2\n3'\nB=x\nC='y'").unwrap().lines;
        let at = |key: &str| lines[key];
        let wanted = [1, 4, 5].map(|line| Position::Column(line, 1));
        assert_eq!([at("A"), at("B"), at("C")], wanted);
    }

    #[test]
    fn values_that_a_shell_would_run_or_reject_are_errors_with_line_and_key() {
        let cases = [
            ("X=1\nA='b\n\n", 2, "A: unterminated '"),
            ("A=\"b", 1, "A: unterminated \""),
            ("A=$HOME", 1, "A: a shell would act on this $"),
            ("A=\"$(id)\"", 1, "A: a shell would act on this $"),
            ("A=\"`id`\"", 1, "A: a shell would act on this `"),
            ("A=b;c", 1, "A: a shell would act on this ;"),
            ("A=~/x", 1, "A: a shell would act on this ~"),
            ("A=b c", 1, "A: has more after its value"),
            ("A='b' c=d", 1, "A: has more after its value"),
            ("A='\0'", 1, "A: has a NUL"),
            ("\nnonsense", 2, "is not KEY=value"),
            ("1A=b", 1, "is not KEY=value"),
            ("A =b", 1, "is not KEY=value"),
            ("=b", 1, "is not KEY=value"),
            ("export", 1, "is not KEY=value"),
            ("A-B=c", 1, "is not KEY=value"),
        ];
        for (text, line, wanted) in cases {
            let error = parse(text).unwrap_err();
            assert_eq!(error.line(), Some(line), "{text:?}: {error:?}");
            assert!(error.problem.starts_with(wanted), "{text:?}: {error:?}");
        }
    }

    #[test]
    fn keys_beyond_the_limit_are_refused() {
        // Of one key as well: each that is set again may be a line in the log.
        let error = parse(&"K=\n".repeat(MAX_ASSIGNMENTS + 1)).unwrap_err();
        assert!(error.problem.contains("more than"), "{error:?}");
    }

    proptest! {
        #[test]
        fn values_that_are_quoted_come_back(value in "[^\0]{0,80}") {
            let single = format!("A='{}'\nB=1\n", value.replace('\'', r"'\''"));
            prop_assert_eq!(&values(&single)["A"], &value);
            let escaped: String = value.chars().flat_map(|c| match c {
                '$' | '`' | '"' | '\\' => vec!['\\', c],
                c => vec![c],
            }).collect();
            prop_assert_eq!(&values(&format!("A=\"{escaped}\"\nB=1\n"))["A"], &value);
        }

        #[test]
        fn cluster_env_of_any_text_is_read_without_a_panic(text in any::<Vec<u8>>(), shellish in "[A='\"\\\\$`# \n\r\t;~x]{0,60}") {
            let _ = parse(&String::from_utf8_lossy(&text));
            let _ = parse(&shellish);
        }
    }
}
