//! The way from page to page of a list. A page may hold nothing and still lead on, so only a missing token ends a list:
//! <https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_ListCommands.html>.

use crate::Error;
use std::collections::HashSet;

/// The tokens of one list so far.
#[derive(Debug)]
pub struct Pages {
    operation: &'static str,
    seen: HashSet<String>,
}

impl Pages {
    /// Before the first page of a list. `operation` is named like an IAM action.
    pub fn of(operation: &'static str) -> Self {
        Self { operation, seen: HashSet::new() }
    }

    /// The token of the next page, `None` after the last one. Some services send an empty token with that.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when a token comes twice: the list would never end, and what was read is not all of it.
    pub fn next(&mut self, token: Option<&str>) -> Result<Option<String>, Error> {
        let Some(token) = token.filter(|token| !token.is_empty()) else { return Ok(None) };
        if !self.seen.insert(token.to_owned()) {
            let message = "the list does not end: the token of a page came twice".to_owned();
            return Err(Error::Unavailable { operation: self.operation, code: None, message });
        }
        Ok(Some(token.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_ends_without_a_token_and_one_that_comes_twice_is_an_error() {
        let mut pages = Pages::of("ssm:ListCommands");
        assert_eq!(pages.next(Some("a")).unwrap().as_deref(), Some("a"));
        assert_eq!(pages.next(Some("b")).unwrap().as_deref(), Some("b"));
        assert_eq!(pages.next(Some("")).unwrap(), None);
        assert_eq!(pages.next(None).unwrap(), None);
        let error = pages.next(Some("a")).unwrap_err().to_string();
        assert_eq!(
            error,
            "ssm:ListCommands got no answer: the list does not end: the token of a page came twice"
        );
    }
}
