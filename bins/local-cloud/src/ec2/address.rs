//! The private address that a launch asks for: the emulator takes one of another subnet, and fails over one that is taken.
//!
//! Codes and wording: "Error codes for the Amazon EC2 API" and what users of AWS report.

use std::net::Ipv4Addr;

use super::Ec2;
use super::answers::Refusal;
use crate::operation::Form;
use crate::reach::cidr::Cidr;

impl Ec2 {
    /// Refuses an address that is outside the subnet or in use; a host that is shutting down still has its own.
    pub(super) async fn private_address(&self, form: &Form) -> Result<(), Refusal> {
        let field =
            |name: &str| form.get(name).or_else(|| form.get(&format!("NetworkInterface.1.{name}")));
        let (Some(address), Some(subnet)) = (field("PrivateIpAddress"), field("SubnetId")) else {
            return Ok(());
        };
        let range = self.range("DescribeSubnets", "SubnetId.1", subnet, "subnetSet").await?;
        let address = in_subnet(address, &range)?;
        let of_host =
            self.lives_in(|seen| seen.subnet_id == subnet && seen.private_ip == Some(address));
        let text = address.to_string();
        let form = Form::new([
            ("Action", "DescribeNetworkInterfaces"),
            ("Version", "2016-11-15"),
            ("Filter.1.Name", "private-ip-address"),
            ("Filter.1.Value.1", &text),
            ("Filter.2.Name", "subnet-id"),
            ("Filter.2.Value.1", subnet),
        ]);
        let root = self.upstream.ask("ec2", &self.settings.region, &form).await?;
        if of_host || root.items(&["networkInterfaceSet"]).next().is_some() {
            let message = format!("Address {address} is in use.");
            return Err(Refusal::client("InvalidIPAddress.InUse", message));
        }
        Ok(())
    }
}

/// An address that hosts of a subnet may have: its first four and its last belong to AWS (VPC user guide, "Subnet CIDR
/// blocks").
fn in_subnet(text: &str, range: &str) -> Result<Ipv4Addr, Refusal> {
    let wrong = |message: String| Refusal::client("InvalidParameterValue", message);
    let Ok(address) = text.parse::<Ipv4Addr>() else {
        let message = format!("invalid value for parameter address: {text}");
        return Err(wrong(message));
    };
    let Ok(range) = range.parse::<Cidr>() else { return Ok(address) };
    if !range.contains(Cidr::host(address)) {
        let message = format!("Address {address} does not fall within the subnet's address range");
        return Err(wrong(message));
    }
    if range.reserves(address) {
        let message = format!("Address {address} is in subnet's reserved address range");
        return Err(wrong(message));
    }
    Ok(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_one_of_the_subnet_and_not_reserved() {
        let check = |text: &str, expected: Result<&str, &str>| {
            let found = in_subnet(text, "10.20.1.0/24").map(|address| address.to_string());
            match (&found, expected) {
                (Ok(address), Ok(wanted)) => assert_eq!(address, wanted),
                (Err(refusal), Err(part)) => {
                    assert!(refusal.message.contains(part), "{}", refusal.message);
                }
                other => panic!("{text}: {other:?}"),
            }
        };
        check("10.20.1.4", Ok("10.20.1.4"));
        check("10.20.1.254", Ok("10.20.1.254"));
        check("10.20.2.4", Err("does not fall within"));
        check("10.20.1.3", Err("reserved"));
        check("10.20.1.255", Err("reserved"));
        check("10.20.1", Err("invalid value"));
    }
}
