//! Lists come in pages, as on AWS: sizes within their bounds, opaque tokens, and pages that are short or empty although
//! more follow.
//!
//! The emulator is asked for the whole list; its pages are cut here, all at once, and kept for who comes back with a
//! token. So what changes meanwhile shifts nothing. AWS says that a page may hold fewer items than asked for, even
//! none, while its token leads on: here it always is so, since a rehearsal has too few of everything to meet it by
//! chance. Whoever asks for pages gets at least two as soon as there are two items, the second of them empty.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use serde_json::Value;
use tokio::time::Instant;

use crate::xml::Element;

/// How long a token leads on.
const LASTS: Duration = Duration::from_secs(600);
/// How many lists are kept at most; the oldest goes first.
const KEPT: usize = 128;

/// The lists that somebody may come back for.
#[derive(Debug, Default)]
pub struct Shelf(Mutex<VecDeque<Book>>);

#[derive(Debug)]
struct Book {
    id: [u8; 12],
    /// Whose list it is: service, region and operation.
    of: u64,
    pages: Vec<Bytes>,
    until: Instant,
}

impl Shelf {
    /// The page that a token leads to; `None` when the token is not of this list or leads nowhere any more.
    pub fn page(&self, of: u64, token: &str) -> Option<Bytes> {
        let token = URL_SAFE_NO_PAD.decode(token).ok()?;
        let (id, number) = token.split_at_checked(12)?;
        let number = usize::from(u16::from_be_bytes(number.try_into().ok()?));
        let books = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let book = books.iter().find(|book| book.id == id && book.of == of && book.until > now)?;
        book.pages.get(number).cloned()
    }

    /// Keeps the pages that follow the first one, and gives that. `write` makes a page of its number, the items'
    /// range and the token of the next one.
    pub fn cut(
        &self,
        of: u64,
        lengths: &[usize],
        mut write: impl FnMut(std::ops::Range<usize>, Option<String>) -> String,
    ) -> Bytes {
        let id: [u8; 12] = rand::random();
        let mut start = 0;
        let mut pages = Vec::with_capacity(lengths.len());
        for (number, length) in lengths.iter().enumerate() {
            // More pages than that are beyond any list here; the last one then holds the rest.
            let next =
                u16::try_from(number + 1).ok().filter(|next| usize::from(*next) < lengths.len());
            let end = if next.is_some() { start + length } else { lengths.iter().sum() };
            let token = next.map(|next| {
                let mut bytes = id.to_vec();
                bytes.extend(next.to_be_bytes());
                URL_SAFE_NO_PAD.encode(bytes)
            });
            let last = token.is_none();
            pages.push(Bytes::from(write(start..end, token)));
            start = end;
            if last {
                break;
            }
        }
        let first = pages.first().cloned().unwrap_or_default();
        if pages.len() > 1 {
            let mut books = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            books.retain(|book| book.until > now);
            if books.len() >= KEPT {
                books.pop_front();
            }
            books.push_back(Book { id, of, pages, until: now + LASTS });
        }
        first
    }
}

/// What tells one list from another, so that a token is good for its own only.
pub fn list_of(service: &str, region: &str, operation: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (service, region, operation).hash(&mut hasher);
    hasher.finish()
}

/// How many items each page holds. `asked`: the size that the caller asked for; without one, pages are as large as
/// `usual`, and a list that fits is one page.
pub fn lengths(items: usize, asked: Option<usize>, usual: usize) -> Vec<usize> {
    let size = match asked {
        None if items <= usual => return vec![items],
        None => usual.max(1),
        Some(_) if items < 2 => return vec![items],
        Some(asked) => asked.min(items.div_ceil(2)).max(1),
    };
    let mut pages = vec![size, 0];
    let mut left = items - size;
    let mut next = size.saturating_sub(1).max(1);
    while left > 0 {
        let length = next.min(left);
        pages.push(length);
        left -= length;
        next = size;
    }
    pages
}

/// Writes a page of an XML answer: the list at `path` holds these items, and the token stands beside it.
pub fn write_xml(
    root: &Element,
    path: &[&str],
    items: &[Element],
    (name, token): (&str, Option<String>),
    more: Option<&str>,
) -> String {
    let mut root = root.clone();
    let Some((list, parents)) = path.split_last() else { return root.write() };
    let Some(parent) = parents.iter().try_fold(&mut root, |element, name| element.child_mut(name))
    else {
        return root.write();
    };
    if let Some(list) = parent.child_mut(list) {
        list.children = items.to_vec();
    }
    parent.children.retain(|child| child.name != name);
    if let Some(more) = more {
        parent.set(Element::leaf(more, if token.is_some() { "true" } else { "false" }));
    }
    if let Some(token) = token {
        parent.set(Element::leaf(name, &token));
    }
    root.write()
}

/// Writes a page of a JSON answer.
pub fn write_json(
    root: &Value,
    list: &str,
    items: &[Value],
    token: (&str, Option<String>),
    more: Option<&str>,
) -> String {
    let mut root = root.clone();
    if let Some(object) = root.as_object_mut() {
        object.insert(list.to_owned(), Value::from(items.to_vec()));
        object.remove(token.0);
        if let Some(more) = more {
            object.insert(more.to_owned(), token.1.is_some().into());
        }
        if let Some(text) = token.1 {
            object.insert(token.0.to_owned(), text.into());
        }
    }
    root.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_short_or_empty_although_more_follow() {
        let check = |items, asked, expected: &[usize]| {
            let pages = lengths(items, asked, 50);
            assert_eq!(pages, expected, "{items} {asked:?}");
            assert_eq!(pages.iter().sum::<usize>(), items);
        };
        check(0, Some(5), &[0]);
        check(1, Some(5), &[1]);
        check(2, Some(5), &[1, 0, 1]);
        check(10, Some(1000), &[5, 0, 4, 1]);
        check(23, Some(5), &[5, 0, 4, 5, 5, 4]);
        check(50, None, &[50]);
        check(51, None, &[50, 0, 1]);
        check(3, Some(1), &[1, 0, 1, 1]);
    }

    fn read_all(shelf: &Shelf, of: u64, items: usize, size: usize) -> (Vec<usize>, usize) {
        let lengths = lengths(items, Some(size), 50);
        let mut body = shelf.cut(of, &lengths, |range, token| {
            format!(
                "{}\n{}",
                token.unwrap_or_default(),
                range.map(|n| format!("{n} ")).collect::<String>()
            )
        });
        let (mut found, mut pages) = (Vec::new(), 1);
        loop {
            let text = String::from_utf8(body.to_vec()).expect("text");
            let (token, numbers) = text.split_once('\n').expect("two lines");
            found.extend(numbers.split_whitespace().map(|n| n.parse::<usize>().expect("a number")));
            if token.is_empty() {
                return (found, pages);
            }
            body = shelf.page(of, token).expect("the next page");
            assert_eq!(shelf.page(of + 1, token), None, "a token is good for its own list only");
            pages += 1;
        }
    }

    #[tokio::test]
    async fn all_pages_together_are_the_list() {
        let shelf = Shelf::default();
        for items in [0, 1, 2, 3, 7, 100] {
            for size in [1, 5, 1000] {
                let (found, _) = read_all(&shelf, 1, items, size);
                assert_eq!(found, (0..items).collect::<Vec<_>>(), "{items} by {size}");
            }
        }
        // Beyond what a token can count, the last page holds the rest.
        let (found, pages) = read_all(&shelf, 2, 70_000, 1);
        assert_eq!((found.len(), pages), (70_000, 1 << 16));
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_ends_after_a_while_or_when_it_was_never_given() {
        let shelf = Shelf::default();
        let mut token = None;
        shelf.cut(1, &[1, 0, 1], |_, next| {
            token = token.take().or(next);
            String::new()
        });
        let token = token.expect("a token");
        assert!(shelf.page(1, &token).is_some());
        for bad in ["", "!", "AAAA", "x".repeat(10_000).as_str()] {
            assert_eq!(shelf.page(1, bad), None);
        }
        tokio::time::advance(LASTS).await;
        assert_eq!(shelf.page(1, &token), None);
    }

    #[test]
    fn a_page_keeps_what_stands_beside_the_list() {
        let root = Element::parse(
            "<R><ListRolesResult><IsTruncated>false</IsTruncated><Roles><member>1</member><member>2</member></Roles>\
             </ListRolesResult><M>x</M></R>",
        )
        .expect("XML");
        let items: Vec<Element> = root.items(&["ListRolesResult", "Roles"]).cloned().collect();
        let text = write_xml(
            &root,
            &["ListRolesResult", "Roles"],
            &items[..1],
            ("Marker", Some("t".into())),
            Some("IsTruncated"),
        );
        assert!(text.ends_with(
            "<ListRolesResult><IsTruncated>true</IsTruncated><Roles><member>1</member></Roles><Marker>t</Marker>\
             </ListRolesResult><M>x</M></R>"
        ));
        let root = serde_json::json!({"Keys": [1, 2], "Truncated": false, "NextMarker": null});
        let text = write_json(&root, "Keys", &[2.into()], ("NextMarker", None), Some("Truncated"));
        assert_eq!(text, r#"{"Keys":[2],"Truncated":false}"#);
    }
}
