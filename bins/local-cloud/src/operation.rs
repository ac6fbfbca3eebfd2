//! Which service and operation a request is for.
//!
//! Pure. The service and the region stand in the credential scope of the signature (SigV4, "Authenticating requests":
//! `Credential=<key>/<date>/<region>/<service>/aws4_request`), in the header or, for presigned addresses, in the
//! query. The operation stands in `X-Amz-Target` (JSON protocols) or in the form field `Action` (query protocols).

use url::form_urlencoded;

/// Where a signed request goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// Signing name of the service, e.g. `ec2`.
    pub service: String,
    /// Region of the signature.
    pub region: String,
}

/// Reads the scope from the `Authorization` header, else from `X-Amz-Credential` in the query.
pub fn scope(authorization: Option<&str>, query: Option<&str>) -> Option<Scope> {
    let from_header = authorization.and_then(|header| {
        let rest = header.split_once("Credential=")?.1;
        parse_credential(rest.split([',', ' ']).next()?)
    });
    from_header.or_else(|| {
        form_urlencoded::parse(query?.as_bytes())
            .find(|(name, _)| name.eq_ignore_ascii_case("X-Amz-Credential"))
            .and_then(|(_, value)| parse_credential(&value))
    })
}

fn parse_credential(credential: &str) -> Option<Scope> {
    // From the right, since an access key may hold any character; a SigV4A scope has no region.
    let mut parts = credential.rsplit('/');
    if parts.next()? != "aws4_request" {
        return None;
    }
    let (service, region) = (parts.next()?, parts.next()?);
    let region = if region.bytes().all(|b| b.is_ascii_digit()) { "" } else { region };
    (!service.is_empty()).then(|| Scope { service: service.to_owned(), region: region.to_owned() })
}

/// The operation named by an `X-Amz-Target` header such as `AmazonSSM.SendCommand`.
pub fn from_target(target: &str) -> Option<&str> {
    target.rsplit('.').next().filter(|operation| !operation.is_empty())
}

/// A path without percent-encoding, as the emulator reads it.
pub fn decoded(path: &str) -> String {
    form_urlencoded::parse(path.as_bytes())
        .map(|(part, _)| part)
        .next()
        .unwrap_or_default()
        .into_owned()
}

/// The fields of a query-protocol request, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Form(Vec<(String, String)>);

impl Form {
    /// Reads an `application/x-www-form-urlencoded` text.
    pub fn parse(text: &[u8]) -> Self {
        Self(form_urlencoded::parse(text).into_owned().collect())
    }

    /// A form with these fields.
    pub fn new<const N: usize>(fields: [(&str, &str); N]) -> Self {
        Self(fields.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec())
    }

    /// The value of a field.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Adds a field.
    pub fn push(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.0.push((name.into(), value.into()));
    }

    /// Removes all fields whose name this holds for.
    pub fn remove(&mut self, mut gone: impl FnMut(&str) -> bool) {
        self.0.retain(|(name, _)| !gone(name));
    }

    /// All fields, in their order.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The names of all fields.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }

    /// The values of a numbered list, `InstanceId.1`, `InstanceId.2`, …, in their order.
    pub fn list(&self, name: &str) -> Vec<&str> {
        let mut found: Vec<(u32, &str)> = self
            .0
            .iter()
            .filter_map(|(key, value)| {
                let number = key.strip_prefix(name)?.strip_prefix('.')?.parse().ok()?;
                Some((number, value.as_str()))
            })
            .collect();
        found.sort_by_key(|(number, _)| *number);
        found.into_iter().map(|(_, value)| value).collect()
    }

    /// The `Filter.N` entries as (prefix `Filter.N.`, name, values).
    pub fn filters(&self) -> Vec<(String, &str, Vec<&str>)> {
        self.0
            .iter()
            .filter_map(|(key, value)| {
                let number = key.strip_prefix("Filter.")?.strip_suffix(".Name")?;
                let prefix = format!("Filter.{number}.");
                let values = self.list(&format!("{prefix}Value"));
                Some((prefix, value.as_str(), values))
            })
            .collect()
    }

    /// The text to send.
    pub fn encode(&self) -> String {
        form_urlencoded::Serializer::new(String::new()).extend_pairs(&self.0).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_credential_scope_names_service_and_region() {
        let check = |header: Option<&str>, query: Option<&str>, expected: Option<(&str, &str)>| {
            let found = scope(header, query);
            assert_eq!(found.as_ref().map(|s| (s.service.as_str(), s.region.as_str())), expected);
        };
        check(
            Some(
                "AWS4-HMAC-SHA256 Credential=AKID/20260101/us-east-1/ec2/aws4_request, SignedHeaders=host, Signature=0",
            ),
            None,
            Some(("ec2", "us-east-1")),
        );
        check(
            Some(
                "AWS4-HMAC-SHA256 Credential=a/b/20260101/eu-west-1/ssm/aws4_request,SignedHeaders=h",
            ),
            None,
            Some(("ssm", "eu-west-1")),
        );
        check(
            Some("AWS4-ECDSA-P256-SHA256 Credential=AKID/20260101/s3/aws4_request, Signature=0"),
            None,
            Some(("s3", "")),
        );
        check(
            None,
            Some(
                "X-Amz-Credential=AKID%2F20260101%2Fus-east-1%2Fs3%2Faws4_request&X-Amz-Expires=5",
            ),
            Some(("s3", "us-east-1")),
        );
        check(Some("Bearer x"), None, None);
        check(Some("AWS4-HMAC-SHA256 Credential="), None, None);
        check(None, None, None);
    }

    #[test]
    fn a_form_gives_lists_in_their_order_and_filters_by_name() {
        let form = Form::parse(
            b"Action=DescribeInstances&InstanceId.10=i-c&InstanceId.2=i-b&InstanceId.1=i-a\
              &Filter.1.Name=instance-state-name&Filter.1.Value.1=running&Filter.1.Value.2=stopped",
        );
        assert_eq!(form.get("Action"), Some("DescribeInstances"));
        assert_eq!(form.list("InstanceId"), ["i-a", "i-b", "i-c"]);
        let filters = form.filters();
        assert_eq!(filters.len(), 1);
        assert_eq!(
            (filters[0].0.as_str(), filters[0].1, &filters[0].2[..]),
            ("Filter.1.", "instance-state-name", &["running", "stopped"][..])
        );
    }

    #[test]
    fn the_target_header_ends_with_the_operation() {
        assert_eq!(from_target("AmazonSSM.SendCommand"), Some("SendCommand"));
        assert_eq!(from_target("DynamoDB_20120810.GetItem"), Some("GetItem"));
        assert_eq!(from_target(""), None);
    }
}
