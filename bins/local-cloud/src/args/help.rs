//! Help that is not written beside a flag: what the flags of every tool mean here, and lists of what there is.

use crate::faults::{KINDS, Kind, Parameter, text};
use crate::timing::Timing;

/// Completes the help of a command and of those below it. A flag that a command has no use for is not shown; it is
/// taken all the same, since its mirror in the environment is set for all commands.
pub(super) fn explained(command: clap::Command) -> clap::Command {
    let name = command.get_name().to_owned();
    let command = command.mut_args(|arg| {
        let flag = arg.get_id().to_string();
        let idle = is_idle(&name, &flag);
        match about(&name, &flag) {
            Some(text) => arg.help(text).hide(idle),
            None if idle => arg.hide(true),
            None => arg,
        }
    });
    command.mut_subcommands(explained)
}

/// Whether a flag that every tool has does nothing in this command.
fn is_idle(command: &str, flag: &str) -> bool {
    match flag {
        "region" => command != "up",
        "report" | "environment" => matches!(command, "events" | "logs" | "exec"),
        "format" => matches!(command, "logs" | "exec"),
        _ => false,
    }
}

fn about(command: &str, flag: &str) -> Option<String> {
    Some(match (command, flag) {
        (_, "project") => {
            "Name of the rehearsal cloud and of everything it makes. Without it `calldata`".to_owned()
        }
        ("up", "region") => "Region that it serves. Without it us-east-1".to_owned(),
        (_, "environment") => "Environment named in the report".to_owned(),
        ("events", "format") => {
            "What to print on stdout: text for people, or every event as a JSON document of one line"
                .to_owned()
        }
        ("up" | "serve", "timing") => timing(),
        (_, "delay") => format!("How long: {}", takers("delay")),
        (_, "percent") => format!("How much of a hundred: {}", takers("percent")),
        (_, "seconds") => format!("How many seconds, negative allowed: {}", takers("seconds")),
        (_, "code") => format!("Which error, or which way: {}", takers("code")),
        (_, "count") => format!("Over after this many strikes; not for {}", lasting()),
        ("add", "after") => format!("Leave out the first matches; not for {}", lasting()),
        _ => return None,
    })
}

fn timing() -> String {
    format!(
        "How long things take: `short`, or `aws` for as long as there. Without it `short`. Single times can follow, \
         e.g. `short,listed=10s`: {}",
        Timing::NAMES.join(", ")
    )
}

/// The kinds that take a parameter, with its default or its values.
fn takers(name: &str) -> String {
    let of_kind = |kind: &Kind| {
        let parameter = kind.parameters().iter().find(|parameter| parameter.name() == name)?;
        Some(format!("{} ({})", kind.name(), value(*parameter)))
    };
    KINDS.iter().filter_map(of_kind).collect::<Vec<_>>().join(", ")
}

/// The default of a parameter, or the values it can have, the default first.
pub(crate) fn value(parameter: Parameter) -> String {
    match parameter {
        Parameter::Delay(default) => text(std::time::Duration::from_millis(default)),
        Parameter::Percent(default) => default.to_string(),
        Parameter::Seconds(default) => default.to_string(),
        Parameter::Code(allowed) => allowed.join("|"),
    }
}

fn lasting() -> String {
    let names = KINDS.iter().filter(|kind| kind.lasts()).map(|kind| kind.name());
    names.collect::<Vec<_>>().join(", ")
}
