//! Asks a deployed SIP service whether it answers, registers a phone and carries a call with audio.
//!
//! Steps, each a subject of the report: `options`, `register`, `call`, `media`, `bye`, `unregister`. What was begun is
//! ended whatever happens: BYE or CANCEL, and the binding taken back, also after SIGINT and SIGTERM.

pub mod agent;
pub mod args;
pub mod check;
pub mod dialog;
pub mod digest;
pub mod error;
pub mod header;
pub mod media;
pub mod message;
pub mod rtp;
pub mod sdp;
pub mod timers;
pub mod transport;
pub mod trouble;
pub mod uri;

pub use args::Args;
pub use error::Error;

use crate::args::{Plan, Target};
use crate::check::Outcome;
use crate::media::Measurement;
use deploy_cli::{Context, Done, Exit};
use deploy_report::Subject;
use futures_util::FutureExt as _;
use futures_util::future::join_all;
use tokio::time::Instant;

/// Tests every target and reports.
///
/// # Errors
/// [`Error`] for bad input, before any packet is sent. A service that fails its test is no error but a result.
pub async fn run(args: &Args, ctx: &Context) -> Result<Done, Error> {
    let plan = args.plan()?;
    plan.mask(ctx)?;
    let deadline = plan.wait.map(|wait| Instant::now() + wait);
    let tests = plan.targets.iter().map(|target| check::check(ctx, target, &plan, deadline));
    let outcomes: Vec<(&Target, Outcome)> =
        plan.targets.iter().zip(join_all(tests).await).collect();
    let stopped = ctx.stopped().now_or_never();
    let done = conclude(ctx, &plan, outcomes, stopped);
    if let Some(path) = &args.junit {
        write(path, &deploy_report::junit(&done.report))
            .map_err(|source| Error::Junit { path: path.clone(), source })?;
    }
    Ok(done)
}

fn write(path: &std::path::Path, text: &str) -> std::io::Result<()> {
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        std::fs::create_dir_all(parent)?;
    }
    std::fs::write(path, text)
}

fn conclude(
    ctx: &Context,
    plan: &Plan,
    outcomes: Vec<(&Target, Outcome)>,
    stopped: Option<Exit>,
) -> Done {
    let exit = stopped.unwrap_or_else(|| exit(outcomes.iter().map(|(_, outcome)| outcome)));
    let title = title(plan, &outcomes, stopped);
    let measurements: Vec<&Measurement> =
        outcomes.iter().filter_map(|(_, outcome)| outcome.measurement.as_ref()).collect();
    let outputs = outputs(&measurements);
    let several = outcomes.len() > 1;
    let subjects = outcomes.into_iter().flat_map(|(target, outcome)| {
        let prefix = if several { format!("{} ", target.name) } else { String::new() };
        outcome
            .subjects
            .into_iter()
            .map(move |subject| Subject { name: format!("{prefix}{}", subject.name), ..subject })
    });
    let report = ctx
        .report()
        .project(plan.project.as_deref().filter(|_| ctx.project().is_none()))
        .environment(plan.environment.as_deref().filter(|_| ctx.environment().is_none()))
        .subjects(subjects)
        .finish(exit.name(), title);
    Done { outputs, ..Done::new(exit, report) }
}

/// One status for all targets: a clear no outweighs not having been able to tell.
fn exit<'o>(outcomes: impl Iterator<Item = &'o Outcome>) -> Exit {
    let exits: Vec<Exit> = outcomes
        .filter_map(|outcome| outcome.failure.as_ref())
        .map(|(_, trouble)| trouble.exit())
        .collect();
    let order = [Exit::Verdict, Exit::Timeout, Exit::Unavailable];
    order
        .into_iter()
        .find(|exit| exits.contains(exit))
        .unwrap_or_else(|| exits.first().copied().unwrap_or(Exit::Success))
}

fn title(plan: &Plan, outcomes: &[(&Target, Outcome)], stopped: Option<Exit>) -> String {
    let failed: Vec<String> = outcomes
        .iter()
        .filter_map(|(target, outcome)| {
            outcome.failure.as_ref().map(|(step, trouble)| (target, step, trouble))
        })
        .map(|(target, step, trouble)| format!("{} {step}: {trouble}", target.name))
        .collect();
    if stopped.is_some() {
        return "stopped before the end; calls and bindings were taken back as far as the service answered".to_owned();
    }
    let total = outcomes.len();
    match failed.as_slice() {
        [] => {
            let names: Vec<&str> =
                outcomes.iter().map(|(target, _)| target.name.as_str()).collect();
            let mut title = format!("{} {}", names.join(", "), done_what(plan));
            if let [(_, Outcome { measurement: Some(measured), .. })] = outcomes {
                title.push_str(&format!(": {}", measured.summary()));
            }
            title
        }
        [only] if total == 1 => only.clone(),
        several => format!("{} of {total} targets failed: {}", several.len(), several.join("; ")),
    }
}

fn done_what(plan: &Plan) -> &'static str {
    match (&plan.credentials, &plan.call, plan.media) {
        (Some(_), Some(_), Some(_)) => "registers a phone and echoes a call",
        (Some(_), Some(_), None) => "registers a phone and takes a call",
        (Some(_), None, _) => "registers a phone",
        (None, Some(_), Some(_)) => "echoes a call",
        (None, Some(_), None) => "takes a call",
        (None, None, _) => "answers",
    }
}

fn outputs(measurements: &[&Measurement]) -> Vec<(String, String)> {
    if measurements.is_empty() {
        return Vec::new();
    }
    let (sent, received) = measurements.iter().fold((0, 0), |(sent, received), measured| {
        (sent + measured.sent, received + measured.arrival.received())
    });
    let worst = |figure: fn(&Measurement) -> f64| {
        let worst = measurements.iter().map(|measured| figure(measured)).fold(0.0, f64::max);
        format!("{worst:.1}")
    };
    vec![
        ("packets-sent".to_owned(), sent.to_string()),
        ("packets-received".to_owned(), received.to_string()),
        ("loss-percent".to_owned(), worst(Measurement::loss_percent)),
        ("jitter-ms".to_owned(), worst(|measured| measured.arrival.jitter_ms())),
    ]
}
