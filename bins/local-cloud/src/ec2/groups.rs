//! Where moto's picture of security groups differs from EC2's, it is put right: the group of a host is the group of its
//! first network interface, whichever of both was changed, a VPC's default group admits its own members, the default VPC
//! reaches the internet, and a VPC endpoint has a type.

use axum::body::Body;
use axum::http::Response;

use super::answers::Refusal;
use super::{Ec2, Request};
use crate::operation::Form;
use crate::xml::Element;

impl Ec2 {
    /// After `ModifyInstanceAttribute`: moto changes the groups of the instance and leaves those of its interface.
    pub(super) async fn follow_groups(
        &self,
        instance: &str,
        groups: &[String],
    ) -> Result<(), Refusal> {
        if let (false, Some(machine)) = (groups.is_empty(), self.machine(instance)) {
            let mut form = Form::new([
                ("Action", "ModifyNetworkInterfaceAttribute"),
                ("Version", "2016-11-15"),
                ("NetworkInterfaceId", &machine.seen.interface_id),
            ]);
            push_list(&mut form, "SecurityGroupId", groups);
            self.upstream.ask("ec2", &self.settings.region, &form).await?;
        }
        Ok(())
    }

    /// `ModifyNetworkInterfaceAttribute`: moto changes the groups of the interface and leaves those of its instance.
    pub(super) async fn modify_interface(
        &self,
        request: Request,
    ) -> Result<Response<Body>, Refusal> {
        let groups: Vec<String> =
            request.form.list("SecurityGroupId").into_iter().map(str::to_owned).collect();
        let interface = request.form.get("NetworkInterfaceId").unwrap_or_default().to_owned();
        let answer = self.pass(request).await?;
        if !answer.status.is_success() {
            return Ok(answer.into_response());
        }
        let of = |machine: &super::machine::Machine| {
            (machine.seen.interface_id == interface).then(|| machine.seen.instance_id.clone())
        };
        let instance = self.machines().values().find_map(of);
        if let (false, Some(instance)) = (groups.is_empty(), instance) {
            let mut form = Form::new([
                ("Action", "ModifyInstanceAttribute"),
                ("Version", "2016-11-15"),
                ("InstanceId", &instance),
            ]);
            push_list(&mut form, "GroupId", &groups);
            self.upstream.ask("ec2", &self.settings.region, &form).await?;
        }
        self.refresh().await?;
        Ok(answer.into_response())
    }

    /// `CreateVpc`: moto's default group of a new VPC lacks the rule that EC2's has, for traffic between its members.
    pub(super) async fn create_vpc(&self, request: Request) -> Result<Response<Body>, Refusal> {
        let answer = self.pass(request).await?;
        let vpc = answer
            .xml()
            .filter(|_| answer.status.is_success())
            .and_then(|root| root.text_at(&["vpc", "vpcId"]));
        if let Some(vpc) = vpc {
            self.open_default_groups(Some(&vpc)).await?;
        }
        Ok(answer.into_response())
    }

    /// `ModifySecurityGroupRules`: EC2 refuses to change what kind of peer a rule has; moto would leave the old peer, or
    /// add a second one, and it never changes a group or a list.
    pub(super) async fn modify_rules(&self, request: Request) -> Result<Response<Body>, Refusal> {
        let mut form =
            Form::new([("Action", "DescribeSecurityGroupRules"), ("Version", "2016-11-15")]);
        let group = request.form.get("GroupId").unwrap_or_default();
        form.push("Filter.1.Name", "group-id");
        form.push("Filter.1.Value.1", group);
        let root = self.upstream.ask("ec2", &self.settings.region, &form).await?;
        for rule in root.items(&["securityGroupRuleSet"]) {
            if let Some(id) = rule.text_at(&["securityGroupRuleId"]) {
                may_change(rule, &id, &request.form)?;
            }
        }
        self.pass_and_enforce(request).await
    }

    /// `CreateVpcEndpoint`: a gateway endpoint unless the type is named (API reference); moto keeps none, and fails over it
    /// when the endpoint is deleted.
    pub(super) async fn create_endpoint(
        &self,
        mut request: Request,
    ) -> Result<Response<Body>, Refusal> {
        if request.form.get("VpcEndpointType").is_none() {
            request.form.push("VpcEndpointType", "Gateway");
        }
        let answer = self.pass_changed(request).await?;
        if answer.status.is_success() {
            self.networks_changed().await;
        }
        Ok(answer.into_response())
    }

    /// What an account has from the beginning: moto's default VPC lacks the internet gateway of EC2's, and its group the rule.
    pub async fn complete_defaults(&self) -> Result<(), Refusal> {
        self.open_default_groups(None).await?;
        let ask = async |fields: &[(&str, &str)]| {
            let mut form = Form::new([("Version", "2016-11-15")]);
            for (name, value) in fields {
                form.push(*name, *value);
            }
            self.upstream.ask("ec2", &self.settings.region, &form).await
        };
        let vpcs = ask(&[
            ("Action", "DescribeVpcs"),
            ("Filter.1.Name", "is-default"),
            ("Filter.1.Value.1", "true"),
        ])
        .await?;
        let Some(vpc) = vpcs.text_at(&["vpcSet", "item", "vpcId"]) else { return Ok(()) };
        let gateways = ask(&[
            ("Action", "DescribeInternetGateways"),
            ("Filter.1.Name", "attachment.vpc-id"),
            ("Filter.1.Value.1", &vpc),
        ])
        .await?;
        if gateways.items(&["internetGatewaySet"]).next().is_some() {
            return Ok(());
        }
        let tables = ask(&[
            ("Action", "DescribeRouteTables"),
            ("Filter.1.Name", "vpc-id"),
            ("Filter.1.Value.1", &vpc),
            ("Filter.2.Name", "association.main"),
            ("Filter.2.Value.1", "true"),
        ])
        .await?;
        let made = ask(&[("Action", "CreateInternetGateway")]).await?;
        let gateway = made.text_at(&["internetGateway", "internetGatewayId"]);
        let table = tables.text_at(&["routeTableSet", "item", "routeTableId"]);
        let (Some(gateway), Some(table)) = (gateway, table) else { return Ok(()) };
        ask(&[
            ("Action", "AttachInternetGateway"),
            ("InternetGatewayId", &gateway),
            ("VpcId", &vpc),
        ])
        .await?;
        ask(&[
            ("Action", "CreateRoute"),
            ("RouteTableId", &table),
            ("DestinationCidrBlock", "0.0.0.0/0"),
            ("GatewayId", &gateway),
        ])
        .await?;
        Ok(())
    }

    /// Gives default groups without any rule the one that EC2's begin with; of one VPC, or at the start of all.
    async fn open_default_groups(&self, vpc: Option<&str>) -> Result<(), Refusal> {
        let mut form = Form::new([
            ("Action", "DescribeSecurityGroups"),
            ("Version", "2016-11-15"),
            ("Filter.1.Name", "group-name"),
            ("Filter.1.Value.1", "default"),
        ]);
        if let Some(vpc) = vpc {
            form.push("Filter.2.Name", "vpc-id");
            form.push("Filter.2.Value.1", vpc);
        }
        let root = self.upstream.ask("ec2", &self.settings.region, &form).await?;
        for group in without_rules(&root) {
            let form = Form::new([
                ("Action", "AuthorizeSecurityGroupIngress"),
                ("Version", "2016-11-15"),
                ("GroupId", &group),
                ("IpPermissions.1.IpProtocol", "-1"),
                ("IpPermissions.1.Groups.1.GroupId", &group),
            ]);
            self.upstream.ask("ec2", &self.settings.region, &form).await?;
        }
        Ok(())
    }
}

/// The kinds of peers: the name in a request, and where it stands in an answer.
const PEERS: [(&str, &[&str]); 4] = [
    ("CidrIpv4", &["cidrIpv4"]),
    ("CidrIpv6", &["cidrIpv6"]),
    ("PrefixListId", &["prefixListId"]),
    ("ReferencedGroupId", &["referencedGroupInfo", "groupId"]),
];

/// Whether a request to modify rules may do so with this one.
fn may_change(rule: &Element, id: &str, form: &Form) -> Result<(), Refusal> {
    let own = |name: &&str| name.ends_with(".SecurityGroupRuleId") && form.get(name) == Some(id);
    let Some(prefix) = form.names().find(own).and_then(|n| n.strip_suffix("Id")) else {
        return Ok(());
    };
    for (kind, path) in PEERS {
        let (before, wanted) = (rule.text_at(path), form.get(&format!("{prefix}.{kind}")));
        match (before, wanted) {
            (None, Some(_)) => {
                let message = format!(
                    "Invalid rule type for security group rule '{id}'. You may not specify {kind} for an existing rule of \
                     another type."
                );
                return Err(Refusal::client("InvalidParameterValue", message));
            }
            (Some(before), Some(wanted)) if before != wanted && kind != "CidrIpv4" => {
                let what = format!("ModifySecurityGroupRules with another {kind}");
                return Err(Refusal::not_implemented(&what));
            }
            _ => {}
        }
    }
    Ok(())
}

fn without_rules(root: &Element) -> Vec<String> {
    root.items(&["securityGroupInfo"])
        .filter(|group| group.items(&["ipPermissions"]).next().is_none())
        .filter_map(|group| group.text_at(&["groupId"]))
        .collect()
}

fn push_list(form: &mut Form, name: &str, values: &[String]) {
    for (number, value) in values.iter().enumerate() {
        form.push(format!("{name}.{}", number + 1), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_keeps_the_kind_of_its_peer() {
        let check = |rule: &str, wanted: &str, expected: Option<&str>| {
            let rule = Element::parse(&format!("<item>{rule}</item>")).expect("XML");
            let form = Form::parse(
                format!(
                    "SecurityGroupRule.1.SecurityGroupRuleId=sgr-1&SecurityGroupRule.1.SecurityGroupRule.{wanted}"
                )
                .as_bytes(),
            );
            let found = may_change(&rule, "sgr-1", &form).err().map(|refusal| refusal.code);
            assert_eq!(found, expected, "{wanted}");
            assert!(may_change(&rule, "sgr-2", &form).is_ok());
        };
        let (range, group) = (
            "<cidrIpv4>10.0.0.0/8</cidrIpv4>",
            "<referencedGroupInfo><groupId>sg-1</groupId></referencedGroupInfo>",
        );
        check(range, "CidrIpv4=10.1.0.0/16", None);
        check(range, "ReferencedGroupId=sg-1", Some("InvalidParameterValue"));
        check(group, "ReferencedGroupId=sg-1", None);
        check(group, "ReferencedGroupId=sg-2", Some("NotImplemented"));
        check(group, "CidrIpv4=10.1.0.0/16", Some("InvalidParameterValue"));
        check(group, "FromPort=1", None);
    }

    #[test]
    fn only_default_groups_without_rules_are_opened() {
        let root = Element::parse(
            "<R><securityGroupInfo>\
             <item><groupId>sg-1</groupId><ipPermissions/></item>\
             <item><groupId>sg-2</groupId><ipPermissions><item><ipProtocol>-1</ipProtocol></item></ipPermissions></item>\
             </securityGroupInfo></R>",
        )
        .expect("XML");
        assert_eq!(without_rules(&root), ["sg-1"]);
        let mut form = Form::default();
        push_list(&mut form, "GroupId", &["sg-1".into(), "sg-2".into()]);
        assert_eq!(form.list("GroupId"), ["sg-1", "sg-2"]);
    }
}
