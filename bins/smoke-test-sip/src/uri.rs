//! SIP URIs (RFC 3261 §19.1) as far as a client needs them: read strictly, written as they came. Pure.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// The port of SIP over UDP and TCP, RFC 3261 §19.1.2.
pub const DEFAULT_PORT: u16 = 5060;

/// A `sip:` URI.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SipUri {
    /// What stands before the `@`.
    pub user: Option<String>,
    /// Host name or IPv4 address, or an IPv6 address in brackets.
    pub host: String,
    /// The port, when one is given.
    pub port: Option<u16>,
    /// `;name` and `;name=value` after the host, in their order.
    pub params: Vec<(String, Option<String>)>,
}

/// Why a text is no SIP URI.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UriError {
    /// It does not begin with `sip:`.
    #[error("expected `sip:`, found `{0}`")]
    Scheme(String),
    /// The part before `@` is empty or has characters that must be escaped.
    #[error("bad user part `{0}`")]
    User(String),
    /// The host is missing or is neither a name nor an address.
    #[error("bad host `{0}`")]
    Host(String),
    /// The port is not a number from 1 to 65535.
    #[error("bad port `{0}`: expected 1 to 65535")]
    Port(String),
    /// A parameter has no name or has characters that must be escaped.
    #[error("bad parameter `{0}`")]
    Param(String),
}

impl SipUri {
    /// The value of a parameter; `Some(None)` when it stands without a value.
    pub fn param(&self, name: &str) -> Option<Option<&str>> {
        let mut found = self.params.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name));
        found.next().map(|(_, value)| value.as_deref())
    }

    /// Where it points, when its host is an address.
    pub fn address(&self) -> Option<SocketAddr> {
        let ip = self.host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().ok()?;
        Some(SocketAddr::new(ip, self.port.unwrap_or(DEFAULT_PORT)))
    }

    /// Host and port as `lookup_host` takes them.
    pub fn authority(&self) -> String {
        format!("{}:{}", self.host, self.port.unwrap_or(DEFAULT_PORT))
    }
}

impl FromStr for SipUri {
    type Err = UriError;

    fn from_str(text: &str) -> Result<Self, UriError> {
        let Some((scheme, rest)) =
            text.split_once(':').filter(|(s, _)| s.eq_ignore_ascii_case("sip"))
        else {
            return Err(UriError::Scheme(text.split(':').next().unwrap_or_default().to_owned()));
        };
        debug_assert_eq!(scheme.len(), 3);
        // Headers (`?name=value`) make no sense where this is used.
        if let Some((_, headers)) = rest.split_once('?') {
            return Err(UriError::Param(format!("?{headers}")));
        }
        let (user, rest) = match rest.rsplit_once('@') {
            Some((user, rest)) if !user.is_empty() && user.bytes().all(is_user) => {
                (Some(user.to_owned()), rest)
            }
            Some((user, _)) => return Err(UriError::User(user.to_owned())),
            None => (None, rest),
        };
        let mut parts = rest.split(';');
        let (host, port) = host_and_port(parts.next().unwrap_or_default())?;
        let mut params = Vec::new();
        for part in parts {
            let (name, value) = match part.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (part, None),
            };
            if name.is_empty()
                || !name.bytes().chain(value.unwrap_or_default().bytes()).all(is_param)
            {
                return Err(UriError::Param(part.to_owned()));
            }
            params.push((name.to_owned(), value.map(str::to_owned)));
        }
        Ok(Self { user, host, port, params })
    }
}

impl fmt::Display for SipUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sip:")?;
        if let Some(user) = &self.user {
            write!(f, "{user}@")?;
        }
        f.write_str(&self.host)?;
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        for (name, value) in &self.params {
            match value {
                Some(value) => write!(f, ";{name}={value}")?,
                None => write!(f, ";{name}")?,
            }
        }
        Ok(())
    }
}

fn host_and_port(text: &str) -> Result<(String, Option<u16>), UriError> {
    let bad_host = || UriError::Host(text.to_owned());
    let (host, port) = if let Some(inner) = text.strip_prefix('[') {
        let (inner, port) = inner.split_once(']').ok_or_else(bad_host)?;
        inner.parse::<Ipv6Addr>().map_err(|_| bad_host())?;
        let port = match port.strip_prefix(':') {
            Some(port) => Some(port),
            None if port.is_empty() => None,
            None => return Err(bad_host()),
        };
        (format!("[{inner}]"), port)
    } else {
        let (host, port) = match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        };
        if !is_host(host) {
            return Err(bad_host());
        }
        (host.to_owned(), port)
    };
    let port = match port {
        None => None,
        Some(port) => Some(parse_port(port).ok_or_else(|| UriError::Port(port.to_owned()))?),
    };
    Ok((host, port))
}

/// A port from 1 to 65535, in plain digits.
pub fn parse_port(text: &str) -> Option<u16> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten().filter(|port| *port != 0)
}

/// Whether this is an IPv4 address or a host name of letters, digits, `-` and `.` (RFC 1123; `_` occurs in practice).
pub fn is_host(text: &str) -> bool {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return text.parse::<std::net::Ipv4Addr>().is_ok();
    }
    text.len() <= 253
        && text.trim_end_matches('.').split('.').all(|label| {
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
        })
}

/// `user` of RFC 3261 §25.1, with `:` for a password left out on purpose.
fn is_user(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_.!~*'()%&=+$,;?/#".contains(&byte)
}

fn is_param(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_.!~*'()%[]/:&+$\"".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_written_back() {
        for text in [
            "sip:example.com",
            "sip:600@example.com:5070;transport=tcp;lr",
            "sip:1001@[2001:db8::1]:5060",
            "sip:*43@10.0.0.1",
            "sip:a%20b@host;x-ast-orig-host=10.0.0.5:5062",
        ] {
            assert_eq!(text.parse::<SipUri>().unwrap().to_string(), text);
        }
        let uri: SipUri = "SIP:h;LR".parse().unwrap();
        assert_eq!(uri.param("lr"), Some(None));
        assert_eq!(uri.authority(), "h:5060");
        assert_eq!(
            "sip:[::1]:7".parse::<SipUri>().unwrap().address(),
            Some("[::1]:7".parse().unwrap())
        );
    }

    #[test]
    fn what_is_no_sip_uri_is_refused_by_its_bad_part() {
        let check = |text: &str, expected: &str| {
            assert_eq!(text.parse::<SipUri>().unwrap_err().to_string(), expected, "{text}");
        };
        check("10.0.0.1", "expected `sip:`, found `10.0.0.1`");
        check("tel:+1", "expected `sip:`, found `tel`");
        check("sips:host", "expected `sip:`, found `sips`");
        check("sip:", "bad host ``");
        check("sip:@host", "bad user part ``");
        check("sip:a b@host", "bad user part `a b`");
        check("sip:user:secret@host", "bad user part `user:secret`");
        check("sip:host:0", "bad port `0`: expected 1 to 65535");
        check("sip:host:65536", "bad port `65536`: expected 1 to 65535");
        check("sip:host:", "bad port ``: expected 1 to 65535");
        check("sip:host:+5", "bad port `+5`: expected 1 to 65535");
        check("sip:1.2.3.999", "bad host `1.2.3.999`");
        check("sip:ho st", "bad host `ho st`");
        check("sip:[::1", "bad host `[::1`");
        check("sip:[::1]x", "bad host `[::1]x`");
        check("sip:-a.example", "bad host `-a.example`");
        check("sip:host;", "bad parameter ``");
        check("sip:host;=x", "bad parameter `=x`");
        check("sip:host?subject=x", "bad parameter `?subject=x`");
        check("sip:host\r\nVia: x", "bad host `host\r\nVia: x`");
    }
}
