//! Tags of groups, and which of them their instances get.

use std::collections::BTreeMap;

use super::group::{Group, Tag};
use super::wire::{Fault, Params};
use super::{AutoScaling, Outcome, wire};
use crate::xml::Element;

/// The tags of a request that are for this group, or for whatever group they name.
pub(super) fn read(
    params: Params<'_>,
    group: Option<&str>,
) -> Result<BTreeMap<String, Tag>, Fault> {
    let mut tags = BTreeMap::new();
    for entry in params.entries("Tags") {
        let field = |name: &str| params.get(&format!("{entry}{name}"));
        if let (Some(group), Some(named)) = (group, field("ResourceId"))
            && group != named
        {
            continue;
        }
        let key = params.required(&format!("{entry}Key"))?;
        if key.starts_with("aws:") {
            return Err(Fault::validation(format!(
                "Tag keys starting with 'aws:' are reserved for internal use: {key}"
            )));
        }
        let tag = Tag {
            value: field("Value").unwrap_or_default().to_owned(),
            propagate: params.flag(&format!("{entry}PropagateAtLaunch"))?.unwrap_or_default(),
        };
        tags.insert(key.to_owned(), tag);
    }
    Ok(tags)
}

/// The groups that the tags of a request are for.
fn groups_of(params: Params<'_>) -> Result<Vec<String>, Fault> {
    let mut names = Vec::new();
    for entry in params.entries("Tags") {
        if let Some(kind) = params.get(&format!("{entry}ResourceType"))
            && kind != "auto-scaling-group"
        {
            return Err(Fault::validation(format!("'{kind}' is no resource type for tags")));
        }
        names.push(params.required(&format!("{entry}ResourceId"))?.to_owned());
    }
    names.sort_unstable();
    names.dedup();
    Ok(names)
}

/// The parts of a `TagDescription`.
pub(super) fn parts(group: &str, key: &str, tag: &Tag) -> Vec<Element> {
    vec![
        Element::leaf("ResourceId", group),
        Element::leaf("ResourceType", "auto-scaling-group"),
        Element::leaf("Key", key),
        Element::leaf("Value", &tag.value),
        Element::leaf("PropagateAtLaunch", &tag.propagate.to_string()),
    ]
}

impl AutoScaling {
    pub(super) fn create_tags(&self, params: Params<'_>) -> Outcome {
        for name in groups_of(params)? {
            let tags = read(params, Some(&name))?;
            self.with_group(&name, |group| {
                group.tags.extend(tags);
                Ok(())
            })?;
        }
        Ok(None)
    }

    pub(super) fn delete_tags(&self, params: Params<'_>) -> Outcome {
        for name in groups_of(params)? {
            let tags = read(params, Some(&name))?;
            self.with_group(&name, |group| {
                group.tags.retain(|key, _| !tags.contains_key(key));
                Ok(())
            })?;
        }
        Ok(None)
    }

    pub(super) fn describe_tags(&self, params: Params<'_>) -> Outcome {
        let filters = wire::filters(params);
        let groups = self.groups();
        let tags = groups.values().flat_map(|group: &Group| {
            group.tags.iter().map(|(key, tag)| (group.name.as_str(), key.as_str(), tag))
        });
        let mut found = Vec::new();
        for (group, key, tag) in tags {
            let mut wanted = true;
            for (name, values) in &filters {
                let own = match *name {
                    "auto-scaling-group" => group,
                    "key" => key,
                    "value" => &tag.value,
                    "propagate-at-launch" if tag.propagate => "true",
                    "propagate-at-launch" => "false",
                    other => {
                        return Err(Fault::validation(format!(
                            "Filter type {other} is not correct."
                        )));
                    }
                };
                wanted &= values.iter().any(|value| value.eq_ignore_ascii_case(own));
            }
            if wanted {
                found.push(parts(group, key, tag));
            }
        }
        let (found, token) = wire::page(params, found, 50, 100)?;
        Ok(Some([wire::list("Tags", found)].into_iter().chain(token).collect()))
    }
}
