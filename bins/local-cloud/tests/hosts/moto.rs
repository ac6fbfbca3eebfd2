//! Where the emulator alone would be wrong: with the real one, and a real host that holds what may not be deleted.

use serde_json::Value;

use crate::cloud::Cloud;

/// A range that no other scenario uses; no host is in it, so no network is made of it.
const RANGE: &str = "10.36.0.0/16";

pub(crate) fn scenarios(cloud: &Cloud) {
    std::thread::scope(|scope| {
        let host = std::thread::Builder::new()
            .name("moto".into())
            .spawn_scoped(scope, || {
                cloud.check("what a host uses stays", || what_a_host_uses_stays(cloud));
            })
            .expect("a thread");
        nat_gateways_come_and_go(cloud);
        cloud.check("a dry run does nothing", || dry_runs_do_nothing(cloud));
        cloud.check("lists come in pages, and all of them", || lists_come_in_pages(cloud));
        cloud.check("bad requests get AWS's codes", || bad_requests_are_refused(cloud));
        host.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

fn text(value: &Value, pointer: &str) -> String {
    let found = value.pointer(pointer).and_then(Value::as_str);
    found.unwrap_or_else(|| panic!("no {pointer} in {value}")).to_owned()
}

fn what_a_host_uses_stays(cloud: &Cloud) {
    let group = cloud.make_group("moto-host");
    let ebs = |device: &str, delete: bool| {
        format!("DeviceName={device},Ebs={{VolumeSize=1,DeleteOnTermination={delete}}}")
    };
    let (scratch, data) = (ebs("/dev/sdf", true), ebs("/dev/sdg", false));
    let more = ["--security-group-ids", &group, "--block-device-mappings", &scratch, &data];
    let id = cloud.launch("moto", "bookworm", "", &more);
    let instance = cloud.instance(&id);
    let interface = text(&instance, "/NetworkInterfaces/0/NetworkInterfaceId");
    let mappings = instance["BlockDeviceMappings"].as_array().cloned().unwrap_or_default();
    let volume_of = |device: &str| {
        let found = mappings.iter().find(|mapping| mapping["DeviceName"] == device);
        text(found.unwrap_or_else(|| panic!("no {device} in {mappings:?}")), "/Ebs/VolumeId")
    };
    let volume = volume_of("/dev/xvda");
    let subnet = text(&instance, "/SubnetId");
    let dependency = "DependencyViolation";
    cloud.refused(dependency, &["ec2", "delete-security-group", "--group-id", &group]);
    cloud.refused(dependency, &["ec2", "delete-subnet", "--subnet-id", &subnet]);
    let delete = ["ec2", "delete-network-interface", "--network-interface-id", &interface];
    let message = cloud.refused("InvalidParameterValue", &delete);
    assert!(message.ends_with("is currently in use."), "{message}");
    cloud.refused("VolumeInUse", &["ec2", "delete-volume", "--volume-id", &volume]);
    let address = text(&instance, "/PrivateIpAddress");
    let taken = cloud.try_launch("late", "bookworm", "", &["--private-ip-address", &address]);
    let error = taken.expect_err("its address is taken");
    assert_eq!(error.code, "InvalidIPAddress.InUse");
    assert_eq!(error.message, format!("Address {address} is in use."));
    cloud.terminate(&[&id]);
    for gone in [&volume, &volume_of("/dev/sdf")] {
        cloud.refused("InvalidVolume.NotFound", &["ec2", "describe-volumes", "--volume-ids", gone]);
    }
    let kept = volume_of("/dev/sdg");
    let shown = cloud.ok(&["ec2", "describe-volumes", "--volume-ids", &kept]);
    assert_eq!(text(&shown, "/Volumes/0/State"), "available");
    cloud.ok(&["ec2", "delete-volume", "--volume-id", &kept]);
    cloud.refused(
        "InvalidNetworkInterfaceID.NotFound",
        &["ec2", "describe-network-interfaces", "--network-interface-ids", &interface],
    );
    cloud.ok(&["ec2", "delete-security-group", "--group-id", &group]);
}

fn nat_gateways_come_and_go(cloud: &Cloud) {
    let vpc = text(&cloud.ok(&["ec2", "create-vpc", "--cidr-block", RANGE]), "/Vpc/VpcId");
    let subnet = cloud.ok(&["ec2", "create-subnet", "--vpc-id", &vpc, "--cidr-block", RANGE]);
    let subnet = text(&subnet, "/Subnet/SubnetId");
    let gateway = cloud.ok(&["ec2", "create-internet-gateway"]);
    let gateway = text(&gateway, "/InternetGateway/InternetGatewayId");
    let at_gateway = ["--internet-gateway-id", gateway.as_str(), "--vpc-id", &vpc];
    let call = |operation: &'static str, more: &[&'_ str]| {
        let args: Vec<String> =
            ["ec2", operation].iter().chain(more).map(|arg| (*arg).to_owned()).collect();
        args
    };
    let ok = |args: &[String]| cloud.ok(&args.iter().map(String::as_str).collect::<Vec<_>>());
    let refused = |code: &str, args: &[String]| {
        cloud.refused(code, &args.iter().map(String::as_str).collect::<Vec<_>>())
    };
    ok(&call("attach-internet-gateway", &at_gateway));
    let address = text(&cloud.ok(&["ec2", "allocate-address"]), "/AllocationId");
    let made = ["--subnet-id", subnet.as_str(), "--allocation-id", &address];
    let nat = ok(&call("create-nat-gateway", &made));
    assert_eq!(text(&nat, "/NatGateway/State"), "pending");
    let nat = text(&nat, "/NatGateway/NatGatewayId");
    let state = || {
        let shown = cloud.ok(&["ec2", "describe-nat-gateways", "--nat-gateway-ids", &nat]);
        text(&shown, "/NatGateways/0/State")
    };
    let delete_subnet = call("delete-subnet", &["--subnet-id", &subnet]);
    let release = call("release-address", &["--allocation-id", &address]);
    let detach = call("detach-internet-gateway", &at_gateway);
    cloud.check("what a NAT gateway uses stays", || {
        cloud.until("the NAT gateway is available", || state() == "available");
        refused("DependencyViolation", &delete_subnet);
        refused("DependencyViolation", &detach);
        refused("DependencyViolation", &call("delete-vpc", &["--vpc-id", &vpc]));
        refused("AuthFailure", &release);
        let filter = format!("Name=subnet-id,Values={subnet}");
        let shown = cloud.ok(&["ec2", "describe-network-interfaces", "--filters", &filter]);
        let kind = text(&shown, "/NetworkInterfaces/0/InterfaceType");
        assert_eq!(
            (kind.as_str(), text(&shown, "/NetworkInterfaces/0/Status").as_str()),
            ("nat_gateway", "in-use")
        );
    });
    cloud.check("a deleted NAT gateway frees it, and stays listed", || {
        ok(&call("delete-nat-gateway", &["--nat-gateway-id", &nat]));
        cloud.until("the NAT gateway is deleted", || state() == "deleted");
        ok(&release);
        ok(&detach);
        ok(&delete_subnet);
        ok(&call("delete-internet-gateway", &at_gateway[..2]));
        ok(&call("delete-vpc", &["--vpc-id", &vpc]));
    });
}

fn dry_runs_do_nothing(cloud: &Cloud) {
    let vpcs = || cloud.ok(&["ec2", "describe-vpcs", "--filters", "Name=cidr,Values=10.36.0.0/17"]);
    cloud.refused(
        "DryRunOperation",
        &["ec2", "create-vpc", "--cidr-block", "10.36.0.0/17", "--dry-run"],
    );
    assert_eq!(vpcs()["Vpcs"].as_array().map(Vec::len), Some(0));
}

fn lists_come_in_pages(cloud: &Cloud) {
    for number in 0..5 {
        let name = format!("/moto/{number}");
        cloud.ok(&["ssm", "put-parameter", "--name", &name, "--type", "String", "--value", "x"]);
    }
    let path = ["ssm", "get-parameters-by-path", "--path", "/moto"];
    let of = |more: &[&str]| {
        let args: Vec<&str> = path.iter().chain(more).copied().collect();
        cloud.ok(&args)["Parameters"].as_array().map_or(0, Vec::len)
    };
    // The AWS CLI follows the tokens unless it is told not to.
    assert_eq!(of(&["--page-size", "10"]), 5);
    assert_eq!(of(&["--max-results", "10", "--no-paginate"]), 3);
    for number in 0..5 {
        cloud.ok(&["ssm", "delete-parameter", "--name", &format!("/moto/{number}")]);
    }
}

fn bad_requests_are_refused(cloud: &Cloud) {
    let filter = ["ec2", "describe-subnets", "--filters", "Name=vpcid,Values=x"];
    cloud.refused("InvalidParameterValue", &filter);
    cloud.refused(
        "InvalidInstanceID.Malformed",
        &["ec2", "terminate-instances", "--instance-ids", "host-1"],
    );
    cloud.refused(
        "NatGatewayNotFound",
        &["ec2", "delete-nat-gateway", "--nat-gateway-id", "nat-0123456789abcdef0"],
    );
}
