//! Instance metadata, version 2, and version 1 where the instance allows it: the caller's address says which host asks.
//!
//! Behaviour after EC2's user guide, "Use the Instance Metadata Service": a token by PUT with a lifetime of 1 to 21,600
//! seconds, 401 without one, 403 for a PUT that went through a proxy, listings in which folders end with `/`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Uri, header};
use serde_json::json;

use crate::ec2::Ec2;
use crate::ec2::machine::Machine;
use crate::ec2::roles::Role;
use crate::hosts::HostInfo;
use crate::log;

const TOKEN_HEADER: &str = "x-aws-ec2-metadata-token";
const TTL_HEADER: &str = "x-aws-ec2-metadata-token-ttl-seconds";
const LONGEST: u64 = 21_600;
/// So many tokens of one host hold at a time; a newer one takes the place of the one that ends first. No program needs more
/// than a few, and a host that asks without end must not fill this machine.
const MOST_TOKENS: usize = 1_000;
/// Versions that the root lists; every one of them gives the same tree here.
const VERSIONS: [&str; 4] = ["2009-04-04", "2016-09-02", "2021-03-23", "latest"];

/// Tokens handed out: who may use them until when.
#[derive(Debug, Default)]
struct Tokens(Mutex<BTreeMap<String, (String, Instant)>>);

impl Tokens {
    fn issue(&self, instance_id: &str, lifetime: Duration, now: Instant) -> String {
        let token = hex::encode(rand::random::<[u8; 28]>());
        let mut tokens = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.retain(|_, (_, until)| *until > now);
        let own = || tokens.iter().filter(|(_, (owner, _))| owner == instance_id);
        if own().count() >= MOST_TOKENS
            && let Some(first) = own().min_by_key(|(_, (_, until))| *until).map(|(t, _)| t.clone())
        {
            tokens.remove(&first);
        }
        tokens.insert(token.clone(), (instance_id.to_owned(), now + lifetime));
        token
    }

    fn valid(&self, token: &str, instance_id: &str, now: Instant) -> bool {
        let tokens = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.get(token).is_some_and(|(owner, until)| owner == instance_id && *until > now)
    }
}

#[derive(Debug, Clone)]
struct Service {
    ec2: Arc<Ec2>,
    tokens: Arc<Tokens>,
}

/// The metadata service.
pub fn router(ec2: Arc<Ec2>) -> Router {
    Router::new().fallback(answer).with_state(Service { ec2, tokens: Arc::default() })
}

async fn answer(
    State(service): State<Service>,
    ConnectInfo(caller): ConnectInfo<SocketAddr>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Response<Body> {
    let Some(host) = service.ec2.hosts.by_address(caller.ip()) else {
        log::line(format_args!("metadata: {} is no host of mine", caller.ip()));
        return plain(StatusCode::NOT_FOUND, "");
    };
    let Some(machine) = service.ec2.machine(&host.instance_id) else {
        return plain(StatusCode::NOT_FOUND, "");
    };
    if machine.seen.no_metadata {
        // "403 – Forbidden: the request is not allowed or the IMDS is turned off." (user guide)
        return plain(StatusCode::FORBIDDEN, "");
    }
    let path = uri.path();
    match method {
        Method::PUT if path == "/latest/api/token" => token(&service, &host, &headers),
        Method::GET | Method::HEAD => {
            let given = headers.get(TOKEN_HEADER).and_then(|value| value.to_str().ok());
            let allowed = match given {
                Some(token) => service.tokens.valid(token, &host.instance_id, Instant::now()),
                None => machine.seen.tokenless_metadata && !headers.contains_key(TOKEN_HEADER),
            };
            if !allowed {
                return plain(StatusCode::UNAUTHORIZED, "");
            }
            service.read(path, &host, &machine).await
        }
        _ => plain(StatusCode::METHOD_NOT_ALLOWED, ""),
    }
}

fn token(service: &Service, host: &HostInfo, headers: &HeaderMap) -> Response<Body> {
    if headers.contains_key("x-forwarded-for") {
        return plain(StatusCode::FORBIDDEN, "");
    }
    let lifetime = headers
        .get(TTL_HEADER)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok())
        .filter(|seconds| (1..=LONGEST).contains(seconds));
    let Some(seconds) = lifetime else { return plain(StatusCode::BAD_REQUEST, "") };
    let lifetime = Duration::from_secs(seconds);
    let token = service.tokens.issue(&host.instance_id, lifetime, Instant::now());
    let mut response = plain(StatusCode::OK, &token);
    response.headers_mut().insert(TTL_HEADER, HeaderValue::from(seconds));
    response
}

impl Service {
    async fn read(&self, path: &str, host: &HostInfo, machine: &Machine) -> Response<Body> {
        let trimmed = path.trim_matches('/');
        let (version, rest) = trimmed.split_once('/').unwrap_or((trimmed, ""));
        if version.is_empty() {
            return plain(StatusCode::OK, &VERSIONS.join("\n"));
        }
        if version != "latest" && !is_version(version) {
            return plain(StatusCode::NOT_FOUND, "");
        }
        if rest == "user-data" {
            return match &machine.user_data {
                Some(data) => bytes(data.clone()),
                None => plain(StatusCode::NOT_FOUND, ""),
            };
        }
        let role = match self.role(machine).await {
            Ok(role) => role,
            Err(error) => {
                log::line(format_args!("metadata of {}: {error}", host.instance_id));
                return plain(StatusCode::INTERNAL_SERVER_ERROR, "");
            }
        };
        if let Some(role) = &role
            && rest == format!("meta-data/iam/security-credentials/{}", role.name)
        {
            return match self.ec2.roles.credentials(&host.instance_id, role).await {
                Ok(document) => plain(StatusCode::OK, &format!("{document:#}")),
                Err(error) => {
                    log::line(format_args!("credentials of {}: {error}", host.instance_id));
                    plain(StatusCode::INTERNAL_SERVER_ERROR, "")
                }
            };
        }
        match look_up(&tree(host, machine, role.as_ref(), &self.ec2.settings.region), rest) {
            Some(text) => plain(StatusCode::OK, &text),
            None => plain(StatusCode::NOT_FOUND, ""),
        }
    }

    async fn role(&self, machine: &Machine) -> Result<Option<Role>, crate::upstream::AskError> {
        match &machine.seen.profile_arn {
            Some(arn) => self.ec2.roles.of_profile(arn).await,
            None => Ok(None),
        }
    }
}

fn is_version(text: &str) -> bool {
    text == "1.0"
        || (text.len() == 10
            && text.bytes().enumerate().all(|(at, byte)| match at {
                4 | 7 => byte == b'-',
                _ => byte.is_ascii_digit(),
            }))
}

/// Everything below a version, by path. Credentials are only named here, and read when they are asked for.
fn tree(
    host: &HostInfo,
    machine: &Machine,
    role: Option<&Role>,
    region: &str,
) -> BTreeMap<String, String> {
    let seen = &machine.seen;
    let private_ip = host.private_ip.to_string();
    let private_dns = machine.private_dns(region);
    let public = seen.public_ip.map(|ip| ip.to_string()).zip(machine.public_dns(region));
    let lines = |values: &mut dyn Iterator<Item = &String>| {
        values.map(String::as_str).collect::<Vec<_>>().join("\n")
    };
    let group_names = lines(&mut seen.groups.values());
    let group_ids = lines(&mut seen.groups.keys());

    let mut tree = BTreeMap::new();
    let mut put = |path: &str, value: &str| {
        tree.insert(path.to_owned(), value.to_owned());
    };
    put("user-data", "");
    for (path, value) in [
        ("ami-id", seen.image_id.as_str()),
        ("ami-launch-index", seen.launch_index.as_str()),
        ("ami-manifest-path", "(unknown)"),
        ("block-device-mapping/ami", "xvda"),
        ("block-device-mapping/root", "/dev/xvda"),
        ("hostname", &private_dns),
        ("instance-action", "none"),
        ("instance-id", &seen.instance_id),
        ("instance-life-cycle", "on-demand"),
        ("instance-type", &seen.instance_type),
        ("local-hostname", &private_dns),
        ("local-ipv4", &private_ip),
        ("mac", &seen.mac),
        ("placement/availability-zone", &seen.zone),
        ("placement/region", region),
        ("profile", "default-hvm"),
        ("reservation-id", &seen.reservation_id),
        ("security-groups", &group_names),
        ("services/domain", "amazonaws.com"),
        ("services/partition", "aws"),
    ] {
        put(&format!("meta-data/{path}"), value);
    }
    let interface = format!("meta-data/network/interfaces/macs/{}", seen.mac);
    for (path, value) in [
        ("device-number", "0"),
        ("interface-id", seen.interface_id.as_str()),
        ("local-hostname", &private_dns),
        ("local-ipv4s", &private_ip),
        ("mac", &seen.mac),
        ("owner-id", &seen.owner_id),
        ("security-group-ids", &group_ids),
        ("security-groups", &group_names),
        ("subnet-id", &seen.subnet_id),
        ("subnet-ipv4-cidr-block", &machine.subnet_cidr),
        ("vpc-id", &seen.vpc_id),
        ("vpc-ipv4-cidr-block", &machine.vpc_cidr),
        ("vpc-ipv4-cidr-blocks", &machine.vpc_cidr),
    ] {
        put(&format!("{interface}/{path}"), value);
    }
    if let Some((address, name)) = &public {
        put("meta-data/public-ipv4", address);
        put("meta-data/public-hostname", name);
        put(&format!("{interface}/public-ipv4s"), address);
        put(&format!("{interface}/public-hostname"), name);
        put(&format!("{interface}/ipv4-associations/{address}"), &private_ip);
    }
    if let (Some(arn), Some(role)) = (&seen.profile_arn, role) {
        let info = json!({
            "Code": "Success",
            "LastUpdated": format!("{:.0}", host.launched),
            "InstanceProfileArn": arn,
            "InstanceProfileId": role.profile_id,
        });
        put("meta-data/iam/info", &format!("{info:#}"));
        put(&format!("meta-data/iam/security-credentials/{}", role.name), "");
    }
    if seen.metadata_tags {
        for (key, value) in &host.tags {
            put(&format!("meta-data/tags/instance/{key}"), value);
        }
    }
    let document = json!({
        "accountId": seen.owner_id,
        "architecture": "x86_64",
        "availabilityZone": seen.zone,
        "billingProducts": null,
        "devpayProductCodes": null,
        "marketplaceProductCodes": null,
        "imageId": seen.image_id,
        "instanceId": seen.instance_id,
        "instanceType": seen.instance_type,
        "kernelId": null,
        "pendingTime": format!("{:.0}", host.launched),
        "privateIp": private_ip,
        "ramdiskId": null,
        "region": region,
        "version": "2017-09-30",
    });
    put("dynamic/instance-identity/document", &format!("{document:#}"));
    if machine.user_data.is_none() {
        tree.remove("user-data");
    }
    tree
}

/// A value, or the listing of a folder: names in order, folders with `/`.
fn look_up(tree: &BTreeMap<String, String>, path: &str) -> Option<String> {
    let path = path.trim_matches('/');
    if let Some(value) = tree.get(path) {
        return Some(value.clone());
    }
    let prefix = if path.is_empty() { String::new() } else { format!("{path}/") };
    let names: BTreeSet<String> = tree
        .keys()
        .filter_map(|key| {
            let rest = key.strip_prefix(&prefix)?;
            Some(match rest.split_once('/') {
                Some((folder, _)) => format!("{folder}/"),
                None => rest.to_owned(),
            })
        })
        .collect();
    (!names.is_empty()).then(|| names.into_iter().collect::<Vec<_>>().join("\n"))
}

fn plain(status: StatusCode, text: &str) -> Response<Body> {
    let mut response = Response::new(Body::from(text.to_owned()));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("text/plain");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

fn bytes(data: Vec<u8>) -> Response<Body> {
    let mut response = Response::new(Body::from(data));
    let kind = HeaderValue::from_static("application/octet-stream");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ec2::machine::Seen;
    use crate::hosts::HostState;

    fn sample() -> (HostInfo, Machine) {
        let seen = Seen {
            instance_id: "i-1".into(),
            mac: "02:00:00:01:02:03".into(),
            zone: "us-east-1a".into(),
            private_ip: "10.20.1.10".parse().ok(),
            public_ip: "198.51.100.7".parse().ok(),
            profile_arn: Some("arn:aws:iam::1:instance-profile/p".into()),
            metadata_tags: true,
            ..Seen::default()
        };
        let host = HostInfo {
            instance_id: "i-1".into(),
            name: None,
            private_ip: "10.20.1.10".parse().expect("address"),
            state: HostState::Running,
            tags: BTreeMap::from([("Name".into(), "one".into())]),
            launched: jiff::Timestamp::UNIX_EPOCH,
        };
        (host, Machine { seen, user_data: Some(b"#!/bin/sh\n".to_vec()), ..Machine::default() })
    }

    #[test]
    fn values_and_listings_are_found_by_path() {
        let (host, machine) = sample();
        let role = Role { name: "dev".into(), arn: "arn".into(), profile_id: "AIPA".into() };
        let tree = tree(&host, &machine, Some(&role), "us-east-1");
        let check = |path: &str, expected: Option<&str>| {
            assert_eq!(look_up(&tree, path).as_deref(), expected, "{path}");
        };
        check("", Some("dynamic/\nmeta-data/\nuser-data"));
        check("meta-data/instance-id", Some("i-1"));
        check("meta-data/local-hostname", Some("ip-10-20-1-10.ec2.internal"));
        check("meta-data/public-hostname", Some("ec2-198-51-100-7.compute-1.amazonaws.com"));
        check("meta-data/placement/", Some("availability-zone\nregion"));
        check("meta-data/iam/security-credentials/", Some("dev"));
        check("meta-data/network/interfaces/macs/", Some("02:00:00:01:02:03/"));
        check("meta-data/tags/instance", Some("Name"));
        check("meta-data/nothing", None);
        let document = look_up(&tree, "dynamic/instance-identity/document").expect("document");
        assert!(document.contains("\"pendingTime\": \"1970-01-01T00:00:00Z\""), "{document}");
    }

    #[test]
    fn without_a_profile_there_is_no_role() {
        let (host, mut machine) = sample();
        machine.seen.profile_arn = None;
        machine.seen.metadata_tags = false;
        let tree = tree(&host, &machine, None, "us-east-1");
        assert_eq!(look_up(&tree, "meta-data/iam/"), None);
        assert_eq!(look_up(&tree, "meta-data/tags/instance"), None);
    }

    #[test]
    fn a_host_that_asks_for_tokens_without_end_keeps_the_newest() {
        let (tokens, now) = (Tokens::default(), Instant::now());
        let other = tokens.issue("i-2", Duration::from_secs(2), now);
        let after = |number: usize| now + Duration::from_millis(number as u64);
        let issued: Vec<String> = (0..MOST_TOKENS + 5)
            .map(|number| tokens.issue("i-1", Duration::from_secs(60), after(number)))
            .collect();
        let now = after(issued.len());
        let valid = |token: &String| tokens.valid(token, "i-1", now);
        assert!(!issued[..5].iter().any(valid) && issued[5..].iter().all(valid));
        assert!(tokens.valid(&other, "i-2", now), "of another host");
    }

    #[test]
    fn a_token_serves_its_own_host_until_it_expires() {
        let (tokens, now) = (Tokens::default(), Instant::now());
        let token = tokens.issue("i-1", Duration::from_secs(60), now);
        assert!(tokens.valid(&token, "i-1", now));
        assert!(!tokens.valid(&token, "i-2", now));
        assert!(!tokens.valid(&token, "i-1", now + Duration::from_secs(61)));
        assert!(!tokens.valid("", "i-1", now));
    }

    #[test]
    fn versions_are_dates_or_latest() {
        for version in ["2009-04-04", "2021-03-23", "1.0"] {
            assert!(is_version(version), "{version}");
        }
        for other in ["latest2", "2021-3-23", "meta-data", ""] {
            assert!(!is_version(other), "{other}");
        }
    }
}
