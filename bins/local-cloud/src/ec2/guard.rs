//! Deletions that EC2 refuses because something still depends on the thing; the emulator would carry them out.
//!
//! What there is, is asked from the emulator; whether it stands in the way is decided by pure functions. Codes and
//! wording: "Error codes for the Amazon EC2 API" (API reference), and for interfaces (`InvalidParameterValue`, not
//! `InvalidNetworkInterface.InUse`) and addresses of NAT gateways (`AuthFailure`) what users of AWS report.

use super::answers::Refusal;
use super::{Ec2, Request};
use crate::hosts::HostState;
use crate::operation::Form;
use crate::xml::Element;

/// Whether an item of an answer is in the way.
type Counts = fn(&Element) -> bool;

impl Ec2 {
    /// Refuses a deletion that EC2 would refuse.
    pub(super) async fn guard(&self, operation: &str, request: &Request) -> Result<(), Refusal> {
        let look = Look { ec2: self, region: &request.region };
        let form = &request.form;
        let field = |name| form.get(name).unwrap_or_default();
        match operation {
            "DeleteSecurityGroup" => look.security_group(form).await,
            "DeleteSubnet" => look.subnet(field("SubnetId")).await,
            "DeleteVpc" => look.vpc(field("VpcId")).await,
            "DetachInternetGateway" => {
                look.internet_gateway(field("InternetGatewayId"), field("VpcId")).await
            }
            "DeleteRouteTable" => look.route_table(field("RouteTableId")).await,
            "DeleteNetworkAcl" => look.network_acl(field("NetworkAclId")).await,
            "DeleteNetworkInterface" => look.interface(field("NetworkInterfaceId")).await,
            "ReleaseAddress" | "DisassociateAddress" => look.address(operation, form).await,
            _ => Ok(()),
        }
    }

    /// Instances that live inside something, including those that are still shutting down: the emulator has
    /// forgotten the interfaces of these.
    pub(super) fn lives_in(&self, inside: impl Fn(&super::machine::Seen) -> bool) -> bool {
        self.machines().values().any(|machine| {
            inside(&machine.seen)
                && self
                    .state(&machine.seen.instance_id)
                    .is_some_and(|state| state != HostState::Terminated)
        })
    }
}

/// Questions about one region.
struct Look<'a> {
    ec2: &'a Ec2,
    region: &'a str,
}

impl Look<'_> {
    /// The items of a describe answer, narrowed by one filter where the emulator knows it.
    async fn items(
        &self,
        operation: &str,
        set: &str,
        filter: Option<(&str, &str)>,
    ) -> Result<Vec<Element>, Refusal> {
        let mut form = Form::new([("Action", operation), ("Version", "2016-11-15")]);
        if let Some((name, value)) = filter {
            form.push("Filter.1.Name", name);
            form.push("Filter.1.Value.1", value);
        }
        let root = self.ec2.upstream.ask("ec2", self.region, &form).await?;
        Ok(root.items(&[set]).cloned().collect())
    }

    async fn interfaces(&self) -> Result<Vec<Element>, Refusal> {
        self.items("DescribeNetworkInterfaces", "networkInterfaceSet", None).await
    }

    async fn security_group(&self, form: &Form) -> Result<(), Refusal> {
        let groups = self.items("DescribeSecurityGroups", "securityGroupInfo", None).await?;
        let wanted = match (form.get("GroupId"), form.get("GroupName")) {
            (Some(id), _) => groups.iter().find(|group| is(group, "groupId", id)),
            (None, Some(name)) => groups.iter().find(|group| is(group, "groupName", name)),
            (None, None) => None,
        };
        // What does not exist is refused by the emulator, in EC2's words.
        let Some(group) = wanted else { return Ok(()) };
        let id = text(group, "groupId");
        if is(group, "groupName", "default") {
            let message = format!(
                "the specified group: \"{id}\" name: \"default\" cannot be deleted by a user"
            );
            return Err(Refusal::client("CannotDelete", message));
        }
        let lives = self.ec2.lives_in(|seen| seen.groups.contains_key(&id));
        let uses = |interface: &Element| {
            interface.items(&["groupSet"]).any(|group| is(group, "groupId", &id))
        };
        if lives
            || groups.iter().any(|other| refers(other, &id))
            || self.interfaces().await?.iter().any(uses)
        {
            let message = format!("resource {id} has a dependent object");
            return Err(Refusal::client("DependencyViolation", message));
        }
        Ok(())
    }

    async fn subnet(&self, id: &str) -> Result<(), Refusal> {
        let inside = |item: &Element| is(item, "subnetId", id);
        // A deleted NAT gateway is still listed, with its subnet; its interface is gone.
        let used = self.ec2.lives_in(|seen| seen.subnet_id == id)
            || self.interfaces().await?.iter().any(inside);
        if used { Err(depends("subnet", id)) } else { Ok(()) }
    }

    async fn vpc(&self, id: &str) -> Result<(), Refusal> {
        if self.ec2.lives_in(|seen| seen.vpc_id == id) {
            return Err(depends("vpc", id));
        }
        let vpc = Some(("vpc-id", id));
        let attached = Some(("attachment.vpc-id", id));
        let any = |_: &Element| true;
        let own_group = |group: &Element| !is(group, "groupName", "default");
        let own_table = |table: &Element| !is_main(table);
        let own_list = |acl: &Element| !is(acl, "default", "true");
        let alive = |endpoint: &Element| {
            !matches!(text(endpoint, "state").to_lowercase().as_str(), "deleted" | "deleting")
        };
        // Operation, the list in its answer, filter, and which of the list count.
        let dependents: [(&str, &str, _, Counts); 7] = [
            ("DescribeSubnets", "subnetSet", vpc, any),
            ("DescribeInternetGateways", "internetGatewaySet", attached, any),
            ("DescribeSecurityGroups", "securityGroupInfo", vpc, own_group),
            ("DescribeRouteTables", "routeTableSet", vpc, own_table),
            ("DescribeNetworkAcls", "networkAclSet", vpc, own_list),
            ("DescribeNetworkInterfaces", "networkInterfaceSet", vpc, any),
            ("DescribeVpcEndpoints", "vpcEndpointSet", vpc, alive),
        ];
        for (operation, set, filter, counts) in dependents {
            if self.items(operation, set, filter).await?.iter().any(counts) {
                return Err(depends("vpc", id));
            }
        }
        Ok(())
    }

    async fn internet_gateway(&self, gateway: &str, vpc: &str) -> Result<(), Refusal> {
        let attached = Some(("attachment.vpc-id", vpc));
        let gateways =
            self.items("DescribeInternetGateways", "internetGatewaySet", attached).await?;
        if !gateways.iter().any(|item| is(item, "internetGatewayId", gateway)) {
            return Ok(());
        }
        let lives = self.ec2.lives_in(|seen| seen.vpc_id == vpc && seen.public_ip.is_some());
        let mapped = |interface: &Element| {
            is(interface, "vpcId", vpc) && interface.text_at(&["association", "publicIp"]).is_some()
        };
        if lives || self.interfaces().await?.iter().any(mapped) {
            let message = format!(
                "Network {vpc} has some mapped public address(es). Please unmap those public \
                 address(es) before detaching the gateway."
            );
            return Err(Refusal::client("DependencyViolation", message));
        }
        Ok(())
    }

    async fn route_table(&self, id: &str) -> Result<(), Refusal> {
        let tables = self.items("DescribeRouteTables", "routeTableSet", None).await?;
        let main = tables.iter().any(|table| is(table, "routeTableId", id) && is_main(table));
        if main { Err(depends("routeTable", id)) } else { Ok(()) }
    }

    async fn network_acl(&self, id: &str) -> Result<(), Refusal> {
        let lists = self.items("DescribeNetworkAcls", "networkAclSet", None).await?;
        let default = |acl: &Element| is(acl, "networkAclId", id) && is(acl, "default", "true");
        if lists.iter().any(default) {
            let message = format!("cannot delete default network ACL {id}");
            return Err(Refusal::client("InvalidParameterValue", message));
        }
        Ok(())
    }

    async fn interface(&self, id: &str) -> Result<(), Refusal> {
        let interfaces = self.interfaces().await?;
        let in_use = interfaces.iter().any(|interface| {
            is(interface, "networkInterfaceId", id) && is(interface, "status", "in-use")
        });
        if in_use {
            let message = format!("Network interface '{id}' is currently in use.");
            return Err(Refusal::client("InvalidParameterValue", message));
        }
        Ok(())
    }

    async fn address(&self, operation: &str, form: &Form) -> Result<(), Refusal> {
        let addresses = self.items("DescribeAddresses", "addressesSet", None).await?;
        let named = [
            ("AllocationId", "allocationId"),
            ("AssociationId", "associationId"),
            ("PublicIp", "publicIp"),
        ];
        let wanted = named.iter().find_map(|(parameter, member)| {
            let value = form.get(parameter)?;
            addresses.iter().find(|address| is(address, member, value))
        });
        let Some(address) = wanted else { return Ok(()) };
        let interface = text(address, "networkInterfaceId");
        if text(address, "associationId").is_empty() && interface.is_empty() {
            return Ok(());
        }
        let gateways = self.items("DescribeNatGateways", "natGatewaySet", None).await?;
        let of_gateway =
            gateways.iter().filter(|gateway| !is(gateway, "state", "deleted")).any(|gateway| {
                gateway
                    .items(&["natGatewayAddressSet"])
                    .any(|own| is(own, "networkInterfaceId", &interface))
            });
        if of_gateway {
            let message = "You do not have permission to access the specified resource.";
            return Err(Refusal::client("AuthFailure", message));
        }
        if operation == "ReleaseAddress" {
            let message = format!("Address {} is in use.", text(address, "publicIp"));
            return Err(Refusal::client("InvalidIPAddress.InUse", message));
        }
        Ok(())
    }
}

fn depends(kind: &str, id: &str) -> Refusal {
    let message = format!("The {kind} '{id}' has dependencies and cannot be deleted.");
    Refusal::client("DependencyViolation", message)
}

fn text(item: &Element, member: &str) -> String {
    item.text_at(&[member]).unwrap_or_default()
}

fn is(item: &Element, member: &str, value: &str) -> bool {
    item.text_at(&[member]).as_deref() == Some(value)
}

/// Whether a rule of another group names this group.
fn refers(other: &Element, id: &str) -> bool {
    !is(other, "groupId", id)
        && ["ipPermissions", "ipPermissionsEgress"].iter().any(|rules| {
            other
                .items(&[rules])
                .flat_map(|rule| rule.items(&["groups"]))
                .any(|pair| is(pair, "groupId", id))
        })
}

fn is_main(table: &Element) -> bool {
    table.items(&["associationSet"]).any(|association| is(association, "main", "true"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_of_another_group_holds_a_group() {
        let group = |id: &str, direction: &str, named: &str| {
            let text = format!(
                "<item><groupId>{id}</groupId><{direction}><item><groups><item><groupId>{named}</groupId>\
                 </item></groups></item></{direction}></item>"
            );
            Element::parse(&text).expect("XML")
        };
        assert!(refers(&group("sg-b", "ipPermissions", "sg-a"), "sg-a"));
        assert!(refers(&group("sg-b", "ipPermissionsEgress", "sg-a"), "sg-a"));
        assert!(!refers(&group("sg-b", "ipPermissions", "sg-c"), "sg-a"));
        // Its own rules go with it.
        assert!(!refers(&group("sg-a", "ipPermissions", "sg-a"), "sg-a"));
    }

    #[test]
    fn the_main_route_table_is_known_by_its_association() {
        let table = |main: &str| {
            let text = format!(
                "<item><associationSet><item><main>{main}</main></item></associationSet></item>"
            );
            Element::parse(&text).expect("XML")
        };
        assert!(is_main(&table("true")));
        assert!(!is_main(&table("false")));
    }
}
