//! What every tool has in common at its edge: exit statuses, flags, the run's context, progress, the ending.
//!
//! A tool's `main` parses, builds a [`Context`], runs and hands the outcome to [`Context::finish`]; that is the only
//! place that prints errors, writes the report and chooses the exit status.

mod args;
mod context;
mod exit;
mod hosts;
mod manual;
mod progress;
mod signal;

pub use args::{CommonArgs, Format, parse, parse_duration, parse_with};
pub use context::{Context, Done, Tool};
pub use exit::{Exit, Failure, Place};
pub use hosts::{InventoryError, closest, load_inventory, require_hosts};
pub use progress::{Group, Progress};

pub use deploy_actions as actions;
pub use deploy_report as report;

/// Name and version of the crate that calls it, for [`Context::from_process`].
#[macro_export]
macro_rules! tool {
    () => {
        $crate::Tool { name: env!("CARGO_PKG_NAME"), version: env!("CARGO_PKG_VERSION") }
    };
}

/// A duration as people write it: `850 ms`, `12.3 s`, `4 min 05 s`.
pub fn human(duration: std::time::Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 => format!("{} ms", duration.as_millis()),
        1..60 => format!("{:.1} s", duration.as_secs_f64()),
        _ => format!("{} min {:02} s", seconds / 60, seconds % 60),
    }
}
