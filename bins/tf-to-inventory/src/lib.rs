//! Turns Terraform's outputs into an Ansible inventory.
//!
//! Bytes → [`document`] (which kind of document, and its output `inventory`) → [`contract`] (a valid inventory, or
//! everything that is wrong) → [`ansible`] (the forms that Ansible reads). A state without that output: [`resources`] →
//! [`guess`]. Nothing is written before all of it went well.

pub mod ansible;
mod args;
pub mod contract;
pub mod document;
mod error;
mod file;
pub mod guess;
pub mod resources;

pub use args::{Args, OutputFormat};
pub use error::Error;

use contract::Converted;
use deploy_cli::{Context, Done, Exit};
use deploy_inventory::{Host, Inventory};
use deploy_report::{Subject, SubjectOutcome};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;

/// Reads, converts, and writes, compares or prints.
///
/// # Errors
/// [`Error`], with nothing written.
pub async fn run(args: &Args, ctx: &Context) -> Result<Done, Error> {
    let name = source_name(&args.source)?;
    let bytes =
        file::read(&args.source).map_err(|source| Error::Read { name: name.clone(), source })?;
    let found = find(args, &name, &bytes)?;
    let inventory = limited(args, &name, found.inventory)?;
    let of_hosts = inventory.hosts().iter().map(subject);
    let subjects: Vec<Subject> = found.subjects.into_iter().chain(of_hosts).collect();
    let mut done = finish(args, ctx, &inventory, subjects)?;
    if args.explain {
        done.stdout = Some(found.explained);
    }
    Ok(done)
}

/// An inventory and where it comes from.
struct Found {
    inventory: Inventory,
    /// What people should know besides the hosts.
    subjects: Vec<Subject>,
    /// What `--explain` prints.
    explained: String,
}

/// The output `inventory`; in a state without it a guess from its instances.
fn find(args: &Args, name: &str, bytes: &[u8]) -> Result<Found, Error> {
    let value = match document::inventory_value(bytes) {
        Ok(value) => value,
        Err(fault @ (document::Fault::NoOutputs | document::Fault::NoInventory { .. })) => {
            let instances = resources::instances(bytes);
            if instances.is_empty() {
                return Err(Error::Document { name: name.to_owned(), fault });
            }
            return guessed(args, name, &instances);
        }
        Err(fault) => return Err(Error::Document { name: name.to_owned(), fault }),
    };
    let Converted { inventory, renamed } = contract::convert(&value)
        .map_err(|problems| Error::Contract { name: name.to_owned(), problems })?;
    let subjects = renamed.iter().map(|(old, new)| {
        let detail = format!(
            "the group `{old}` is written as `{new}`: Ansible wants letters, digits and `_`"
        );
        Subject::new("group", new, SubjectOutcome::Warned, detail)
    });
    let hosts = inventory.hosts().iter();
    let entries = hosts.map(|host| json!({"host": host.name, "groups": host.groups, "note": ""}));
    let explained = explained("output", entries.collect());
    Ok(Found { subjects: subjects.collect(), explained, inventory })
}

fn guessed(args: &Args, name: &str, instances: &[resources::Resource]) -> Result<Found, Error> {
    let guess::Guess { inventory, explained: entries } = guess::guess(instances, args.on_duplicate)
        .map_err(|problems| Error::Guess { name: name.to_owned(), problems })?;
    let notes = entries.iter().filter(|entry| !entry.note.is_empty()).map(|entry| {
        let outcome =
            if entry.host.is_some() { SubjectOutcome::Warned } else { SubjectOutcome::Skipped };
        Subject::new("instance", &entry.address, outcome, entry.note.clone())
    });
    let note =
        "no output `inventory`: names and groups are guessed from tags, modules and resources";
    let mut subjects =
        vec![Subject::new("source", "resources", SubjectOutcome::Warned, note.to_owned())];
    subjects.extend(notes);
    let groups: BTreeMap<&str, &[String]> =
        inventory.hosts().iter().map(|host| (host.name.as_str(), host.groups.as_slice())).collect();
    let entries = entries.iter().map(|entry| {
        let host = entry.host.as_deref();
        json!({
            "address": entry.address,
            "host": host,
            "groups": host.and_then(|host| groups.get(host)).copied().unwrap_or_default(),
            "note": entry.note,
        })
    });
    let explained = explained("resources", entries.collect());
    Ok(Found { subjects, explained, inventory })
}

fn explained(source: &str, entries: Vec<serde_json::Value>) -> String {
    format!("{:#}\n", json!({"version": 1, "source": source, "instances": entries}))
}

/// Holds the inventory against `--limit`, `--require-group` and `--allow-empty`.
fn limited(args: &Args, name: &str, inventory: Inventory) -> Result<Inventory, Error> {
    let inventory = match args.limit.as_deref() {
        None => inventory,
        Some(pattern) => {
            let chosen = inventory.select(Some(pattern)).map_err(Error::Limit)?;
            let hosts = chosen.into_iter().cloned().collect();
            let groups = inventory.groups().into_iter();
            let group_vars = groups
                .filter_map(|group| Some((group.to_owned(), inventory.group_vars(group)?.clone())))
                .collect();
            Inventory::new(hosts, inventory.all_vars().clone(), group_vars)
        }
    };
    if inventory.hosts().is_empty() && !args.allow_empty {
        return Err(Error::NoHosts { name: name.to_owned(), limit: args.limit.clone() });
    }
    let has = |group: &String| inventory.hosts().iter().any(|host| host.groups.contains(group));
    let empty: Vec<String> = args
        .require_groups
        .iter()
        .filter(|group| !has(group))
        .map(|group| format!("`{group}`"))
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
    done.stdout = ending.stdout;
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

/// The source for people; refuses what this version does not read.
fn source_name(source: &str) -> Result<String, Error> {
    if source == "-" {
        return Ok("stdin".to_owned());
    }
    let name = format!("`{source}`");
    if source.starts_with("s3://") {
        return Err(Error::Source { name, what: "an object in S3" });
    }
    if Path::new(source).is_dir() {
        return Err(Error::Source { name, what: "a folder" });
    }
    Ok(name)
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
    .collect();
    if parts.is_empty() {
        "variables of groups or the layout differ".to_owned()
    } else {
        parts.join("; ")
    }
}

fn count(number: usize, word: &str) -> String {
    if number == 1 { format!("1 {word}") } else { format!("{number} {word}s") }
}
