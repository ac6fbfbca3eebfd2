//! The flags every tool has, and the parsing that all tools share.

use crate::manual;
use clap::error::{ContextKind, ContextValue};
use clap::{CommandFactory, FromArgMatches};
use deploy_actions::console;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// How the result is printed on stdout.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// The report, one JSON document.
    Json,
}

/// Flags every tool has.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Common options")]
pub struct CommonArgs {
    /// What to print on stdout: text for people, or the report as one JSON document.
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,

    /// Also write the report to this file.
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,

    /// No progress on stderr; errors and warnings remain.
    #[arg(long, short, conflicts_with = "verbose")]
    pub quiet: bool,

    /// More detail on stderr.
    #[arg(long, short)]
    pub verbose: bool,

    /// AWS region; by default from the inventory, AWS_REGION or the profile.
    #[arg(long, value_name = "REGION")]
    pub region: Option<String>,

    /// Project named in the report; by default from the inventory.
    #[arg(long, value_name = "NAME")]
    pub project: Option<String>,

    /// Environment named in the report; by default from the inventory.
    #[arg(long, value_name = "NAME")]
    pub environment: Option<String>,
}

/// An empty variable would widen these to everything there is, so it is handed on, to be refused.
const NARROWS: [&str; 2] = ["limit", "types"];

/// Parses the command line. Every long flag `--some-flag` of a tool `some-tool` also reads `SOME_TOOL_SOME_FLAG`, unless
/// that is empty: so are in GitHub Actions the inputs that nobody gave. Every tool also has `--completions` and
/// `--man-page`, which print and end.
///
/// Ends the process with status 2 on bad usage, as clap does.
pub fn parse<A: CommandFactory + FromArgMatches>() -> A {
    parse_with(&[])
}

/// As [`parse`], with what to use instead of flags that people know from elsewhere.
pub fn parse_with<A: CommandFactory + FromArgMatches>(foreign: &[(&str, &str)]) -> A {
    std::panic::set_hook(Box::new(|panic| {
        // Nobody is left to tell when stderr is gone; the status still says it.
        let _ = console::tell(&panic.to_string());
    }));
    let command = manual::with_flags(with_env_mirrors(A::command()));
    manual::print_if_asked(&command);
    let typed: Vec<OsString> = std::env::args_os().collect();
    let matches = command
        .clone()
        .try_get_matches_from(&typed)
        .map_err(|error| naming_the_environment(error, &command, &typed))
        .unwrap_or_else(|error| end(&knowing_foreign(error, foreign)));
    A::from_arg_matches(&matches).unwrap_or_else(|error| end(&error.format(&mut A::command())))
}

/// Ends the process as clap does, but what it quotes of the command line reaches no terminal and no runner as it came.
#[expect(clippy::exit, reason = "as clap ends a process after --help and bad usage")]
pub(crate) fn end(error: &clap::Error) -> ! {
    let written = if error.use_stderr() {
        console::tell(&error.render().to_string())
    } else {
        // --help and --version are made of our own words.
        error.print()
    };
    std::process::exit(if written.is_ok() { error.exit_code() } else { 1 })
}

/// Gives every long flag that names no variable of its own its mirror in the environment.
fn with_env_mirrors(command: clap::Command) -> clap::Command {
    let prefix = command.get_name().to_owned();
    let variables = prefix.replace('-', "_").to_uppercase();
    let refused: String = NARROWS
        .iter()
        .filter(|long| command.get_arguments().any(|arg| arg.get_long() == Some(**long)))
        .map(|long| format!(", but an empty --{long} is refused"))
        .collect();
    let said = format!(
        "Every long flag is also read from the environment, e.g. --report from {variables}_REPORT.\n\
         An empty variable counts as not set{refused}."
    );
    mirror(command, &prefix).after_help(said)
}

/// Says that a value which clap does not take comes from the environment, when its flag was not typed.
fn naming_the_environment(
    mut error: clap::Error,
    command: &clap::Command,
    typed: &[OsString],
) -> clap::Error {
    let Some(ContextValue::String(shown)) = error.get(ContextKind::InvalidArg) else {
        return error;
    };
    let flag = shown.split([' ', '=']).next().unwrap_or_default().to_owned();
    let names = |arg: &&clap::Arg| arg.get_long().is_some_and(|long| flag == format!("--{long}"));
    let arguments = || {
        command
            .get_arguments()
            .chain(command.get_subcommands().flat_map(clap::Command::get_arguments))
    };
    let Some(arg) = arguments().find(names) else { return error };
    let was_typed = |text: &OsString| {
        let text = text.to_string_lossy();
        let short = text.strip_prefix('-').filter(|rest| !rest.starts_with('-'));
        text == flag
            || text.starts_with(&format!("{flag}="))
            || short.zip(arg.get_short()).is_some_and(|(rest, letter)| rest.contains(letter))
    };
    let variable = arg.get_env().map(|name| name.to_string_lossy()).unwrap_or_default();
    let is_set = deploy_actions::named_variable(&variable).is_some();
    if is_set && !typed.iter().any(was_typed) {
        let tip = format!("the value comes from {variable} in the environment");
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
    }
    error
}

/// Says what to use instead of a flag that people know from elsewhere, however often it was typed.
fn knowing_foreign(mut error: clap::Error, foreign: &[(&str, &str)]) -> clap::Error {
    let Some(ContextValue::String(shown)) = error.get(ContextKind::InvalidArg) else {
        return error;
    };
    let flag = shown.split([' ', '=']).next().unwrap_or_default();
    if let Some((_, tip)) = foreign.iter().find(|(known, _)| *known == flag) {
        let tip = ContextValue::StyledStrs(vec![(*tip).to_owned().into()]);
        error.remove(ContextKind::SuggestedArg);
        error.insert(ContextKind::Suggested, tip);
    }
    error
}

fn mirror(command: clap::Command, prefix: &str) -> clap::Command {
    let command = command.mut_args(|arg| match arg.get_long() {
        Some(long) if arg.get_env().is_none() && !matches!(long, "help" | "version") => {
            let name = format!("{prefix}_{long}").replace('-', "_").to_uppercase();
            if deploy_actions::is_empty_variable(&name) && !NARROWS.contains(&long) {
                return arg;
            }
            arg.env(name).hide_env(true)
        }
        _ => arg,
    });
    command.mut_subcommands(|sub| mirror(sub, prefix))
}

/// A duration as people write it: `90s`, `10m`, `1h 30m`. Negative ones are refused.
///
/// # Errors
/// A sentence for clap to print.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    if text.trim() == "0" {
        return Ok(Duration::ZERO);
    }
    let parsed: jiff::SignedDuration = text
        .trim()
        .parse()
        .map_err(|_| "expected a duration such as `90s`, `10m` or `1h 30m`".to_owned())?;
    Duration::try_from(parsed).map_err(|_| "a duration cannot be negative".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    #[command(name = "some-tool")]
    struct Sample {
        #[arg(long)]
        max_errors: Option<u32>,
        #[command(flatten)]
        common: CommonArgs,
    }

    #[test]
    fn every_long_flag_has_its_mirror() {
        let command = with_env_mirrors(Sample::command());
        let mirrors: Vec<_> = command.get_arguments().filter_map(|arg| arg.get_env()).collect();
        assert!(mirrors.contains(&std::ffi::OsStr::new("SOME_TOOL_MAX_ERRORS")), "{mirrors:?}");
        assert!(mirrors.contains(&std::ffi::OsStr::new("SOME_TOOL_REPORT")), "{mirrors:?}");
        let sample = Sample::parse_from(["some-tool", "--max-errors", "3"]);
        assert_eq!((sample.max_errors, sample.common.quiet), (Some(3), false));
    }

    #[test]
    fn durations_read_as_people_write_them() {
        let check = |text: &str, seconds: u64| {
            assert_eq!(parse_duration(text), Ok(Duration::from_secs(seconds)))
        };
        check("90s", 90);
        check("10m", 600);
        check("1h 30m", 5400);
        check("0", 0);
        assert!(
            parse_duration("-5s").is_err()
                && parse_duration("soon").is_err()
                && parse_duration("10").is_err()
        );
    }
}
