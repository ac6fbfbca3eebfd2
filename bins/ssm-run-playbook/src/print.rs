//! `--print-bundle`: what would travel, how large it is and why.

use crate::bundle::{BUCKET_LIMIT_BYTES, LIMIT_BYTES};
use crate::error::Error;
use crate::plan::Plan;
use deploy_cli::{Context, Done, Exit};
use deploy_report::{Subject, SubjectOutcome};
use serde_json::json;
use std::fmt::Write as _;

pub(crate) fn bundle(ctx: &Context, plan: &Plan) -> Done {
    let (packed, sha256) = (plan.bundle.bytes.len(), plan.bundle.sha256.as_str());
    let (files, unpacked) =
        (plan.contents.len(), plan.contents.iter().map(|content| content.bytes).sum::<u64>());
    let limit = if plan.bucket.is_some() { BUCKET_LIMIT_BYTES } else { LIMIT_BYTES };
    // A run would refuse it, too; here it comes after what makes it so large.
    let (exit, outcome, way) = if packed > limit {
        let text = Error::TooLarge { bytes: packed, limit, largest: String::new() };
        let hint = if plan.bucket.is_some() { "" } else { "; see `--bucket`" };
        (Exit::Usage, SubjectOutcome::Failed, format!("{text}{hint}"))
    } else {
        (Exit::Success, SubjectOutcome::Success, way(plan))
    };
    let title = format!("{}: {files} files would travel in {packed} bytes", plan.playbook);
    let subject = Subject::new("bundle", sha256, outcome, &way).data(json!({
        "bytes": packed, "unpacked_bytes": unpacked, "files": files,
    }));
    let report = ctx
        .report()
        .project(plan.project.as_deref())
        .environment(plan.environment.as_deref())
        .subject(subject)
        .finish(exit.name(), title.as_str());

    let width = plan.contents.iter().map(|content| content.path.len()).max().unwrap_or(0);
    let mut text = format!("{title}\n");
    for content in &plan.contents {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{:>9}  {:<width$}  {}", content.bytes, content.path, content.why);
    }
    let _ = writeln!(text, "{unpacked:>9}  unpacked, {packed} packed, sha256 {sha256}\n{way}");
    let document = json!({
        "playbook": plan.playbook, "sha256": sha256, "bytes": packed,
        "unpacked_bytes": unpacked, "way": way, "files": plan.contents,
        "hosts": plan.hosts.iter().map(|host| &host.name).collect::<Vec<_>>(),
        "unmatched": plan.unmatched,
    });
    let mut done = Done::new(exit, report);
    done.stdout = Some(text);
    done.document = Some(format!("{document:#}\n"));
    done
}

/// How a host that lacks the bundle would get it.
fn way(plan: &Plan) -> String {
    if let Some(bucket) = &plan.bucket {
        let key = crate::store::key(&plan.bundle.sha256);
        return format!("it would travel through s3://{bucket}/{key}");
    }
    match plan.parts.len() {
        1 => "it would travel inside the command that runs it".to_owned(),
        count => format!("it would travel in {count} commands of Systems Manager"),
    }
}
