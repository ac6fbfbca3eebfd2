//! Closes hosts where the packet rules are missing: when somebody flushes the machine's rules, or reloads a firewall.
//!
//! Two lines of defence. A table that belongs to a process (`flags owner`) cannot be flushed or deleted by any other: it
//! drops what comes from hosts and goes to them without the mark that the rules give to every packet which they have
//! looked at ([`LOOKED_AT`]). It goes with the daemon. And a rule of the routing policy, which is no packet rule at all and
//! stays when the daemon was killed: link-local addresses, so the metadata service of a machine that is itself a cloud
//! instance, have no route from a bridge. (What hosts ask for there has another destination before it is routed.) Not for
//! every destination: the kernel's check of source addresses asks the same rules about answers to hosts.

use std::collections::BTreeSet;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, ChildStdin};
use tokio::time::Instant;

use crate::error::Error;
use crate::firewall;
use crate::log;
use crate::process::{self, capture, run_all};
use crate::reach::filter::LOOKED_AT;

/// Place of the routing rules among those of the machine: before its routes, behind its own addresses.
const PREFERENCE: &str = "90";

/// How long `nft` may take over some lines.
const PATIENCE: Duration = Duration::from_secs(5);

/// The process that owns the table.
#[derive(Debug)]
pub struct Guard {
    child: Child,
    stdin: ChildStdin,
    bridges: BTreeSet<String>,
}

/// The table's name of a project.
pub fn table(project: &str) -> String {
    format!("{}_guard", firewall::table(project))
}

/// Whether the process that owns the table still runs; where none was ever needed as well.
pub fn lives(guard: &mut Option<Guard>) -> bool {
    guard.as_mut().is_none_or(|own| matches!(own.child.try_wait(), Ok(None)))
}

/// Makes the guard stand before exactly these bridges, whether it stood before or not.
pub async fn hold(
    guard: &mut Option<Guard>,
    project: &str,
    wanted: BTreeSet<String>,
) -> Result<(), Error> {
    if let Some(own) = guard
        && !matches!(own.child.try_wait(), Ok(None))
    {
        log::line("the guard of the networks ended; a new one is set up");
        *guard = None;
    }
    let own = match guard {
        Some(own) => own,
        None if wanted.is_empty() => return Ok(()),
        None => guard.insert(begin(project).await?),
    };
    if own.bridges != wanted {
        let table = table(project);
        let mut text = String::new();
        for (verb, bridges) in [("add", &wanted - &own.bridges), ("delete", &own.bridges - &wanted)]
        {
            for bridge in bridges {
                text.push_str(&format!("{verb} element inet {table} bridges {{ \"{bridge}\" }}\n"));
            }
        }
        own.say(&text).await?;
        own.bridges = wanted;
    }
    // It says nothing when it has read a line; so its table is looked at.
    let deadline = Instant::now() + PATIENCE;
    while !stands(project, &own.bridges).await? {
        if Instant::now() > deadline {
            *guard = None;
            let why = "this `nft` or kernel knows no table with an owner (`flags owner`; nftables 0.9.9, Linux 5.12)";
            return Err(Error::setup("cannot guard the networks", why));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

impl Guard {
    async fn say(&mut self, text: &str) -> Result<(), Error> {
        let said = async {
            self.stdin.write_all(text.as_bytes()).await?;
            self.stdin.flush().await
        };
        match tokio::time::timeout(PATIENCE, said).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Error::setup("cannot guard the networks", error)),
            Err(_) => Err(Error::TooLate { program: "nft -i".into(), after: PATIENCE }),
        }
    }
}

async fn begin(project: &str) -> Result<Guard, Error> {
    let failed = |error: std::io::Error| Error::setup("cannot guard the networks", error);
    // In its interactive mode it keeps the connection to which the table belongs. What it complains of, the log shows.
    let mut child = process::command("nft")
        .arg("--interactive")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .map_err(failed)?;
    let stdin = child.stdin.take().ok_or_else(|| failed(std::io::ErrorKind::BrokenPipe.into()))?;
    let mut guard = Guard { child, stdin, bridges: BTreeSet::new() };
    guard.say(&text(&table(project))).await?;
    Ok(guard)
}

/// The table before any bridge is named. Both families, and what passes within a bridge as well, which hands it over.
fn text(table: &str) -> String {
    let mut text = format!(
        "add table inet {table} {{ flags owner; }}\nadd set inet {table} bridges {{ type ifname; }}\n"
    );
    for (hook, priority, side) in
        [("input", 10, "iifname"), ("forward", 10, "iifname"), ("postrouting", 400, "oifname")]
    {
        text.push_str(&format!(
            "add chain inet {table} {hook} {{ type filter hook {hook} priority {priority}; }}\n\
             add rule inet {table} {hook} {side} @bridges meta mark and {LOOKED_AT:#x} == 0x0 drop\n"
        ));
    }
    text
}

/// Whether the table is as it should be.
async fn stands(project: &str, bridges: &BTreeSet<String>) -> Result<bool, Error> {
    let seen = capture("nft", ["list", "table", "inet", &table(project)], None).await?;
    let named: BTreeSet<&str> =
        seen.stdout.split('"').filter(|word| word.starts_with("lc")).collect();
    Ok(seen.status.success()
        && seen.stdout.matches(" drop").count() == 3
        && named == bridges.iter().map(String::as_str).collect())
}

/// Link-local addresses have no route from this bridge; whether or not it was so already.
pub async fn close_routes(bridge: &str) -> Result<(), Error> {
    let listed = capture("ip", ["-4", "rule", "show", "pref", PREFERENCE], None).await?;
    if listed.stdout.lines().any(|line| names(line, bridge)) {
        return Ok(());
    }
    run_all("ip", &routing_rule("add", bridge), None).await.map(drop)
}

/// Undoes [`close_routes`], if it was done.
pub async fn open_routes(bridge: &str) -> Result<(), Error> {
    let listed = capture("ip", ["-4", "rule", "show", "pref", PREFERENCE], None).await?;
    for _ in listed.stdout.lines().filter(|line| names(line, bridge)) {
        run_all("ip", &routing_rule("delete", bridge), None).await?;
    }
    Ok(())
}

fn names(line: &str, bridge: &str) -> bool {
    line.split_whitespace().any(|word| word == bridge)
}

fn routing_rule(verb: &str, bridge: &str) -> Vec<String> {
    ["-4", "rule", verb, "pref", PREFERENCE, "iif", bridge, "to", "169.254.0.0/16", "blackhole"]
        .map(str::to_owned)
        .to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bridge_is_a_whole_word_of_a_rule() {
        let line = "90:\tfrom all to 169.254.0.0/16 iif lc12 [detached] blackhole";
        assert!(names(line, "lc12") && !names(line, "lc1"));
    }
}
