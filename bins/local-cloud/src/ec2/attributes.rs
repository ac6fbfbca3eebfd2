//! `ModifyInstanceAttribute`: some attributes can only be changed while the instance is stopped, and the emulator takes
//! each of them in one form only.

use axum::body::Body;
use axum::http::Response;

use super::answers::Refusal;
use super::{Ec2, Request};
use crate::hosts::HostState;
use crate::log;
use crate::operation::Form;

/// Attributes that belong to the machine's next start (user guide, "Change the instance type", "Work with instance user
/// data"; API reference, `ModifyInstanceAttribute`).
const STOPPED_ONLY: [&str; 7] = [
    "instanceType",
    "kernel",
    "ramdisk",
    "userData",
    "ebsOptimized",
    "enaSupport",
    "sriovNetSupport",
];
/// Those that the emulator reads as `Name.Value`; all others as `Attribute` and `Value`, where what is not text stays
/// text.
const AS_MEMBERS: [&str; 6] = [
    "instanceType",
    "kernel",
    "disableApiTermination",
    "sourceDestCheck",
    "ebsOptimized",
    "disableApiStop",
];

/// The attribute that a form changes and its value, when it is one with a plain value.
fn plain(form: &Form) -> Option<(String, String)> {
    if let Some(name) = form.get("Attribute") {
        return Some((name.to_owned(), form.get("Value").unwrap_or_default().to_owned()));
    }
    form.fields().find_map(|(name, value)| {
        // Parts of a list have two dots: `BlockDeviceMapping.1.Ebs.…`.
        let name = name.strip_suffix(".Value").or((name == "UserData").then_some(name))?;
        (!name.contains('.')).then(|| (lower_first(name), value.to_owned()))
    })
}

/// Writes it in the form that the emulator reads.
fn rewrite(form: &mut Form, name: &str, value: &str) {
    let member = upper_first(name);
    form.remove(|field| {
        field == "Attribute"
            || field == "Value"
            || field == member
            || field == format!("{member}.Value")
    });
    if AS_MEMBERS.contains(&name) {
        form.push(format!("{member}.Value"), value);
    } else {
        form.push("Attribute", name);
        form.push("Value", value);
    }
}

fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |c| c.to_ascii_lowercase().to_string() + chars.as_str())
}

fn upper_first(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |c| c.to_ascii_uppercase().to_string() + chars.as_str())
}

impl Ec2 {
    pub(super) async fn modify_attribute(
        &self,
        mut request: Request,
    ) -> Result<Response<Body>, Refusal> {
        let id = request.form.get("InstanceId").unwrap_or_default().to_owned();
        let changed = plain(&request.form);
        if let Some((name, value)) = &changed {
            let state = self.state(&id);
            if STOPPED_ONLY.contains(&name.as_str())
                && state.is_some_and(|state| state != HostState::Stopped)
            {
                let message = format!("The instance '{id}' is not in the 'stopped' state.");
                return Err(Refusal::client("IncorrectInstanceState", message));
            }
            if name == "instanceInitiatedShutdownBehavior"
                && !matches!(value.as_str(), "stop" | "terminate")
            {
                let message = format!("Value ({value}) for parameter {name} is invalid.");
                return Err(Refusal::client("InvalidParameterValue", message));
            }
            rewrite(&mut request.form, name, value);
        }
        let groups: Vec<String> =
            request.form.list("GroupId").into_iter().map(str::to_owned).collect();
        let answer = self.pass_changed(request).await?;
        if answer.status.is_success() {
            self.follow_groups(&id, &groups).await?;
            if changed.is_some_and(|(name, _)| name == "userData") {
                let data = self.user_data(&id).await?;
                if let Some(machine) = self.machines().get_mut(&id) {
                    machine.user_data = data;
                }
                log::line(format_args!("{id} has new user data"));
            }
            self.refresh().await?;
        }
        Ok(answer.into_response())
    }

    /// Takes an instance's protection away, before it ends by itself.
    pub(super) async fn unprotect(&self, id: &str) {
        let form = Form::new([
            ("Action", "ModifyInstanceAttribute"),
            ("Version", "2016-11-15"),
            ("InstanceId", id),
            ("DisableApiTermination.Value", "false"),
        ]);
        if let Err(error) = self.upstream.ask("ec2", &self.settings.region, &form).await {
            log::line(format_args!("{id}: {error}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attribute_comes_in_many_forms_and_goes_in_one() {
        let check = |form: &str, name: &str, value: &str, expected: &str| {
            let mut form = Form::parse(form.as_bytes());
            let found = plain(&form).expect("an attribute");
            assert_eq!(found, (name.to_owned(), value.to_owned()));
            rewrite(&mut form, name, value);
            assert_eq!(form.encode(), expected);
        };
        let stays = "DisableApiTermination.Value=true";
        check(stays, "disableApiTermination", "true", stays);
        check("Attribute=disableApiTermination&Value=true", "disableApiTermination", "true", stays);
        let text = "Attribute=instanceInitiatedShutdownBehavior&Value=terminate";
        let name = "instanceInitiatedShutdownBehavior";
        check(text, name, "terminate", text);
        check("InstanceInitiatedShutdownBehavior.Value=terminate", name, "terminate", text);
        let data = "Attribute=userData&Value=eA";
        check("UserData.Value=eA", "userData", "eA", data);
        check(data, "userData", "eA", data);
        for other in ["GroupId.1=sg-1", "BlockDeviceMapping.1.Ebs.DeleteOnTermination=true"] {
            assert_eq!(plain(&Form::parse(other.as_bytes())), None);
        }
    }
}
