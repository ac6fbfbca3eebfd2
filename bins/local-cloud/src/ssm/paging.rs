//! Pages and their tokens.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::refusal::Refusal;

/// One page, and the token of the next one.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Page<T> {
    pub(super) items: Vec<T>,
    pub(super) next: Option<String>,
}

/// The page of at most `size` items after the one that the token names. A token names an item, not a position, so
/// that what is added in front meanwhile shifts nothing.
pub(super) fn page<T>(
    items: impl Iterator<Item = T>,
    name: impl Fn(&T) -> String,
    size: usize,
    token: Option<&str>,
) -> Result<Page<T>, Refusal> {
    let mut items = items.peekable();
    if let Some(token) = token.filter(|token| !token.is_empty()) {
        let invalid = || Refusal::new("InvalidNextToken", "The specified token isn't valid.");
        let last = URL_SAFE_NO_PAD.decode(token).map_err(|_| invalid())?;
        let last = String::from_utf8(last).map_err(|_| invalid())?;
        if !items.by_ref().any(|item| name(&item) == last) {
            return Err(invalid());
        }
    }
    let some: Vec<T> = items.by_ref().take(size).collect();
    let next = match some.last() {
        Some(last) if items.peek().is_some() => Some(URL_SAFE_NO_PAD.encode(name(last))),
        _ => None,
    };
    Ok(Page { items: some, next })
}

/// `MaxResults` within its bounds; the most that there may be when it is not given.
pub(super) fn size(wanted: Option<u32>, least: u32, most: u32) -> Result<usize, Refusal> {
    let wanted = wanted.unwrap_or(most);
    let must = if wanted < least {
        format!("Member must have value greater than or equal to {least}")
    } else if wanted > most {
        format!("Member must have value less than or equal to {most}")
    } else {
        return Ok(wanted as usize);
    };
    Err(Refusal::constraint(wanted, "maxResults", &must))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_follow_each_other_even_when_something_is_added_in_front() {
        let old = ["c", "b", "a"];
        let take = |items: &[&'static str], token: Option<&str>| {
            page(items.iter().copied(), |item| (*item).to_owned(), 2, token)
        };
        let first = take(&old, None).expect("page");
        assert_eq!(first.items, ["c", "b"]);
        let new = ["d", "c", "b", "a"];
        let second = take(&new, first.next.as_deref()).expect("page");
        assert_eq!(second, Page { items: vec!["a"], next: None });
        assert_eq!(take(&old, Some("!")).map_err(|r| r.code), Err("InvalidNextToken"));
        assert_eq!(
            take(&["x"], first.next.as_deref()).map_err(|r| r.code),
            Err("InvalidNextToken")
        );
    }

    #[test]
    fn page_sizes_have_bounds() {
        assert_eq!(size(None, 1, 50), Ok(50));
        assert_eq!(size(Some(5), 5, 50), Ok(5));
        assert!(size(Some(4), 5, 50).is_err());
        assert!(size(Some(51), 1, 50).is_err());
    }
}
