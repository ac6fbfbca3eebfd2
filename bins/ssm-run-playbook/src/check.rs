//! What cannot work when every host runs its own Ansible, found before anything is sent.

use crate::bundle::{Item, Items};
use crate::call::Call;
use crate::error::Finding;
use crate::needed::is_below;
use crate::playbook::{VAULT, is_yaml, short};
use crate::reach::{Reach, Scope, Walk, is_no, is_templated, pattern};
use crate::yaml::Node;
use deploy_inventory::PatternError;
use std::collections::BTreeSet;
use std::path::Path;

/// Where collections lie in the Ansible folder.
pub(crate) const COLLECTIONS: &str = "collections/ansible_collections";

/// Keywords of tasks and blocks that are no module: ansible-core's `playbook/{base,task,block,taggable}.py`.
const KEYWORDS: [&str; 51] = [
    "always",
    "any_errors_fatal",
    "args",
    "async",
    "become",
    "become_exe",
    "become_flags",
    "become_method",
    "become_user",
    "block",
    "changed_when",
    "check_mode",
    "collections",
    "connection",
    "debugger",
    "delay",
    "delegate_facts",
    "delegate_to",
    "diff",
    "environment",
    "failed_when",
    "gather_facts",
    "ignore_errors",
    "ignore_unreachable",
    "listen",
    "loop",
    "loop_control",
    "loop_with",
    "module_defaults",
    "name",
    "no_log",
    "notify",
    "poll",
    "port",
    "register",
    "remote_user",
    "rescue",
    "retries",
    "run_once",
    "tags",
    "throttle",
    "timeout",
    "until",
    "vars",
    "when",
    "role",
    "hosts",
    "roles",
    "tasks",
    "serial",
    "strategy",
];

pub(crate) fn is_keyword(key: &str) -> bool {
    KEYWORDS.contains(&key)
}

/// What a play asks of several hosts at once.
pub(crate) fn play(walk: &mut Walk<'_>, scope: &Scope, play: &Node) {
    unknown_hosts(walk, scope, play);
    if scope.hosts.is_empty() {
        let of_runner =
            |node: &Node| node.text().is_some_and(|text| matches!(text, "localhost" | "127.0.0.1"));
        let plays = play.pairs().into_iter();
        for (_, node, _) in plays.filter(|(key, _, value)| *key == "hosts" && of_runner(value)) {
            let text = "a play of `localhost` runs nowhere: no Ansible runs on this machine; \
                        make it a workflow step";
            let warning = walk.finding(scope, node, text.to_owned());
            walk.out.warnings.insert(warning);
        }
        return;
    }
    keywords(walk, scope, play);
    for (key, node, value) in play.pairs() {
        let text = match key {
            "any_errors_fatal" if value.text() != Some("false") => {
                "`any_errors_fatal` ends the play on its own host; `--batch` spares the others"
            }
            "serial" => "`serial` means nothing here; `--batch` makes waves",
            "vars_prompt" => {
                let text = "`vars_prompt` asks nobody here and leaves the variable empty; use `--extra-vars`";
                walk.bad(scope, node, text.to_owned());
                continue;
            }
            "max_fail_percentage" => "`max_fail_percentage` means nothing here; see `--max-errors`",
            _ => continue,
        };
        let warning = walk.finding(scope, node, text.to_owned());
        walk.out.warnings.insert(warning);
    }
}

/// A play of a group or host that the inventory does not have is passed over by Ansible: perhaps a typo.
fn unknown_hosts(walk: &mut Walk<'_>, scope: &Scope, play: &Node) {
    let mut pairs = play.pairs().into_iter();
    let Some((_, node, value)) = pairs.find(|(key, ..)| *key == "hosts") else { return };
    let pattern = pattern(value);
    // Subscripts as in `sip[0]` and templates are Ansible's business.
    if is_templated(&pattern) || pattern.contains('[') {
        return;
    }
    let inventory = walk.q.inventory;
    if let Err(PatternError::NoMatch { part, .. }) = inventory.select(Some(&pattern)) {
        let name = part.trim_start_matches(['!', '&']).to_owned();
        // Ansible knows these without any inventory.
        if matches!(name.as_str(), "localhost" | "127.0.0.1" | "::1" | "ungrouped") {
            return;
        }
        let hosts = inventory.hosts().iter().map(|host| host.name.as_str());
        let close = deploy_cli::closest(&name, hosts.chain(inventory.groups()));
        let meant = close.map(|name| format!("; did you mean `{name}`?")).unwrap_or_default();
        let text = format!("the inventory has no group or host `{name}`{meant}");
        let warning = walk.finding(scope, node, text);
        walk.out.warnings.insert(warning);
    }
}

/// Keywords of plays, blocks, roles and tasks that mean one host acting for others.
pub(crate) fn keywords(walk: &mut Walk<'_>, scope: &Scope, task: &Node) {
    let hosts = scope.hosts.len();
    if hosts == 0 {
        return;
    }
    for (key, node, value) in task.pairs() {
        let text = value.text().unwrap_or_default();
        match key {
            "run_once" if hosts > 1 && !is_no(text) => walk.bad(
                scope,
                node,
                format!(
                    "`run_once` would run on each of {hosts} hosts, since every host runs its own Ansible; \
                     write `when: inventory_hostname == …`, or select one host with `--limit`"
                ),
            ),
            "delegate_to" if is_runner(text) && walk.q.local_tasks => on_host(walk, scope, node, "delegate_to", text),
            "connection" if text == "local" && walk.q.local_tasks => on_host(walk, scope, node, "connection", text),
            "local_action" if walk.q.local_tasks => on_host(walk, scope, node, "local_action", text),
            "delegate_to" if is_runner(text) => walk.bad(
                scope,
                node,
                format!(
                    "`delegate_to: {text}` means the machine that runs Ansible, which is the host itself here; \
                     `{LOCAL_FLAG}` runs it there, or make it a step of the workflow"
                ),
            ),
            "delegate_to" if !is_itself(text, &scope.hosts) => walk.bad(
                scope,
                node,
                format!(
                    "`delegate_to: {text}` needs a connection to another host, and there is none; \
                     make it a play of that host"
                ),
            ),
            "connection" if text == "local" => walk.bad(
                scope,
                node,
                "`connection: local` means the machine that runs Ansible, which is the host itself here; \
                 take it away, or `--run-local-tasks-on-hosts`, or run it in a workflow step"
                    .to_owned(),
            ),
            "local_action" => walk.bad(
                scope,
                node,
                "`local_action` means the machine that runs Ansible, which is the host itself here; \
                 call the module directly, or `--run-local-tasks-on-hosts`, or run it in a workflow step"
                    .to_owned(),
            ),
            _ => {}
        }
    }
}

const LOCAL_FLAG: &str = "--run-local-tasks-on-hosts";

fn is_runner(name: &str) -> bool {
    matches!(name, "localhost" | "127.0.0.1" | "::1")
}

/// Takes note of a task that the host itself runs because somebody said that it may.
fn on_host(walk: &mut Walk<'_>, scope: &Scope, node: &Node, keyword: &str, text: &str) {
    if scope.is_judged() {
        let said = if text.is_empty() { String::new() } else { format!(": {text}") };
        let hosts = scope.hosts.len();
        let hosts =
            if hosts == 1 { "the host".to_owned() } else { format!("each of {hosts} hosts") };
        let text = format!("`{keyword}{said}` runs on {hosts} (`{LOCAL_FLAG}`)");
        let task = walk.finding(scope, node, text);
        walk.out.local_tasks.insert(task);
    }
}

fn is_itself(name: &str, hosts: &[String]) -> bool {
    let bare: String = name.chars().filter(|c| !c.is_whitespace()).collect();
    bare == "{{inventory_hostname}}" || hosts == [name]
}

/// Modules that cannot do their work here, and collections that are not there.
pub(crate) fn module(walk: &mut Walk<'_>, scope: &Scope, call: &Call<'_>) {
    if scope.hosts.is_empty() {
        return;
    }
    if short(&call.module) == "reboot" && !walk.q.allow_reboot {
        let text = "`reboot` is refused unless `--allow-reboot`: Ansible runs on the host that would go down; \
                    with the flag the run goes on after it";
        walk.bad(scope, call.node, text.to_owned());
    }
    let timed = ["seconds", "minutes"].iter().any(|name| call.argument(name).is_some());
    if short(&call.module) == "pause" && !timed {
        let text = "`pause` without `seconds` or `minutes` waits for somebody to press a key, and nobody is there";
        walk.bad(scope, call.node, text.to_owned());
    }
    if call.module.matches('.').count() >= 2 && short(&call.module) == call.module {
        collection(walk, scope, call.node, &call.module);
    }
}

/// A collection must travel, or `requirements.yml` must say that hosts have it: only a host knows what is installed there.
pub(crate) fn collection(walk: &mut Walk<'_>, scope: &Scope, node: &Node, name: &str) {
    let mut parts = name.split('.');
    let (Some(namespace), Some(collection)) = (parts.next(), parts.next()) else { return };
    let (wanted, folder) = (format!("{namespace}.{collection}"), walk.q.folder);
    let elsewhere = folder
        .setting(&["collections_path", "collections_paths"])
        .is_some_and(|paths| paths.trim_matches('/') != "collections");
    if elsewhere
        || is_templated(name)
        || folder.is_folder(&format!("{COLLECTIONS}/{namespace}/{collection}"))
        || declared(walk, "collections").contains(&wanted)
    {
        return;
    }
    let text = format!(
        "`{name}` needs the collection `{wanted}`, which neither travels nor is in `requirements.yml`; \
         `ansible-galaxy collection install {wanted} -p collections` lets it travel, \
         and naming it in `requirements.yml` says that the hosts have it"
    );
    walk.bad(scope, node, text);
}

/// Encrypted files and values that Ansible reads, for which it needs a password: what the playbook names, its roles, and
/// `variables` of its hosts and groups. What only travels with them may be as it likes.
pub(crate) fn encrypted(
    items: &Items,
    reached: &Reach,
    variables: &BTreeSet<String>,
    shown: &Path,
) -> Vec<Finding> {
    let text = "encrypted by Ansible Vault; say where the password is with `--vault-password`";
    let line = |name: &String| {
        let Some(Item::File { content, .. }) = items.get(name) else { return None };
        let bytes = content.bytes();
        // `;` and a version follow.
        if bytes.starts_with(VAULT) && bytes.get(VAULT.len()) == Some(&b';') {
            return Some(1);
        }
        let text = std::str::from_utf8(bytes).ok().filter(|_| is_yaml(name))?;
        let at = text.lines().position(|line| line.trim_start().starts_with("$ANSIBLE_VAULT"))?;
        u32::try_from(at + 1).ok()
    };
    let finding = |name: &String| {
        let file = shown.join(name).display().to_string();
        Some(Finding { file, line: line(name)?, message: text.to_owned() })
    };
    let names = items.keys().filter(|name| is_reached(reached, variables, name));
    names.filter_map(finding).collect()
}

/// Whether Ansible reads a file, or may read it: what the playbook names, its roles, and `variables` of its hosts.
pub(crate) fn is_reached(reached: &Reach, variables: &BTreeSet<String>, name: &str) -> bool {
    let mut named = reached.files.keys().chain(reached.roles.keys());
    let is_read = [&reached.playbooks, &reached.read, variables];
    is_read.iter().any(|names| names.contains(name))
        || named.any(|path| name == path || is_below(name, path))
}

/// The `collections` or `roles` that the folder's requirements name.
pub(crate) fn declared(walk: &Walk<'_>, what: &str) -> Vec<String> {
    let mut names = Vec::new();
    let inside = format!("{what}/requirements.yml");
    for file in ["requirements.yml", "requirements.yaml", &inside] {
        let text = walk.q.folder.text(file).unwrap_or_default();
        for document in crate::yaml::parse(text).unwrap_or_default() {
            let nodes = match document.get(what) {
                Some(nodes) => nodes.list(),
                // The form from before there were collections.
                None if what == "roles" => document.list(),
                None => &[],
            };
            names.extend(nodes.iter().filter_map(|node| {
                let name = node.get("name").or_else(|| node.get("src"));
                node.text().or_else(|| name.and_then(Node::text)).map(str::to_owned)
            }));
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::folder::{Folder, tests::items};
    use crate::reach::{Question, Reach, reach};
    use deploy_inventory::Inventory;

    const ALL: [&str; 2] = ["sip-1", "sip-2"];

    fn reached(files: &[(&str, &str)], selected: &[&str]) -> Reach {
        let inventory = r#"{"all": {"hosts": {"sip-1": {}, "sip-2": {}, "db-1": {}}, "children":
            {"sip": {"hosts": {"sip-1": {}, "sip-2": {}}}, "db": {"hosts": {"db-1": {}}}}}}"#;
        let selected: Vec<String> = selected.iter().map(|&name| name.to_owned()).collect();
        reach(&Question {
            folder: Folder::new(&items(files)),
            shown: Path::new("ansible"),
            playbook: "playbooks/site.yml",
            inventory: &Inventory::parse(inventory).unwrap(),
            selected: &selected,
            allow_reboot: false,
            local_tasks: false,
        })
    }

    fn names(hosts: &BTreeSet<String>) -> Vec<&str> {
        hosts.iter().map(String::as_str).collect()
    }

    /// The tasks of a role `r` of a play on `sip`, and the findings as `line: first words`.
    #[track_caller]
    fn check(tasks: &str, selected: &[&str], expected: &[(u32, &str)]) {
        let files = [
            ("playbooks/site.yml", "- hosts: sip\n  roles: [r]\n"),
            ("roles/r/tasks/main.yml", tasks),
            ("roles/r/tasks/other.yml", "[]\n"),
            ("roles/r/templates/here.j2", ""),
            ("roles/r/files/dir/x", ""),
            ("collections/ansible_collections/have/this/MANIFEST.json", "{}"),
            ("requirements.yml", "collections: [{name: says.so, version: '1'}]\n"),
        ];
        let found: Vec<Finding> = reached(&files, selected).findings.into_iter().collect();
        assert_eq!(found.len(), expected.len(), "{tasks}: {found:?}");
        for (finding, (line, words)) in found.iter().zip(expected) {
            assert!(finding.line == *line && finding.message.contains(words), "{finding}");
            assert_eq!(finding.file, "ansible/roles/r/tasks/main.yml");
        }
    }

    #[test]
    fn one_host_acting_for_others_is_refused_and_itself_is_not() {
        let once = "- name: x\n  debug: {msg: x}\n  run_once: true\n";
        check(once, &ALL, &[(3, "each of 2 hosts")]);
        check(once, &["sip-1"], &[]);
        check("- debug: {msg: x}\n  run_once: no\n", &ALL, &[]);
        check("- block:\n    - debug:\n  run_once: '{{ x }}'\n", &ALL, &[(3, "run_once")]);
        check("- debug:\n  delegate_to: '{{ inventory_hostname }}'\n", &ALL, &[]);
        check("- debug:\n  delegate_to: localhost\n", &["sip-1"], &[(2, "delegate_to: localhost")]);
        check("- debug:\n  delegate_to: localhost\n", &ALL, &[(2, "`--run-local-tasks-on-hosts`")]);
        check("- debug:\n  delegate_to: sip-1\n", &["sip-1"], &[]);
        check("- debug:\n  delegate_to: sip-1\n", &ALL, &[(2, "another host")]);
        check("- debug:\n  connection: local\n", &ALL, &[(2, "connection: local")]);
        check("- local_action: command true\n", &ALL, &[(1, "local_action")]);
        check(
            "- block:\n    - debug:\n  rescue:\n    - ansible.builtin.reboot:\n",
            &ALL,
            &[(4, "--allow-reboot")],
        );
        check("- pause:\n", &ALL, &[(1, "press a key")]);
        check("- pause: {prompt: x}\n- pause: {seconds: 1}\n", &ALL, &[(1, "press a key")]);
        let two = "- reboot:\n- debug:\n  run_once: true\n";
        check(two, &ALL, &[(1, "reboot"), (3, "run_once")]);
    }

    #[test]
    fn names_of_files_that_are_not_there_are_found_and_templates_are_not_guessed() {
        check("- template: {src: here.j2, dest: /x}\n", &ALL, &[]);
        check("- template: src=gone.j2 dest=/x\n", &ALL, &[(1, "there is no `gone.j2`")]);
        check("- template: {src: '{{ x }}.j2', dest: /x}\n", &ALL, &[]);
        check("- copy:\n    src: dir/\n    dest: /x\n", &ALL, &[]);
        check("- copy: {src: nope, dest: /x}\n", &ALL, &[(1, "`nope` (a file)")]);
        check("- copy: {src: nope, dest: /x, remote_src: true}\n", &ALL, &[]);
        check("- copy: {src: /etc/hosts, dest: /x}\n", &ALL, &[]);
        check("- copy: {content: x, dest: /x}\n", &ALL, &[]);
        check("- include_tasks: other.yml\n- import_tasks: {file: other.yml}\n", &ALL, &[]);
        check("- include_tasks: gone.yml\n", &ALL, &[(1, "no task file `gone.yml`")]);
        check("- include_tasks: '{{ ansible_system }}.yml'\n", &ALL, &[]);
        check(
            "- include_role: {name: gone}\n",
            &ALL,
            &[(1, "no role `gone` in `playbooks/roles`")],
        );
        check("- include_role: {name: r, tasks_from: other}\n", &ALL, &[]);
        check("- include_vars: gone.yml\n", &ALL, &[(1, "a variables file")]);
        check("- action: copy src=gone dest=/x\n", &ALL, &[(1, "gone")]);
        check("- unarchive: {src: gone.tgz, dest: /x}\n", &ALL, &[(1, "an archive")]);
        check("- unarchive: {src: gone.tgz, dest: /x, copy: no}\n", &ALL, &[]);
    }

    #[test]
    fn files_are_looked_for_where_ansible_does_and_not_at_the_top() {
        let site = "- hosts: sip\n  tasks:\n    - template: {src: a.j2, dest: /a}\n    - copy: {src: ../b, dest: /b}\n";
        let files = [("playbooks/site.yml", site), ("templates/a.j2", ""), ("a.j2", ""), ("b", "")];
        let found: Vec<String> =
            reached(&files, &ALL).findings.iter().map(Finding::to_string).collect();
        let said = "site.yml:3: there is no `a.j2` (a template) in `ansible/playbooks/templates`, `ansible/playbooks`";
        assert!(found.len() == 1 && found[0].ends_with(said), "{found:?}");
    }

    #[test]
    fn templates_that_cannot_be_read_are_found_where_ansible_would_read_them() {
        check(
            "- debug: {msg: '{{ x }'}\n",
            &ALL,
            &[(1, "this template cannot be read: unexpected `}`")],
        );
        check("- debug:\n    msg: [ok, {a: '{% if x %}'}]\n", &ALL, &[(2, "this template")]);
        check("- debug:\n  when: x ==\n", &ALL, &[(2, "this condition cannot be read")]);
        check(
            "- debug:\n  when: [x is foo.bar.baz, '{{ y }', \"'a' in b\"]\n",
            &ALL,
            &[(2, "this template")],
        );
        check("- block: [{debug: }]\n  when: (x\n", &ALL, &[(2, "this condition")]);
        check(
            "- assert:\n    that: [x y]\n    fail_msg: '{{ x'\n",
            &ALL,
            &[(2, "condition"), (3, "template")],
        );
        check("- command: docker ps --format '{{.ID}}'\n", &ALL, &[(1, "unexpected `.`")]);
        check("- debug:\n  loop: '{{ x | }}'\n", &ALL, &[(2, "this template")]);
        // Names are shown as they are, variables may never be asked for, and this is text.
        check("- name: '{{ x'\n  debug:\n  vars: {y: '{{ x'}\n", &ALL, &[]);
        check("- debug: {msg: !unsafe '{{ x'}\n- debug: !unsafe {msg: '{{ x'}\n", &ALL, &[]);
        check("- debug:\n  when: false\n  changed_when: ''\n- debug: msg={{x}}\n", &ALL, &[]);
        let play = "- hosts: db\n  tasks:\n    - debug: {msg: '{{ x'}\n- hosts: sip\n  tasks:\n    - template: {src: a.j2, dest: /a}\n    \
            - template: {src: b.j2, dest: /b}\n    - template: {src: a.j2, dest: /a, variable_start_string: '[['}\n";
        let files = [
            ("playbooks/site.yml", play),
            ("playbooks/templates/a.j2", "fine\n{% if x %}\n{% endfor %}\n"),
            ("playbooks/templates/b.j2", "#jinja2:block_start_string:'<%'\n{% if\n"),
        ];
        let found: Vec<String> =
            reached(&files, &ALL).findings.iter().map(Finding::to_string).collect();
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with("ansible/playbooks/templates/a.j2:3: "), "{found:?}");
    }

    #[test]
    fn a_collection_travels_or_is_declared() {
        check("- have.this.module: {}\n- says.so.module:\n", &ALL, &[]);
        check(
            "- community.general.ufw: {rule: allow}\n",
            &ALL,
            &[(1, "needs the collection `community.general`")],
        );
        check("- ansible.builtin.command: 'true'\n- ansible.legacy.command: 'true'\n", &ALL, &[]);
    }

    #[test]
    fn a_play_of_other_hosts_is_not_judged_but_its_roles_must_be_there() {
        let files = [
            (
                "playbooks/site.yml",
                "- hosts: db\n  serial: 1\n  tasks:\n    - debug:\n      run_once: true\n- hosts: [sip]\n  \
                 serial: 2\n  any_errors_fatal: true\n  roles: [gone]\n- import_playbook: gone.yml\n",
            ),
            ("roles/r/tasks/main.yml", "[]\n"),
        ];
        let out = reached(&files, &ALL);
        let lines: Vec<u32> = out.findings.iter().map(|finding| finding.line).collect();
        assert_eq!(lines, [9, 10], "{:?}", out.findings);
        assert_eq!(names(&out.matched), ALL);
        let warned: Vec<u32> = out.warnings.iter().map(|finding| finding.line).collect();
        assert_eq!(warned, [7, 8]);
        assert!(reached(&files, &["nobody"]).matched.is_empty());
    }

    #[test]
    fn a_play_of_hosts_that_the_inventory_does_not_have_is_warned_of() {
        let check = |hosts: &str, said: Option<&str>| {
            let site = format!("- hosts: sip\n- name: x\n  hosts: {hosts}\n");
            let out = reached(&[("playbooks/site.yml", &site)], &ALL);
            let warned: Vec<String> = out.warnings.iter().map(Finding::to_string).collect();
            let expected = said.map(|said| {
                format!("ansible/playbooks/site.yml:3: the inventory has no group or host {said}")
            });
            assert_eq!(warned, expected.into_iter().collect::<Vec<_>>(), "{hosts}");
        };
        check("sipp", Some("`sipp`; did you mean `sip`?"));
        check("sip:!quux", Some("`quux`"));
        for fine in ["db", "all:!sip-1", "'x*'", "'{{ x }}'", "ungrouped", "~x", "'x[0]'"] {
            check(fine, None);
        }
    }

    #[test]
    fn a_handler_that_is_nowhere_is_refused_unless_there_may_be_more() {
        let check = |notify: &str, more: &str, said: &[&str]| {
            let site = format!(
                "- hosts: sip\n  roles: [r]\n  tasks:\n    - debug: {{}}\n      notify: {notify}\n{more}"
            );
            let files = [
                ("playbooks/site.yml", site.as_str()),
                ("roles/r/meta/main.yml", "dependencies: [s]\n"),
                ("roles/r/tasks/main.yml", "[]\n"),
                (
                    "roles/s/handlers/main.yml",
                    "- name: Restart s\n  debug:\n  listen: [all of s]\n",
                ),
            ];
            let found: Vec<String> =
                reached(&files, &ALL).findings.iter().map(Finding::to_string).collect();
            let expected = said.iter().map(|said| format!("ansible/playbooks/site.yml:5: {said}"));
            assert_eq!(found, expected.collect::<Vec<_>>(), "{notify} {more}");
        };
        check("[Restart s, all of s, 's : Restart s', '{{ x }}']", "", &[]);
        check("Restart", "", &["there is no handler `Restart`; did you mean `Restart s`?"]);
        check("[Nosuch, Restart s]", "", &["there is no handler `Nosuch`"]);
        check("Nosuch", "  handlers:\n    - name: Nosuch\n      debug: {}\n", &[]);
        check("Nosuch", "  handlers:\n    - name: '{{ x }}'\n      debug: {}\n", &[]);
        check("Nosuch", "    - include_role: {name: '{{ x }}'}\n", &[]);
        check("Nosuch", "    - include_tasks: '{{ x }}'\n", &[]);
    }

    #[test]
    fn a_role_that_does_not_travel_is_missed_unless_somebody_says_that_hosts_have_it() {
        let check = |play: &str, more: &[(&str, &str)], bad: Option<&str>, warned: bool| {
            let site = format!("- hosts: sip\n{play}");
            let out = reached(&[&[("playbooks/site.yml", site.as_str())], more].concat(), &ALL);
            let found: Vec<String> = out.findings.iter().map(Finding::to_string).collect();
            let fits = match bad {
                Some(words) => found.len() == 1 && found[0].contains(words),
                None => found.is_empty(),
            };
            assert!(
                fits && out.warnings.is_empty() != warned,
                "{play}: {found:?} {:?}",
                out.warnings
            );
        };
        let there = "  roles: [there]\n";
        let named = "site.yml:2: there is no role `there` in `playbooks/roles`, `roles`, `playbooks`; naming";
        check(there, &[], Some(named), false);
        check(
            "  tasks:\n    - import_role: {name: there}\n",
            &[],
            Some("site.yml:3: there is no"),
            false,
        );
        check(there, &[("requirements.yml", "roles: [{src: x, name: there}]\n")], None, false);
        check(there, &[("roles/requirements.yml", "- src: there\n")], None, false);
        check(
            there,
            &[("ansible.cfg", "[defaults]\nroles_path = roles\n")],
            Some("where `roles_path`"),
            false,
        );
        check(
            there,
            &[("ansible.cfg", "[defaults]\nroles_path = roles:/etc/ansible/roles\n")],
            None,
            true,
        );
        let beside = ("playbooks/there/tasks/main.yml", "[]\n");
        check(there, &[beside], None, false);
        let at_top = [
            ("playbooks/site.yml", "- import_playbook: ../top.yml\n"),
            ("top.yml", "- hosts: sip\n  roles: [there]\n"),
            ("there/tasks/main.yml", "[]\n"),
        ];
        assert!(reached(&at_top, &ALL).findings.is_empty());
        let collection = "  collections: [says.so]\n  roles: [there]\n";
        check(collection, &[], Some("no role `there`"), false);
        check(collection, &[("requirements.yml", "collections: [says.so]\n")], None, false);
        let travels =
            ("collections/ansible_collections/says/so/roles/there/tasks/main.yml", "[]\n");
        check(collection, &[travels], None, false);
    }

    #[test]
    fn what_cannot_be_read_here_may_match_and_may_need_any_role() {
        let encrypted = "$ANSIBLE_VAULT;1.1;AES256\n33\n";
        let out = reached(&[("playbooks/site.yml", encrypted)], &ALL);
        assert!(names(&out.matched) == ALL && out.every_role.is_some());
        let out = reached(
            &[
                ("playbooks/site.yml", "- import_playbook: says.so.site\n"),
                ("requirements.yml", "collections: [says.so]\n"),
            ],
            &ALL,
        );
        assert!(names(&out.matched) == ALL && out.findings.is_empty(), "{:?}", out.findings);
    }

    #[test]
    fn the_hosts_of_all_plays_are_matched_and_all_where_only_the_run_can_tell() {
        let matched = |hosts: &str| {
            let site = format!(
                "- hosts: {hosts}\n  tasks: []\n- import_playbook: more.yml\n- hosts: nosuch\n"
            );
            let files =
                [("playbooks/site.yml", site.as_str()), ("playbooks/more.yml", "- hosts: db\n")];
            names(&reached(&files, &["sip-1", "sip-2", "db-1"]).matched).join(" ")
        };
        assert_eq!(matched("localhost"), "db-1");
        assert_eq!(matched("sip-2"), "db-1 sip-2");
        assert_eq!(matched("[localhost, \"sip:!sip-2\"]"), "db-1 sip-1");
        for unknown in ["'{{ who }}'", "[db, '{{ who }}']", "sip[1]", "'~('"] {
            assert_eq!(matched(unknown), "db-1 sip-1 sip-2", "{unknown}");
        }
    }

    #[test]
    fn roles_that_need_each_other_end() {
        let files = [
            ("playbooks/site.yml", "- hosts: sip\n  roles: [a]\n"),
            (
                "roles/a/tasks/main.yml",
                "- include_role: {name: b}\n- template: {src: b.j2, dest: /x}\n",
            ),
            ("roles/b/tasks/main.yml", "- include_role: {name: a}\n- include_tasks: main.yml\n"),
        ];
        let out = reached(&files, &ALL);
        assert_eq!(out.roles.len(), 2);
        assert!(out.findings.iter().all(|finding| finding.message.contains("b.j2")));
    }

    #[test]
    fn what_is_encrypted_is_named_with_its_line() {
        let items = items(&[
            ("vault.yml", "$ANSIBLE_VAULT;1.1;AES256\n33\n"),
            ("vars.yml", "a: 1\nb: !vault |\n  $ANSIBLE_VAULT;1.1;AES256\n  33\n"),
            ("roles/r/templates/x.j2", "$ANSIBLE_VAULT is text here"),
            ("roles/r/files/key", "$ANSIBLE_VAULT;1.1;AES256\n33\n"),
            ("of-another-playbook.yml", "$ANSIBLE_VAULT;1.1;AES256\n33\n"),
        ]);
        let mut reached = Reach::default();
        reached.read.insert("vault.yml".to_owned());
        reached.roles.insert("roles/r".to_owned(), String::new());
        let variables = ["vars.yml".to_owned()].into();
        let found = encrypted(&items, &reached, &variables, Path::new("ansible"));
        let places: Vec<(&str, u32)> =
            found.iter().map(|finding| (finding.file.as_str(), finding.line)).collect();
        let expected =
            [("ansible/roles/r/files/key", 1), ("ansible/vars.yml", 3), ("ansible/vault.yml", 1)];
        assert_eq!(places, expected);
    }
}
