//! The daemon's log: one line per event on stderr, which `up` points at a file.

use std::fmt::Display;
use std::io::Write as _;

/// Writes a line with the time. Whoever reads it has a log file, never a terminal.
pub(crate) fn line(text: impl Display) {
    // Nobody is left to tell when the log itself cannot be written.
    let _ = writeln!(std::io::stderr().lock(), "{:.3} {text}", jiff::Timestamp::now());
}
