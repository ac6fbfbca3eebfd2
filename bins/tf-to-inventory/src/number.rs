//! Numbers that a 64-bit number does not hold keep their digits.
//!
//! Terraform counts with 512 bits, and Python with as many as it takes: `123456789012345678901234567890` and a third with 155
//! digits have to pass between them. Where a document holds such numbers where they matter, it is read once more with each
//! of them as a text behind a mark. The mark is drawn anew in every process, so that no document can hold it; what is
//! written has the digits alone.

use serde::de::IgnoredAny;
use serde_json::ser::{CharEscape, Formatter, PrettyFormatter};
use serde_json::{Number, Value};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, Write};
use std::sync::LazyLock;

static MARK: LazyLock<String> =
    LazyLock::new(|| format!("\u{f8ff}{:016x}:", RandomState::new().build_hasher().finish()));

/// The digits, when a text is such a number.
pub(crate) fn digits(text: &str) -> Option<&str> {
    text.strip_prefix(MARK.as_str())
}

/// A text for people, whatever it holds.
pub(crate) fn plain(text: &str) -> String {
    text.replace(MARK.as_str(), "")
}

/// Whether a value holds a number that may have lost digits.
pub(crate) fn is_rounded(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.is_f64(),
        Value::Array(items) => items.iter().any(is_rounded),
        Value::Object(members) => members.values().any(is_rounded),
        Value::Null | Value::Bool(_) | Value::String(_) => false,
    }
}

/// The document with every number as a marked text that would not be written as it is read.
pub(crate) fn marked(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let (mut at, mut in_string) = (0, false);
    while let Some(&byte) = bytes.get(at) {
        let is_number = !in_string && (byte == b'-' || byte.is_ascii_digit());
        let length = match byte {
            b'\\' if in_string => 2,
            _ if is_number => bytes[at..].iter().take_while(|byte| is_part(**byte)).count(),
            _ => 1,
        };
        in_string ^= byte == b'"';
        let end = (at + length).min(bytes.len());
        let token = &bytes[at..end];
        match std::str::from_utf8(token) {
            Ok(text) if is_number && loses_digits(text) => {
                out.push(b'"');
                out.extend_from_slice(MARK.as_bytes());
                out.extend_from_slice(token);
                out.push(b'"');
            }
            _ => out.extend_from_slice(token),
        }
        at = end;
    }
    out
}

fn is_part(byte: u8) -> bool {
    byte.is_ascii_digit() || matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E')
}

fn loses_digits(text: &str) -> bool {
    if text.parse::<i64>().is_ok() || text.parse::<u64>().is_ok() {
        return false;
    }
    // `1e16` and `1e+16` are one spelling.
    let spelled = |text: &str| text.to_ascii_lowercase().replace("e+", "e");
    let float = text.parse::<f64>().ok().and_then(Number::from_f64);
    float.is_some_and(|float| spelled(&float.to_string()) != spelled(text))
        && serde_json::from_str::<IgnoredAny>(text).is_ok()
}

/// Writes JSON as [`PrettyFormatter`] does, and marked numbers as numbers.
#[derive(Default)]
pub(crate) struct Pretty {
    layout: PrettyFormatter<'static>,
    /// A text has begun of which nothing is written.
    begun: bool,
    /// What is written is a number.
    number: bool,
}

impl Pretty {
    fn quote<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        if std::mem::take(&mut self.begun) { writer.write_all(b"\"") } else { Ok(()) }
    }
}

impl Formatter for Pretty {
    fn begin_string<W: ?Sized + Write>(&mut self, _: &mut W) -> io::Result<()> {
        self.begun = true;
        Ok(())
    }

    fn write_string_fragment<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        if let Some(digits) = digits(fragment).filter(|_| self.begun) {
            (self.begun, self.number) = (false, true);
            return writer.write_all(digits.as_bytes());
        }
        self.quote(writer)?;
        writer.write_all(fragment.as_bytes())
    }

    fn write_char_escape<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        escape: CharEscape,
    ) -> io::Result<()> {
        self.quote(writer)?;
        self.layout.write_char_escape(writer, escape)
    }

    fn end_string<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        if std::mem::take(&mut self.number) {
            return Ok(());
        }
        self.quote(writer)?;
        writer.write_all(b"\"")
    }

    fn begin_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.layout.begin_array(writer)
    }

    fn end_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.layout.end_array(writer)
    }

    fn begin_array_value<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> io::Result<()> {
        self.layout.begin_array_value(writer, first)
    }

    fn end_array_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.layout.end_array_value(writer)
    }

    fn begin_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.layout.begin_object(writer)
    }

    fn end_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.layout.end_object(writer)
    }

    fn begin_object_key<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> io::Result<()> {
        self.layout.begin_object_key(writer, first)
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.layout.begin_object_value(writer)
    }

    fn end_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.layout.end_object_value(writer)
    }
}

#[cfg(test)]
mod tests {
    use super::{marked, plain};

    #[test]
    fn only_what_would_lose_digits_is_marked() {
        let text =
            r#"{"a":[1,-2,18446744073709551615,2.5,1e16],"b":"18446744073709551616 \" 1.50"}"#;
        assert_eq!(marked(text.as_bytes()), text.as_bytes());
        let text = r#"[18446744073709551616,-9223372036854775809,0.1234567890123456789,1.50,--1]"#;
        let found = String::from_utf8(marked(text.as_bytes())).unwrap();
        assert_eq!(
            plain(&found),
            r#"["18446744073709551616","-9223372036854775809","0.1234567890123456789","1.50",--1]"#
        );
    }
}
