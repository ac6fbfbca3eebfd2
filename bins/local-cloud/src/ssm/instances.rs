//! `DescribeInstanceInformation`.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::agents::Agent;
use super::paging::{page, size};
use super::refusal::Refusal;
use super::{Ssm, epoch};
use crate::hosts::{HostInfo, HostState};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Describe {
    #[serde(default)]
    filters: Vec<Filter>,
    /// The older form of the same.
    #[serde(default)]
    instance_information_filter_list: Vec<OldFilter>,
    max_results: Option<u32>,
    next_token: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Filter {
    key: String,
    values: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct OldFilter {
    key: String,
    value_set: Vec<String>,
}

/// A managed instance as it is now.
struct Managed<'a> {
    id: &'a str,
    host: HostInfo,
    agent: &'a Agent,
    ping_status: &'static str,
}

impl Ssm {
    pub(super) fn describe_instance_information(
        &self,
        request: Describe,
    ) -> Result<Value, Refusal> {
        let Describe { mut filters, instance_information_filter_list: old, .. } = request;
        if !filters.is_empty() && !old.is_empty() {
            let message = "Filters and InstanceInformationFilterList cannot be used together";
            return Err(Refusal::new("ValidationException", message));
        }
        filters.extend(old.into_iter().map(|old| Filter { key: old.key, values: old.value_set }));
        for filter in &filters {
            filter.check()?;
        }
        check_together(&filters)?;
        let (ids, others): (Vec<_>, Vec<_>) =
            filters.into_iter().partition(|filter| filter.key == "InstanceIds");
        let strange = |id: &&String| !self.hosts.known(id);
        if let Some(id) = ids.iter().flat_map(|filter| &filter.values).find(strange) {
            let message = format!("{id} is no instance of this account");
            return Err(Refusal::new("InvalidInstanceId", message));
        }
        let size = size(request.max_results.or(Some(DEFAULT_PAGE)), 5, 50)?;
        self.read_book(|book, now: Timestamp| {
            let managed = book
                .agents()
                .filter_map(|(id, agent)| {
                    // Stopped nodes are not shown.
                    let gone = |host: &HostInfo| host.state == HostState::Stopped;
                    let host = self.hosts.by_instance(id).filter(|host| !gone(host))?;
                    Some(Managed { id, host, agent, ping_status: book.ping_status(agent, now) })
                })
                .filter(|managed| ids.iter().all(|filter| filter.matches(managed)));
            let page = page(
                managed,
                |managed| managed.id.to_owned(),
                size,
                request.next_token.as_deref(),
            )?;
            // Other filters come after pages, as on AWS: a page may be short and have a token all the same.
            let fits = |managed: &&Managed<'_>| others.iter().all(|filter| filter.matches(managed));
            let list: Vec<Value> = page.items.iter().filter(fits).map(Managed::json).collect();
            let mut body = json!({"InstanceInformationList": list});
            if let Some(next) = page.next {
                body["NextToken"] = next.into();
            }
            Ok(body)
        })
    }
}

/// `MaxResults` when it is not given (service model).
const DEFAULT_PAGE: u32 = 10;

/// "Tag filters can't be combined with other filter types" (service model).
fn check_together(filters: &[Filter]) -> Result<(), Refusal> {
    let tag = |filter: &Filter| filter.key.starts_with("tag");
    if filters.iter().any(tag) && !filters.iter().all(tag) {
        let message = "Tag filters cannot be combined with other filters";
        return Err(Refusal::new("InvalidFilterKey", message));
    }
    Ok(())
}

impl Filter {
    fn check(&self) -> Result<(), Refusal> {
        let invalid = |value: &str| {
            let message = format!("`{value}` is not a value of the filter {}", self.key);
            Refusal::new("InvalidInstanceInformationFilterValue", message)
        };
        if self.values.is_empty() || self.values.len() > 100 {
            return Err(invalid("(1 to 100 values)"));
        }
        let allowed: &[&str] = match self.key.as_str() {
            "PingStatus" => &["Online", "ConnectionLost", "Inactive"],
            "PlatformTypes" => &["Linux", "Windows", "MacOS"],
            "ResourceType" => &["EC2Instance", "ManagedInstance"],
            "InstanceIds" | "AgentVersion" | "tag-key" => return Ok(()),
            key if key.starts_with("tag:") => return Ok(()),
            "ActivationIds" | "IamRole" | "AssociationStatus" | "SourceIds" | "SourceTypes"
            | "PlatformName" | "PlatformVersion" => return Ok(()),
            key => {
                let message = format!("The filter key `{key}` is not valid");
                return Err(Refusal::new("InvalidFilterKey", message));
            }
        };
        match self.values.iter().find(|value| !allowed.contains(&value.as_str())) {
            Some(value) => Err(invalid(value)),
            None => Ok(()),
        }
    }

    fn matches(&self, managed: &Managed<'_>) -> bool {
        let any = |text: &str| self.values.iter().any(|value| value == text);
        match self.key.as_str() {
            "InstanceIds" => any(managed.id),
            "AgentVersion" => any(&managed.agent.about.agent_version),
            "PingStatus" => any(managed.ping_status),
            "PlatformTypes" => any("Linux"),
            "ResourceType" => any("EC2Instance"),
            "SourceIds" => any(managed.id),
            "SourceTypes" => any("AWS::EC2::Instance"),
            "PlatformName" => any(&managed.agent.about.platform_name),
            "PlatformVersion" => any(&managed.agent.about.platform_version),
            // Of hybrid activations and associations; there are none.
            "ActivationIds" | "IamRole" | "AssociationStatus" => false,
            "tag-key" => self.values.iter().any(|key| managed.host.tags.contains_key(key)),
            key => {
                let tag = managed.host.tags.get(key.strip_prefix("tag:").unwrap_or(key));
                tag.is_some_and(|value| any(value))
            }
        }
    }
}

impl Managed<'_> {
    fn json(&self) -> Value {
        let about = &self.agent.about;
        json!({
            "InstanceId": self.id,
            "PingStatus": self.ping_status,
            "LastPingDateTime": epoch(self.agent.last_ping),
            "AgentVersion": about.agent_version,
            "IsLatestVersion": true,
            "PlatformType": "Linux",
            "PlatformName": about.platform_name,
            "PlatformVersion": about.platform_version,
            "ResourceType": "EC2Instance",
            "IPAddress": self.host.private_ip,
            "ComputerName": about.computer_name,
            "SourceId": self.id,
            "SourceType": "AWS::EC2::Instance",
        })
    }
}
