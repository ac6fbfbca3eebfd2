//! Turns Terraform's outputs or states into an Ansible inventory.
//!
//! Sources → bytes ([`fetch`]) → [`document`] (which kind of document, and what is wanted of it) → [`contract`] (a valid
//! inventory, or everything that is wrong); a state without the output `inventory`: [`resources`] → [`guess`] →
//! [`scaling`] (hosts of scaling groups) → [`merge`] → [`ansible`] (the forms that Ansible reads). Nothing is written
//! before all of it went well.

pub mod ansible;
mod args;
mod aws;
pub mod contract;
pub mod document;
mod error;
mod fetch;
mod file;
mod folder;
pub mod guess;
pub mod merge;
mod names;
mod number;
mod overlap;
mod part;
mod profile;
pub mod resources;
pub mod scaling;
mod source;
mod xml;

pub use args::{Args, OutputFormat, ScalingGroups};
pub use error::Error;
pub use overlap::check;

use deploy_cli::{Context, Done, Exit, Format};
use deploy_inventory::{Host, Inventory};
use deploy_report::{Subject, SubjectOutcome};
use part::Part;
use serde_json::{Map, Value, json};
use source::Source;
use std::collections::{BTreeMap, BTreeSet};
use std::io;

/// Reads, converts, and writes, compares or prints.
///
/// # Errors
/// [`Error`], with nothing written.
pub async fn run(args: &Args, ctx: &Context) -> Result<Done, Error> {
    let mut parts = tokio::select! {
        parts = gather(args, ctx) => parts?,
        exit = ctx.stopped() => return Err(Error::Stopped(exit)),
    };
    let name = parts.iter().map(|part| part.name.as_str()).collect::<Vec<_>>().join(", ");
    let named = part::groups_named(&parts);
    let guessed = parts.iter().all(|part| part.guessed);
    let any_guessed = parts.iter().any(|part| part.guessed);
    let pieces: Vec<merge::Part> = parts
        .iter_mut()
        .map(|part| merge::Part {
            name: part.name.clone(),
            inventory: std::mem::take(&mut part.inventory),
        })
        .collect();
    let merge::Merged { inventory, conflicts } =
        merge::merge(pieces, args.on_conflict, &args.group_by)
            .map_err(|problems| Error::Conflict { problems, guessed: any_guessed })?;
    if part::alone(args).is_none() {
        part::check_groups(args, &inventory, &named)?;
        part::drop_losers(&mut parts, &inventory);
    }
    let explained = args.explain.then(|| part::explained(&parts, &inventory, &conflicts));
    let inventory = if part::alone(args).is_some() {
        inventory
    } else {
        limited(args, &name, guessed, inventory)?
    };
    let mut subjects = Vec::new();
    if is_reported(args, ctx) {
        subjects.extend(parts.iter().flat_map(Part::subjects));
        let conflict = |text: &String| {
            Subject::new("conflict", "sources", SubjectOutcome::Warned, text.clone())
        };
        subjects.extend(conflicts.iter().map(conflict));
        subjects.extend(inventory.hosts().iter().map(subject));
    }
    let mut done = finish(args, ctx, &inventory, subjects)?;
    if explained.is_some() {
        done.data.clone_from(&explained);
        done.document = explained;
    }
    Ok(done)
}

/// Whether anybody sees the report: Ansible, which waits for the script protocol, does not.
fn is_reported(args: &Args, ctx: &Context) -> bool {
    let prints = args.output.is_none() && ctx.format() == Format::Text;
    !prints || args.common.report.is_some() || ctx.in_actions()
}

/// Everything that the sources say, scaling groups looked up.
async fn gather(args: &Args, ctx: &Context) -> Result<Vec<Part>, Error> {
    if args.limit.as_deref().is_some_and(|pattern| pattern.trim().is_empty()) {
        return Err(Error::Usage("`--limit` is empty: every host is meant without it".to_owned()));
    }
    if args.require_groups.iter().any(|group| group.trim().is_empty()) {
        return Err(Error::Usage("`--require-group` is empty: it names no group".to_owned()));
    }
    let wanted = part::wanted(args)?;
    let mut sources = Vec::new();
    for text in args.sources.iter().filter(|text| !text.is_empty()) {
        let source = Source::of(text, args.workspace.as_deref(), &args.workspace_key_prefix);
        let source = source.map_err(Error::Usage)?;
        if sources.contains(&source) {
            return Err(Error::Usage(format!("`{text}` is given twice")));
        }
        sources.push(source);
    }
    if sources.is_empty() {
        return Err(Error::Usage("no source is given".to_owned()));
    }
    let mut documents = Vec::new();
    for source in &sources {
        let fetch::Fetched { name, bytes } = fetch::fetch(source, args, ctx).await?;
        let found = part::read(&name, &bytes, &wanted)?;
        drop(bytes);
        mask(ctx, &found.secrets)
            .map_err(|source| Error::Read { name: "stderr".into(), source })?;
        documents.push((name, found));
    }
    let mut parts = part::all(documents, args)?;
    part::add_variables(&mut parts, args)?;
    for part in &mut parts {
        look_up(part, args, ctx).await?;
    }
    Ok(parts)
}

/// Hides secrets from the log before anything else can print them. On stderr: stdout may be the inventory.
fn mask(ctx: &Context, secrets: &[Value]) -> io::Result<()> {
    let mut open: Vec<&Value> = secrets.iter().collect();
    let mut texts = BTreeSet::new();
    while let Some(value) = open.pop() {
        match value {
            Value::String(text) => {
                texts.insert(number::digits(text).unwrap_or(text).to_owned());
            }
            Value::Number(number) => {
                texts.insert(number.to_string());
            }
            Value::Array(items) => open.extend(items),
            Value::Object(members) => open.extend(members.values()),
            Value::Null | Value::Bool(_) => {}
        }
    }
    texts.iter().try_for_each(|text| ctx.actions().mask(text))
}

async fn look_up(part: &mut Part, args: &Args, ctx: &Context) -> Result<(), Error> {
    if args.scaling_groups == ScalingGroups::Skip {
        part.skip_scaling_groups();
        return Ok(());
    }
    let mut regions: BTreeMap<Option<String>, Vec<contract::ScalingGroup>> = BTreeMap::new();
    for group in std::mem::take(&mut part.scaling_groups) {
        regions.entry(group.region.clone()).or_default().push(group);
    }
    let name = part.name.clone();
    for (region, groups) in regions {
        let failed = |fault| match fault {
            scaling::Fault::Aws(source) => profile::explain(&name, source, |name, source| {
                Error::Scaling { name, fault: scaling::Fault::Aws(source) }
            }),
            fault => Error::Scaling { name: name.clone(), fault },
        };
        let config = deploy_aws::load(ctx, region.as_deref()).await;
        let config = config.map_err(|error| failed(scaling::Fault::Aws(error)))?;
        let region = config.region().map(ToString::to_string).unwrap_or_default();
        let client = deploy_aws::Client::new(config);
        let found = scaling::resolve(&groups, &region, &client).await.map_err(failed)?;
        let guessed = part.guessed;
        part.add(found).map_err(|problems| Error::Conflict { problems, guessed })?;
    }
    Ok(())
}

/// Holds the inventory against `--limit`, `--require-group` and `--allow-empty`.
fn limited(
    args: &Args,
    name: &str,
    guessed: bool,
    inventory: Inventory,
) -> Result<Inventory, Error> {
    let inventory = match args.limit.as_deref() {
        None => inventory,
        Some(pattern) => {
            let chosen = inventory.select(Some(pattern)).map_err(|source| {
                let meant = part::meant(&inventory, &source);
                Error::Limit { source, meant }
            })?;
            let hosts = chosen.into_iter().cloned().collect();
            inventory.with_hosts(hosts)
        }
    };
    if inventory.hosts().is_empty() && !args.allow_empty {
        let limit = args.limit.clone();
        return Err(match limit {
            None if guessed => Error::NoInstances { name: name.to_owned() },
            limit => Error::NoHosts { name: name.to_owned(), limit },
        });
    }
    let has = |group: &String| inventory.hosts().iter().any(|host| host.groups.contains(group));
    let empty: Vec<String> = args
        .require_groups
        .iter()
        .filter(|group| !has(group))
        .map(|group| match contract::valid_group_name(group) {
            valid if has(&valid) => format!("`{group}` (did you mean `{valid}`?)"),
            _ => format!("`{group}`"),
        })
        .collect();
    if !empty.is_empty() {
        return Err(Error::EmptyGroups { name: name.to_owned(), groups: empty });
    }
    Ok(inventory)
}

fn finish(
    args: &Args,
    ctx: &Context,
    inventory: &Inventory,
    subjects: Vec<Subject>,
) -> Result<Done, Error> {
    let hosts = inventory.hosts().len();
    let counted =
        format!("{} in {}", count(hosts, "host"), count(inventory.groups().len(), "group"));
    let ending = deliver(args, inventory, &counted)?;
    let report = ctx
        .report()
        .project(ctx.project().or(inventory.project()))
        .environment(ctx.environment().or(inventory.environment()))
        .subjects(subjects)
        .finish(ending.exit.name(), ending.title);
    let mut done = Done::new(ending.exit, report);
    done.data = ending.stdout;
    if args.list || args.host.is_some() {
        // Ansible asks, perhaps where TF_TO_INVENTORY_FORMAT says json: it gets what it asked for.
        done.document.clone_from(&done.data);
    }
    done.outputs.push(("hosts".to_owned(), hosts.to_string()));
    if let Some(path) = &args.output {
        done.outputs.push(("inventory".to_owned(), path.display().to_string()));
        done.outputs.push(("changed".to_owned(), ending.changed.to_string()));
    }
    Ok(done)
}

struct Ending {
    exit: Exit,
    title: String,
    stdout: Option<String>,
    changed: bool,
}

/// Prints, writes or compares.
fn deliver(args: &Args, inventory: &Inventory, counted: &str) -> Result<Ending, Error> {
    let text = match (&args.host, args.list, args.output_format) {
        (Some(host), _, _) => ansible::script_host(inventory, host),
        (None, true, _) => ansible::script_list(inventory),
        (None, false, OutputFormat::Json) => ansible::json_file(inventory),
        (None, false, OutputFormat::Yaml) => ansible::yaml_file(inventory),
    };
    let success = |title| Ending { exit: Exit::Success, title, stdout: None, changed: false };
    let Some(path) = &args.output else {
        return Ok(Ending { stdout: Some(text), ..success(counted.to_owned()) });
    };
    let failed = |verb| move |source| Error::Output { verb, path: path.clone(), source };
    let old = file::current(path).map_err(failed("read"))?;
    let changed = old.as_deref() != Some(text.as_str());
    let shown = path.display();
    if args.check && changed {
        let title =
            format!("`{shown}` is not up to date: {}", difference(old.as_deref(), inventory));
        return Ok(Ending { exit: Exit::Verdict, changed, ..success(title) });
    }
    if args.check {
        return Ok(success(format!("`{shown}` is up to date: {counted}")));
    }
    file::replace(path, &text).map_err(failed("replace"))?;
    let note = if changed { "" } else { ", unchanged" };
    Ok(Ending { changed, ..success(format!("{counted}{note}: `{shown}`")) })
}

fn subject(host: &Host) -> Subject {
    let id = host.instance_id.as_deref().unwrap_or_default();
    let address = host.public_ip.as_deref().or(host.private_ip.as_deref()).unwrap_or_default();
    let groups =
        if host.groups.is_empty() { "no group".to_owned() } else { host.groups.join(", ") };
    Subject::new("host", &host.name, SubjectOutcome::Success, format!("{id} {address} ({groups})"))
        .data(json!({
            "instance_id": host.instance_id,
            "private_ip": host.private_ip,
            "public_ip": host.public_ip,
            "groups": host.groups,
        }))
}

/// What changed between the file and the inventory, in one line.
fn difference(old: Option<&str>, new: &Inventory) -> String {
    let Some(old) = old else { return "it does not exist".to_owned() };
    let Ok(old) = Inventory::parse(old) else { return "it has another form".to_owned() };
    // Both as a reader sees them.
    let Ok(new) = Inventory::parse(&ansible::json_file(new)) else {
        return "it has another form".to_owned();
    };
    let new = &new;
    let names = |chosen: &dyn Fn(&Host) -> bool, from: &Inventory| -> String {
        let names: Vec<&str> = from
            .hosts()
            .iter()
            .filter(|host| chosen(host))
            .map(|host| host.name.as_str())
            .collect();
        names.join(", ")
    };
    let twin = |host: &Host, other: &Inventory| {
        other.hosts().iter().find(|twin| twin.name == host.name).cloned()
    };
    let parts: Vec<String> = [
        ("new", names(&|host| twin(host, &old).is_none(), new)),
        ("gone", names(&|host| twin(host, new).is_none(), &old)),
        ("changed", names(&|host| twin(host, &old).is_some_and(|twin| twin != *host), new)),
    ]
    .into_iter()
    .filter(|(_, names)| !names.is_empty())
    .map(|(word, names)| format!("{word}: {names}"))
    .chain(variables("all hosts", Some(old.all_vars()), Some(new.all_vars())))
    .chain(new.groups().into_iter().filter_map(|group| {
        variables(&format!("`{group}`"), old.group_vars(group), new.group_vars(group))
    }))
    .collect();
    if parts.is_empty() { "groups or the layout differ".to_owned() } else { parts.join("; ") }
}

/// Which variables of a group differ, by name: a value could be secret to somebody.
fn variables(
    whose: &str,
    old: Option<&Map<String, Value>>,
    new: Option<&Map<String, Value>>,
) -> Option<String> {
    let value = |vars: Option<&Map<String, Value>>, name: &str| vars?.get(name).cloned();
    let names: BTreeSet<&String> = old.into_iter().chain(new).flat_map(Map::keys).collect();
    let changed: Vec<&str> = names
        .into_iter()
        .filter(|name| value(old, name) != value(new, name))
        .map(String::as_str)
        .collect();
    (!changed.is_empty()).then(|| format!("variables of {whose}: {}", changed.join(", ")))
}

fn count(number: usize, word: &str) -> String {
    if number == 1 { format!("1 {word}") } else { format!("{number} {word}s") }
}
