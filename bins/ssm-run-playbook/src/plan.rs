//! Everything that is decided before the first call: which hosts, what travels, for how long. Bad input ends here.

use crate::args::Args;
use crate::bundle::{self, BUCKET_LIMIT_BYTES, Bundle, Item, LIMIT_BYTES};
use crate::error::{Error, Finding};
use crate::folder::Folder;
use crate::needed::{self, Reasons};
use crate::reach::{self, Question, Reach};
use crate::request::{self, ExtraVars, Request, Target};
use crate::script::Delivery;
use crate::waves::Amount;
use crate::{check, kept, playbook, script, syntax};
use deploy_cli::Context;
use deploy_inventory::{Host, Inventory};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The agent silently turns a larger execution timeout into one hour:
/// <https://github.com/aws/amazon-ssm-agent/blob/mainline/agent/plugins/pluginutil/pluginutil.go>.
const EXECUTION_LIMIT: Duration = Duration::from_secs(172_800);
/// Between the end of the time and the agent's own kill: Ansible ends its task, the recap is written.
const AGENT_MARGIN: Duration = Duration::from_secs(60);
const DELIVERY: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(600));

/// One host that is asked.
#[derive(Debug, Clone)]
pub(crate) struct PlannedHost {
    pub(crate) name: String,
    pub(crate) id: String,
    pub(crate) has_interpreter: bool,
}

/// One file of the bundle.
#[derive(Debug, Serialize)]
pub(crate) struct Content {
    pub(crate) path: String,
    pub(crate) bytes: u64,
    pub(crate) why: String,
}

fn contents(items: &bundle::Items, reasons: &Reasons) -> Vec<Content> {
    items
        .iter()
        .map(|(name, item)| Content {
            path: name.clone(),
            bytes: match item {
                Item::File { content, .. } => content.size(),
                Item::Link { .. } | Item::Other => 0,
            },
            why: reasons.get(name).cloned().unwrap_or_default(),
        })
        .collect()
}

/// The decisions.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) run: String,
    /// Those that are asked.
    pub(crate) hosts: Vec<PlannedHost>,
    /// Names of the selected hosts that no play matches.
    pub(crate) unmatched: Vec<String>,
    pub(crate) region: Option<String>,
    pub(crate) project: Option<String>,
    pub(crate) environment: Option<String>,
    /// Path of the playbook below the Ansible folder.
    pub(crate) playbook: String,
    /// The Ansible folder as it is named in reports and annotations.
    pub(crate) shown_folder: PathBuf,
    pub(crate) bundle: Bundle,
    /// What is in the bundle.
    pub(crate) contents: Vec<Content>,
    /// What is sent in commands; nothing with a bucket.
    pub(crate) parts: Vec<String>,
    pub(crate) bucket: Option<String>,
    /// How many hosts run together, in their order.
    pub(crate) waves: Vec<usize>,
    pub(crate) max_errors: Option<Amount>,
    pub(crate) between_batches: Option<String>,
    pub(crate) timeout: Duration,
    pub(crate) host_folder: String,
    /// Ansible's whole log is wanted.
    pub(crate) wants_log: bool,
    pub(crate) prints_log: bool,
    inventory_path: String,
    flags: Vec<String>,
    /// Nothing is changed, only predicted.
    pub(crate) check: bool,
    /// Flags that leave out tasks, as they were typed.
    pub(crate) narrowed: Option<String>,
    /// The selected hosts as a pattern.
    pub(crate) pattern: String,
    extra_vars: ExtraVars,
    vault_passwords: Vec<(String, String)>,
    lock_wait: Duration,
    allow_reboot: bool,
    install_ansible: bool,
    /// Where hosts write what they are doing.
    pub(crate) log_group: Option<String>,
}

impl Plan {
    /// Reads and checks all input.
    pub(crate) fn make(args: &Args, ctx: &Context) -> Result<Self, Error> {
        let limit = EXECUTION_LIMIT - AGENT_MARGIN;
        if args.timeout < Duration::from_secs(1) || args.timeout > limit {
            return Err(Error::TimeoutRange { limit: limit.as_secs() });
        }
        if args.check && args.install_ansible {
            return Err(Error::CheckInstalls);
        }
        let (inventory, text) = deploy_cli::load_inventory(&args.inventory)?;
        let environment = ctx.environment().or_else(|| inventory.environment()).map(str::to_owned);
        if let (Some(flag), Some(own)) = (ctx.environment(), inventory.environment())
            && flag != own
        {
            let (inventory, flag) = (own.to_owned(), flag.to_owned());
            return Err(Error::Environment { inventory, flag });
        }
        if !args.ansible_dir.is_dir() {
            return Err(Error::NoAnsibleDir { path: args.ansible_dir.clone() });
        }
        let playbook = playbook::locate(&args.playbook, &args.ansible_dir)?;
        let extra_vars = request::extra_vars(&args.extra_vars)?;
        let vault_passwords =
            request::vault_passwords(args.vault_password.as_deref(), &args.vault_id)?;
        let shown_folder = shown(&args.ansible_dir, ctx);
        let mut items = bundle::collect(&args.ansible_dir, environment.as_deref())?;
        if !items.contains_key(&playbook) {
            return Err(Error::Outside {
                path: args.playbook.clone(),
                folder: args.ansible_dir.clone(),
            });
        }
        let selected =
            deploy_cli::require_hosts(&inventory, args.limit.as_deref(), &args.inventory)?;
        let names: Vec<String> = selected.iter().map(|host| host.name.clone()).collect();
        let question = Question {
            folder: Folder::new(&items),
            shown: &shown_folder,
            playbook: &playbook,
            inventory: &inventory,
            selected: &names,
            allow_reboot: args.allow_reboot,
            local_tasks: args.run_local_tasks_on_hosts,
        };
        let reached = reach::reach(&question);
        let mut reasons =
            needed::needed(&items, &reached, &playbook, environment.as_deref(), &shown_folder);
        let variables = syntax::variables(&items, &inventory, &playbook, environment.as_deref());
        let repeated = syntax::check(&items, &reached, &variables, &shown_folder)?;
        let drawn = judge(args, &items, &reached, &variables, &question)?;
        let (asked, unmatched): (Vec<&Host>, Vec<&Host>) =
            selected.into_iter().partition(|host| reached.matched.contains(&host.name));
        let (hosts, region) = addresses(args, &inventory, &asked, &items)?;
        if let Some(warning) = without_variables(&args.ansible_dir, environment.as_deref()) {
            ctx.progress().warn(&warning);
        }
        let settings = kept::settings(question.folder, &shown_folder);
        for warning in reached.warnings.iter().chain(&repeated).chain(&drawn).chain(&settings) {
            ctx.progress().warn(&warning.to_string());
        }
        for task in &reached.local_tasks {
            ctx.progress().note(&task.to_string());
        }
        items.retain(|name, _| reasons.contains_key(name));

        // Beside the environment's group_vars, where Ansible looks for them. All hosts travel: templates name peers.
        let inventory_path =
            format!("inventories/{}/inventory.json", environment.as_deref().unwrap_or("default"));
        let file = |text: &str| Item::File {
            content: bundle::Content::of(text.as_bytes().to_vec()),
            mode: 0o644,
        };
        items.insert(inventory_path.clone(), file(&text));
        reasons.insert(inventory_path.clone(), "the inventory with all hosts".to_owned());
        for (name, text) in script::HOST_FILES {
            items.insert(name.to_owned(), file(text));
            reasons.insert(name.to_owned(), "runs Ansible on the host".to_owned());
        }
        let limit = match (&args.bucket, args.print_bundle) {
            // What is too large is what somebody wants to see.
            (_, true) => usize::MAX,
            (Some(_), false) => BUCKET_LIMIT_BYTES,
            (None, false) => LIMIT_BYTES,
        };
        let bundle = bundle::pack(&items, limit)?;
        let waves = match &args.batch {
            Some(batches) => batches.sizes(hosts.len()),
            None => vec![hosts.len()],
        };
        if args.max_errors.is_some() && args.batch.is_none() {
            let text = "`--max-errors` spares no host without `--batch`: all of them begin at once";
            ctx.progress().warn(text);
        }
        ctx.progress().step(&format!(
            "{}: {} files in {} bytes, sha256 {}",
            shown_folder.join(&playbook).display(),
            items.len(),
            bundle.bytes.len(),
            &bundle.sha256[..12]
        ));
        let unmatched: Vec<String> = unmatched.into_iter().map(|host| host.name.clone()).collect();
        if !unmatched.is_empty() {
            ctx.progress().note(&format!("no play matches {}: not asked", unmatched.join(", ")));
        }
        let prints_log = args.diff || args.ansible_verbosity > 0 || ctx.verbose();
        let plan = Self {
            run: format!(
                "{}-{:08x}",
                ctx.started().strftime("%Y%m%dT%H%M%SZ"),
                rand::random::<u32>()
            ),
            hosts,
            unmatched,
            region,
            project: ctx.project().or_else(|| inventory.project()).map(str::to_owned),
            environment,
            playbook,
            shown_folder,
            parts: if args.bucket.is_some() { Vec::new() } else { script::parts(&bundle.bytes) },
            bucket: args.bucket.clone(),
            waves,
            max_errors: args.max_errors,
            between_batches: args.between_batches.clone(),
            bundle,
            contents: contents(&items, &reasons),
            timeout: args.timeout,
            host_folder: args.host_folder.clone(),
            wants_log: args.log_dir.is_some() || prints_log,
            prints_log,
            inventory_path,
            flags: args.flags(),
            check: args.check,
            narrowed: args.narrowed(),
            pattern: args.limit.clone().unwrap_or_else(|| "all".to_owned()),
            extra_vars,
            vault_passwords,
            lock_wait: args.lock_wait,
            allow_reboot: args.allow_reboot,
            install_ansible: args.install_ansible,
            log_group: args.log_group.clone(),
        };
        // Whether the extra vars fit is known before the first call.
        let ids: Vec<String> = plan.hosts.iter().map(|host| host.id.clone()).collect();
        for some in ids.chunks(crate::ssm::IDS_PER_CALL) {
            plan.run_script(some, plan.timeout, None)?;
        }
        Ok(plan)
    }

    /// The script that runs the playbook, with what the bundle still needs or without.
    pub(crate) fn run_script(
        &self,
        ids: &[String],
        left: Duration,
        delivery: Option<Delivery<'_>>,
    ) -> Result<String, Error> {
        let hosts: BTreeMap<&str, Target<'_>> = self
            .hosts
            .iter()
            .filter(|host| ids.contains(&host.id))
            .map(|host| {
                let target = Target { name: &host.name, has_interpreter: host.has_interpreter };
                (host.id.as_str(), target)
            })
            .collect();
        let request = Request {
            run: &self.run,
            hosts,
            bundle: format!("{}/bundles/{}", self.host_folder, self.bundle.sha256),
            lock_wait_s: self.lock_wait.min(left).as_secs(),
            timeout_s: left.as_secs().max(1),
            inventory: &self.inventory_path,
            playbook: &self.playbook,
            flags: &self.flags,
            extra_vars: &self.extra_vars.texts,
            references: &self.extra_vars.references,
            vault_passwords: &self.vault_passwords,
            allow_reboot: self.allow_reboot,
            install_ansible: self.install_ansible,
            live: self.log_group.is_some(),
        };
        script::run(&self.host_folder, &self.bundle.sha256, &request, delivery)
    }

    /// How long the agent lets a run take, and how long it may take to start.
    pub(crate) fn limits(left: Duration) -> (Duration, Duration) {
        (left + AGENT_MARGIN, left.clamp(DELIVERY.0, DELIVERY.1))
    }

    pub(crate) fn name<'a>(&'a self, id: &'a str) -> &'a str {
        self.hosts.iter().find(|host| host.id == id).map_or(id, |host| &host.name)
    }
}

/// Refuses what cannot work on the hosts: everything that was found, at once. Returns passwords that may be drawn anew.
fn judge(
    args: &Args,
    items: &bundle::Items,
    reached: &Reach,
    variables: &BTreeSet<String>,
    question: &Question<'_>,
) -> Result<BTreeSet<Finding>, Error> {
    let read = |name: &str| check::is_reached(reached, variables, name);
    let (drawn, perhaps) = kept::passwords(items, question.playbook, read, question.shown);
    let mut findings = reached.findings.clone();
    let settings = ["vault_password_file", "vault_identity_list"];
    if args.vault_password.is_none()
        && args.vault_id.is_empty()
        && question.folder.setting(&settings).is_none()
    {
        findings.extend(check::encrypted(items, reached, variables, question.shown));
    }
    findings.extend(drawn);
    if !findings.is_empty() {
        let findings = findings.into_iter().collect();
        return Err(Error::Findings { what: "cannot run on the hosts", findings });
    }
    if reached.matched.is_empty() {
        return Err(Error::NoPlay {
            playbook: question.playbook.to_owned(),
            hosts: question.selected.len(),
            plays: reached.plays.clone(),
        });
    }
    Ok(perhaps)
}

/// Whether environments have variables and none of them apply: defaults of roles would then configure the hosts.
fn without_variables(ansible_dir: &Path, environment: Option<&str>) -> Option<String> {
    let folder = ansible_dir.join("inventories");
    if environment.is_some_and(|environment| folder.join(environment).is_dir()) {
        return None;
    }
    let mut known: Vec<String> = std::fs::read_dir(&folder)
        .into_iter()
        .flatten()
        .filter_map(Result::ok)
        .filter(|entry| {
            ["group_vars", "host_vars"].iter().any(|room| entry.path().join(room).is_dir())
        })
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    known.sort();
    if known.is_empty() {
        return None;
    }
    let why = match environment {
        None => "the inventory names no environment (`deploy_environment`, or `--environment`)"
            .to_owned(),
        Some(environment) => format!("there is no folder `{}`", folder.join(environment).display()),
    };
    Some(format!(
        "{why}, so no environment's variables apply; there are those of {}",
        known.join(", ")
    ))
}

/// How the hosts are asked, in their order, and their region.
fn addresses(
    args: &Args,
    inventory: &Inventory,
    asked: &[&Host],
    items: &bundle::Items,
) -> Result<(Vec<PlannedHost>, Option<String>), Error> {
    let mut wrong = Vec::new();
    let mut names: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut regions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for host in asked {
        match host.instance_id.as_deref() {
            None | Some("") => wrong.push(format!("{} has no instance ID", host.name)),
            Some(id) if !is_instance_id(id) => {
                wrong.push(format!("{}: `{id}` is no instance ID", host.name));
            }
            Some(id) => names.entry(id).or_default().push(&host.name),
        }
        if let Some(region) = host.region.as_deref() {
            regions.entry(region).or_default().push(&host.name);
        }
    }
    wrong.extend(
        names
            .iter()
            .filter(|(_, names)| names.len() > 1)
            .map(|(id, names)| format!("{} are the same instance `{id}`", names.join(" and "))),
    );
    if !wrong.is_empty() {
        return Err(Error::Addresses { path: args.inventory.clone(), hosts: wrong });
    }
    if regions.len() > 1 {
        let listed =
            |(region, names): (&&str, &Vec<&str>)| format!("{region}: {}", names.join(", "));
        return Err(Error::Regions { regions: regions.iter().map(listed).collect() });
    }
    let region = regions.keys().next().map(|&region| region.to_owned());
    let hosts = asked
        .iter()
        .map(|host| PlannedHost {
            name: host.name.clone(),
            id: host.instance_id.clone().unwrap_or_default(),
            has_interpreter: request::has_interpreter(inventory, host, items),
        })
        .collect();
    Ok((hosts, region))
}

/// `i-` and 8 or 17, `mi-` and 17 word characters: the pattern that SendCommand checks.
fn is_instance_id(id: &str) -> bool {
    let word = |text: &str, lengths: &[usize]| {
        lengths.contains(&text.len()) && text.chars().all(|c| c.is_ascii_alphanumeric())
    };
    id.strip_prefix("i-").is_some_and(|rest| word(rest, &[8, 17]))
        || id.strip_prefix("mi-").is_some_and(|rest| word(rest, &[17]))
}

/// The Ansible folder as a person and GitHub name it: relative to the repository when it is in one, else as typed.
fn shown(folder: &Path, ctx: &Context) -> PathBuf {
    let in_repository = || {
        let real = std::fs::canonicalize(folder).ok()?;
        let checkout = ctx.actions().environment().workspace.as_ref();
        let root = checkout.and_then(|path| std::fs::canonicalize(path).ok());
        let root = root.filter(|root| real.starts_with(root)).or_else(|| {
            real.ancestors().skip(1).find(|path| path.join(".git").exists()).map(Path::to_owned)
        })?;
        real.strip_prefix(root).ok().map(Path::to_owned)
    };
    let typed = folder.strip_prefix(".").unwrap_or(folder).to_owned();
    in_repository().unwrap_or(typed)
}

#[cfg(test)]
mod tests {
    use super::without_variables;

    #[test]
    fn variables_that_apply_to_nobody_are_said() {
        let folder = tempfile::tempdir().unwrap();
        let said = |environment| without_variables(folder.path(), environment);
        assert_eq!((said(None), said(Some("prod"))), (None, None));
        std::fs::create_dir_all(folder.path().join("inventories/dev/group_vars")).unwrap();
        std::fs::create_dir_all(folder.path().join("inventories/bare")).unwrap();
        assert_eq!((said(Some("dev")), said(Some("bare"))), (None, None));
        assert!(said(None).unwrap().contains("names no environment"));
        let missing = said(Some("prod")).unwrap();
        assert!(missing.contains(
            "inventories/prod`, so no environment's variables apply; there are those of dev"
        ));
    }

    #[test]
    fn only_ids_that_send_command_takes_are_instance_ids() {
        for good in ["i-0123abcd", "i-0123456789abcdef0", "mi-0123456789abcdef0"] {
            assert!(super::is_instance_id(good), "{good}");
        }
        for bad in ["", "i-", "i-123", "i-0123456789abcdefg'", "mi-0123abcd", "$(reboot)"] {
            assert!(!super::is_instance_id(bad), "{bad}");
        }
    }
}
