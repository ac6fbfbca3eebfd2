//! YAML as a small tree in which every node knows its line, so that a finding can point at its place.

use serde_saphyr::granit_parser::{Event, Options, Parser, Span};
use std::collections::HashSet;

/// More nodes than this come from aliases of aliases, not from a person.
const NODES: usize = 1_000_000;
/// What the parser says of a text in quotes whose further lines are not indented, or by tabs.
const UNDER_INDENTED: [&str; 2] =
    ["invalid indentation in multiline quoted scalar", "tab cannot be used as indentation"];
/// So many of those in one file are more than a person writes.
const TEXTS: usize = 100;

/// Where a file stops being YAML, and why.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Broken {
    /// Counted from 1.
    pub(crate) line: u32,
    /// Counted from 1.
    pub(crate) column: u32,
    pub(crate) message: String,
}

impl Broken {
    pub(crate) fn new(line: u32, column: u32, message: &str) -> Self {
        Self { line, column, message: message.to_owned() }
    }
}

/// A value and its place.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    pub(crate) line: u32,
    pub(crate) column: u32,
    /// Tagged `!unsafe`: Ansible never takes it for a template.
    pub(crate) is_unsafe: bool,
    pub(crate) value: Value,
}

/// Numbers, booleans and null are scalars like any other.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Scalar(String),
    List(Vec<Node>),
    Map(Vec<(Node, Node)>),
}

impl Node {
    pub(crate) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn list(&self) -> &[Node] {
        match &self.value {
            Value::List(items) => items,
            _ => &[],
        }
    }

    /// Key, its node and the value, those of merged mappings (`<<`) in front.
    pub(crate) fn pairs(&self) -> Vec<(&str, &Node, &Node)> {
        let Value::Map(pairs) = &self.value else { return Vec::new() };
        let (mut merged, mut own) = (Vec::new(), Vec::new());
        for (key, value) in pairs {
            match key.text() {
                Some("<<") if value.list().is_empty() => merged.extend(value.pairs()),
                Some("<<") => merged.extend(value.list().iter().flat_map(Node::pairs)),
                Some(text) => own.push((text, key, value)),
                None => {}
            }
        }
        merged.extend(own);
        merged
    }

    /// A value by its key; of several the last, as Ansible takes it.
    pub(crate) fn get(&self, name: &str) -> Option<&Node> {
        self.pairs().into_iter().rfind(|(key, ..)| *key == name).map(|(.., value)| value)
    }

    /// Keys that stand twice in one mapping, each where it stands again.
    pub(crate) fn repeated(&self) -> Vec<&Node> {
        match &self.value {
            Value::Scalar(_) => Vec::new(),
            Value::List(items) => items.iter().flat_map(Self::repeated).collect(),
            Value::Map(pairs) => {
                let mut seen = HashSet::new();
                let keys = pairs.iter().map(|(key, _)| key);
                let mut found: Vec<&Node> =
                    keys.filter(|key| key.text().is_some_and(|text| !seen.insert(text))).collect();
                found.extend(pairs.iter().flat_map(|(_, value)| value.repeated()));
                found
            }
        }
    }

    fn size(&self) -> usize {
        1 + match &self.value {
            Value::Scalar(_) => 0,
            Value::List(items) => items.iter().map(Node::size).sum(),
            Value::Map(pairs) => pairs.iter().map(|(key, value)| key.size() + value.size()).sum(),
        }
    }
}

fn place(span: &Span) -> (u32, u32) {
    let number = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
    (number(span.start.line()), number(span.start.col() + 1))
}

/// What a file holds, one after the other, without its comments.
pub(crate) fn events(text: &str) -> Result<Vec<(Event<'_>, Span)>, Broken> {
    let mut options = Options::default();
    options.set_emit_comments(false);
    let next = Parser::new_from_str_with_options(text, options);
    next.map(|event| {
        event.map_err(|error| {
            let (line, column) = place(&Span::empty(*error.marker()));
            Broken::new(line, column, &error.info())
        })
    })
    .collect()
}

/// The documents of a file.
pub(crate) fn parse(text: &str) -> Result<Vec<Node>, Broken> {
    match tree(text) {
        Err(broken) if UNDER_INDENTED.contains(&broken.message.as_str()) => {
            as_python_reads(text, broken)
        }
        result => result,
    }
}

fn tree(text: &str) -> Result<Vec<Node>, Broken> {
    let mut tree = Tree { events: events(text)?.into_iter(), anchors: Vec::new(), nodes: 0 };
    let mut documents = Vec::new();
    while let Some(node) = tree.node()? {
        documents.push(node);
    }
    Ok(documents)
}

/// Python's YAML, which is Ansible's, does not care how the further lines of a text in quotes are indented, and their
/// indentation is no part of the text: here they get some. The first finding stands where that does not help.
fn as_python_reads(text: &str, first: Broken) -> Result<Vec<Node>, Broken> {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let mut from = first.line;
    for _ in 0..TEXTS {
        let start = usize::try_from(from).unwrap_or(1).saturating_sub(1);
        for line in lines.iter_mut().skip(start) {
            line.insert_str(0, &" ".repeat(100));
            if line.contains(['"', '\'']) {
                break;
            }
        }
        match tree(&lines.join("\n")) {
            Ok(documents) => return Ok(documents),
            Err(next) if UNDER_INDENTED.contains(&next.message.as_str()) && next.line > from => {
                from = next.line;
            }
            Err(_) => break,
        }
    }
    Err(first)
}

struct Tree<'t, I: Iterator<Item = (Event<'t>, Span)>> {
    events: I,
    anchors: Vec<(usize, Node)>,
    nodes: usize,
}

impl<'t, I: Iterator<Item = (Event<'t>, Span)>> Tree<'t, I> {
    /// The next node, or nothing at the end of a collection or of the file.
    fn node(&mut self) -> Result<Option<Node>, Broken> {
        while let Some((event, span)) = self.events.next() {
            let (line, column) = place(&span);
            let is_unsafe = match &event {
                Event::Scalar(.., tag)
                | Event::SequenceStart(.., tag)
                | Event::MappingStart(.., tag) => {
                    tag.as_ref().is_some_and(|tag| tag.suffix() == "unsafe")
                }
                _ => false,
            };
            let (value, anchor) = match event {
                Event::Scalar(text, _, anchor, _) => (Value::Scalar(text.into_owned()), anchor),
                Event::SequenceStart(_, anchor, _) => {
                    let mut items = Vec::new();
                    while let Some(item) = self.node()? {
                        items.push(item);
                    }
                    (Value::List(items), anchor)
                }
                Event::MappingStart(_, anchor, _) => {
                    let mut pairs = Vec::new();
                    while let Some(key) = self.node()? {
                        let Some(value) = self.node()? else { break };
                        if key.text().is_none() {
                            // Ansible's YAML reader is Python's, where only what can be hashed is a key.
                            let text = "a list or mapping is no key";
                            return Err(Broken::new(key.line, key.column, text));
                        }
                        pairs.push((key, value));
                    }
                    (Value::Map(pairs), anchor)
                }
                Event::Alias(id) => {
                    let known = self.anchors.iter().rev().find(|(anchor, _)| *anchor == id);
                    let node = known.map(|(_, node)| node.clone());
                    self.nodes += node.as_ref().map_or(0, Node::size);
                    (node.map_or(Value::Scalar(String::new()), |node| node.value), 0)
                }
                Event::SequenceEnd | Event::MappingEnd => return Ok(None),
                _ => continue,
            };
            let node = Node { line, column, is_unsafe, value };
            self.nodes += 1;
            if self.nodes > NODES {
                return Err(Broken::new(line, column, "its aliases make it too large"));
            }
            if anchor != 0 {
                self.anchors.push((anchor, node.clone()));
            }
            return Ok(Some(node));
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_know_their_line_and_aliases_are_followed() {
        let text =
            "---\nbase: &b\n  run_once: true\ntask:\n  <<: *b\n  name: x\n  list: [1, {a: 2}]\n";
        let documents = parse(text).unwrap();
        let task = documents[0].get("task").unwrap();
        assert_eq!(task.get("run_once").and_then(Node::text), Some("true"));
        assert_eq!(task.get("name").map(|node| (node.line, node.column)), Some((6, 9)));
        assert_eq!(task.get("list").unwrap().list()[1].get("a").and_then(Node::text), Some("2"));
        assert_eq!(parse("").unwrap(), []);
        let twice = &parse("- a: 1\n  b: {c: 1, c: 2}\n  a: 2\n").unwrap()[0];
        let lines: Vec<(u32, u32)> =
            twice.repeated().iter().map(|node| (node.line, node.column)).collect();
        assert_eq!(lines, [(3, 3), (2, 13)]);
        assert_eq!(twice.list()[0].get("a").and_then(Node::text), Some("2"));
        assert_eq!(parse("a: [\n").unwrap_err().line, 1);
    }

    #[test]
    fn what_python_reads_is_read() {
        let text = "a:\n  b: \"{{\n  x is\nb's\n  }}\"\n  c: 'd\n\te'\nf: 1\n";
        let documents = parse(text).unwrap();
        let a = documents[0].get("a").unwrap();
        assert_eq!(a.get("b").and_then(Node::text), Some("{{ x is b's }}"));
        assert_eq!(a.get("c").and_then(Node::text), Some("d e"));
        assert_eq!(documents[0].get("f").map(|node| node.line), Some(8));
        let comments = format!("- a\n{}- b\n", "# c\n".repeat(200));
        assert_eq!(parse(&comments).unwrap()[0].list().len(), 2);
    }

    #[test]
    fn aliases_of_aliases_end_in_an_error_and_not_in_all_memory() {
        let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
        for n in 1..12 {
            let list = vec![format!("*a{}", n - 1); 9].join(", ");
            text.push_str(&format!("a{n}: &a{n} [{list}]\n"));
        }
        assert!(parse(&text).unwrap_err().message.contains("too large"));
    }
}
