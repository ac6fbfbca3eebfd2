//! A small XML tree: enough to read and adjust the answers of the query protocols.
//!
//! Pure. Text is kept as it was escaped, so that what is not touched is written back as it came.

use quick_xml::escape::{escape, unescape};
use quick_xml::events::Event;
use quick_xml::reader::Reader;

/// No answer of AWS comes near; writing and dropping a tree recurse.
const DEEPEST: usize = 200;

/// The text is not XML.
#[derive(Debug, thiserror::Error)]
#[error("the answer is not XML: {0}")]
pub struct BadXml(String);

/// One element.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Element {
    /// Its name.
    pub name: String,
    /// Attributes as they were written, with a leading space.
    attributes: String,
    /// Child elements in order; text between them is not kept.
    pub children: Vec<Element>,
    /// Escaped text of an element without children.
    raw: String,
}

impl Element {
    /// An element with text.
    pub fn leaf(name: &str, text: &str) -> Self {
        Self { name: name.to_owned(), raw: escape(text).into_owned(), ..Self::default() }
    }

    /// An element with children.
    pub fn node(name: &str, children: Vec<Self>) -> Self {
        Self { name: name.to_owned(), children, ..Self::default() }
    }

    /// Gives the element its namespace.
    pub fn namespace(mut self, namespace: &str) -> Self {
        self.attributes = format!(" xmlns=\"{}\"", escape(namespace));
        self
    }

    /// Reads a document and gives its root.
    pub fn parse(text: &str) -> Result<Self, BadXml> {
        let bad = |error: quick_xml::Error| BadXml(error.to_string());
        let mut reader = Reader::from_str(text);
        let mut open: Vec<Self> = Vec::new();
        loop {
            let closed = match reader.read_event().map_err(bad)? {
                Event::Start(_) if open.len() >= DEEPEST => {
                    return Err(BadXml(format!("it is nested more than {DEEPEST} deep")));
                }
                Event::Start(tag) => {
                    open.push(Self::opened(&tag));
                    None
                }
                Event::Empty(tag) => Some(Self::opened(&tag)),
                Event::End(_) => open.pop(),
                Event::Text(text) => {
                    Self::append(&mut open, &text);
                    None
                }
                Event::GeneralRef(name) => {
                    Self::append(&mut open, &format!("&{};", &*name));
                    None
                }
                Event::CData(text) => {
                    Self::append(&mut open, &escape(&*text));
                    None
                }
                Event::Eof => return Err(BadXml("it ends before its root does".into())),
                _ => None,
            };
            if let Some(element) = closed {
                match open.last_mut() {
                    Some(parent) => parent.children.push(element),
                    None => return Ok(element),
                }
            }
        }
    }

    fn opened(tag: &quick_xml::events::BytesStart<'_>) -> Self {
        let name = tag.name().as_ref().to_owned();
        let attributes = tag.attributes_raw().trim_end().to_owned();
        Self { name, attributes, ..Self::default() }
    }

    fn append(open: &mut [Self], text: &str) {
        if let Some(element) = open.last_mut() {
            element.raw.push_str(text);
        }
    }

    /// The first child of this name.
    pub fn child(&self, name: &str) -> Option<&Self> {
        self.children.iter().find(|child| child.name == name)
    }

    /// The first child of this name, to change.
    pub fn child_mut(&mut self, name: &str) -> Option<&mut Self> {
        self.children.iter_mut().find(|child| child.name == name)
    }

    /// The element at the end of a path of names.
    pub fn at(&self, path: &[&str]) -> Option<&Self> {
        path.iter().try_fold(self, |element, name| element.child(name))
    }

    /// The text at the end of a path of names; empty text counts as none.
    pub fn text_at(&self, path: &[&str]) -> Option<String> {
        self.at(path).map(Self::text).filter(|text| !text.is_empty())
    }

    /// The `<item>` (or `<member>`) children of a list at a path.
    pub fn items(&self, path: &[&str]) -> impl Iterator<Item = &Self> {
        self.at(path)
            .into_iter()
            .flat_map(|list| &list.children)
            .filter(|child| matches!(child.name.as_str(), "item" | "member"))
    }

    /// Its text.
    pub fn text(&self) -> String {
        let raw = self.raw.trim();
        unescape(raw).map_or_else(|_| raw.to_owned(), std::borrow::Cow::into_owned)
    }

    /// Replaces child `name` by a new one, or adds it.
    pub fn set(&mut self, child: Self) {
        match self.child_mut(&child.name) {
            Some(present) => *present = child,
            None => self.children.push(child),
        }
    }

    /// The document.
    pub fn write(&self) -> String {
        let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
        self.write_to(&mut out);
        out
    }

    fn write_to(&self, out: &mut String) {
        out.push('<');
        out.push_str(&self.name);
        out.push_str(&self.attributes);
        out.push('>');
        if self.children.is_empty() {
            out.push_str(&self.raw);
        }
        for child in &self.children {
            child.write_to(out);
        }
        out.push_str("</");
        out.push_str(&self.name);
        out.push('>');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_touched_comes_back_as_it_was() {
        let text = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
            <R xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\"><set><item><k>a &amp; b</k><v></v></item></set></R>";
        let root = Element::parse(text).expect("XML");
        assert_eq!(root.text_at(&["set", "item", "k"]).as_deref(), Some("a & b"));
        assert_eq!(root.text_at(&["set", "item", "v"]), None);
        assert_eq!(root.write(), text);
    }

    #[test]
    fn a_changed_child_is_written_escaped() {
        let mut root = Element::parse("<a>\n  <b>1</b>\n  <c/>\n</a>").expect("XML");
        root.set(Element::leaf("b", "<2>"));
        root.set(Element::leaf("d", "3"));
        assert!(root.write().ends_with("<a><b>&lt;2&gt;</b><c></c><d>3</d></a>"));
    }

    #[test]
    fn a_tree_that_is_too_deep_is_refused() {
        let nested = |deep: usize| format!("{}{}", "<a>".repeat(deep), "</a>".repeat(deep));
        assert!(Element::parse(&nested(DEEPEST)).is_ok());
        assert!(Element::parse(&nested(DEEPEST + 1)).is_err());
        assert!(Element::parse(&nested(200_000)).is_err());
    }

    #[test]
    fn cut_or_foreign_text_is_refused() {
        for text in ["", "<a><b></a>", "<a>", "{}"] {
            assert!(Element::parse(text).is_err(), "{text}");
        }
    }
}
