//! From the inventory to the instances to wait for; refuses what cannot be waited for before any call is made.

use crate::host::HostWait;
use crate::{Args, Error};
use deploy_inventory::Host;
use std::collections::{BTreeMap, BTreeSet};

/// One run asks for at most so many instances.
const MOST: usize = 1000;

/// What to wait for.
#[derive(Debug)]
pub(crate) struct Targets {
    pub(crate) hosts: Vec<HostWait>,
    pub(crate) region: Option<String>,
    pub(crate) project: Option<String>,
    pub(crate) environment: Option<String>,
}

pub(crate) fn read(args: &Args) -> Result<Targets, Error> {
    let path = &args.inventory;
    let (inventory, _) = deploy_cli::load_inventory(path)?;
    let hosts = deploy_cli::require_hosts(&inventory, args.limit.as_deref(), path)?;
    let problems = problems(&hosts, args.common.region.is_some());
    if !problems.is_empty() {
        return Err(Error::Hosts { path: path.clone(), problems });
    }
    Ok(Targets {
        hosts: hosts
            .iter()
            .map(|host| HostWait::new(&host.name, host.instance_id.as_deref().unwrap_or_default()))
            .collect(),
        region: hosts[0].region.clone(),
        project: inventory.project().map(str::to_owned),
        environment: inventory.environment().map(str::to_owned),
    })
}

fn problems(hosts: &[&Host], region_given: bool) -> Vec<String> {
    let mut problems = Vec::new();
    if hosts.len() > MOST {
        problems.push(format!(
            "{} hosts are more than the {MOST} of one run; use `--limit`",
            hosts.len()
        ));
    }
    let mut seen: BTreeMap<&str, &str> = BTreeMap::new();
    for host in hosts {
        match host.instance_id.as_deref() {
            None | Some("") => problems.push(format!("host `{}` has no instance_id", host.name)),
            Some(id) if !is_instance_id(id) => {
                problems.push(format!(
                    "host `{}` has the instance_id `{}`, which EC2 does not give",
                    host.name,
                    id.escape_debug()
                ));
            }
            Some(id) => {
                if let Some(first) = seen.insert(id, &host.name) {
                    problems.push(format!(
                        "hosts `{first}` and `{}` are the same instance `{id}`",
                        host.name
                    ));
                }
            }
        }
    }
    let regions: BTreeSet<&str> = hosts.iter().filter_map(|host| host.region.as_deref()).collect();
    if regions.len() > 1 && !region_given {
        let regions: Vec<&str> = regions.into_iter().collect();
        problems.push(format!(
            "its hosts are in several regions ({}); use `--limit`",
            regions.join(", ")
        ));
    }
    problems
}

/// 8 hexadecimal digits, since 2016 17.
fn is_instance_id(id: &str) -> bool {
    id.strip_prefix("i-").is_some_and(|digits| {
        matches!(digits.len(), 8 | 17) && digits.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f'))
    })
}
