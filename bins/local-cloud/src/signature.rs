//! Signature Version 4 of requests, as a service reads it. Pure.
//!
//! After "Create a signed AWS API request" (IAM User Guide) and "Authenticating Requests: Using Query Parameters" (S3 API
//! reference). The arithmetic of keys and signatures is that of the crate `aws-sigv4`. What the chunks of a signed
//! stream (`STREAMING-AWS4-HMAC-SHA256-PAYLOAD`) carry besides is not checked: the request they belong to is.

use std::time::SystemTime;

use axum::http::{HeaderMap, Method, header};
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use sha2::{Digest as _, Sha256};
use url::form_urlencoded;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
/// The digest that stands for "the body is not signed".
const UNSIGNED: &str = "UNSIGNED-PAYLOAD";

/// What a caller says of its signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// The access key.
    pub access_key: String,
    /// `YYYYMMDD` of the credential scope.
    date: String,
    region: String,
    /// The signing name of the service.
    pub service: String,
    /// Names of the headers that are signed, in lower case.
    headers: Vec<String>,
    signature: String,
    /// When it was signed, as in `X-Amz-Date`.
    time: String,
    /// The token of temporary credentials.
    pub token: Option<String>,
    /// Whether it stands in the query: a presigned address.
    pub presigned: bool,
}

/// Why what a caller says cannot be a signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unsigned {
    /// There is none.
    Missing,
    /// It is of another kind than Signature Version 4.
    Unknown,
    /// It is not whole; what is missing or wrong.
    Malformed(String),
}

/// Reads the signature of a request: of the `Authorization` header, else of the query.
///
/// # Errors
/// When there is none that can be checked.
pub fn read(headers: &HeaderMap, query: Option<&str>) -> Result<Signed, Unsigned> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(value) = headers.get(header::AUTHORIZATION) {
        let value = value.to_str().map_err(|_| malformed("the Authorization header"))?;
        let Some(fields) = value.strip_prefix(ALGORITHM) else { return Err(Unsigned::Unknown) };
        let field = |name: &str| {
            fields
                .split(',')
                .filter_map(|field| field.trim().split_once('='))
                .find(|(found, _)| *found == name)
                .map(|(_, value)| value.trim().to_owned())
                .ok_or_else(|| malformed(name))
        };
        let time = text("x-amz-date").ok_or_else(|| malformed("X-Amz-Date"))?.to_owned();
        let token = text("x-amz-security-token").map(str::to_owned);
        return assemble(
            &field("Credential")?,
            &field("SignedHeaders")?,
            field("Signature")?,
            time,
            token,
            false,
        );
    }
    let Some(query) = query.filter(|query| query.contains("X-Amz-Signature=")) else {
        return Err(Unsigned::Missing);
    };
    let field = |wanted: &str| {
        form_urlencoded::parse(query.as_bytes())
            .find(|(name, _)| name == wanted)
            .map(|(_, value)| value.into_owned())
    };
    let needed = |name: &str| field(name).ok_or_else(|| malformed(name));
    if needed("X-Amz-Algorithm")? != ALGORITHM {
        return Err(Unsigned::Unknown);
    }
    // Without it the address would be good for ever.
    needed("X-Amz-Expires")?;
    assemble(
        &needed("X-Amz-Credential")?,
        &needed("X-Amz-SignedHeaders")?,
        needed("X-Amz-Signature")?,
        needed("X-Amz-Date")?,
        field("X-Amz-Security-Token"),
        true,
    )
}

fn malformed(what: &str) -> Unsigned {
    Unsigned::Malformed(what.to_owned())
}

fn assemble(
    credential: &str,
    names: &str,
    signature: String,
    time: String,
    token: Option<String>,
    presigned: bool,
) -> Result<Signed, Unsigned> {
    let wrong = || malformed("Credential");
    let mut parts = credential.rsplitn(5, '/');
    let mut next = || parts.next().filter(|part| !part.is_empty()).ok_or_else(wrong);
    if next()? != "aws4_request" {
        return Err(wrong());
    }
    let (service, region, date, access_key) = (next()?, next()?, next()?, next()?);
    let headers: Vec<String> = names.split(';').map(str::to_ascii_lowercase).collect();
    if !headers.iter().any(|name| name == "host") {
        return Err(malformed("SignedHeaders: `host` must be signed"));
    }
    // A date that the signature does not cover could be any.
    if !presigned && !headers.iter().any(|name| name == "x-amz-date") {
        return Err(malformed("SignedHeaders: `x-amz-date` must be signed"));
    }
    if !time.starts_with(date) || seconds(&time).is_none() {
        return Err(malformed("X-Amz-Date"));
    }
    Ok(Signed {
        access_key: access_key.to_owned(),
        date: date.to_owned(),
        region: region.to_owned(),
        service: service.to_owned(),
        headers,
        signature,
        time,
        token,
        presigned,
    })
}

/// What is signed of a request.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Its method.
    pub method: &'a Method,
    /// Its path as it came.
    pub path: &'a str,
    /// Its query as it came.
    pub query: Option<&'a str>,
    /// Its headers.
    pub headers: &'a HeaderMap,
}

impl Signed {
    /// The digest of the body that S3's callers sign, as it stands in the request: 64 digits, or a word such as
    /// `UNSIGNED-PAYLOAD`. Presigned addresses sign no body.
    pub fn stated_digest(&self, headers: &HeaderMap) -> Option<String> {
        if self.presigned {
            return Some(UNSIGNED.to_owned());
        }
        let value = headers.get("x-amz-content-sha256")?;
        Some(value.to_str().ok()?.to_owned())
    }

    /// Whether whoever knows this secret signed this request with a body of this digest.
    pub fn is_by(&self, secret: &str, request: Request<'_>, digest: &str) -> bool {
        let Some(seconds) = seconds(&self.time) else { return false };
        let time = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
        let key =
            aws_sigv4::sign::v4::generate_signing_key(secret, time, &self.region, &self.service);
        let scope = format!("{}/{}/{}/aws4_request", self.date, self.region, self.service);
        paths(&self.service, request.path).iter().any(|path| {
            let canonical = self.canonical(request, path, digest);
            let hashed = hex::encode(Sha256::digest(canonical.as_bytes()));
            let text = format!("{ALGORITHM}\n{}\n{scope}\n{hashed}", self.time);
            let own = aws_sigv4::sign::v4::calculate_signature(&key, text.as_bytes());
            same(own.as_bytes(), self.signature.as_bytes())
        })
    }

    fn canonical(&self, request: Request<'_>, path: &str, digest: &str) -> String {
        let mut text = format!("{}\n{path}\n{}\n", request.method, self.query(request.query));
        for name in &self.headers {
            let values: Vec<String> = request
                .headers
                .get_all(name.as_str())
                .iter()
                .map(|value| {
                    let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
                    value.split_whitespace().collect::<Vec<_>>().join(" ")
                })
                .collect();
            text.push_str(&format!("{name}:{}\n", values.join(",")));
        }
        text.push_str(&format!("\n{}\n{digest}", self.headers.join(";")));
        text
    }

    fn query(&self, query: Option<&str>) -> String {
        let mut pairs: Vec<(String, String)> = query
            .unwrap_or_default()
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
            .map(|(name, value)| (encode(&decode(name), ""), encode(&decode(value), "")))
            .filter(|(name, _)| !(self.presigned && name == "X-Amz-Signature"))
            .collect();
        pairs.sort();
        let pairs: Vec<String> =
            pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
        pairs.join("&")
    }
}

/// The forms in which a caller may have signed a path: S3's is encoded once, the others' once more, after dots and
/// double slashes went; clients differ in what they encode on the way.
fn paths(service: &str, path: &str) -> Vec<String> {
    let path = if path.is_empty() { "/" } else { path };
    let mut found = if service == "s3" || service == "s3express" {
        vec![path.to_owned(), encode(&decode(path), "/")]
    } else {
        vec![encode(tidied(path).as_bytes(), "/"), encode(path.as_bytes(), "/"), path.to_owned()]
    };
    found.dedup();
    found
}

/// A path without `.`, `..` and empty parts (RFC 3986, 5.2.4).
fn tidied(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    let end = if path.ends_with('/') && !parts.is_empty() { "/" } else { "" };
    format!("/{}{end}", parts.join("/"))
}

/// Percent-encoding of all but the unreserved characters (RFC 3986, 2.3) and those given.
fn encode(bytes: &[u8], kept: &str) -> String {
    let mut text = String::with_capacity(bytes.len());
    for byte in bytes {
        let c = char::from(*byte);
        if c.is_ascii_alphanumeric() || "-._~".contains(c) || kept.contains(c) {
            text.push(c);
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}

fn decode(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let digits = (*byte == b'%').then(|| bytes.get(at + 1..at + 3)).flatten();
        let hex = digits
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match hex {
            Some(value) => {
                decoded.push(value);
                at += 3;
            }
            None => {
                decoded.push(*byte);
                at += 1;
            }
        }
    }
    decoded
}

/// The seconds since 1970 of a time such as `20260101T000000Z`.
fn seconds(text: &str) -> Option<u64> {
    let civil = DateTime::strptime("%Y%m%dT%H%M%SZ", text).ok()?;
    let time: Timestamp = civil.to_zoned(TimeZone::UTC).ok()?.timestamp();
    u64::try_from(time.as_second()).ok()
}

/// Whether two texts are the same; takes the same time wherever they differ.
pub fn same(own: &[u8], given: &[u8]) -> bool {
    let differ = own.iter().zip(given).fold(0_u8, |differ, (a, b)| differ | (a ^ b));
    !own.is_empty() && own.len() == given.len() && std::hint::black_box(differ) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of "Create a signed AWS API request" and of AWS's test suite for Signature Version 4 (`get-vanilla`).
    const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
    const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(n, v)| (n.parse().expect("name"), v.parse().expect("value"))).collect()
    }

    fn suite(signed: &str, signature: &str) -> HeaderMap {
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, \
             SignedHeaders={signed}, Signature={signature}"
        );
        headers(&[
            ("host", "example.amazonaws.com"),
            ("x-amz-date", "20150830T123600Z"),
            ("authorization", &authorization),
        ])
    }

    #[test]
    fn requests_of_the_test_suite_of_aws_are_good() {
        let check = |path: &str, query: Option<&str>, signature: &str| {
            let headers = suite("host;x-amz-date", signature);
            let signed = read(&headers, query).expect("signed");
            let request = Request { method: &Method::GET, path, query, headers: &headers };
            assert!(signed.is_by(SECRET, request, EMPTY), "{path} {query:?}");
            assert!(!signed.is_by("another", request, EMPTY), "{path} {query:?}");
            let other = Request { method: &Method::POST, ..request };
            assert!(!signed.is_by(SECRET, other, EMPTY), "{path} {query:?}");
        };
        // get-vanilla, get-vanilla-query-order-key-case, get-utf8, get-relative, get-space.
        check("/", None, "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31");
        check(
            "/",
            Some("Param2=value2&Param1=value1"),
            "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
        );
    }

    #[test]
    fn what_is_no_whole_signature_is_told() {
        let check = |authorization: Option<&str>, query: Option<&str>, expected: &Unsigned| {
            let mut all = headers(&[("host", "h"), ("x-amz-date", "20150830T123600Z")]);
            if let Some(value) = authorization {
                all.insert(header::AUTHORIZATION, value.parse().expect("value"));
            }
            assert_eq!(read(&all, query).as_ref(), Err(expected), "{authorization:?} {query:?}");
        };
        check(None, None, &Unsigned::Missing);
        check(None, Some("Action=DescribeVpcs&X-Amz-Credential=x"), &Unsigned::Missing);
        check(Some("AWS AKID:sig"), None, &Unsigned::Unknown);
        check(Some("Bearer x"), None, &Unsigned::Unknown);
        let scope = "Credential=k/20150830/us-east-1/ec2/aws4_request";
        check(
            Some(&format!("AWS4-HMAC-SHA256 {scope}, SignedHeaders=host;x-amz-date")),
            None,
            &malformed("Signature"),
        );
        check(
            Some(&format!("AWS4-HMAC-SHA256 {scope}, SignedHeaders=x-amz-date, Signature=0")),
            None,
            &malformed("SignedHeaders: `host` must be signed"),
        );
        check(
            Some(
                "AWS4-HMAC-SHA256 Credential=k/20150831/us-east-1/ec2/aws4_request, \
                 SignedHeaders=host;x-amz-date, Signature=0",
            ),
            None,
            &malformed("X-Amz-Date"),
        );
    }

    #[test]
    fn paths_and_queries_are_written_as_they_were_signed() {
        assert_eq!(
            paths("ec2", "/a/../b//c%20d"),
            ["/b/c%2520d", "/a/../b//c%2520d", "/a/../b//c%20d"]
        );
        assert_eq!(paths("s3", "/b/../k+%20"), ["/b/../k+%20", "/b/../k%2B%20"]);
        assert_eq!(paths("s3", "/"), ["/"]);
        assert_eq!(tidied("/a/b/"), "/a/b/");
        assert_eq!(decode("%zz%4"), b"%zz%4");
    }
}
