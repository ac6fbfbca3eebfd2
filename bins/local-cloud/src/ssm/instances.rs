//! `DescribeInstanceInformation`.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::agents::Agent;
use super::paging::{page, size};
use super::refusal::Refusal;
use super::{Ssm, epoch};
use crate::hosts::HostInfo;

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
        let size = size(request.max_results, 5, 50)?;
        self.read_book(|book, now: Timestamp| {
            let managed = book
                .agents()
                .filter_map(|(id, agent)| {
                    let host = self.hosts.by_instance(id)?;
                    Some(Managed { id, host, agent, ping_status: book.ping_status(agent, now) })
                })
                .filter(|managed| filters.iter().all(|filter| filter.matches(managed)));
            let page = page(
                managed,
                |managed| managed.id.to_owned(),
                size,
                request.next_token.as_deref(),
            )?;
            let list: Vec<Value> = page.items.iter().map(Managed::json).collect();
            let mut body = json!({"InstanceInformationList": list});
            if let Some(next) = page.next {
                body["NextToken"] = next.into();
            }
            Ok(body)
        })
    }
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
            | "PlatformName" | "PlatformVersion" => {
                let what = format!("the filter `{}` of `DescribeInstanceInformation`", self.key);
                return Err(Refusal::not_implemented(what));
            }
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
