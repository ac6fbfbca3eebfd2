//! What shells and packagers want to know of a tool, made from its flags: completion scripts and a man page.

use crate::Exit;
use crate::args::end;
use clap::{Arg, ArgAction, Command, value_parser};
use clap_complete::Shell;

const COMPLETIONS: &str = "completions";
const MAN_PAGE: &str = "man-page";

/// Adds `--completions SHELL` and `--man-page`, which stand alone.
pub(crate) fn with_flags(command: Command) -> Command {
    command.args(flags())
}

fn flags() -> [Arg; 2] {
    [
        Arg::new(COMPLETIONS)
            .long(COMPLETIONS)
            .value_name("SHELL")
            .value_parser(value_parser!(Shell))
            .exclusive(true)
            .hide_short_help(true)
            .help("Print the completion script of this shell, and end"),
        Arg::new(MAN_PAGE)
            .long(MAN_PAGE)
            .action(ArgAction::SetTrue)
            .exclusive(true)
            .hide_short_help(true)
            .help("Print the man page (`tool --man-page | man -l -`), and end"),
    ]
}

/// Prints what one of the two flags asks for and ends the process; returns when neither comes first.
///
/// They are looked for before the command line is parsed as a whole, which would ask for subcommands.
#[expect(clippy::exit, reason = "as clap ends a process after --help")]
pub(crate) fn print_if_asked(command: &Command) {
    let first = std::env::args_os().nth(1).unwrap_or_default();
    let first = first.to_string_lossy();
    let name = first.strip_prefix("--").and_then(|flag| flag.split('=').next());
    if !matches!(name, Some(COMPLETIONS | MAN_PAGE)) {
        return;
    }
    let alone = Command::new(command.get_name().to_owned()).args(flags());
    let matches = alone.try_get_matches().unwrap_or_else(|error| end(&error));
    let text = match matches.get_one::<Shell>(COMPLETIONS) {
        Some(shell) => completions(command.clone(), *shell),
        None => man_page(command.clone()),
    };
    let written = deploy_actions::console::print_own(&text);
    std::process::exit(i32::from(written.is_err()));
}

fn completions(mut command: Command, shell: Shell) -> Vec<u8> {
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, name, &mut script);
    script
}

fn man_page(command: Command) -> Vec<u8> {
    let mut page = Vec::new();
    let rendered = clap_mangen::Man::new(command).render(&mut page);
    debug_assert!(rendered.is_ok(), "a Vec takes all that is written");
    page.extend_from_slice(b".SH \"EXIT STATUS\"\n");
    for exit in Exit::ALL {
        let meaning = exit.meaning().replace('-', "\\-");
        page.extend_from_slice(format!(".TP\n{}\n{meaning}\n", exit.code()).as_bytes());
    }
    page
}
