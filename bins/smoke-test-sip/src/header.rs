//! The structured header values that a client reads: addresses, lists, Via. Pure.

/// An address with its parameters: the value of `From`, `To`, `Contact`, `Route`, `Record-Route`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameAddr {
    /// The URI as it stands, without angle brackets.
    pub uri: String,
    /// The parameters after the URI.
    pub params: Vec<(String, Option<String>)>,
}

impl NameAddr {
    /// Reads one value (RFC 3261 §25.1 `name-addr` or `addr-spec`). Without angle brackets parameters belong to the
    /// header, not to the URI (§20.10).
    pub fn parse(value: &str) -> Option<Self> {
        let value = value.trim();
        let (uri, rest) = match unquoted(value, b'<') {
            Some(open) => {
                let inner = &value[open + 1..];
                let close = inner.find('>')?;
                (&inner[..close], &inner[close + 1..])
            }
            None => value.split_at(value.find(';').unwrap_or(value.len())),
        };
        let uri = uri.trim();
        let rest = rest.trim();
        if uri.is_empty() || !(rest.is_empty() || rest.starts_with(';')) {
            return None;
        }
        Some(Self { uri: uri.to_owned(), params: params(rest) })
    }

    /// The value of a parameter.
    pub fn param(&self, name: &str) -> Option<&str> {
        find(&self.params, name)
    }
}

/// The topmost `Via` of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Via {
    /// Names the transaction.
    pub branch: String,
    /// The address from which the other side saw the request come, when it says so (RFC 3261 §18.2.1).
    pub received: Option<String>,
    /// The port from which it came (RFC 3581).
    pub rport: Option<u16>,
}

impl Via {
    /// Reads the first of the values of a `Via` header.
    pub fn parse(value: &str) -> Option<Self> {
        let first = *split_commas(value).first()?;
        let params = params(&first[first.find(';')?..]);
        Some(Self {
            branch: find(&params, "branch")?.to_owned(),
            received: find(&params, "received").map(str::to_owned),
            rport: find(&params, "rport").and_then(crate::uri::parse_port),
        })
    }
}

/// Splits a list at the commas that stand neither in quotes nor in angle brackets. Empty entries are left out.
pub fn split_commas(value: &str) -> Vec<&str> {
    split(value, b',')
}

/// The tag of a `From` or `To` value.
pub fn tag(value: &str) -> Option<String> {
    NameAddr::parse(value)?.param("tag").map(str::to_owned)
}

fn params(text: &str) -> Vec<(String, Option<String>)> {
    let entries = split(text, b';').into_iter();
    entries
        .map(|entry| match entry.split_once('=') {
            Some((name, value)) => {
                (name.trim().to_owned(), Some(value.trim().trim_matches('"').to_owned()))
            }
            None => (entry.to_owned(), None),
        })
        .collect()
}

fn find<'a>(params: &'a [(String, Option<String>)], name: &str) -> Option<&'a str> {
    params
        .iter()
        .find(|(key, _)| key.eq_ignore_ascii_case(name))
        .and_then(|(_, value)| value.as_deref())
}

/// Where `wanted` first stands outside quotes.
fn unquoted(text: &str, wanted: u8) -> Option<usize> {
    let (mut quoted, mut escaped) = (false, false);
    text.bytes().position(|byte| {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ => return !quoted && byte == wanted,
        }
        false
    })
}

fn split(text: &str, separator: u8) -> Vec<&str> {
    let (mut quoted, mut escaped, mut depth, mut start) = (false, false, 0_usize, 0);
    let mut out = Vec::new();
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'<' if !quoted => depth += 1,
            b'>' if !quoted => depth = depth.saturating_sub(1),
            _ if byte == separator && !quoted && depth == 0 => {
                // The separator is ASCII, so both ends are character boundaries.
                out.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    out.push(&text[start..]);
    out.into_iter().map(str::trim).filter(|entry| !entry.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_in_all_their_forms() {
        let check = |value: &str, uri: &str, tag: Option<&str>| {
            let parsed = NameAddr::parse(value).unwrap();
            assert_eq!((parsed.uri.as_str(), parsed.param("tag")), (uri, tag), "{value}");
        };
        check("<sip:a@b;lr>;tag=x", "sip:a@b;lr", Some("x"));
        check("\"A \\\" <c>, d\" <sip:a@b> ; TAG = x ; other", "sip:a@b", Some("x"));
        check("sip:a@b;tag=x", "sip:a@b", Some("x"));
        check("Anne <sip:a@b>", "sip:a@b", None);
        for bad in ["", "<", "<sip:a", "\"<sip:a>", "<>", "<sip:a>junk"] {
            let parsed = NameAddr::parse(bad);
            assert!(parsed.is_none_or(|parsed| !parsed.uri.starts_with("sip:a>")), "{bad}");
        }
    }

    #[test]
    fn lists_are_split_outside_quotes_and_brackets() {
        let list = split_commas("<sip:a,b@c>, \"x, y\" <sip:d>;expires=3 , , sip:e");
        assert_eq!(list, ["<sip:a,b@c>", "\"x, y\" <sip:d>;expires=3", "sip:e"]);
    }

    #[test]
    fn a_via_names_its_transaction_and_what_the_server_saw() {
        let via = Via::parse("SIP/2.0/UDP 10.0.0.5:5070;rport=40000;received=192.0.2.9;branch=z9hG4bKx, SIP/2.0/TCP h").unwrap();
        assert_eq!(
            via,
            Via {
                branch: "z9hG4bKx".into(),
                received: Some("192.0.2.9".into()),
                rport: Some(40_000)
            }
        );
        assert_eq!(Via::parse("SIP/2.0/UDP 10.0.0.5"), None);
    }
}
