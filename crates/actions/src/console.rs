//! Stdout and stderr of this process. Nothing else in the workspace may write to them (`clippy.toml` holds it), so that
//! no text from outside reaches a terminal or the runner as it came.

use crate::text;
use std::io::{self, IsTerminal, Write};

/// Lines for people on stderr, made harmless. The last one is ended when the text does not end it.
///
/// # Errors
/// When stderr cannot be written.
pub fn tell(text: &str) -> io::Result<()> {
    raw(&text::lines(text))
}

/// Lines for people on stdout, made harmless.
///
/// # Errors
/// When stdout cannot be written.
pub fn print(text: &str) -> io::Result<()> {
    out(text::lines(text).as_bytes())
}

/// JSON on stdout, or a document whose strings are quoted as in JSON: the same data, made harmless by JSON's escapes.
///
/// # Errors
/// When stdout cannot be written.
pub fn print_json(text: &str) -> io::Result<()> {
    out(text::json(text).as_bytes())
}

/// What this program is made of and nobody outside can change, as a completion script, on stdout.
///
/// # Errors
/// When stdout cannot be written.
pub fn print_own(text: &[u8]) -> io::Result<()> {
    out(text)
}

/// Whether people see stderr.
#[expect(clippy::disallowed_methods, reason = "this module is where stderr is used")]
pub fn stderr_is_terminal() -> bool {
    io::stderr().is_terminal()
}

/// Whether people see stdout.
#[expect(clippy::disallowed_methods, reason = "this module is where stdout is used")]
pub fn stdout_is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Workflow commands and text that is harmless already, on stderr.
#[expect(clippy::disallowed_methods, reason = "this module is where stderr is written")]
pub(crate) fn raw(text: &str) -> io::Result<()> {
    let end = if text.ends_with('\n') { "" } else { "\n" };
    // In one write, so that two processes on one log do not mix within a line.
    io::stderr().lock().write_all(format!("{text}{end}").as_bytes())
}

#[expect(clippy::disallowed_methods, reason = "this module is where stdout is written")]
fn out(bytes: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes)?;
    stdout.flush()
}
