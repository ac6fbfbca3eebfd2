//! `local-cloud image`: what hosts boot from.

use std::fmt::Write as _;

use deploy_cli::report::{Report, Subject, SubjectOutcome};
use deploy_cli::{Context, Done, Exit};
use serde_json::json;

use crate::args::{ImageAction, ImageArgs};
use crate::ec2::images::{Ami, catalogue};
use crate::error::Error;
use crate::image::suites::SUITES;
use crate::image::{Bootable, CLOUD_INIT_LABEL, Look, Said, Store, own};
use crate::place::{Place, make_folder};
use crate::process::capture;

/// Does what was asked for.
pub async fn image(
    args: &ImageArgs,
    project: &str,
    place: &Place,
    ctx: &Context,
) -> Result<Done, Error> {
    make_folder(&place.cache)?;
    let store = Store::open(place)?;
    let finished = |title: String, text: String| {
        let report = ctx.report().project(Some(project)).finish(Exit::Success.name(), title);
        done(report, text)
    };
    match &args.action {
        ImageAction::List(_) => list(&store, project, ctx).await,
        ImageAction::Build(build) => {
            let suites = if build.all { SUITES.iter().collect() } else { build.suites.clone() };
            let mut text = String::new();
            for suite in &suites {
                let image = ensure(&store, &Bootable::Suite(suite), ctx).await?;
                // Writing to a String cannot fail.
                let _ = writeln!(text, "{}  {}  {image}", suite.name, suite.ami);
            }
            Ok(finished(format!("{} image(s) ready", suites.len()), text))
        }
        ImageAction::Add(add) => {
            let say = |said| tell(ctx, said);
            let added = tokio::select! {
                added = own::add(&store, &add.name, &add.from, &say) => added?,
                exit = ctx.stopped() => return Err(Error::Stopped(exit)),
            };
            for sentence in added.lacks {
                ctx.progress().warn(sentence);
            }
            let text = format!("{}\n", added.own.id);
            Ok(finished(format!("`{}` is {}", add.name, added.own.id), text))
        }
        ImageAction::Remove(remove) => {
            let own = own::remove(&store, &remove.name, &|said| tell(ctx, said)).await?;
            let title = format!("`{}` ({}) is forgotten", own.name, own.id);
            Ok(finished(title.clone(), title + "\n"))
        }
    }
}

/// Builds an image where it is missing or damaged, and says how far it is.
pub(super) async fn ensure(store: &Store, what: &Bootable, ctx: &Context) -> Result<String, Error> {
    let say = |said| tell(ctx, said);
    tokio::select! {
        image = store.ensure(what, Look::Runs, &say) => image,
        exit = ctx.stopped() => Err(Error::Stopped(exit)),
    }
}

fn tell(ctx: &Context, said: Said) {
    match said {
        Said::Step(text) => ctx.progress().step(&text),
        Said::Beat(text) => ctx.progress().heartbeat(|| text),
        Said::Log(text) => ctx.untrusted("end of the image build's log", &text),
    }
}

fn done(report: Report, text: String) -> Done {
    let mut done = Done::new(Exit::Success, report);
    done.stdout = Some(text);
    done
}

#[derive(Debug)]
struct Row {
    ami: Ami,
    cloud_init: String,
    state: String,
}

async fn list(store: &Store, project: &str, ctx: &Context) -> Result<Done, Error> {
    let mut rows = Vec::new();
    for ami in catalogue(store.own()?) {
        let (cloud_init, state) = match store.built(&ami.what).await? {
            Some(image) => (label(&image).await?, format!("built ({image})")),
            None => (String::new(), "not built".to_owned()),
        };
        rows.push(Row { ami, cloud_init, state });
    }
    let title = format!("{} machine images", rows.len());
    let report = ctx
        .report()
        .project(Some(project))
        .subjects(rows.iter().map(subject))
        .finish(Exit::Success.name(), &title);
    Ok(done(report, render(&rows)))
}

async fn label(image: &str) -> Result<String, Error> {
    let format = format!("{{{{index .Config.Labels \"{CLOUD_INIT_LABEL}\"}}}}");
    let args = ["image", "inspect", "--format", &format, image];
    Ok(capture("docker", args, None).await?.stdout.trim().to_owned())
}

fn subject(row: &Row) -> Subject {
    Subject::new("image", row.ami.what.name(), SubjectOutcome::Success, &row.state).data(json!({
        "ami": row.ami.id,
        "ami_name": row.ami.name,
        "owner": row.ami.owner,
        "cloud_init": row.cloud_init,
        "built": row.state.starts_with("built"),
    }))
}

fn render(rows: &[Row]) -> String {
    let heads = ["NAME", "AMI", "AMI NAME", "CLOUD-INIT", "STATE"];
    let cells: Vec<[&str; 5]> = rows
        .iter()
        .map(|row| {
            let cloud_init = if row.cloud_init.is_empty() { "-" } else { &row.cloud_init };
            [row.ami.what.name(), &row.ami.id, &row.ami.name, cloud_init, &row.state]
        })
        .collect();
    let mut text = String::new();
    for line in std::iter::once(&heads).chain(&cells) {
        for (at, cell) in line.iter().enumerate().take(4) {
            let width = cells.iter().map(|row| row[at].len()).max().unwrap_or(0);
            // Writing to a String cannot fail.
            let _ = write!(text, "{cell:<width$}  ", width = width.max(heads[at].len()));
        }
        text.push_str(line[4]);
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_a_table() {
        let rows: Vec<Row> = catalogue(Vec::new())
            .into_iter()
            .take(2)
            .map(|ami| Row { ami, cloud_init: String::new(), state: "not built".into() })
            .collect();
        insta::assert_snapshot!(render(&rows), @"
        NAME      AMI                    AMI NAME                       CLOUD-INIT  STATE
        bullseye  ami-0deb110000b00c0de  debian-11-amd64-20260101-2345  -           not built
        bookworm  ami-0deb120000b00c0de  debian-12-amd64-20260101-2345  -           not built
        ");
    }
}
