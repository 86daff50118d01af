//! Output of a verb: its form, and the way to stdout.

use std::io::Write;
use std::os::fd::AsFd;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Arg, ValueEnum};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::Outcome;
use super::refusal::usage;
use crate::terminal::printable;

/// Form of printed data, as it is asked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(super) enum Form {
    /// Text for people.
    Text,
    /// JSON for programs.
    Json,
    /// YAML, which `proxy` alone has, as `istioctl proxy-config` does; so it is offered for no other.
    #[value(hide = true)]
    Yaml,
}

/// Form of printed data that every verb has.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Output {
    /// Text for people.
    Text,
    /// JSON for programs.
    Json,
}

impl Form {
    /// The form for a verb that has no YAML.
    ///
    /// # Errors
    /// For YAML.
    pub(super) fn of_every_verb(self) -> anyhow::Result<Output> {
        match self {
            Self::Text => Ok(Output::Text),
            Self::Json => Ok(Output::Json),
            Self::Yaml => Err(usage("yaml is for `proxy` alone: `-o json` is the same document")),
        }
    }
}

/// The option of `proxy`, in which YAML is offered too.
pub(super) fn with_yaml() -> Arg {
    let forms = Form::value_variants().iter().filter_map(ValueEnum::to_possible_value);
    let parser = PossibleValuesParser::new(forms.map(|form| form.hide(false)));
    Arg::new("output")
        .short('o')
        .long("output")
        .global(true)
        .value_name("FORM")
        .default_value("text")
        .help("Form of the data on stdout")
        .value_parser(parser.try_map(|form| Form::from_str(&form, false)))
}

/// Prints to stdout what may go to a terminal.
pub(super) fn print(text: &str) -> anyhow::Result<Outcome> {
    print_printable(&printable(text))
}

/// Prints to stdout what has been made fit for a terminal; a reader that went away (`| head`) is no failure.
pub(super) fn print_printable(text: &str) -> anyhow::Result<Outcome> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(Outcome::Fine),
    }
}

/// Tells whether whoever was to read an output has gone away, as `head` does once it has seen enough.
pub(super) fn is_abandoned(output: impl AsFd) -> bool {
    let gone = PollFlags::POLLERR | PollFlags::POLLHUP;
    let mut polled = [PollFd::new(output.as_fd(), PollFlags::empty())];
    // What can't be looked at is written to as before.
    let _ = poll(&mut polled, PollTimeout::ZERO);
    polled
        .iter()
        .any(|it| it.revents().is_some_and(|told| told.intersects(gone)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yaml_is_offered_where_it_is_had() {
        use clap::CommandFactory;
        let mut command = crate::cli::Arguments::command();
        command.build();
        let mut offered = |verb: &[&str]| {
            let found = verb
                .iter()
                .fold(&mut command, |it, verb| it.find_subcommand_mut(verb).unwrap());
            found.render_long_help().to_string().contains("- yaml:")
        };
        assert!(!offered(&[]) && !offered(&["status"]) && !offered(&["config", "show"]));
        assert!(offered(&["proxy"]) && offered(&["proxy", "clusters"]));
        for words in [
            "proxy clusters -o yaml",
            "-o yaml proxy clusters",
            "proxy -o yaml clusters",
        ] {
            let words = ["istio-vm-agent"].into_iter().chain(words.split(' '));
            assert_eq!(
                <crate::cli::Arguments as clap::Parser>::parse_from(words).output,
                Form::Yaml
            );
        }
    }

    #[test]
    fn output_that_nobody_reads_any_more_is_abandoned() {
        let (reader, writer) = std::io::pipe().unwrap();
        assert!(!is_abandoned(&writer));
        drop(reader);
        assert!(is_abandoned(&writer));
        assert!(!is_abandoned(std::fs::File::open("/dev/null").unwrap()));
    }
}
