//! Progress for people, on stderr: live rows on a terminal, one plain line per change elsewhere, groups in Actions.

use deploy_actions::text::{line as one_line, lines};
use deploy_actions::{Actions, Annotation, Level, console};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A line at least this often while something takes long, so that nobody takes a job for dead.
const HEARTBEAT: Duration = Duration::from_secs(30);

/// Draws what a tool is doing.
#[derive(Debug)]
pub struct Progress {
    style: Style,
    quiet: bool,
    verbose: bool,
    actions: Actions,
    start: Instant,
    state: Mutex<State>,
}

#[derive(Debug)]
enum Style {
    Live(MultiProgress),
    Lines,
}

#[derive(Debug)]
struct State {
    rows: BTreeMap<String, Row>,
    last_line: Instant,
}

impl State {
    /// Makes a column of the names.
    fn align(&self) {
        let width = self.rows.keys().map(|name| name.chars().count()).max().unwrap_or(0);
        for (name, row) in &self.rows {
            if let Some(bar) = &row.bar
                && bar.prefix().chars().count() != width
            {
                bar.set_prefix(format!("{:<width$}", one_line(name)));
            }
        }
    }
}

#[derive(Debug)]
struct Row {
    text: String,
    bar: Option<ProgressBar>,
}

/// Ends its group of log lines when dropped.
#[derive(Debug)]
#[must_use = "the group ends when this is dropped"]
pub struct Group<'a>(&'a Progress);

impl Drop for Group<'_> {
    fn drop(&mut self) {
        self.0.spoken();
        let _ = self.0.actions.end_group();
    }
}

impl Progress {
    pub(crate) fn new(actions: Actions, quiet: bool, verbose: bool, start: Instant) -> Self {
        let live = console::stderr_is_terminal() && !actions.is_active() && !quiet;
        let style = if live {
            Style::Live(MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(8)))
        } else {
            Style::Lines
        };
        let state = Mutex::new(State { rows: BTreeMap::new(), last_line: start });
        Self { style, quiet, verbose, actions, start, state }
    }

    /// Opens a foldable group of lines in Actions, a headline elsewhere.
    pub fn group(&self, title: &str) -> Group<'_> {
        self.spoken();
        if let Ok(false) = self.actions.begin_group(title) {
            self.step(title);
        }
        Group(self)
    }

    /// Says what begins now.
    pub fn step(&self, text: &str) {
        self.line(text);
    }

    /// Says a fact on the way.
    pub fn note(&self, text: &str) {
        self.line(text);
    }

    /// Says something only with `--verbose`.
    pub fn debug(&self, text: &str) {
        if self.verbose {
            self.line(text);
        }
    }

    /// Says something that somebody should look at; also with `--quiet`, and as an annotation in Actions.
    pub fn warn(&self, text: &str) {
        if self.actions.is_active() {
            self.spoken();
            let _ = self.actions.annotate(&Annotation::new(Level::Warning, "warning", text));
        } else {
            self.write(&format!("warning: {text}"));
        }
    }

    /// The state of one of several things that run at the same time. Said once per change; on a terminal a row of a table.
    pub fn subject(&self, name: &str, text: &str) {
        self.row(name, text, None);
    }

    /// The last state of one of several things that run at the same time, and whether it is good.
    pub fn settled(&self, name: &str, good: bool, text: &str) {
        self.row(name, text, Some(good));
    }

    fn row(&self, name: &str, text: &str, end: Option<bool>) {
        let mut state = self.lock();
        if state.rows.get(name).is_some_and(|row| row.text == text) {
            return;
        }
        let bar = match (&self.style, state.rows.remove(name)) {
            (_, Some(Row { bar: Some(bar), .. })) => Some(bar),
            (Style::Live(multi), _) => Some(multi.add(spinner())),
            (Style::Lines, _) => None,
        };
        if let Some(bar) = &bar {
            bar.set_message(one_line(text));
            if let Some(good) = end {
                bar.set_style(style(if good { "✓" } else { "✗" }));
                bar.abandon();
            }
        }
        state.rows.insert(name.to_owned(), Row { text: text.to_owned(), bar });
        state.align();
        drop(state);
        if matches!(self.style, Style::Lines) {
            self.line(&format!("{name}: {text}"));
        }
    }

    /// Call it in every turn of a waiting loop: says `text()` when nothing has been said for half a minute.
    pub fn heartbeat(&self, text: impl FnOnce() -> String) {
        let due = self.lock().last_line.elapsed() >= HEARTBEAT;
        if due && matches!(self.style, Style::Lines) {
            self.line(&text());
        }
    }

    /// Removes the live rows, so that what follows starts on a clean line.
    pub fn clear(&self) {
        if let Style::Live(multi) = &self.style {
            for row in self.lock().rows.values() {
                if let Some(bar) = &row.bar {
                    bar.finish_and_clear();
                }
            }
            // A terminal that went away is no reason to fail.
            let _ = multi.clear();
        }
        self.lock().rows.clear();
    }

    /// Prints what another program said, several lines, in Actions as a foldable group. Whatever is said here or
    /// elsewhere is made harmless; this keeps the lines.
    pub fn untrusted(&self, title: &str, text: &str) {
        self.spoken();
        let _ = match &self.style {
            Style::Live(multi) => {
                multi.println(format!("--- {}\n{}\n---", one_line(title), lines(text.trim_end())))
            }
            Style::Lines => self.actions.tell_foreign(title, text),
        };
    }

    fn line(&self, text: &str) {
        if !self.quiet {
            let elapsed = self.start.elapsed().as_secs_f64();
            self.write(&format!("[{elapsed:>6.1} s] {}", one_line(text)));
        }
    }

    fn write(&self, text: &str) {
        self.spoken();
        // A reader that went away is no reason to fail a deployment: the outcome is in the exit status and the report.
        let _ = match &self.style {
            Style::Live(multi) => multi.println(lines(text)),
            Style::Lines => console::tell(text),
        };
    }

    fn spoken(&self) {
        self.lock().last_line = Instant::now();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn spinner() -> ProgressBar {
    let bar = ProgressBar::new_spinner().with_style(style("{spinner}"));
    bar.enable_steady_tick(Duration::from_millis(125));
    bar
}

fn style(mark: &str) -> ProgressStyle {
    ProgressStyle::with_template(&format!("{mark} [{{elapsed}}] {{prefix}}  {{wide_msg}}"))
        .unwrap_or_else(|_| ProgressStyle::default_spinner())
}
