//! Digest access authentication for SIP: reads challenges, picks one, computes the response. Pure.
//!
//! RFC 7616 (the scheme), RFC 8760 (SHA-256 and SHA-512/256 in SIP), RFC 2617 (MD5, `qop` absent). Computed here and
//! not by a SIP crate, because those that were tried compute `-sess` wrongly, refuse `algorithm=SHA-256`, or panic on
//! a hostile challenge. `auth-int` is left out: no phone needs it, and a list that also offers `auth` is served.

use md5::Md5;
use sha2::{Digest as _, Sha256, Sha512_256};

/// A hash that a challenge may ask for, weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hash {
    /// MD5, RFC 2617.
    Md5,
    /// SHA-256, RFC 8760.
    Sha256,
    /// SHA-512/256, RFC 8760.
    Sha512256,
}

impl Hash {
    fn hex(self, text: &str) -> String {
        match self {
            Self::Md5 => hex::encode(Md5::digest(text)),
            Self::Sha256 => hex::encode(Sha256::digest(text)),
            Self::Sha512256 => hex::encode(Sha512_256::digest(text)),
        }
    }
}

/// One `Digest` challenge of a `WWW-Authenticate` or `Proxy-Authenticate` header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    /// The protection space, as it stands between the quotes.
    pub realm: String,
    /// The server's nonce, as it stands between the quotes.
    pub nonce: String,
    /// To be sent back unchanged.
    pub opaque: Option<String>,
    /// The server says that only the nonce was too old.
    pub stale: bool,
    /// The word to repeat in the answer; `None` when the challenge had none, which means MD5.
    pub algorithm: Option<String>,
    hash: Hash,
    session: bool,
    /// `qop=auth` is offered; otherwise the challenge has no `qop` and the form of RFC 2069 is used.
    qop_auth: bool,
}

/// Why no challenge of a response can be answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// The response has no challenge at all.
    #[error("the response asks for credentials without a challenge")]
    Missing,
    /// The challenges use another scheme, an unknown algorithm or only `auth-int`.
    #[error("no supported digest challenge among: {0}")]
    Unsupported(String),
}

/// Reads every usable `Digest` challenge of these header values, in their order.
pub fn challenges<'a>(values: impl IntoIterator<Item = &'a str>) -> Vec<Challenge> {
    values
        .into_iter()
        .flat_map(split_challenges)
        .filter_map(|raw| Challenge::from_raw(&raw))
        .collect()
}

/// The strongest usable challenge; of equally strong ones the first (RFC 8760 §2.4 lets the server order them).
///
/// # Errors
/// [`Unusable`] names what was offered instead.
pub fn choose(values: &[&str]) -> Result<Challenge, Unusable> {
    if values.is_empty() {
        return Err(Unusable::Missing);
    }
    let mut best: Option<Challenge> = None;
    for challenge in challenges(values.iter().copied()) {
        if best.as_ref().is_none_or(|best| challenge.hash > best.hash) {
            best = Some(challenge);
        }
    }
    best.ok_or_else(|| {
        let offered: Vec<String> = values
            .iter()
            .flat_map(|value| split_challenges(value))
            .map(|raw| {
                let find = |name: &str| raw.find(name).unwrap_or_default();
                format!("{} algorithm={} qop={}", raw.scheme, find("algorithm"), find("qop"))
            })
            .collect();
        Unusable::Unsupported(offered.join(", "))
    })
}

/// Who answers a challenge, and for which request.
#[derive(Debug, Clone, Copy)]
pub struct Answer<'a> {
    /// The user name of the account.
    pub user: &'a str,
    /// Its password.
    pub password: &'a str,
    /// The request's method.
    pub method: &'a str,
    /// The request's URI, exactly as in the request line.
    pub uri: &'a str,
    /// A fresh random word.
    pub cnonce: &'a str,
    /// How often this nonce has been used, this time included.
    pub count: u32,
}

impl Challenge {
    /// The name of the algorithm, for people.
    pub fn algorithm_name(&self) -> &str {
        self.algorithm.as_deref().unwrap_or("MD5")
    }

    /// The value of the `Authorization` or `Proxy-Authorization` header.
    pub fn authorization(&self, answer: &Answer<'_>) -> String {
        let response = self.response(answer);
        let mut value = format!(
            "Digest username=\"{}\", realm=\"{}\", nonce=\"{}\", uri=\"{}\", response=\"{response}\"",
            answer.user, self.realm, self.nonce, answer.uri
        );
        if let Some(algorithm) = &self.algorithm {
            value.push_str(&format!(", algorithm={algorithm}"));
        }
        if let Some(opaque) = &self.opaque {
            value.push_str(&format!(", opaque=\"{opaque}\""));
        }
        if self.qop_auth {
            value.push_str(&format!(", qop=auth, nc={:08x}", answer.count));
        }
        if self.qop_auth || self.session {
            value.push_str(&format!(", cnonce=\"{}\"", answer.cnonce));
        }
        value
    }

    /// The response of RFC 7616 §3.4.1; without `qop` that of RFC 2069, as §3.4.1 of RFC 2617 keeps it.
    fn response(&self, answer: &Answer<'_>) -> String {
        let Answer { user, password, method, uri, cnonce, count } = answer;
        let (hash, nonce) = (self.hash, &self.nonce);
        let mut secret = hash.hex(&format!("{user}:{}:{password}", self.realm));
        if self.session {
            secret = hash.hex(&format!("{secret}:{nonce}:{cnonce}"));
        }
        let request = hash.hex(&format!("{method}:{uri}"));
        if self.qop_auth {
            hash.hex(&format!("{secret}:{nonce}:{count:08x}:{cnonce}:auth:{request}"))
        } else {
            hash.hex(&format!("{secret}:{nonce}:{request}"))
        }
    }

    fn from_raw(raw: &Raw) -> Option<Self> {
        if !raw.scheme.eq_ignore_ascii_case("Digest") {
            return None;
        }
        let algorithm = raw.find("algorithm").filter(|word| !word.is_empty());
        let name = algorithm.map_or("MD5".to_owned(), str::to_ascii_uppercase);
        let (name, session) = match name.strip_suffix("-SESS") {
            Some(name) => (name, true),
            None => (name.as_str(), false),
        };
        let hash = match name {
            "MD5" => Hash::Md5,
            "SHA-256" => Hash::Sha256,
            "SHA-512-256" => Hash::Sha512256,
            _ => return None,
        };
        let qop: Option<Vec<&str>> = raw
            .find("qop")
            .map(|list| list.split(',').map(str::trim).filter(|word| !word.is_empty()).collect());
        let qop_auth = match qop {
            None => false,
            Some(list) if list.is_empty() => false,
            Some(list) if list.iter().any(|word| word.eq_ignore_ascii_case("auth")) => true,
            Some(_) => return None,
        };
        Some(Self {
            realm: raw.find("realm")?.to_owned(),
            nonce: raw.find("nonce")?.to_owned(),
            opaque: raw.find("opaque").map(str::to_owned),
            stale: raw.find("stale").is_some_and(|word| word.eq_ignore_ascii_case("true")),
            algorithm: algorithm.filter(|word| word.bytes().all(is_token)).map(str::to_owned),
            hash,
            session,
            qop_auth,
        })
    }
}

/// A challenge as it was sent: scheme and parameters, quotes removed, escapes kept.
#[derive(Debug)]
struct Raw {
    scheme: String,
    params: Vec<(String, String)>,
}

impl Raw {
    fn find(&self, name: &str) -> Option<&str> {
        let mut found = self.params.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name));
        found.next().map(|(_, value)| value.as_str())
    }
}

/// Splits one header value into its challenges. SIP wants one per header (RFC 3261 §20.44), HTTP allows several;
/// both are read. What cannot be read ends the list.
fn split_challenges(value: &str) -> Vec<Raw> {
    let mut out: Vec<Raw> = Vec::new();
    let mut rest = value.trim_start();
    while !rest.is_empty() {
        let (word, after) = take_token(rest);
        if word.is_empty() {
            break;
        }
        let after_space = after.trim_start();
        if let Some(tail) = after_space.strip_prefix('=') {
            let Some(current) = out.last_mut() else { break };
            let Some((text, tail)) = take_value(tail.trim_start()) else { break };
            current.params.push((word.to_owned(), text.to_owned()));
            rest = tail.trim_start();
        } else {
            out.push(Raw { scheme: word.to_owned(), params: Vec::new() });
            rest = after_space;
        }
        rest = rest.trim_start_matches(|c: char| c == ',' || c.is_whitespace());
    }
    out
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-.!%*_+`'~".contains(&byte)
}

fn take_token(text: &str) -> (&str, &str) {
    let end = text.bytes().position(|byte| !is_token(byte)).unwrap_or(text.len());
    // Every token byte is ASCII, so `end` is a character boundary.
    text.split_at(end)
}

/// A token or a quoted string; the inside of the quotes as it stands.
fn take_value(text: &str) -> Option<(&str, &str)> {
    let Some(inner) = text.strip_prefix('"') else {
        // Some servers leave out the quotes around values that are no tokens.
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        return Some(text.split_at(end));
    };
    let mut escaped = false;
    for (at, c) in inner.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return Some((&inner[..at], &inner[at + 1..])),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(challenge: &str, answer: Answer<'_>) -> String {
        let value = choose(&[challenge]).unwrap().authorization(&answer);
        let at = value.find("response=\"").unwrap() + 10;
        value[at..].split('"').next().unwrap().to_owned()
    }

    const MUFASA: Answer<'_> = Answer {
        user: "Mufasa",
        password: "Circle Of Life",
        method: "GET",
        uri: "/dir/index.html",
        cnonce: "0a4f113b",
        count: 1,
    };

    #[test]
    fn the_example_of_rfc_2617_comes_out() {
        let challenge = r#"Digest realm="testrealm@host.com", qop="auth,auth-int",
            nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093", opaque="5ccc069c403ebaf9f0171e9517f40e41""#;
        assert_eq!(response(challenge, MUFASA), "6629fae49393a05397450978507c4ef1");
    }

    #[test]
    fn the_example_of_rfc_2069_comes_out_with_the_response_of_its_erratum() {
        // RFC 2069 errata 749 corrects the printed response.
        let challenge =
            r#"Digest realm="testrealm@host.com", nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093""#;
        let answer = Answer { password: "CircleOfLife", ..MUFASA };
        assert_eq!(response(challenge, answer), "1949323746fe6a43ef61f9606e7febea");
    }

    #[test]
    fn the_examples_of_rfc_7616_come_out() {
        let check = |algorithm: &str, expected: &str| {
            let challenge = format!(
                r#"Digest realm="http-auth@example.org", qop="auth, auth-int", algorithm={algorithm}, nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS""#
            );
            let cnonce = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ";
            let answer = Answer { password: "Circle of Life", cnonce, ..MUFASA };
            assert_eq!(response(&challenge, answer), expected);
        };
        check("MD5", "8ca523f5e9506fed4657c9700eebdbec");
        check("SHA-256", "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1");
    }

    #[test]
    fn a_session_key_is_bound_to_nonce_and_cnonce() {
        // H(H(user:realm:password):nonce:cnonce), RFC 7616 §3.4.2, against the same formula written out by hand.
        let challenge = r#"Digest realm="r", nonce="n", algorithm=MD5-sess, qop="auth""#;
        let md5 = |text: &str| hex::encode(Md5::digest(text));
        let ha1 = md5(&format!("{}:n:0a4f113b", md5("Mufasa:r:Circle Of Life")));
        let expected =
            md5(&format!("{ha1}:n:00000001:0a4f113b:auth:{}", md5("GET:/dir/index.html")));
        assert_eq!(response(challenge, MUFASA), expected);
    }

    #[test]
    fn the_strongest_known_challenge_is_answered_and_the_others_are_passed_over() {
        let check = |values: &[&str], expected: Option<&str>| {
            let chosen = choose(values).ok();
            assert_eq!(chosen.as_ref().map(Challenge::algorithm_name), expected);
        };
        let md5 = r#"Digest realm="r", nonce="1", algorithm=MD5"#;
        let sha = r#"Digest realm="r", nonce="2", algorithm=SHA-256, qop="auth""#;
        let sha512 = r#"Digest realm="r", nonce="3", algorithm="SHA-512-256""#;
        let unknown = r#"Digest realm="r", nonce="4", algorithm=AKAv1-MD5"#;
        let bearer = r#"Bearer realm="r""#;
        check(&[md5, sha, unknown], Some("SHA-256"));
        check(&[md5, sha, sha512], Some("SHA-512-256"));
        check(&[bearer, unknown, md5], Some("MD5"));
        check(&[r#"Digest realm="r", nonce="5""#], Some("MD5"));
        check(&[&format!("{md5}, {sha}")], Some("SHA-256"));
        check(&[bearer, unknown], None);
        check(&[r#"Digest realm="r", nonce="6", qop="auth-int""#], None);
        check(&[r#"Digest realm="r""#], None);
        check(&[], None);
    }

    #[test]
    fn opaque_comes_back_even_when_empty_and_qop_only_when_asked() {
        let answer = choose(&[r#"Digest realm="r",nonce="n",opaque="",stale=TRUE"#]).unwrap();
        assert!(answer.stale);
        let value = answer.authorization(&MUFASA);
        assert!(value.contains("opaque=\"\""), "{value}");
        assert!(
            !value.contains("qop") && !value.contains("cnonce") && !value.contains("nc="),
            "{value}"
        );
        assert!(!value.contains("algorithm"), "{value}");
    }

    #[test]
    fn hostile_challenges_neither_panic_nor_loop() {
        let seeds = [
            r#"Digest realm="a\"b", nonce="c", qop="auth", algorithm=MD5-"#,
            "é=\"",
            "Digest ,,,=,\"",
            "=\"\\",
        ];
        for seed in seeds {
            for end in 0..=seed.len() {
                let text = String::from_utf8_lossy(&seed.as_bytes()[..end]).into_owned();
                let _ = choose(&[&text, &text.repeat(3)]);
            }
        }
    }
}
