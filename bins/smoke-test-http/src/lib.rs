//! Asks deployed HTTP services whether they answer as they should: status, JSON values, text.
//!
//! Each service is a subject of the report. With `--wait` it is asked again until it is healthy or the time is over.

pub mod args;
pub mod error;
pub mod expect;
pub mod probe;

pub use args::Args;
pub use error::Error;

use crate::args::{Plan, Target};
use crate::expect::Expectations;
use crate::probe::{Healthy, Trouble};
use deploy_cli::{Context, Done, Exit, human};
use deploy_report::{Subject, SubjectOutcome};
use futures_util::FutureExt as _;
use futures_util::future::join_all;
use serde_json::json;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// The pauses between tries: short at first, since most services come up at once or need a while.
const PAUSES: [Duration; 4] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(3),
    Duration::from_secs(5),
];

/// How asking one service ended.
struct Outcome {
    answer: Result<Healthy, Trouble>,
    tries: usize,
    elapsed: Duration,
}

/// Asks every service and reports.
///
/// # Errors
/// [`Error`] for bad input, before any request is sent. A service that is not healthy is no error but a result.
pub async fn run(args: &Args, ctx: &Context) -> Result<Done, Error> {
    let plan = args.plan()?;
    let expected = args.expectations();
    let client = probe::client(args.follow).map_err(|source| Error::Client { source })?;
    let asker = Asker {
        ctx,
        client,
        expected,
        timeout: args.timeout,
        deadline: args.wait.map(|wait| Instant::now() + wait),
    };
    let outcomes = join_all(plan.targets.iter().map(|target| asker.until_healthy(target))).await;
    let stopped = ctx.stopped().now_or_never();
    let done = conclude(ctx, &plan, &outcomes, stopped);
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

struct Asker<'a> {
    ctx: &'a Context,
    client: reqwest::Client,
    expected: Expectations,
    timeout: Duration,
    deadline: Option<Instant>,
}

impl Asker<'_> {
    async fn until_healthy(&self, target: &Target) -> Outcome {
        let (started, name) = (Instant::now(), target.name());
        let (mut tries, mut before) = (0, None);
        self.ctx.progress().subject(&name, "asking");
        loop {
            let left =
                self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let timeout = left.map_or(self.timeout, |left| left.min(self.timeout));
            let answer = tokio::select! {
                answer = probe::ask(&self.client, target, &self.expected, timeout) => answer,
                _ = self.ctx.stopped() => Err(Trouble::Stopped),
            };
            let pause = PAUSES[tries.min(PAUSES.len() - 1)];
            tries += 1;
            let end = |answer| Outcome { answer, tries, elapsed: started.elapsed() };
            let trouble = match answer {
                Err(trouble) if !matches!(trouble, Trouble::Stopped) => trouble,
                answer => return end(answer),
            };
            // A try that `--wait` cut short says less than the one before it.
            let cut = timeout < self.timeout && matches!(trouble, Trouble::Timeout { .. });
            let trouble = if cut { before.take().unwrap_or(trouble) } else { trouble };
            let Some(deadline) =
                self.deadline.filter(|deadline| Instant::now() + pause < *deadline)
            else {
                return end(Err(trouble));
            };
            let progress = self.ctx.progress();
            let left = human(deadline.saturating_duration_since(Instant::now()));
            progress.subject(&name, &format!("not yet healthy: {trouble}"));
            progress.heartbeat(|| format!("{name}: try {tries} failed, {left} left; {trouble}"));
            before = Some(trouble);
            tokio::select! {
                () = sleep(pause) => {}
                _ = self.ctx.stopped() => return end(Err(Trouble::Stopped)),
            }
        }
    }
}

fn conclude(ctx: &Context, plan: &Plan, outcomes: &[Outcome], stopped: Option<Exit>) -> Done {
    let exit = stopped.unwrap_or_else(|| exit(outcomes));
    let subjects =
        plan.targets.iter().zip(outcomes).map(|(target, outcome)| subject(target, outcome));
    let report = ctx
        .report()
        .project(plan.project.as_deref().filter(|_| ctx.project().is_none()))
        .environment(plan.environment.as_deref().filter(|_| ctx.environment().is_none()))
        .subjects(subjects)
        .finish(exit.name(), title(plan, outcomes, stopped));
    Done::new(exit, report)
}

/// One status for all services: a clear no outweighs not having been able to tell.
fn exit(outcomes: &[Outcome]) -> Exit {
    let exits: Vec<Exit> = outcomes
        .iter()
        .filter_map(|outcome| outcome.answer.as_ref().err())
        .map(Trouble::exit)
        .collect();
    let order = [Exit::Verdict, Exit::Timeout, Exit::Unavailable];
    order.into_iter().find(|exit| exits.contains(exit)).unwrap_or(Exit::Success)
}

fn title(plan: &Plan, outcomes: &[Outcome], stopped: Option<Exit>) -> String {
    if stopped.is_some() {
        return "stopped before every service had answered".to_owned();
    }
    let (total, all) = (outcomes.len(), plan.targets.iter().zip(outcomes));
    let failed: Vec<String> = all
        .filter_map(|(target, outcome)| {
            outcome.answer.as_ref().err().map(|trouble| format!("{}: {trouble}", target.name()))
        })
        .collect();
    match (failed.as_slice(), plan.targets.as_slice()) {
        ([], [only]) => format!("{} is healthy", only.name()),
        ([], _) => format!("{total} services are healthy"),
        ([only], [_]) => only.clone(),
        (several, _) => {
            format!("{} of {total} services are not healthy: {}", several.len(), several.join("; "))
        }
    }
}

fn subject(target: &Target, outcome: &Outcome) -> Subject {
    let tries =
        if outcome.tries == 1 { String::new() } else { format!(", at try {}", outcome.tries) };
    let mut data = json!({"url": target.url.as_str(), "host": target.host, "tries": outcome.tries});
    let (kind, detail) = match &outcome.answer {
        Ok(healthy) => {
            data["status"] = json!(healthy.status);
            data["version"] = json!(healthy.version);
            data["server"] = json!(healthy.server);
            data["request_ms"] = json!(u64::try_from(healthy.took.as_millis()).unwrap_or(u64::MAX));
            let server =
                healthy.server.as_ref().map(|server| format!(", {server}")).unwrap_or_default();
            (
                SubjectOutcome::Success,
                format!(
                    "{} in {}, {}{server}{tries}",
                    healthy.status,
                    human(healthy.took),
                    healthy.version
                ),
            )
        }
        Err(trouble) => {
            data["exit"] = json!(trouble.exit().name());
            let stopped = matches!(trouble, Trouble::Stopped);
            let hint = trouble.hint().map(|hint| format!(" (hint: {hint})")).unwrap_or_default();
            let outcome = if stopped { SubjectOutcome::Unknown } else { SubjectOutcome::Failed };
            (outcome, format!("{trouble}{tries}{hint}"))
        }
    };
    Subject::new("check", target.name(), kind, detail).elapsed(outcome.elapsed).data(data)
}
