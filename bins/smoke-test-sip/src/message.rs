//! SIP messages (RFC 3261 §7): read from datagrams and streams, written as bytes. Pure, and safe against hostile input:
//! every size is bounded, nothing is indexed without a check, what cannot be read is refused with a reason.
//!
//! Written here instead of taken from a crate: a client needs few headers, wants the rest as plain text for its trace,
//! and must bound what it accepts; that is less code than adapting a parser that reads everything.

use std::fmt::Write as _;

/// The largest message that is read or sent, head and body together. UDP cannot carry more.
pub const MAX_MESSAGE_BYTES: usize = 64 * 1024;
/// More header fields than this are taken for an attack.
const MAX_HEADERS: usize = 256;

/// The first line of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// `METHOD uri SIP/2.0`
    Request {
        /// The method, e.g. `INVITE`.
        method: String,
        /// The request's URI, as it stands.
        uri: String,
    },
    /// `SIP/2.0 code reason`
    Response {
        /// The status code, 100 to 699.
        code: u16,
        /// The reason phrase; may be empty.
        reason: String,
    },
}

/// A request or a response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The first line.
    pub start: Start,
    headers: Vec<(String, String)>,
    /// The body; empty when there is none.
    pub body: Vec<u8>,
}

/// Why bytes are no SIP message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub &'static str);

impl Message {
    /// A message without headers.
    pub fn new(start: Start) -> Self {
        Self { start, headers: Vec::new(), body: Vec::new() }
    }

    /// Adds a header field. Line breaks in it become spaces, so that no value can add another field.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        let value: String = value.into();
        self.headers.push((name.to_owned(), value.replace(['\r', '\n'], " ")));
        self
    }

    /// Sets the body and its type.
    #[must_use]
    pub fn with_body(self, content_type: &str, body: Vec<u8>) -> Self {
        Self { body, ..self.with("Content-Type", content_type) }
    }

    /// The first value of a header field, by its long name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// Every value of a header field, by its long name, one per line of the message.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.headers
            .iter()
            .filter(move |(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// The status code of a response.
    pub fn code(&self) -> Option<u16> {
        match self.start {
            Start::Response { code, .. } => Some(code),
            Start::Request { .. } => None,
        }
    }

    /// The method of a request.
    pub fn method(&self) -> Option<&str> {
        match &self.start {
            Start::Request { method, .. } => Some(method),
            Start::Response { .. } => None,
        }
    }

    /// Number and method of the `CSeq` header.
    pub fn cseq(&self) -> Option<(u32, &str)> {
        let (number, method) = self.header("CSeq")?.split_once([' ', '\t'])?;
        Some((number.trim().parse().ok()?, method.trim()))
    }

    /// Reads one datagram (RFC 3261 §18.3: bytes after the body are ignored, a missing part of it is an error).
    ///
    /// # Errors
    /// [`Malformed`] with the first reason found.
    pub fn parse(datagram: &[u8]) -> Result<Self, Malformed> {
        if datagram.len() > MAX_MESSAGE_BYTES {
            return Err(Malformed("larger than 64 KiB"));
        }
        let head_end = find_head_end(datagram).ok_or(Malformed("the header has no end"))?;
        let mut message = Self::parse_head(&datagram[..head_end])?;
        let rest = &datagram[head_end + 4..];
        let length = message.content_length()?.unwrap_or(rest.len());
        message.body =
            rest.get(..length).ok_or(Malformed("shorter than its Content-Length"))?.to_vec();
        Ok(message)
    }

    /// The bytes to send. `Content-Length` is added; header fields stand in the order in which they were added.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.head(|_, value| value).into_bytes();
        bytes.extend_from_slice(&self.body);
        bytes
    }

    /// The message for a trace: credentials are replaced, a body that is no text is left out.
    pub fn redacted(&self) -> String {
        let mut text = self.head(|name, value| match name.to_ascii_lowercase().as_str() {
            "authorization" | "proxy-authorization" => "Digest ***",
            _ => value,
        });
        match std::str::from_utf8(&self.body) {
            Ok(body) => text.push_str(body),
            Err(_) => text.push_str("(body is no text)"),
        }
        text
    }

    fn head<'a>(&'a self, show: impl Fn(&str, &'a str) -> &'a str) -> String {
        let mut text = match &self.start {
            Start::Request { method, uri } => format!("{method} {uri} SIP/2.0\r\n"),
            Start::Response { code, reason } => format!("SIP/2.0 {code} {reason}\r\n"),
        };
        for (name, value) in &self.headers {
            if !name.eq_ignore_ascii_case("Content-Length") {
                // Writing to a String cannot fail.
                let _ = write!(text, "{name}: {}\r\n", show(name, value));
            }
        }
        let _ = write!(text, "Content-Length: {}\r\n\r\n", self.body.len());
        text
    }

    fn content_length(&self) -> Result<Option<usize>, Malformed> {
        let mut found = None;
        for value in self.all("Content-Length") {
            let length = digits::<usize>(value).ok_or(Malformed("bad Content-Length"))?;
            if found.is_some_and(|other| other != length) {
                return Err(Malformed("two different Content-Lengths"));
            }
            found = Some(length);
        }
        Ok(found)
    }

    fn parse_head(head: &[u8]) -> Result<Self, Malformed> {
        let head = String::from_utf8_lossy(head);
        let mut lines = head.split("\r\n");
        let start = parse_start(lines.next().unwrap_or_default())?;
        let mut message = Self::new(start);
        for line in lines {
            if line.starts_with([' ', '\t']) {
                let (_, value) =
                    message.headers.last_mut().ok_or(Malformed("folded line without a header"))?;
                value.push(' ');
                value.push_str(line.trim());
                continue;
            }
            let (name, value) =
                line.split_once(':').ok_or(Malformed("header line without a colon"))?;
            let name = name.trim_end();
            if name.is_empty() || !name.bytes().all(is_token) {
                return Err(Malformed("bad header name"));
            }
            if message.headers.len() == MAX_HEADERS {
                return Err(Malformed("too many header fields"));
            }
            message.headers.push((long_name(name).to_owned(), value.trim().to_owned()));
        }
        message.check()?;
        Ok(message)
    }

    /// The fields that every message has (RFC 3261 §8.1.1 and §8.2.6.2), once each.
    fn check(&self) -> Result<(), Malformed> {
        let once = |name, missing| match self.all(name).count() {
            1 => Ok(()),
            0 => Err(Malformed(missing)),
            _ => Err(Malformed("a header field that may stand once stands twice")),
        };
        once("From", "no From")?;
        once("To", "no To")?;
        once("Call-ID", "no Call-ID")?;
        once("CSeq", "no CSeq")?;
        self.header("Via").ok_or(Malformed("no Via"))?;
        // A sequence number is below 2^31, RFC 3261 §8.1.1.5.
        let (_, method) =
            self.cseq().filter(|(number, _)| *number < 1 << 31).ok_or(Malformed("bad CSeq"))?;
        if self.method().is_some_and(|own| own != method) {
            return Err(Malformed("CSeq names another method than the request line"));
        }
        Ok(())
    }
}

/// Cuts a stream into messages by their `Content-Length` (RFC 3261 §18.3); empty lines between them are keep-alives
/// (RFC 5626 §4.4.1).
#[derive(Debug, Default)]
pub struct Framer {
    buffer: Vec<u8>,
}

impl Framer {
    /// Adds what was read from the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole message, if one is there.
    ///
    /// # Errors
    /// [`Malformed`]: where the next message begins is unknown now, so the stream is of no more use.
    pub fn take(&mut self) -> Result<Option<Message>, Malformed> {
        let blank = self.buffer.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        self.buffer.drain(..blank);
        let Some(head_end) = find_head_end(&self.buffer) else {
            return match self.buffer.len() > MAX_MESSAGE_BYTES {
                true => Err(Malformed("larger than 64 KiB")),
                false => Ok(None),
            };
        };
        let mut message = Message::parse_head(&self.buffer[..head_end])?;
        let length = message.content_length()?.ok_or(Malformed("no Content-Length on a stream"))?;
        let end = (head_end + 4).saturating_add(length);
        if end > MAX_MESSAGE_BYTES {
            return Err(Malformed("larger than 64 KiB"));
        }
        if self.buffer.len() < end {
            return Ok(None);
        }
        message.body = self.buffer[head_end + 4..end].to_vec();
        self.buffer.drain(..end);
        Ok(Some(message))
    }
}

fn find_head_end(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|window| window == b"\r\n\r\n")
}

fn parse_start(line: &str) -> Result<Start, Malformed> {
    if let Some(rest) = line.strip_prefix("SIP/2.0 ") {
        let (code, reason) = rest.split_once(' ').unwrap_or((rest, ""));
        let code = digits(code)
            .filter(|code| (100..700).contains(code))
            .ok_or(Malformed("bad status code"))?;
        return Ok(Start::Response { code, reason: reason.to_owned() });
    }
    let mut words = line.split(' ');
    match (words.next(), words.next(), words.next(), words.next()) {
        (Some(method), Some(uri), Some("SIP/2.0"), None)
            if !method.is_empty() && method.bytes().all(is_token) && !uri.is_empty() =>
        {
            Ok(Start::Request { method: method.to_owned(), uri: uri.to_owned() })
        }
        _ => Err(Malformed("bad first line")),
    }
}

fn digits<T: std::str::FromStr>(text: &str) -> Option<T> {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-.!%*_+`'~".contains(&byte)
}

/// Compact forms, RFC 3261 §7.3.3 and the IANA registry.
fn long_name(name: &str) -> &str {
    let [letter] = name.as_bytes() else { return name };
    match letter.to_ascii_lowercase() {
        b'c' => "Content-Type",
        b'e' => "Content-Encoding",
        b'f' => "From",
        b'i' => "Call-ID",
        b'k' => "Supported",
        b'l' => "Content-Length",
        b'm' => "Contact",
        b'o' => "Event",
        b's' => "Subject",
        b't' => "To",
        b'v' => "Via",
        b'x' => "Session-Expires",
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OK: &str = "SIP/2.0 200 OK\r\nv: SIP/2.0/UDP 10.0.0.1:5060;branch=z9hG4bKa\r\nf: <sip:a@b>;tag=1\r\n\
        t: <sip:a@b>\r\ni: x\r\nCSeq: 7 \tINVITE\r\nSubject: one\r\n  two\r\nl: 4\r\n\r\nbodyjunk";

    #[test]
    fn compact_names_folded_lines_and_bytes_after_the_body_are_understood() {
        let message = Message::parse(OK.as_bytes()).unwrap();
        assert_eq!(message.code(), Some(200));
        assert_eq!(message.cseq(), Some((7, "INVITE")));
        assert_eq!(message.header("call-id"), Some("x"));
        assert_eq!(message.header("Subject"), Some("one two"));
        assert_eq!(message.body, b"body");
        assert_eq!(Message::parse(&message.to_bytes()).unwrap().body, b"body");
    }

    #[test]
    fn what_is_no_message_is_refused_with_its_reason() {
        let check = |from: &str, to: &str, expected: &str| {
            let text = OK.replacen(from, to, 1);
            assert_ne!(text, OK);
            assert_eq!(Message::parse(text.as_bytes()).unwrap_err().0, expected);
        };
        check("SIP/2.0 200 OK", "SIP/2.0 2000 OK", "bad status code");
        check("SIP/2.0 200 OK", "SIP/2.0 099 OK", "bad status code");
        check("SIP/2.0 200 OK", "SIP/3.0 200 OK", "bad first line");
        check(
            "SIP/2.0 200 OK",
            "OPTIONS sip:a@b SIP/2.0",
            "CSeq names another method than the request line",
        );
        check("l: 4", "l: -4", "bad Content-Length");
        check("l: 4", "l: 9", "shorter than its Content-Length");
        check("l: 4", "l: 99999999999999999999999", "bad Content-Length");
        check("l: 4", "l: 4\r\nContent-Length: 5", "two different Content-Lengths");
        check("CSeq: 7", "CSeq: 4294967295", "bad CSeq");
        check("CSeq: 7 \tINVITE", "CSeq: INVITE", "bad CSeq");
        check("i: x", "i: x\r\nCall-ID: y", "a header field that may stand once stands twice");
        check("i: x\r\n", "", "no Call-ID");
        check("i: x", "i x", "header line without a colon");
        check("i: x", "i: x\r\nbad name: y", "bad header name");
        check("i: x", &format!("i: x{}", "\r\na: b".repeat(300)), "too many header fields");
        assert_eq!(Message::parse(&[b'a'; 70_000]).unwrap_err().0, "larger than 64 KiB");
    }

    #[test]
    fn a_stream_is_cut_where_messages_end_however_it_arrives() {
        let one = Message::parse(OK.as_bytes()).unwrap();
        let mut wire = b"\r\n\r\n".to_vec();
        wire.extend(one.to_bytes());
        wire.extend(b"\r\n");
        wire.extend(one.to_bytes());
        for size in [1, 2, 3, 7, 100, wire.len()] {
            let (mut framer, mut seen) = (Framer::default(), 0);
            for part in wire.chunks(size) {
                framer.push(part);
                while let Some(message) = framer.take().unwrap() {
                    assert_eq!(message.body, b"body");
                    seen += 1;
                }
            }
            assert_eq!(seen, 2);
        }
        let mut framer = Framer::default();
        framer.push(OK.replace("l: 4\r\n", "").as_bytes());
        assert!(framer.take().is_err());
    }

    #[test]
    fn no_damage_to_a_message_makes_the_parser_panic() {
        // A fixed linear congruential generator: the same damage in every run.
        let mut state: u64 = 42;
        let mut next = |below: usize| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(state >> 33).unwrap() % below
        };
        let odd = [
            b"\r\n".as_slice(),
            b"\0",
            b":",
            b" ",
            b"\xff\xfe",
            b"\r\n\r\n",
            b"\"",
            b"<",
            b";=,",
            b"999999999999",
        ];
        for _ in 0..50_000 {
            let mut bytes = OK.as_bytes().to_vec();
            for _ in 0..=next(4) {
                let at = next(bytes.len());
                match next(3) {
                    0 => bytes.truncate(at + 1),
                    1 => bytes[at] = u8::try_from(next(256)).unwrap(),
                    _ => drop(bytes.splice(at..at, odd[next(odd.len())].iter().copied())),
                }
            }
            if let Ok(message) = Message::parse(&bytes) {
                for value in message.headers.iter().map(|(_, value)| value.as_str()) {
                    let _ = crate::header::NameAddr::parse(value);
                    let _ = crate::header::split_commas(value);
                    let _ = crate::header::Via::parse(value);
                    let _ = crate::digest::choose(&[value]);
                }
                let _ = crate::sdp::Answer::parse(&message.body);
            }
            let mut framer = Framer::default();
            framer.push(&bytes);
            while let Ok(Some(_)) = framer.take() {}
        }
    }

    #[test]
    fn a_value_cannot_smuggle_a_header_and_credentials_do_not_show() {
        let start = Start::Request { method: "OPTIONS".into(), uri: "sip:a".into() };
        let message = Message::new(start)
            .with("Subject", "a\r\nEvil: b")
            .with("Authorization", "Digest secret");
        assert!(
            !message.redacted().contains("secret") && message.redacted().contains("Digest ***")
        );
        assert!(String::from_utf8(message.to_bytes()).unwrap().contains("Subject: a  Evil: b\r\n"));
    }
}
