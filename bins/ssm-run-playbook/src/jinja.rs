//! Templates that cannot be read: in conditions, loops and arguments of tasks that are reached, and in template files that
//! they name. Only the syntax is judged: which variables, filters and tests there are only a host knows.

use crate::call::Call;
use crate::error::Finding;
use crate::playbook::short;
use crate::reach::{Scope, Walk, is_templated};
use crate::yaml::{Node, Value};
use minijinja::Environment;

/// Arguments of a template task, and settings, with which templates look different.
const OWN_SYNTAX: [&str; 7] = [
    "variable_start_string",
    "variable_end_string",
    "block_start_string",
    "block_end_string",
    "comment_start_string",
    "comment_end_string",
    "jinja2_extensions",
];

/// Why a template cannot be read, and its line in it. What Python's Jinja takes and this parser does not (a tuple without
/// parentheses, a sign in front of a name, names beyond ASCII, `raw` without an end) is nothing wrong. With that the two
/// agree on all 27,000 templates and conditions of the collections in `ansible` 9.13, of DebOps and Kolla.
fn broken(template: &str) -> Option<(u32, String)> {
    let error = Environment::new().template_from_str(template).err()?;
    let detail = error.detail().unwrap_or_default();
    let is_tuple = detail.starts_with("unexpected `,`, expected end of")
        || detail.starts_with("unexpected `,`, expected `]`");
    let is_syntax = detail.starts_with("unexpected ") || detail.starts_with("unknown statement");
    let is_name = detail.contains("unexpected character") && !template.is_ascii();
    if !is_syntax || is_tuple || is_name || detail.contains("`+`") || detail.contains("raw") {
        return None;
    }
    let line = u32::try_from(error.line().unwrap_or(1)).unwrap_or(1);
    Some((line, format!("this template cannot be read: {detail}")))
}

/// Judges what Ansible evaluates when it comes to a task or block. Names are shown as they are when they cannot be read, and
/// variables may never be asked for.
pub(crate) fn task(walk: &mut Walk<'_>, scope: &Scope, task: &Node) {
    if scope.hosts.is_empty() || walk.q.folder.setting(&OWN_SYNTAX).is_some() {
        return;
    }
    for (key, _, value) in task.pairs() {
        match key {
            "when" | "failed_when" | "changed_when" | "until" => conditions(walk, scope, value),
            "loop" | "args" | "environment" => texts(walk, scope, value),
            _ if key.starts_with("with_") => texts(walk, scope, value),
            _ if crate::check::is_keyword(key) => {}
            _ => {
                if let Some(that) = value.get("that").filter(|_| short(key) == "assert") {
                    conditions(walk, scope, that);
                }
                texts(walk, scope, value);
            }
        }
    }
}

/// Judges the file of a template task.
pub(crate) fn file(walk: &mut Walk<'_>, scope: &Scope, call: &Call<'_>) {
    let (name, folder) = (call.argument("src").unwrap_or_default(), walk.q.folder);
    let own = OWN_SYNTAX.iter().any(|name| call.argument(name).is_some());
    if own || is_templated(&name) || !scope.is_judged() || scope.hosts.is_empty() {
        return;
    }
    let Some(path) = walk.find_file(scope, &name, "templates") else { return };
    let text = folder.text(&path).unwrap_or_default();
    // Such a first line sets what templates look like.
    if text.starts_with("#jinja2:") || folder.setting(&OWN_SYNTAX).is_some() {
        return;
    }
    if let Some((line, message)) = broken(text) {
        let file = walk.q.shown.join(&path).display().to_string();
        walk.out.findings.insert(Finding { file, line, message });
    }
}

/// A condition is an expression, or a template that becomes one.
fn conditions(walk: &mut Walk<'_>, scope: &Scope, node: &Node) {
    for node in std::slice::from_ref(node).iter().chain(node.list()) {
        let Some(text) = node.text().filter(|text| !text.trim().is_empty()) else { continue };
        if is_templated(text) {
            texts(walk, scope, node);
        } else if let Some((_, message)) = broken(&format!("{{{{ {text} }}}}")) {
            walk.bad(scope, node, message.replace("this template", "this condition"));
        }
    }
}

/// All texts in a value, apart from those that are marked `!unsafe`.
fn texts(walk: &mut Walk<'_>, scope: &Scope, node: &Node) {
    if node.is_unsafe {
        return;
    }
    match &node.value {
        Value::Scalar(text) if is_templated(text) => {
            if let Some((_, message)) = broken(text) {
                walk.bad(scope, node, message);
            }
        }
        Value::Scalar(_) => {}
        Value::List(items) => items.iter().for_each(|item| texts(walk, scope, item)),
        Value::Map(pairs) => pairs.iter().for_each(|(key, value)| {
            texts(walk, scope, key);
            texts(walk, scope, value);
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::broken;

    #[test]
    fn mistakes_are_found_and_what_ansible_knows_is_none() {
        for fine in [
            "{{ lookup('x', y) | ns.coll.filter(1) is ns.coll.test('>=') }}",
            "{{ x.0.y | regex_replace('\\d+', \"\\\\1\") | default(omit, true) }}",
            "{% import 'x' as y with context %}{% do z.append(1) %}{% raw %}{{ {% endraw %}",
            "{% for a, (b, c) in d if e recursive %}{% continue %}{% else %}{% endfor %}",
            "{{ 1, 2 }}{{ x[a, b] }}{{ +x }}{{ \u{fc} }}",
            "{% raw %}",
            "}} %} { {",
        ] {
            assert_eq!(broken(fine), None, "{fine}");
        }
        for (bad, line, words) in [
            ("{{ x", 1, "unexpected end of input"),
            ("a\n{{ x }", 2, "unexpected `}`"),
            ("{% if x %}\n", 1, "unexpected end of input"),
            ("{% if x %}\n{% endfor %}", 2, "endfor"),
            ("\n{{ x | }}", 2, "unexpected end of variable block"),
            ("{{ lookup('a' }}", 1, "unexpected `}`"),
            ("docker ps --format '{{.Names}}'", 1, "unexpected `.`"),
            ("{{ x y }}", 1, "unexpected identifier"),
            ("{{ 'open }}", 1, "unexpected end of string"),
        ] {
            let (found, said) = broken(bad).expect(bad);
            assert!(found == line && said.contains(words), "{bad}: {found} {said}");
        }
    }
}
