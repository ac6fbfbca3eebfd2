//! What a person or a program asks for: a fault with its scope. Every mistake is named by its field.

use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::kind::{Area, KINDS, Kind, Parameter};
use crate::hosts::HostInfo;
use crate::requests::action::signing_name;

/// A fault as it is asked for. The JSON of the control API; durations there are texts such as `90s`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Spec {
    /// What goes wrong.
    pub kind: Kind,
    /// Signing name of the service, e.g. `ec2`; every service when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Pattern of the operation, with `*` and `?`, in any case; every operation when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<String>,
    /// `Name` tag, instance id or `tag:KEY=VALUE`; every host when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The other end, named as `host` is: only what goes there. `packet-loss` only; every other end when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// How likely each match strikes, above 0 up to 1.
    #[serde(default = "always", skip_serializing_if = "is_always")]
    pub probability: f64,
    /// Over after this many strikes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// The first matches do nothing.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub after: u64,
    /// Over after this time.
    #[serde(default, rename = "for", with = "duration", skip_serializing_if = "Option::is_none")]
    pub lasting: Option<Duration>,
    /// Parameter `delay`.
    #[serde(default, with = "duration", skip_serializing_if = "Option::is_none")]
    pub delay: Option<Duration>,
    /// Parameter `percent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percent: Option<u8>,
    /// Parameter `seconds`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<i64>,
    /// Parameter `code`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Start of its random numbers; from the cloud's own seed when unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
}

/// All fields of a specification.
const FIELDS: [&str; 14] = [
    "kind",
    "service",
    "operation",
    "host",
    "to",
    "probability",
    "count",
    "after",
    "for",
    "delay",
    "percent",
    "seconds",
    "code",
    "seed",
];

fn read<T: DeserializeOwned>(
    fields: &Map<String, Value>,
    name: &str,
    expected: &str,
) -> Result<Option<T>, Mistake> {
    let Some(value) = fields.get(name).filter(|value| !value.is_null()) else { return Ok(None) };
    T::deserialize(value).map(Some).map_err(|_| mistake(name, format!("{value} is not {expected}")))
}

fn always() -> f64 {
    1.0
}

fn is_always(probability: &f64) -> bool {
    *probability >= 1.0
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Durations as texts.
mod duration {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(
        value: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => serializer.serialize_str(&super::super::text(*value)),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        let text: Option<String> = Option::deserialize(deserializer)?;
        text.map(|text| deploy_cli::parse_duration(&text).map_err(D::Error::custom)).transpose()
    }
}

/// What is wrong with a specification.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct Mistake {
    /// The field, as the API names it.
    pub field: String,
    /// What is wrong and what is allowed.
    pub message: String,
}

fn mistake(field: &str, message: impl Into<String>) -> Mistake {
    Mistake { field: field.to_owned(), message: message.into() }
}

impl Spec {
    /// A fault of this kind, always and everywhere.
    pub fn of(kind: Kind) -> Self {
        Self {
            kind,
            service: None,
            operation: None,
            host: None,
            to: None,
            probability: 1.0,
            count: None,
            after: 0,
            lasting: None,
            delay: None,
            percent: None,
            seconds: None,
            code: None,
            seed: None,
        }
    }

    /// Reads the JSON of the control API, field by field, so that a mistake is named by its field.
    ///
    /// # Errors
    /// The first mistake found.
    pub fn from_json(text: &[u8]) -> Result<Self, Mistake> {
        let fields: Map<String, Value> = serde_json::from_slice(text).map_err(|error| {
            mistake("body", format!("must be a JSON object of a fault's fields ({error})"))
        })?;
        if let Some(unknown) = fields.keys().find(|name| !FIELDS.contains(&name.as_str())) {
            let message = format!("is no field of a fault; there are {}", FIELDS.join(", "));
            return Err(mistake(unknown, message));
        }
        let name: String = read(&fields, "kind", "the name of a kind")?
            .ok_or_else(|| mistake("kind", "is missing"))?;
        let kind = Kind::find(&name).ok_or_else(|| {
            let names: Vec<_> = KINDS.iter().map(|kind| kind.name()).collect();
            mistake("kind", format!("`{name}` is none of {}", names.join(", ")))
        })?;
        let duration = |name| -> Result<Option<Duration>, Mistake> {
            let text: Option<String> = read(&fields, name, "a duration such as \"90s\"")?;
            text.map(|text| deploy_cli::parse_duration(&text).map_err(|why| mistake(name, why)))
                .transpose()
        };
        Ok(Self {
            kind,
            service: read(&fields, "service", "a text")?,
            operation: read(&fields, "operation", "a text")?,
            host: read(&fields, "host", "a text")?,
            to: read(&fields, "to", "a text")?,
            probability: read(&fields, "probability", "a number")?.unwrap_or(1.0),
            count: read(&fields, "count", "a whole number")?,
            after: read(&fields, "after", "a whole number")?.unwrap_or(0),
            lasting: duration("for")?,
            delay: duration("delay")?,
            percent: read(&fields, "percent", "a whole number from 1 to 100")?,
            seconds: read(&fields, "seconds", "a whole number")?,
            code: read(&fields, "code", "a text")?,
            seed: read(&fields, "seed", "a whole number")?,
        })
    }

    /// Looks for mistakes, and brings `ssm:SendCommand` into service and operation.
    ///
    /// # Errors
    /// The first mistake found.
    pub fn checked(mut self) -> Result<Self, Mistake> {
        self.service = self.service.map(|name| signing_name(&name.to_ascii_lowercase()).to_owned());
        self.split_action()?;
        self.check_scope()?;
        self.check_when()?;
        self.check_parameters()?;
        Ok(self)
    }

    fn split_action(&mut self) -> Result<(), Mistake> {
        let Some((service, operation)) =
            self.operation.as_deref().and_then(|action| action.split_once(':'))
        else {
            return Ok(());
        };
        let service = signing_name(&service.to_ascii_lowercase()).to_owned();
        if self.service.as_ref().is_some_and(|other| *other != service) {
            let message = format!("`{service}:{operation}` is of another service than `service`");
            return Err(mistake("operation", message));
        }
        self.operation = Some(operation.to_owned());
        self.service = Some(service);
        Ok(())
    }

    fn check_scope(&self) -> Result<(), Mistake> {
        let kind = self.kind.name();
        if self.kind.area() == Area::Host {
            let given = [("service", &self.service), ("operation", &self.operation)];
            if let Some((field, _)) = given.into_iter().find(|(_, value)| value.is_some()) {
                let message = format!("`{kind}` happens to hosts, not to requests; use `host`");
                return Err(mistake(field, message));
            }
        }
        let is_name = |text: &str, more: &str| {
            let fits = |c: char| c.is_ascii_alphanumeric() || more.contains(c);
            !text.is_empty() && text.len() <= 200 && text.chars().all(fits)
        };
        if let Some(service) = self.service.as_deref().filter(|name| !is_name(name, "-")) {
            let message =
                format!("`{service}` is no signing name of a service, such as `ec2` or `ssm`");
            return Err(mistake("service", message));
        }
        if let Some(operation) =
            self.operation.as_deref().filter(|name| !is_name(name, "*?-_/. {}"))
        {
            let message = format!(
                "`{operation}` is no pattern of an operation, such as `SendCommand`, `Describe*` or `POST /v1/*`"
            );
            return Err(mistake("operation", message));
        }
        for (field, host) in [("host", &self.host), ("to", &self.to)] {
            let Some(host) = host else { continue };
            let complete = host
                .strip_prefix("tag:")
                .is_none_or(|tag| tag.split_once('=').is_some_and(|(key, _)| !key.is_empty()));
            if host.is_empty() || host.len() > 512 || !complete {
                let message =
                    format!("`{host}` is neither a Name, an instance id nor `tag:KEY=VALUE`");
                return Err(mistake(field, message));
            }
        }
        if self.to.is_some() && self.kind != Kind::PacketLoss {
            let message = format!("`{kind}` has one end only; `packet-loss` has two");
            return Err(mistake("to", message));
        }
        Ok(())
    }

    fn check_when(&self) -> Result<(), Mistake> {
        if !(self.probability > 0.0 && self.probability <= 1.0) {
            let message = format!("{} is not above 0 and at most 1", self.probability);
            return Err(mistake("probability", message));
        }
        if self.count == Some(0) {
            return Err(mistake("count", "0 strikes would be no fault; at least 1"));
        }
        if self.lasting.is_some_and(|time| time.is_zero()) {
            return Err(mistake("for", "no time would be no fault; such as `30s`"));
        }
        if self.kind.lasts() {
            let name = self.kind.name();
            let message = format!("`{name}` lasts; end it with `for` or by removing it");
            if self.count.is_some() {
                return Err(mistake("count", message));
            }
            if self.after > 0 {
                return Err(mistake("after", message));
            }
        }
        Ok(())
    }

    fn check_parameters(&self) -> Result<(), Mistake> {
        let takes = |name: &str| self.kind.parameters().iter().find(|p| p.name() == name);
        let given = [
            ("delay", self.delay.is_some()),
            ("percent", self.percent.is_some()),
            ("seconds", self.seconds.is_some()),
            ("code", self.code.is_some()),
        ];
        for (field, _) in given.into_iter().filter(|(_, given)| *given) {
            if takes(field).is_none() {
                let names: Vec<_> = self.kind.parameters().iter().map(|p| p.name()).collect();
                let allowed = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
                let message =
                    format!("`{}` has no such parameter; it has {allowed}", self.kind.name());
                return Err(mistake(field, message));
            }
        }
        if self.percent.is_some_and(|percent| !(1..=100).contains(&percent)) {
            return Err(mistake("percent", "must be from 1 to 100"));
        }
        if self.delay.is_some_and(|delay| delay > DAY) {
            return Err(mistake("delay", "must be at most 24 hours"));
        }
        if self.seconds.is_some_and(|seconds| seconds.unsigned_abs() > 10 * 365 * 86_400) {
            return Err(mistake("seconds", "must be within ten years"));
        }
        if let (Some(code), Some(Parameter::Code(allowed))) = (&self.code, takes("code"))
            && !allowed.contains(&code.as_str())
        {
            let message = format!("`{code}` is none of {}", allowed.join(", "));
            return Err(mistake("code", message));
        }
        Ok(())
    }

    /// Whether a host is in the scope.
    pub fn takes_host(&self, host: &HostInfo) -> bool {
        self.host.as_deref().is_none_or(|wanted| is_meant(wanted, host))
    }

    /// Whether a host is the other end.
    pub fn takes_end(&self, host: &HostInfo) -> bool {
        self.to.as_deref().is_some_and(|wanted| is_meant(wanted, host))
    }

    /// Whether a call is in the scope, its hosts left aside.
    pub fn takes_call(&self, service: &str, operation: &str) -> bool {
        self.service.as_deref().is_none_or(|wanted| wanted.eq_ignore_ascii_case(service))
            && self.operation.as_deref().is_none_or(|pattern| glob(pattern, operation))
    }
}

/// Whether a Name, an instance id or `tag:KEY=VALUE` means a host.
fn is_meant(wanted: &str, host: &HostInfo) -> bool {
    if let Some((key, value)) = wanted.strip_prefix("tag:").and_then(|tag| tag.split_once('=')) {
        return host.tags.get(key).is_some_and(|tag| tag == value);
    }
    host.instance_id == wanted || host.name.as_deref() == Some(wanted)
}

/// A day.
const DAY: Duration = Duration::from_secs(86_400);

/// Whether a pattern with `*` (any text) and `?` (any character) fits, in any case. Linear in practice: only the last
/// `*` is ever gone back to.
fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    let mut last_star: Option<(usize, usize)> = None;
    while t < text.len() {
        let fits = pattern.get(p).is_some_and(|c| *c == b'?' || c.eq_ignore_ascii_case(&text[t]));
        if pattern.get(p) == Some(&b'*') {
            last_star = Some((p, t));
            p += 1;
        } else if fits {
            p += 1;
            t += 1;
        } else if let Some((star, from)) = last_star {
            last_star = Some((star, from + 1));
            p = star + 1;
            t = from + 1;
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_in_any_case() {
        let check =
            |pattern, text, expected| assert_eq!(glob(pattern, text), expected, "{pattern}");
        check("SendCommand", "sendcommand", true);
        check("Describe*", "DescribeInstances", true);
        check("*Instances", "RunInstances", true);
        check("*Instance*", "DescribeInstanceStatus", true);
        check("Send?ommand", "SendCommand", true);
        check("Send", "SendCommand", false);
        check("*x", "RunInstances", false);
        check("", "", true);
        check("*", "", true);
    }

    #[test]
    fn an_action_names_its_service() {
        let spec =
            Spec { operation: Some("ssm:SendCommand".into()), ..Spec::of(Kind::AccessDenied) };
        let spec = spec.checked().expect("good");
        assert_eq!(
            (spec.service.as_deref(), spec.operation.as_deref()),
            (Some("ssm"), Some("SendCommand"))
        );
        assert!(spec.takes_call("ssm", "SendCommand") && !spec.takes_call("ec2", "SendCommand"));
    }

    #[test]
    fn a_mistake_in_the_json_names_its_field() {
        let check = |text: &str, field: &str, part: &str| {
            let mistake = Spec::from_json(text.as_bytes()).expect_err(text);
            assert_eq!(mistake.field, field, "{text}");
            assert!(mistake.message.contains(part), "{mistake}");
        };
        check("[]", "body", "JSON object");
        check("{}", "kind", "missing");
        check(r#"{"kind":"throtle"}"#, "kind", "`throtle` is none of throttle, server-error");
        check(r#"{"kind":7}"#, "kind", "7 is not the name of a kind");
        check(r#"{"kind":"throttle","when":1}"#, "when", "no field of a fault; there are kind, ");
        check(r#"{"kind":"throttle","count":-1}"#, "count", "-1 is not a whole number");
        check(r#"{"kind":"throttle","for":"soon"}"#, "for", "expected a duration");
        check(r#"{"kind":"throttle","for":5}"#, "for", "5 is not a duration");
        check(r#"{"kind":"packet-loss","percent":300}"#, "percent", "from 1 to 100");
        assert!(Spec::from_json(br#"{"kind":"throttle","count":null}"#).is_ok());
    }

    #[test]
    fn every_mistake_names_its_field() {
        let check = |spec: Spec, expected: &str| {
            assert_eq!(spec.checked().expect_err(expected).to_string(), expected);
        };
        let of = Spec::of;
        check(
            Spec { probability: 1.5, ..of(Kind::Throttle) },
            "probability: 1.5 is not above 0 and at most 1",
        );
        check(
            Spec { probability: f64::NAN, ..of(Kind::Throttle) },
            "probability: NaN is not above 0 and at most 1",
        );
        check(
            Spec { count: Some(0), ..of(Kind::Throttle) },
            "count: 0 strikes would be no fault; at least 1",
        );
        check(
            Spec { count: Some(1), ..of(Kind::NetworkLost) },
            "count: `network-lost` lasts; end it with `for` or by removing it",
        );
        check(
            Spec { service: Some("ec2".into()), ..of(Kind::KernelPanic) },
            "service: `kernel-panic` happens to hosts, not to requests; use `host`",
        );
        check(
            Spec { delay: Some(Duration::from_secs(1)), ..of(Kind::PacketLoss) },
            "delay: `packet-loss` has no such parameter; it has percent",
        );
        check(
            Spec { percent: Some(101), ..of(Kind::PacketLoss) },
            "percent: must be from 1 to 100",
        );
        check(
            Spec { code: Some("404".into()), ..of(Kind::ServerError) },
            "code: `404` is none of 500, 503",
        );
        check(
            Spec { host: Some("tag:role".into()), ..of(Kind::KernelPanic) },
            "host: `tag:role` is neither a Name, an instance id nor `tag:KEY=VALUE`",
        );
        check(
            Spec { to: Some("b".into()), ..of(Kind::NetworkLost) },
            "to: `network-lost` has one end only; `packet-loss` has two",
        );
        check(
            Spec { to: Some("tag:=b".into()), ..of(Kind::PacketLoss) },
            "to: `tag:=b` is neither a Name, an instance id nor `tag:KEY=VALUE`",
        );
        check(
            Spec { operation: Some("a(b".into()), ..of(Kind::Throttle) },
            "operation: `a(b` is no pattern of an operation, such as `SendCommand`, `Describe*` or `POST /v1/*`",
        );
    }
}
