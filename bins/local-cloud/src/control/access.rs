//! Who may use the control API: only who knows the token, and no page of another site in a browser on this machine.

use axum::http::{HeaderMap, HeaderValue, header};
use serde::{Deserialize, Serialize};

use crate::signature::same;

/// The secret of one running cloud.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token(String);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token")
    }
}

/// No token: nobody is let in with it.
impl Default for Token {
    fn default() -> Self {
        Self(String::new())
    }
}

impl Token {
    /// A new one, of 32 random bytes.
    pub fn random() -> Self {
        Self(hex::encode(rand::random::<[u8; 32]>()))
    }

    /// Its text, for whoever may read the state file.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Whether a caller's text is this token; takes the same time wherever they differ.
    fn is(&self, text: &[u8]) -> bool {
        same(self.0.as_bytes(), text)
    }
}

/// Why a caller is turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turned {
    /// Named another host than this endpoint: a name of another site that leads here (DNS rebinding).
    Host,
    /// Comes from a page of another site.
    Origin,
    /// Has no token, or a wrong one.
    Token,
}

/// Whether a request is for this endpoint and from nowhere else.
pub(super) fn check_place(headers: &HeaderMap, port: u16) -> Result<(), Turned> {
    let places = [format!("127.0.0.1:{port}"), format!("localhost:{port}")];
    check_names(headers, "http://", &|name| places.iter().any(|place| place == name))
}

/// Whether a request names one of a listener's own names, and comes from no page of another site: of what a browser sends on
/// its own neither `Origin` nor `Sec-Fetch-Site` can be forged by a page.
pub(super) fn check_names(
    headers: &HeaderMap,
    scheme: &str,
    own: &dyn Fn(&str) -> bool,
) -> Result<(), Turned> {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    if !text(header::HOST).is_some_and(own) {
        return Err(Turned::Host);
    }
    let from_own = || text(header::ORIGIN)?.strip_prefix(scheme).filter(|name| own(name));
    if headers.contains_key(header::ORIGIN) && from_own().is_none() {
        return Err(Turned::Origin);
    }
    // `none`: a person typed the address. What is no browser sends nothing.
    match headers.get("sec-fetch-site").map(HeaderValue::as_bytes) {
        None | Some(b"none" | b"same-origin") => Ok(()),
        Some(_) => Err(Turned::Origin),
    }
}

/// [`check_place`] for the AWS endpoint, where the name of a bucket may stand before the host's.
pub(super) fn check_endpoint(headers: &HeaderMap, port: u16) -> Result<(), Turned> {
    let bucket = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok())
        .is_some_and(|host| host.ends_with(&format!(".localhost:{port}")));
    if bucket && !headers.contains_key(header::ORIGIN) {
        return check_names(headers, "http://", &|_| true);
    }
    check_place(headers, port)
}

/// The names of AWS's APIs, as hosts call them.
pub(super) fn is_name_of_aws(host: &str) -> bool {
    host.strip_suffix(":443").unwrap_or(host).ends_with(".amazonaws.com")
}

/// The names of instance metadata.
pub(super) fn is_name_of_metadata(host: &str) -> bool {
    let name = host.strip_suffix(":80").unwrap_or(host);
    matches!(name, "169.254.169.254" | "instance-data" | "instance-data.ec2.internal")
}

/// Whether a request carries the token, as `Authorization: Bearer`.
pub(super) fn check_token(headers: &HeaderMap, token: &Token) -> Result<(), Turned> {
    let given = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
    if given.is_some_and(|given| token.is(given)) { Ok(()) } else { Err(Turned::Token) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_long_differ_and_are_not_shown() {
        let (one, two) = (Token::random(), Token::random());
        assert_eq!(one.reveal().len(), 64);
        assert_ne!(one, two);
        assert_eq!(format!("{one:?}"), "Token");
    }

    #[test]
    fn only_the_whole_token_opens() {
        let token = Token::random();
        let check = |value: Option<String>| {
            let mut headers = HeaderMap::new();
            if let Some(value) = value {
                headers.insert(header::AUTHORIZATION, value.parse().expect("header"));
            }
            check_token(&headers, &token)
        };
        let text = token.reveal();
        assert_eq!(check(Some(format!("Bearer {text}"))), Ok(()));
        for wrong in [
            None,
            Some("Bearer ".to_owned()),
            Some(format!("Bearer {}", &text[1..])),
            Some(format!("Bearer {text}0")),
            Some(format!("Bearer {}", "0".repeat(64))),
            Some(text.to_owned()),
        ] {
            assert_eq!(check(wrong.clone()), Err(Turned::Token), "{wrong:?}");
        }
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, "Bearer ".parse().expect("header"));
        assert_eq!(check_token(&headers, &Token::default()), Err(Turned::Token));
    }

    #[test]
    fn a_bucket_may_stand_before_the_endpoints_name() {
        let check = |host: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, host.parse().expect("header"));
            check_endpoint(&headers, 4570)
        };
        assert_eq!(check("127.0.0.1:4570"), Ok(()));
        assert_eq!(check("bucket.localhost:4570"), Ok(()));
        for foreign in ["evil.example:4570", "localhost:4570.evil.example", "x.localhost:4571"] {
            assert_eq!(check(foreign), Err(Turned::Host), "{foreign}");
        }
    }

    #[test]
    fn every_listener_knows_its_own_names_and_no_other_site() {
        let check = |host: &str, more: Option<(&str, &str)>, own: &dyn Fn(&str) -> bool| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, host.parse().expect("header"));
            if let Some((name, value)) = more {
                let name: axum::http::HeaderName = name.parse().expect("a name");
                headers.insert(name, value.parse().expect("header"));
            }
            check_names(&headers, "https://", own)
        };
        for host in ["ssm.us-east-1.amazonaws.com", "b.s3.us-east-1.amazonaws.com:443"] {
            assert_eq!(check(host, None, &is_name_of_aws), Ok(()), "{host}");
        }
        for host in ["169.254.169.254", "169.254.169.254:80", "instance-data"] {
            assert_eq!(check(host, None, &is_name_of_metadata), Ok(()), "{host}");
        }
        for host in ["evil.example", "amazonaws.com.evil.example", "evilamazonaws.com", "10.0.0.1"]
        {
            assert_eq!(check(host, None, &is_name_of_aws), Err(Turned::Host), "{host}");
            assert_eq!(check(host, None, &is_name_of_metadata), Err(Turned::Host), "{host}");
        }
        let host = "ssm.us-east-1.amazonaws.com";
        for site in ["none", "same-origin"] {
            assert_eq!(check(host, Some(("sec-fetch-site", site)), &is_name_of_aws), Ok(()));
        }
        for foreign in [
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
            ("origin", "https://evil.example"),
            ("origin", "null"),
        ] {
            let found = check(host, Some(foreign), &is_name_of_aws);
            assert_eq!(found, Err(Turned::Origin), "{foreign:?}");
        }
    }

    #[test]
    fn other_sites_are_turned_away() {
        let check = |host: Option<&str>, origin: Option<&str>| {
            let mut headers = HeaderMap::new();
            for (name, value) in [(header::HOST, host), (header::ORIGIN, origin)] {
                if let Some(value) = value {
                    headers.insert(name, value.parse().expect("header"));
                }
            }
            check_place(&headers, 4570)
        };
        assert_eq!(check(Some("127.0.0.1:4570"), None), Ok(()));
        assert_eq!(check(Some("localhost:4570"), Some("http://localhost:4570")), Ok(()));
        assert_eq!(check(None, None), Err(Turned::Host));
        assert_eq!(check(Some("evil.example:4570"), None), Err(Turned::Host));
        assert_eq!(check(Some("127.0.0.1:4571"), None), Err(Turned::Host));
        for origin in ["http://evil.example", "null", "https://127.0.0.1:4570", "http://127.0.0.1"]
        {
            assert_eq!(
                check(Some("127.0.0.1:4570"), Some(origin)),
                Err(Turned::Origin),
                "{origin}"
            );
        }
    }
}
