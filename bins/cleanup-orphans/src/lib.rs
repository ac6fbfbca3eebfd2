//! Lists, then on request deletes, the EC2 resources of an environment that no Terraform state owns.
//!
//! What carries the tags project and environment and stands in none of the given states is an orphan. In doubt a
//! resource stays: a state that cannot be read, a type that cannot be listed or an age that is not known never leads
//! to a deletion. Without `--delete` no call is made that changes anything; only [`deletion`] makes such calls.

mod args;
pub mod deletion;
pub mod ec2;
mod error;
pub mod report;
pub mod resource;
pub mod state;
pub mod survey;

pub use args::Args;
pub use error::Error;

use deletion::{Fate, Fates, Pace};
use deploy_cli::{Context, Done, Exit};
use ec2::{Ec2, Scope};
use report::Asked;
use state::Owned;
use std::collections::BTreeMap;
use survey::{Orphan, Survey, Wanted};

/// Lists, and deletes where asked to.
///
/// # Errors
/// [`Error`], always before anything was changed.
pub async fn run(args: &Args, ctx: &Context) -> Result<Done, Error> {
    let scope = scope(ctx)?;
    let owned = Owned::of_files(&args.states)?;
    let asked = Asked { check: args.check, delete: args.delete, older_than: args.older_than };
    let work = find(args, ctx, scope, &owned);
    let (ec2, survey) = tokio::select! {
        found = work => found?,
        exit = ctx.stopped() => return Ok(stopped(ctx, exit, &Survey::default(), &BTreeMap::new(), asked)),
    };
    for unknown in &survey.unknown {
        ctx.progress()
            .warn(&format!("type {} could not be listed: {}", unknown.type_name, unknown.error));
    }
    let fates = Fates::default();
    if args.delete && survey.unknown.is_empty() {
        let plan: Vec<&Orphan> = survey
            .orphans
            .iter()
            .filter(|orphan| orphan.spared(args.older_than).is_none())
            .collect();
        // clap demands `--max` with `--delete`.
        let max = args.max.unwrap_or(0);
        if plan.len() > max {
            return Err(Error::TooMany { count: plan.len(), max });
        }
        let pace =
            Pace { states: &args.states, timeout: args.timeout, poll_interval: args.poll_interval };
        ctx.progress().step(&format!("deleting {} resources", plan.len()));
        let signal = tokio::select! {
            () = deletion::delete(ctx, &ec2, &plan, &pace, &fates) => None,
            exit = ctx.stopped() => Some(exit),
        };
        if let Some(exit) = signal {
            return Ok(stopped(ctx, exit, &survey, &fates.into_inner(), asked));
        }
    }
    let fates = fates.into_inner();
    Ok(done(
        ctx,
        report::exit(&survey, &fates, asked),
        report::title(&survey, &fates, asked),
        &survey,
        &fates,
        asked,
    ))
}

async fn find(
    args: &Args,
    ctx: &Context,
    scope: Scope,
    owned: &Owned,
) -> Result<(Ec2, Survey), Error> {
    let config = deploy_aws::load(ctx, None).await.map_err(Error::Setup)?;
    if let Some(expected) = &args.account_id {
        let found = ec2::account(&config).await.map_err(Error::Identity)?;
        if found != *expected {
            return Err(Error::WrongAccount { expected: expected.clone(), found });
        }
    }
    ctx.progress()
        .step(&format!("looking for resources of {} {}", scope.project, scope.environment));
    let ec2 = Ec2::new(&config, scope);
    let wanted = Wanted { older_than: args.older_than, types: &args.types, now: ctx.started() };
    let survey = survey::survey(ctx, &ec2, owned, &wanted).await.map_err(Error::Listing)?;
    Ok((ec2, survey))
}

fn scope(ctx: &Context) -> Result<Scope, Error> {
    let value = |flag: &'static str, value: Option<&str>| {
        let value = value.filter(|value| !value.is_empty()).ok_or(Error::NoScope { flag })?;
        // `*` and `?` are wildcards in EC2's filters.
        if value.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')) {
            Ok(value.to_owned())
        } else {
            Err(Error::BadScope { flag, value: value.to_owned() })
        }
    };
    Ok(Scope {
        project: value("project", ctx.project())?,
        environment: value("environment", ctx.environment())?,
    })
}

fn stopped(
    ctx: &Context,
    exit: Exit,
    survey: &Survey,
    fates: &BTreeMap<String, Fate>,
    asked: Asked,
) -> Done {
    let title = if asked.delete {
        format!("stopped; {}", report::title(survey, fates, asked))
    } else {
        "stopped before the list was complete".to_owned()
    };
    ctx.progress().warn(&title);
    done(ctx, exit, title, survey, fates, asked)
}

fn done(
    ctx: &Context,
    exit: Exit,
    title: String,
    survey: &Survey,
    fates: &BTreeMap<String, Fate>,
    asked: Asked,
) -> Done {
    let report =
        ctx.report().subjects(report::subjects(survey, fates, asked)).finish(exit.name(), title);
    let mut done = Done::new(exit, report);
    let deleted = fates.values().filter(|fate| **fate == Fate::Deleted).count();
    done.outputs.push(("orphans".into(), survey.orphans.len().to_string()));
    done.outputs.push(("deleted".into(), deleted.to_string()));
    done
}
