//! The little XML that AWS's query APIs answer with, as a tree.

use quick_xml::Reader;
use quick_xml::events::Event;

/// Elements in each other; AWS's answers are about eight deep.
const DEPTH: usize = 64;

/// An element: its name, its text, what is in it.
#[derive(Debug, Default)]
pub(crate) struct Element {
    name: String,
    text: String,
    children: Vec<Element>,
}

impl Element {
    /// Reads a document; its root is what is returned.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut reader = Reader::from_str(text);
        let mut open = vec![Self::default()];
        loop {
            match reader.read_event().map_err(|error| error.to_string())? {
                Event::Start(start) => {
                    if open.len() > DEPTH {
                        return Err("it is nested too deep".to_owned());
                    }
                    let name = start.local_name().as_ref().to_owned();
                    open.push(Self { name, ..Self::default() });
                }
                Event::End(_) => close(&mut open)?,
                Event::Text(part) => append(&mut open, &part),
                Event::GeneralRef(reference) => {
                    let text = format!("&{};", &*reference);
                    let plain =
                        quick_xml::escape::unescape(&text).map_err(|error| error.to_string())?;
                    append(&mut open, &plain);
                }
                Event::Empty(start) => {
                    let name = start.local_name().as_ref().to_owned();
                    open.push(Self { name, ..Self::default() });
                    close(&mut open)?;
                }
                Event::Eof => break,
                _ => {}
            }
        }
        match (open.len(), open.pop().and_then(|mut top| top.children.pop())) {
            (1, Some(root)) => Ok(root),
            _ => Err("it is no complete XML".to_owned()),
        }
    }

    /// The first element of this name in it.
    pub(crate) fn child(&self, name: &str) -> Option<&Self> {
        self.children.iter().find(|child| child.name == name)
    }

    /// The text of the first element of this name, if there is any.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.child(name).map(|child| child.text.trim()).filter(|text| !text.is_empty())
    }

    /// The elements `item` in the first element `list`.
    pub(crate) fn items(&self, list: &str, item: &str) -> impl Iterator<Item = &Self> {
        let children = self.child(list).into_iter().flat_map(|list| &list.children);
        children.filter(move |child| child.name == item)
    }
}

fn append(open: &mut [Element], text: &str) {
    if let Some(element) = open.last_mut() {
        element.text.push_str(text);
    }
}

fn close(open: &mut Vec<Element>) -> Result<(), String> {
    let (Some(element), Some(parent)) = (open.pop(), open.last_mut()) else {
        return Err("it closes what is not open".to_owned());
    };
    parent.children.push(element);
    Ok(())
}
