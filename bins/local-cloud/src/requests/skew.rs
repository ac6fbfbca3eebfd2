//! A signature counts for a few minutes around its time; so a host with a wrong clock is refused, as on AWS. Pure.
//!
//! Within five minutes in general, fifteen for S3 and by EC2's list of error codes ("Create a signed AWS API request",
//! IAM User Guide; "Error responses", S3 API reference; "Error codes", EC2 API reference: `RequestExpired`).

use axum::http::HeaderMap;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use url::form_urlencoded;

use super::protocol::{Protocol, ServiceError};

const MINUTE: i64 = 60;

/// The error of a signature whose time is not now; `None` when it is, or when there is none.
pub fn check(
    protocol: Protocol,
    headers: &HeaderMap,
    query: Option<&str>,
    now: Timestamp,
) -> Option<ServiceError> {
    if let Some(signed) = headers.get("x-amz-date").and_then(|value| value.to_str().ok()) {
        return check_header(protocol, signed, now);
    }
    let query = query.filter(|query| query.contains("X-Amz-Date="))?;
    let value = |wanted: &str| {
        form_urlencoded::parse(query.as_bytes())
            .find(|(name, _)| name == wanted)
            .map(|(_, value)| value.into_owned())
    };
    let (signed, valid): (_, i64) = (value("X-Amz-Date")?, value("X-Amz-Expires")?.parse().ok()?);
    let age = now.as_second() - time(&signed)?.as_second();
    if age > valid.max(0) {
        return Some(ServiceError::new(403, "AccessDenied", "Request has expired"));
    }
    let early = age < -15 * MINUTE;
    early.then(|| ServiceError::new(403, "AccessDenied", "Request is not valid yet"))
}

fn check_header(protocol: Protocol, signed: &str, now: Timestamp) -> Option<ServiceError> {
    let age = now.as_second() - time(signed)?.as_second();
    let off = age.abs();
    match protocol {
        Protocol::S3 if off > 15 * MINUTE => {
            let mut error = ServiceError::new(
                403,
                "RequestTimeTooSkewed",
                "The difference between the request time and the current time is too large.",
            );
            error.more = vec![
                ("RequestTime", signed.to_owned()),
                ("ServerTime", now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()),
                ("MaxAllowedSkewMilliseconds", "900000".to_owned()),
            ];
            Some(error)
        }
        Protocol::S3 => None,
        _ if off <= 5 * MINUTE => None,
        Protocol::Ec2 if off > 15 * MINUTE => {
            Some(ServiceError::new(400, "RequestExpired", "Request has expired."))
        }
        Protocol::Ec2 => Some(ServiceError::new(
            401,
            "AuthFailure",
            "AWS was not able to validate the provided access credentials",
        )),
        _ => {
            let text = |at: Timestamp| at.strftime("%Y%m%dT%H%M%SZ").to_string();
            let edge = |minutes: i64| {
                Timestamp::from_second(now.as_second() + minutes * MINUTE)
                    .map_or_else(|_| String::new(), text)
            };
            let message = if age > 0 {
                let (edge, now) = (edge(-5), text(now));
                format!("Signature expired: {signed} is now earlier than {edge} ({now} - 5 min.)")
            } else {
                let (edge, now) = (edge(5), text(now));
                format!(
                    "Signature not yet current: {signed} is still later than {edge} ({now} + 5 min.)"
                )
            };
            let (status, code) = match protocol {
                Protocol::Json => (400, "InvalidSignatureException"),
                Protocol::RestJson => (403, "InvalidSignatureException"),
                _ => (403, "SignatureDoesNotMatch"),
            };
            Some(ServiceError::new(status, code, message))
        }
    }
}

fn time(text: &str) -> Option<Timestamp> {
    let civil = DateTime::strptime("%Y%m%dT%H%M%SZ", text).ok()?;
    Some(civil.to_zoned(TimeZone::UTC).ok()?.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minutes: i64) -> Timestamp {
        Timestamp::from_second(1_767_225_600 + minutes * MINUTE).expect("in range")
    }

    /// Signed at 2026-01-01T00:00:00Z.
    const SIGNED: &str = "20260101T000000Z";

    #[test]
    fn a_signature_counts_around_its_time() {
        let check = |protocol, minutes, expected: Option<&str>| {
            let headers = HeaderMap::from_iter([(
                "x-amz-date".parse().expect("name"),
                SIGNED.parse().expect("value"),
            )]);
            let found = check(protocol, &headers, None, at(minutes));
            assert_eq!(found.map(|e| e.code).as_deref(), expected, "{protocol:?} {minutes}");
        };
        for minutes in [-5, 0, 5] {
            for protocol in [Protocol::Ec2, Protocol::Json, Protocol::Query, Protocol::S3] {
                check(protocol, minutes, None);
            }
        }
        for minutes in [-6, 6] {
            check(Protocol::Json, minutes, Some("InvalidSignatureException"));
            check(Protocol::Query, minutes, Some("SignatureDoesNotMatch"));
            check(Protocol::Ec2, minutes, Some("AuthFailure"));
            check(Protocol::S3, minutes, None);
        }
        for minutes in [-16, 16] {
            check(Protocol::Ec2, minutes, Some("RequestExpired"));
            check(Protocol::S3, minutes, Some("RequestTimeTooSkewed"));
        }
    }

    #[test]
    fn the_message_says_both_times() {
        let error = check_header(Protocol::Json, SIGNED, at(10)).expect("too old");
        assert_eq!(
            error.message,
            "Signature expired: 20260101T000000Z is now earlier than 20260101T000500Z (20260101T001000Z - 5 min.)"
        );
        let error = check_header(Protocol::Json, SIGNED, at(-10)).expect("too new");
        assert_eq!(
            error.message,
            "Signature not yet current: 20260101T000000Z is still later than 20251231T235500Z (20251231T235000Z + 5 min.)"
        );
    }

    #[test]
    fn a_presigned_address_counts_as_long_as_it_says() {
        let query = format!("X-Amz-Date={SIGNED}&X-Amz-Expires=600");
        let check = |minutes| {
            check(Protocol::S3, &HeaderMap::new(), Some(&query), at(minutes)).map(|e| e.message)
        };
        assert_eq!(check(9), None);
        assert_eq!(check(11).as_deref(), Some("Request has expired"));
        assert_eq!(check(-16).as_deref(), Some("Request is not valid yet"));
        assert_eq!(super::check(Protocol::S3, &HeaderMap::new(), Some("x=1"), at(0)), None);
    }
}
