//! The daemon's log: one line per event on stderr, which `up` points at a file, and the same in the event log.

use std::fmt::Display;

use deploy_cli::actions::console;

use crate::events;

/// Says what happened, the instance id first where it happened to a host. Whoever reads it has a log file or the event
/// log, never a terminal.
pub(crate) fn line(text: impl Display) {
    // A line stays one line, whatever it quotes: a caller writes no lines of its own here.
    let text = deploy_cli::actions::text::line(&text.to_string());
    let time = jiff::Timestamp::now();
    // Nobody is left to tell when the log itself cannot be written.
    let _ = console::tell(&format!("{time:.3} {text}"));
    events::EVENTS.add(time, text);
}
