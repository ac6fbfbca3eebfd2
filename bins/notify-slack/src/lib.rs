//! Tells people in Slack how a deployment ended.
//!
//! It reads the reports that the other tools wrote (and, in a workflow, the results of the jobs), rolls them up into
//! one outcome and posts one message, or updates the one that `--ts` names. It never sends a message twice, never
//! prints a secret, and by default a Slack that is down is a warning, not a failed deployment.

mod args;
mod error;
pub mod message;
pub mod rollup;
pub mod slack;

pub use args::{Args, OnError, Status};
pub use error::Error;

use args::filled;
use deploy_actions::{Annotation, Level, named_variable};
use deploy_cli::{Context, Done, Exit};
use deploy_report::{Subject, SubjectOutcome};
use message::Origin;
use rollup::Deployment;
use serde_json::{Value, json};
use slack::{Delivered, Secret, Target};

/// Reads, renders, and delivers or prints.
///
/// # Errors
/// [`Error`]; delivery errors only with `--on-error fail`.
pub async fn run(args: &Args, ctx: &Context) -> Result<Done, Error> {
    let target = target(args, ctx)?;
    let needs = filled(args.needs.as_deref());
    if args.reports.is_empty() && needs.is_none() && args.announced().is_none() {
        return Err(Error::NothingToTell);
    }
    let mut deployment = rollup::read(&args.reports, needs)?;
    for step in &deployment.steps {
        if let Some(why) = &step.unreadable {
            ctx.progress()
                .warn(&format!("the report of step `{}` cannot be read: {why}", step.name));
        }
    }
    deployment.outcome = args.announced().unwrap_or(deployment.outcome);
    deployment.project = ctx.project().map(str::to_owned).or(deployment.project);
    deployment.environment = ctx.environment().map(str::to_owned).or(deployment.environment);
    let payload = message::payload(&deployment, &origin(ctx));

    let (Some(target), false) = (target.as_ref(), args.dry_run) else {
        return Ok(not_sent(args, ctx, &deployment, target.as_ref(), &payload));
    };
    ctx.progress().step("sending the message to Slack");
    let sent = tokio::select! {
        sent = slack::deliver(target, &payload, args.timeout) => sent,
        exit = ctx.stopped() => Err(Error::Stopped(exit)),
    };
    match sent {
        Ok(delivered) => Ok(sent_done(ctx, &deployment, &delivered)),
        Err(Error::Delivery(error)) if args.on_error == OnError::Warn => {
            Ok(warned(ctx, &deployment, &payload, error))
        }
        Err(error) => {
            let unknown = match &error {
                Error::Delivery(error) => error.may_have_arrived(),
                error => matches!(error, Error::Stopped(_)),
            };
            publish_undelivered(ctx, unknown, &payload);
            Err(error)
        }
    }
}

/// Where to send; `None` when no secret is set. Masks the secrets before anything else is printed.
fn target(args: &Args, ctx: &Context) -> Result<Option<Target>, Error> {
    let token = named_variable("NOTIFY_SLACK_TOKEN").map(|value| value.trim().to_owned());
    let webhook = named_variable("NOTIFY_SLACK_WEBHOOK").map(|value| value.trim().to_owned());
    for secret in [&token, &webhook].into_iter().flatten() {
        // A mask that cannot be written means that nothing else can be printed either.
        let _ = ctx.actions().mask(secret);
    }
    let ts = filled(args.ts.as_deref()).map(str::to_owned);
    if let Some(token) = filled(token.as_deref()) {
        let api = slack::address("`--api-url`", &args.api_url)?;
        let channel = filled(args.channel.as_deref()).ok_or(Error::NoChannel)?.to_owned();
        return Ok(Some(Target::Bot { token: Secret::new(token), api, channel, ts }));
    }
    let Some(webhook) = filled(webhook.as_deref()) else { return Ok(None) };
    if ts.is_some() {
        return Err(Error::TsNeedsToken);
    }
    slack::address("NOTIFY_SLACK_WEBHOOK", webhook)?;
    Ok(Some(Target::Webhook(Secret::new(webhook))))
}

fn origin(ctx: &Context) -> Origin {
    let env = ctx.actions().environment();
    let mut words = Vec::new();
    if let Some(actor) = &env.actor {
        words.push(format!("by {actor}"));
    }
    if let Some(branch) = &env.ref_name {
        words.push(format!("on {branch}"));
    }
    if let Some(commit) = &env.sha {
        words.push(format!("at {}", commit.chars().take(8).collect::<String>()));
    }
    if let Some(attempt) = env.run_attempt.as_ref().filter(|attempt| attempt.as_str() != "1") {
        words.push(format!("(attempt {attempt})"));
    }
    let words = words.join(" ");
    Origin {
        run_url: ctx.actions().run_url(),
        words: Some(words).filter(|words| !words.is_empty()),
    }
}

/// A step that left no readable report does not keep the message back, but it is an input that was no report.
fn exit_of(deployment: &Deployment) -> Exit {
    if deployment.steps.iter().any(|step| step.unreadable.is_some()) {
        Exit::Usage
    } else {
        Exit::Success
    }
}

fn not_sent(
    args: &Args,
    ctx: &Context,
    deployment: &Deployment,
    target: Option<&Target>,
    payload: &Value,
) -> Done {
    let why = if args.dry_run {
        "dry run"
    } else {
        "neither NOTIFY_SLACK_TOKEN nor NOTIFY_SLACK_WEBHOOK is set"
    };
    let title = format!("nothing was sent ({why}): {}", message::headline(deployment));
    ctx.progress().note(&format!("nothing was sent ({why}); this is the payload:"));
    let exact = match target {
        Some(Target::Bot { channel, ts, .. }) => slack::addressed(payload, channel, ts.as_deref()),
        Some(Target::Webhook(_)) | None => payload.clone(),
    };
    let subject = Subject::new(
        "message",
        "slack",
        SubjectOutcome::Skipped,
        format!("nothing was sent ({why})"),
    );
    let mut done = done(ctx, deployment, &title, subject.data(json!({ "payload": exact })));
    done.data = Some(format!("{exact:#}\n"));
    done.outputs.push(("delivered".into(), "false".into()));
    if !args.dry_run {
        // A pull request from a fork or from Dependabot sees no secrets; that is no fault of the run.
        let text =
            format!("nothing was sent: {why} (a run for a fork or Dependabot gets no secrets)");
        done.annotations.push(Annotation::new(Level::Notice, "notify-slack", text));
    }
    done
}

fn sent_done(ctx: &Context, deployment: &Deployment, delivered: &Delivered) -> Done {
    let note = if delivered.replaced {
        "a new message, because the one to update is gone"
    } else {
        "delivered"
    };
    if delivered.replaced {
        ctx.progress().warn("the message to update is gone; a new one was posted");
    }
    let title = format!("sent: {}", message::headline(deployment));
    let subject = Subject::new("message", "slack", SubjectOutcome::Success, note)
        .data(json!({ "ts": delivered.ts, "channel_id": delivered.channel_id }));
    let mut done = done(ctx, deployment, &title, subject);
    done.outputs.push(("delivered".into(), "true".into()));
    done.outputs.extend(delivered.ts.clone().map(|ts| ("ts".into(), ts)));
    done.outputs.extend(delivered.channel_id.clone().map(|id| ("channel-id".into(), id)));
    done
}

fn warned(
    ctx: &Context,
    deployment: &Deployment,
    payload: &Value,
    error: slack::DeliveryError,
) -> Done {
    let unknown = error.may_have_arrived();
    let hint = error.next_step().map(|hint| format!("; {hint}")).unwrap_or_default();
    let text = format!("the message was not delivered to Slack: {error}{hint}");
    let title = format!("not delivered: {}", message::headline(deployment));
    let subject = Subject::new("message", "slack", SubjectOutcome::Warned, error.to_string())
        .data(json!({ "exit": error.exit().name() }));
    if !ctx.in_actions() {
        ctx.progress().warn(&text);
    }
    let mut done = done(ctx, deployment, &title, subject);
    done.annotations.push(Annotation::new(Level::Warning, "notify-slack", text));
    done.outputs.push(("delivered".into(), delivered_word(unknown).into()));
    done.summary = Some(undelivered(payload));
    done
}

fn done(ctx: &Context, deployment: &Deployment, title: &str, subject: Subject) -> Done {
    let exit = exit_of(deployment);
    let report = ctx
        .report()
        .project(deployment.project.as_deref())
        .environment(deployment.environment.as_deref())
        .subject(subject)
        .finish(exit.name(), title);
    Done::new(exit, report)
}

/// Outputs and summary of a run that ends with an error, which carries none.
fn publish_undelivered(ctx: &Context, unknown: bool, payload: &Value) {
    let written = ctx
        .actions()
        .set_output("delivered", delivered_word(unknown))
        .and_then(|()| ctx.actions().append_summary(&undelivered(payload)));
    if let Err(error) = written {
        ctx.progress().warn(&format!("cannot write to GitHub's step files: {error}"));
    }
}

fn delivered_word(unknown: bool) -> &'static str {
    if unknown { "unknown" } else { "false" }
}

/// The text of the message for the step summary. A code block, so that no line of it is markup or a mention.
fn undelivered(payload: &Value) -> String {
    let mut text = String::from("The message that was not delivered:\n\n");
    let blocks = payload["blocks"].as_array().map(Vec::as_slice).unwrap_or_default();
    for line in
        blocks.iter().filter_map(|block| block["text"]["text"].as_str()).flat_map(str::lines)
    {
        text.push_str("    ");
        text.push_str(&line.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"));
        text.push('\n');
    }
    text
}
