//! Launch templates: what an instance launched from one is launched with, and what the emulator gets wrong about them.
//!
//! The emulator keeps the versions. It applies only a few of their parameters to a launch, so they are merged into the
//! request here. Sources: API reference, `RunInstances` ("LaunchTemplate"), `CreateLaunchTemplateVersion`
//! ("SourceVersion"), `ResponseLaunchTemplateData`; names of fields from botocore's model.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::body::Body;
use axum::http::Response;

use super::answers::{self, Refusal};
use super::{Ec2, Request};
use crate::operation::Form;
use crate::upstream::AskError;
use crate::xml::Element;

/// One version of a launch template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Template {
    /// Its id.
    pub(crate) id: String,
    /// Its name.
    pub(crate) name: String,
    /// The version's number.
    pub(crate) version: u32,
    /// What it holds, as fields of `RunInstances`.
    pub(crate) fields: Form,
}

impl Ec2 {
    /// The version (a number, `$Latest` or `$Default`) of the launch template of this id or name.
    pub(crate) async fn template(
        &self,
        region: &str,
        id: Option<&str>,
        name: Option<&str>,
        version: &str,
    ) -> Result<Template, Refusal> {
        known_version(version, id.or(name).unwrap_or_default())?;
        let mut form =
            Form::new([("Action", "DescribeLaunchTemplateVersions"), ("Version", "2016-11-15")]);
        match (id, name) {
            (Some(_), Some(_)) | (None, None) => {
                return Err(Refusal::client(
                    "InvalidParameterCombination",
                    "Either provide launch template ID or launch template name.",
                ));
            }
            (Some(id), None) => form.push("LaunchTemplateId", id),
            (None, Some(name)) => form.push("LaunchTemplateName", name),
        }
        form.push("LaunchTemplateVersion.1", version);
        let mut root = self.upstream.ask("ec2", region, &form).await.map_err(not_found)?;
        adjust_versions(&mut root);
        root.items(&["launchTemplateVersionSet"]).next().and_then(read).ok_or_else(|| {
            Refusal::server("InternalError", "the emulator shows a launch template without id")
        })
    }

    /// The request with everything that the launch template in it holds, if there is one.
    pub(super) async fn with_template(&self, mut request: Request) -> Result<Request, Refusal> {
        if !request.form.names().any(|name| name.starts_with("LaunchTemplate.")) {
            return Ok(request);
        }
        let field = |name: &str| request.form.get(&format!("LaunchTemplate.{name}"));
        let version = field("Version").unwrap_or("$Default");
        let (id, name) = (field("LaunchTemplateId"), field("LaunchTemplateName"));
        let template = self.template(&request.region, id, name, version).await?;
        let form = merged(&template, &request.form)?;
        request.replace(form);
        Ok(request)
    }

    /// A version made from another one begins as that one; the emulator forgets this.
    pub(super) async fn create_template_version(
        &self,
        mut request: Request,
    ) -> Result<Response<Body>, Refusal> {
        if let Some(source) = request.form.get("SourceVersion") {
            let (id, name) =
                (request.form.get("LaunchTemplateId"), request.form.get("LaunchTemplateName"));
            let source = self.template(&request.region, id, name, source).await?;
            let form = derived(&source, &request.form);
            request.replace(form);
        }
        let answer = self.pass(request).await?;
        Ok(answer.into_response())
    }

    pub(super) async fn describe_template_versions(
        self: &Arc<Self>,
        request: Request,
    ) -> Result<Response<Body>, Refusal> {
        let template = request
            .form
            .get("LaunchTemplateId")
            .or_else(|| request.form.get("LaunchTemplateName"))
            .unwrap_or_default();
        let chosen = request.form.list("LaunchTemplateVersion");
        for version in &chosen {
            known_version(version, template)?;
        }
        let newest_first = chosen.is_empty();
        let answer = self.pass(request).await?;
        let Some(mut root) = answer.xml().filter(|_| answer.status.is_success()) else {
            return Ok(answer.into_response());
        };
        adjust_versions(&mut root);
        if newest_first && let Some(set) = root.child_mut("launchTemplateVersionSet") {
            let number = |item: &Element| item.text_at(&["versionNumber"])?.parse::<u32>().ok();
            set.children.sort_by_key(|item| std::cmp::Reverse(number(item)));
        }
        Ok(answer.with_body(root.write()))
    }
}

/// The emulator counts from the end for 0 and fails for what is no number.
fn known_version(version: &str, template: &str) -> Result<(), Refusal> {
    let known = matches!(version, "$Latest" | "$Default")
        || version.parse::<u32>().is_ok_and(|number| number > 0);
    if known {
        return Ok(());
    }
    let message = format!(
        "Could not find the specified version {version} for the launch template with ID {template}."
    );
    Err(Refusal::client("InvalidLaunchTemplateId.VersionNotFound", message))
}

fn not_found(error: AskError) -> Refusal {
    const CODES: [&str; 4] = [
        "InvalidLaunchTemplateId.NotFound",
        "InvalidLaunchTemplateId.Malformed",
        "InvalidLaunchTemplateId.VersionNotFound",
        "InvalidLaunchTemplateName.NotFoundException",
    ];
    match error {
        AskError::Refused { ref code, ref message, .. } => {
            match CODES.into_iter().find(|known| known == code) {
                Some(code) => Refusal::client(code, message.clone()),
                None => error.into(),
            }
        }
        _ => error.into(),
    }
}

/// Takes the template's own tags out of its versions' data, where the emulator lists them as well.
fn adjust_versions(root: &mut Element) {
    let Some(set) = root.child_mut("launchTemplateVersionSet") else { return };
    for version in &mut set.children {
        let Some(data) = version.child_mut("launchTemplateData") else { continue };
        if let Some(tags) = data.child_mut("tagSpecificationSet") {
            tags.children.retain(|item| {
                item.text_at(&["resourceType"]).as_deref() != Some("launch-template")
            });
        }
        data.children
            .retain(|child| child.name != "tagSpecificationSet" || !child.children.is_empty());
    }
}

fn read(item: &Element) -> Option<Template> {
    let mut fields = Form::default();
    if let Some(data) = item.child("launchTemplateData") {
        flatten(data, "", &mut fields);
    }
    Some(Template {
        id: item.text_at(&["launchTemplateId"])?,
        name: item.text_at(&["launchTemplateName"])?,
        version: item.text_at(&["versionNumber"])?.parse().ok()?,
        fields,
    })
}

/// An answer's data as a request's fields: lists are numbered, names begin with a capital.
fn flatten(element: &Element, prefix: &str, fields: &mut Form) {
    for child in &element.children {
        let field = format!("{prefix}{}", field_name(&child.name));
        if child.name.ends_with("Set") {
            for (number, item) in child.children.iter().enumerate() {
                let field = format!("{field}.{}", number + 1);
                if item.children.is_empty() {
                    fields.push(field, item.text());
                } else {
                    flatten(item, &format!("{field}."), fields);
                }
            }
        } else if !child.children.is_empty() {
            flatten(child, &format!("{field}."), fields);
        } else {
            let text = child.text();
            // An empty value says something only here.
            if !text.is_empty() || matches!(child.name.as_str(), "value" | "noDevice") {
                fields.push(field, text);
            }
        }
    }
}

fn field_name(name: &str) -> String {
    match name {
        "groupSet" => return "SecurityGroupId".into(),
        "licenseSet" => return "LicenseSpecification".into(),
        "ramDiskId" => return "RamdiskId".into(),
        _ => {}
    }
    let name = name.strip_suffix("Set").unwrap_or(name);
    let mut letters = name.chars();
    letters
        .next()
        .map(|first| first.to_ascii_uppercase().to_string() + letters.as_str())
        .unwrap_or_default()
}

/// What a launch is done with: the request's parameters before the template's. Structures are merged by field, volumes
/// by device, tags by key; other lists are replaced whole.
pub(crate) fn merged(template: &Template, request: &Form) -> Result<Form, Refusal> {
    let own: Vec<(&str, &str)> =
        request.fields().filter(|(name, _)| !name.starts_with("LaunchTemplate.")).collect();
    let given: BTreeSet<&str> = own.iter().map(|(name, _)| *name).collect();
    let replaced: BTreeSet<&str> = own.iter().map(|(name, _)| whole(name)).collect();
    let devices = devices(request);
    let mut form = Form::default();
    for &(name, value) in own.iter().filter(|(name, _)| whole(name) != "TagSpecification") {
        form.push(name, value);
    }
    let mut shift = devices.len();
    let mut moved: BTreeMap<String, usize> = BTreeMap::new();
    for (name, value) in template.fields.fields() {
        match whole(name) {
            "TagSpecification" => {}
            "BlockDeviceMapping" => {
                let number = name.split('.').nth(1).unwrap_or_default();
                let device =
                    template.fields.get(&format!("BlockDeviceMapping.{number}.DeviceName"));
                if device.is_some_and(|device| devices.contains(device)) {
                    continue;
                }
                let number_now = *moved.entry(number.to_owned()).or_insert_with(|| {
                    shift += 1;
                    shift
                });
                let rest = name.splitn(3, '.').nth(2).unwrap_or_default();
                form.push(format!("BlockDeviceMapping.{number_now}.{rest}"), value);
            }
            top if is_list(name, top) => {
                let other = match top {
                    "SecurityGroup" => "SecurityGroupId",
                    "SecurityGroupId" => "SecurityGroup",
                    other => other,
                };
                if !replaced.contains(top) && !replaced.contains(other) {
                    form.push(name, value);
                }
            }
            "IamInstanceProfile" if replaced.contains("IamInstanceProfile") => {}
            _ if given.contains(name) => {}
            _ => form.push(name, value),
        }
    }
    push_tags(&mut form, tags(template, request));
    if form.get("ImageId").is_none() {
        return Err(Refusal::client(
            "MissingParameter",
            "The request must contain the parameter ImageId",
        ));
    }
    match answers::pretended("RunInstances", &form) {
        Some(what) => Err(Refusal::not_implemented(&what)),
        None => Ok(form),
    }
}

/// The parameter that a field is part of.
fn whole(name: &str) -> &str {
    name.split('.').next().unwrap_or_default()
}

fn is_list(name: &str, top: &str) -> bool {
    name.strip_prefix(top)
        .and_then(|rest| rest.strip_prefix('.'))
        .and_then(|rest| rest.split('.').next())
        .is_some_and(|number| number.parse::<u32>().is_ok())
}

fn devices(form: &Form) -> BTreeSet<&str> {
    form.fields()
        .filter(|(name, _)| {
            name.starts_with("BlockDeviceMapping.") && name.ends_with(".DeviceName")
        })
        .map(|(_, value)| value)
        .collect()
}

/// Tags by resource type. The template's own are marked as EC2 marks them, since clients read these marks.
fn tags(template: &Template, request: &Form) -> BTreeMap<String, BTreeMap<String, String>> {
    let mut all: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for form in [&template.fields, request] {
        for (name, kind) in form.fields() {
            let Some(prefix) = name
                .strip_suffix("ResourceType")
                .filter(|prefix| prefix.starts_with("TagSpecification."))
            else {
                continue;
            };
            let tags = all.entry(kind.to_owned()).or_default();
            for (name, key) in form.fields() {
                let Some(tag) = name.strip_prefix(prefix).and_then(|n| n.strip_suffix("Key"))
                else {
                    continue;
                };
                let value = form.get(&format!("{prefix}{tag}Value")).unwrap_or_default();
                tags.insert(key.to_owned(), value.to_owned());
            }
        }
    }
    let own = all.entry("instance".to_owned()).or_default();
    own.insert("aws:ec2launchtemplate:id".into(), template.id.clone());
    own.insert("aws:ec2launchtemplate:version".into(), template.version.to_string());
    all
}

fn push_tags(form: &mut Form, tags: BTreeMap<String, BTreeMap<String, String>>) {
    for (kind_number, (kind, tags)) in tags.into_iter().enumerate() {
        let prefix = format!("TagSpecification.{}", kind_number + 1);
        form.push(format!("{prefix}.ResourceType"), kind);
        for (number, (key, value)) in tags.into_iter().enumerate() {
            form.push(format!("{prefix}.Tag.{}.Key", number + 1), key);
            form.push(format!("{prefix}.Tag.{}.Value", number + 1), value);
        }
    }
}

/// A request for a new version, with what it takes over from its source.
fn derived(source: &Template, request: &Form) -> Form {
    const DATA: &str = "LaunchTemplateData.";
    let top = |name: &str| whole(name.strip_prefix(DATA).unwrap_or_default()).to_owned();
    let replaced: BTreeSet<String> =
        request.names().filter(|name| name.starts_with(DATA)).map(top).collect();
    let mut form = Form::default();
    for (name, value) in request.fields().filter(|(name, _)| *name != "SourceVersion") {
        form.push(name, value);
    }
    for (name, value) in source.fields.fields() {
        if !replaced.contains(whole(name)) {
            form.push(format!("{DATA}{name}"), value);
        }
    }
    form
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(data: &str) -> Template {
        let text = format!(
            "<R><launchTemplateVersionSet><item><launchTemplateId>lt-1</launchTemplateId>\
             <launchTemplateName>web</launchTemplateName><versionNumber>3</versionNumber>\
             <launchTemplateData>{data}</launchTemplateData></item></launchTemplateVersionSet></R>"
        );
        let mut root = Element::parse(&text).expect("XML");
        adjust_versions(&mut root);
        read(root.items(&["launchTemplateVersionSet"]).next().expect("a version"))
            .expect("a template")
    }

    #[test]
    fn an_answer_becomes_the_fields_of_a_request() {
        let fields = template(
            "<imageId>ami-1</imageId><userData></userData><iamInstanceProfile><name>p</name></iamInstanceProfile>\
             <networkInterfaceSet><item><deviceIndex>0</deviceIndex><groupSet><groupId>sg-1</groupId></groupSet>\
             </item></networkInterfaceSet><securityGroupIdSet><item>sg-2</item></securityGroupIdSet>\
             <tagSpecificationSet><item><resourceType>launch-template</resourceType><tagSet><item><key>a</key>\
             <value>b</value></item></tagSet></item></tagSpecificationSet>",
        )
        .fields;
        let expected = [
            ("ImageId", "ami-1"),
            ("IamInstanceProfile.Name", "p"),
            ("NetworkInterface.1.DeviceIndex", "0"),
            ("NetworkInterface.1.SecurityGroupId.1", "sg-1"),
            ("SecurityGroupId.1", "sg-2"),
        ];
        assert_eq!(fields.fields().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn the_requests_parameters_come_before_the_templates() {
        let template = template(
            "<imageId>ami-1</imageId><instanceType>t3.micro</instanceType>\
             <metadataOptions><httpTokens>required</httpTokens><instanceMetadataTags>enabled</instanceMetadataTags>\
             </metadataOptions><securityGroupIdSet><item>sg-1</item><item>sg-2</item></securityGroupIdSet>\
             <blockDeviceMappingSet><item><deviceName>/dev/xvda</deviceName><ebs><volumeSize>9</volumeSize></ebs></item>\
             <item><deviceName>/dev/sdb</deviceName><ebs><volumeSize>5</volumeSize></ebs></item></blockDeviceMappingSet>\
             <tagSpecificationSet><item><resourceType>instance</resourceType><tagSet><item><key>Name</key>\
             <value>from-template</value></item><item><key>kept</key><value></value></item></tagSet></item>\
             </tagSpecificationSet>",
        );
        let request = Form::parse(
            b"Action=RunInstances&LaunchTemplate.LaunchTemplateId=lt-1&InstanceType=t3.large&SecurityGroupId.1=sg-9\
              &MetadataOptions.HttpTokens=optional&BlockDeviceMapping.1.DeviceName=/dev/xvda\
              &BlockDeviceMapping.1.Ebs.VolumeSize=20&TagSpecification.1.ResourceType=instance\
              &TagSpecification.1.Tag.1.Key=Name&TagSpecification.1.Tag.1.Value=own",
        );
        let form = merged(&template, &request).expect("merged");
        let check =
            |name: &str, expected: Option<&str>| assert_eq!(form.get(name), expected, "{name}");
        check("ImageId", Some("ami-1"));
        check("InstanceType", Some("t3.large"));
        check("LaunchTemplate.LaunchTemplateId", None);
        check("MetadataOptions.HttpTokens", Some("optional"));
        check("MetadataOptions.InstanceMetadataTags", Some("enabled"));
        check("BlockDeviceMapping.1.Ebs.VolumeSize", Some("20"));
        check("BlockDeviceMapping.2.DeviceName", Some("/dev/sdb"));
        check("BlockDeviceMapping.3.DeviceName", None);
        assert_eq!(form.list("SecurityGroupId"), ["sg-9"]);
        let tags: Vec<_> = (1..=4)
            .map(|n| {
                let of = |part: &str| form.get(&format!("TagSpecification.1.Tag.{n}.{part}"));
                (of("Key").unwrap_or("-"), of("Value").unwrap_or("-"))
            })
            .collect();
        assert_eq!(
            tags,
            [
                ("Name", "own"),
                ("aws:ec2launchtemplate:id", "lt-1"),
                ("aws:ec2launchtemplate:version", "3"),
                ("kept", "")
            ]
        );
    }

    #[test]
    fn what_cannot_be_true_is_refused_from_a_template_too() {
        let request = Form::parse(b"Action=RunInstances");
        let check = |data: &str, code: &str| {
            let refusal = merged(&template(data), &request).expect_err("refused");
            assert_eq!(refusal.code, code, "{}", refusal.message);
        };
        check(
            "<imageId>ami-1</imageId><instanceMarketOptions><marketType>spot</marketType></instanceMarketOptions>",
            "NotImplemented",
        );
        check(
            "<imageId>ami-1</imageId><instanceRequirements><vCpuCount><min>2</min></vCpuCount></instanceRequirements>",
            "NotImplemented",
        );
        check("<instanceType>t3.micro</instanceType>", "MissingParameter");
        for version in ["0", "-1", "latest", "", "1.5"] {
            assert!(known_version(version, "lt-1").is_err(), "{version}");
        }
    }

    #[test]
    fn a_version_takes_over_what_it_does_not_say() {
        let source = template("<imageId>ami-1</imageId><instanceType>t3.micro</instanceType>");
        let request = Form::parse(
            b"Action=CreateLaunchTemplateVersion&SourceVersion=3&LaunchTemplateData.InstanceType=t3.large",
        );
        let form = derived(&source, &request);
        assert_eq!(form.get("LaunchTemplateData.InstanceType"), Some("t3.large"));
        assert_eq!(form.get("LaunchTemplateData.ImageId"), Some("ami-1"));
        assert_eq!(form.get("SourceVersion"), None);
    }
}
