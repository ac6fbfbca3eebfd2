//! What a task calls, however it is written: a key with a mapping or `k=v` words, `action`, `args`.

use crate::check;
use crate::playbook::short;
use crate::reach::is_templated;
use crate::yaml::Node;

/// A module that a task calls.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    pub(crate) module: String,
    /// Points at the call.
    pub(crate) node: &'a Node,
    value: &'a Node,
    args: Option<&'a Node>,
    /// `action` and `local_action` hold the module's name in front of the arguments.
    named_inside: bool,
}

impl<'a> Call<'a> {
    pub(crate) fn of(task: &'a Node) -> Option<Self> {
        let pairs = task.pairs();
        let is_module = |key: &str| !check::is_keyword(key) && !key.starts_with("with_");
        let (key, node, value) = pairs.into_iter().find(|(key, ..)| is_module(key))?;
        let named_inside = matches!(short(key), "action" | "local_action");
        let module = if named_inside {
            let name = value.get("module").and_then(Node::text).or_else(|| value.text())?;
            name.split_whitespace().next()?.to_owned()
        } else {
            key.to_owned()
        };
        Some(Self { module, node, value, args: task.get("args"), named_inside })
    }

    /// An argument's text, however it is written.
    pub(crate) fn argument(&self, name: &str) -> Option<String> {
        let of = |node: &Node| node.get(name).and_then(Node::text).map(str::to_owned);
        let inline = || {
            let text = self.value.text()?;
            let start = format!("{name}=");
            let word = text.split_whitespace().find_map(|word| word.strip_prefix(&start))?;
            Some(word.trim_matches(['"', '\'']).to_owned())
        };
        of(self.value).or_else(inline).or_else(|| self.args.and_then(of))
    }

    /// The first word of an argument without a name.
    pub(crate) fn free_form(&self) -> Option<String> {
        let text = self.value.text()?.trim();
        let text = if self.named_inside { text.split_once(' ')?.1.trim() } else { text };
        if is_templated(text) {
            return Some(text.to_owned());
        }
        let word = text.split_whitespace().next()?;
        (!word.contains('=')).then(|| word.trim_matches(['"', '\'']).to_owned())
    }
}
