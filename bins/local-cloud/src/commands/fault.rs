//! `local-cloud fault`.

use deploy_cli::report::{Subject, SubjectOutcome};
use deploy_cli::{Context, Done, Exit};
use serde_json::json;

use super::client::Client;
use super::running;
use crate::args::{FaultAction, FaultArgs, help};
use crate::control::{Added, Removed};
use crate::error::Error;
use crate::faults::{self, KINDS, Listed, Mistake, Parameter, Standing};
use crate::place::Place;
use crate::table;

/// Adds, lists, removes faults, or says which there are.
pub async fn fault(
    args: &FaultArgs,
    project: &str,
    place: &Place,
    ctx: &Context,
) -> Result<Done, Error> {
    if let FaultAction::Kinds(_) = &args.action {
        return Ok(kinds(ctx));
    }
    // Before anything is asked: a bad flag is one whether a cloud runs or not.
    let spec = match &args.action {
        FaultAction::Add(add) => Some(add.spec().checked().map_err(bad_flag)?),
        _ => None,
    };
    let state = running(place).ok_or_else(|| Error::NotRunning { project: project.to_owned() })?;
    let client = Client::new(&state)?;
    let (title, subjects, text) = match (&args.action, spec) {
        (_, Some(spec)) => {
            let Added { id, nobody } = client.post("faults", &spec).await?;
            for missing in nobody {
                let text = format!("no host is `{missing}` now; the fault waits for one");
                ctx.progress().warn(&text);
            }
            let title = format!("fault {id} added: {}", faults::describe(&spec));
            let text = format!("{title}\n");
            (title, Vec::new(), text)
        }
        (FaultAction::Remove(remove), None) => {
            let path = match remove.id {
                Some(id) => format!("faults/{id}"),
                None => "faults".to_owned(),
            };
            let Removed { removed } = client.delete(&path).await?;
            let title = format!("{removed} fault(s) removed");
            let text = format!("{title}\n");
            (title, Vec::new(), text)
        }
        (_, None) => {
            let listed: Vec<Listed> = client.get("faults").await?;
            let active = listed.iter().filter(|fault| fault.standing == Standing::Active).count();
            let title = format!("{active} active fault(s)");
            (title, listed.iter().map(subject).collect(), render(&listed))
        }
    };
    let report =
        ctx.report().project(Some(project)).subjects(subjects).finish(Exit::Success.name(), title);
    let mut done = Done::new(Exit::Success, report);
    done.stdout = Some(text);
    Ok(done)
}

/// The mistake, named by its flag.
fn bad_flag(Mistake { field, message }: Mistake) -> Error {
    Error::BadInput(format!("--{field}: {message}"))
}

fn subject(fault: &Listed) -> Subject {
    let name = format!("{} {}", fault.id, fault.spec.kind.name());
    let detail = format!("struck {} of {} times", fault.struck, fault.matched);
    let data = serde_json::to_value(fault).unwrap_or_default();
    Subject::new("fault", name, SubjectOutcome::Success, detail).data(data)
}

/// Faults as a table.
pub(crate) fn render(faults: &[Listed]) -> String {
    if faults.is_empty() {
        return "no faults\n".to_owned();
    }
    let head = ["ID", "KIND", "STANDING", "STRUCK", "MATCHED", "SCOPE"].map(str::to_owned).to_vec();
    let row = |fault: &Listed| {
        let standing = match (fault.standing, fault.seconds_left) {
            (Standing::Active, Some(left)) => format!("active, {left} s left"),
            (Standing::Active, None) => "active".to_owned(),
            (Standing::Spent, _) => "spent".to_owned(),
            (Standing::Expired, _) => "expired".to_owned(),
        };
        let scope = faults::scope(&fault.spec).join(" ");
        vec![
            fault.id.to_string(),
            fault.spec.kind.name().to_owned(),
            standing,
            fault.struck.to_string(),
            fault.matched.to_string(),
            if scope.is_empty() { "everything".to_owned() } else { scope },
        ]
    };
    let rows: Vec<Vec<String>> = std::iter::once(head).chain(faults.iter().map(row)).collect();
    table::render(&rows)
}

fn kinds(ctx: &Context) -> Done {
    let parameter =
        |parameter: &Parameter| format!("--{} {}", parameter.name(), help::value(*parameter));
    let parameters =
        |kind: &faults::Kind| kind.parameters().iter().map(parameter).collect::<Vec<_>>().join(" ");
    let mut rows = vec![["KIND", "DOES", "WHEN", "PARAMETERS"].map(str::to_owned).to_vec()];
    rows.extend(KINDS.iter().map(|kind| {
        let words = [kind.name(), kind.about(), kind.when().text(), &parameters(kind)];
        words.map(str::to_owned).to_vec()
    }));
    let subjects = KINDS.iter().map(|kind| {
        Subject::new("kind", kind.name(), SubjectOutcome::Success, kind.about())
            .data(json!({"parameters": parameters(kind), "when": kind.when().text()}))
    });
    let title = format!("{} kinds of faults", KINDS.len());
    let report = ctx.report().subjects(subjects).finish(Exit::Success.name(), title);
    let mut done = Done::new(Exit::Success, report);
    done.stdout = Some(table::render(&rows));
    done
}
