"""A session as a deployment and its operators make one, by boto3 against a running rehearsal cloud: every operation that
is made true, its refusals, and what the Terraform modules call besides.

    session.py ANSWERS --vpc ID --subnet ID --group ID --profile NAME --image AMI

Writes one JSON line per answer into ANSWERS: service, operation, status, error code, mark, and the differences from
botocore's model. Fails when a call ends otherwise than it must.
"""

import argparse
import json
import time

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

import shapes

RECORDS = []
HOST_PATIENCE = 120


def client(service):
    # One attempt: every error is seen. What is wrong in a parameter is for the service to say.
    config = Config(
        retries={"total_max_attempts": 1},
        parameter_validation=False,
        s3={"addressing_style": "path"},
    )
    made = boto3.client(service, config=config)
    shapes.watch(made.meta.events, RECORDS)
    return made


def refused(code, call, **arguments):
    try:
        answer = call(**arguments)
    except ClientError as error:
        found = error.response["Error"]["Code"]
        assert found == code, f"{call.__name__}: {code} expected: {error}"
        return error.response["Error"]["Message"]
    raise AssertionError(f"{call.__name__}: {code} expected, it answered {answer}")


def until(what, condition):
    end = time.monotonic() + HOST_PATIENCE
    while not condition():
        assert time.monotonic() < end, f"waited {HOST_PATIENCE} s until {what}"
        time.sleep(0.25)


class Session:
    def __init__(self, given):
        self.given = given
        self.ec2, self.ssm = client("ec2"), client("ssm")

    def run(self):
        first, second = self.launch()
        self.look_at_instances(first)
        self.tags(first)
        self.attributes(first)
        self.refusals(first)
        self.addresses(first)
        self.managed([first, second])
        self.commands([first, second])
        self.parameters()
        self.ec2.reboot_instances(InstanceIds=[first])
        self.stop_and_start(second)
        self.profiles(second)
        self.network()
        self.groups_of_instances()
        self.other_services()
        self.end([first, second])

    def launch(self):
        request = {
            "ImageId": self.given.image,
            "InstanceType": "t3.micro",
            "MinCount": 2,
            "MaxCount": 2,
            "SubnetId": self.given.subnet,
            "SecurityGroupIds": [self.given.group],
            "IamInstanceProfile": {"Name": self.given.profile},
            "UserData": "#cloud-config\n{}\n",
            "ClientToken": "conformance",
            "MetadataOptions": {"HttpTokens": "required"},
            "TagSpecifications": [
                {"ResourceType": "instance", "Tags": [{"Key": "Name", "Value": "conformance"}]},
                {"ResourceType": "volume", "Tags": [{"Key": "Name", "Value": "conformance"}]},
            ],
        }
        answer = self.ec2.run_instances(**request)
        ids = [instance["InstanceId"] for instance in answer["Instances"]]
        self.ec2.describe_instances(InstanceIds=ids)
        self.ec2.describe_instance_status(InstanceIds=ids, IncludeAllInstances=True)
        self.ec2.get_waiter("instance_running").wait(InstanceIds=ids, WaiterConfig={"Delay": 1})
        return ids

    def look_at_instances(self, one):
        ec2 = self.ec2
        ec2.describe_instances(Filters=[{"Name": "tag:Name", "Values": ["conformance"]}])
        ec2.describe_instances(Filters=[{"Name": "instance-state-name", "Values": ["running", "pending"]}])
        ec2.describe_instances(Filters=[{"Name": "subnet-id", "Values": [self.given.subnet]}])
        ec2.describe_instance_status(InstanceIds=[one])
        ec2.describe_instance_status(Filters=[{"Name": "instance-state-name", "Values": ["running"]}])
        ec2.get_console_output(InstanceId=one)
        ec2.describe_volumes(Filters=[{"Name": "attachment.instance-id", "Values": [one]}])
        ec2.describe_network_interfaces(Filters=[{"Name": "attachment.instance-id", "Values": [one]}])
        ec2.describe_instance_types(InstanceTypes=["t3.micro"])
        ec2.describe_instance_credit_specifications(InstanceIds=[one])
        ec2.describe_images(ImageIds=[self.given.image])
        ec2.describe_images(Filters=[{"Name": "name", "Values": ["debian-12-amd64-*"]}])
        ec2.describe_availability_zones()
        ec2.describe_account_attributes()
        ec2.describe_security_groups(GroupIds=[self.given.group])
        ec2.describe_security_group_rules(Filters=[{"Name": "group-id", "Values": [self.given.group]}])

    def tags(self, one):
        self.ec2.create_tags(Resources=[one], Tags=[{"Key": "proof", "Value": "yes"}])
        self.ec2.describe_tags(Filters=[{"Name": "resource-id", "Values": [one]}])
        self.ec2.delete_tags(Resources=[one], Tags=[{"Key": "proof"}])

    def attributes(self, one):
        ec2 = self.ec2
        for name in ("userData", "disableApiTermination", "instanceInitiatedShutdownBehavior", "instanceType"):
            ec2.describe_instance_attribute(InstanceId=one, Attribute=name)
        ec2.modify_instance_attribute(InstanceId=one, DisableApiTermination={"Value": True})
        refused("OperationNotPermitted", ec2.terminate_instances, InstanceIds=[one])
        ec2.modify_instance_attribute(InstanceId=one, DisableApiTermination={"Value": False})
        ec2.modify_instance_metadata_options(InstanceId=one, HttpTokens="required", HttpEndpoint="enabled")
        interface = ec2.describe_instances(InstanceIds=[one])["Reservations"][0]["Instances"][0]
        interface = interface["NetworkInterfaces"][0]["NetworkInterfaceId"]
        ec2.modify_network_interface_attribute(NetworkInterfaceId=interface, Groups=[self.given.group])

    def refusals(self, one):
        ec2, unknown = self.ec2, "i-0123456789abcdef0"
        for call in (ec2.start_instances, ec2.stop_instances, ec2.reboot_instances, ec2.terminate_instances):
            refused("InvalidInstanceID.NotFound", call, InstanceIds=[unknown])
        refused("InvalidInstanceID.NotFound", ec2.describe_instances, InstanceIds=[unknown])
        refused("InvalidInstanceID.NotFound", ec2.get_console_output, InstanceId=unknown)
        refused("InvalidAMIID.NotFound", ec2.run_instances, ImageId="ami-00000000000000000", MinCount=1, MaxCount=1)
        refused("NotImplemented", ec2.create_image, InstanceId=one, Name="x")
        refused("NotImplemented", ec2.create_vpc_peering_connection, VpcId=self.given.vpc)
        refused("NotImplemented", ec2.request_spot_instances, InstanceCount=1)
        refused("DependencyViolation", ec2.delete_vpc, VpcId=self.given.vpc)

    def addresses(self, one):
        ec2 = self.ec2
        allocation = ec2.allocate_address(Domain="vpc")["AllocationId"]
        association = ec2.associate_address(AllocationId=allocation, InstanceId=one)["AssociationId"]
        ec2.describe_addresses(AllocationIds=[allocation])
        ec2.describe_instances(InstanceIds=[one])
        ec2.disassociate_address(AssociationId=association)
        ec2.release_address(AllocationId=allocation)

    def profiles(self, one):
        ec2 = self.ec2
        profile = {"Name": self.given.profile}
        refused("IncorrectState", ec2.associate_iam_instance_profile, IamInstanceProfile=profile, InstanceId=one)
        filters = [{"Name": "instance-id", "Values": [one]}]
        found = ec2.describe_iam_instance_profile_associations(Filters=filters)
        found = found["IamInstanceProfileAssociations"][0]["AssociationId"]
        ec2.disassociate_iam_instance_profile(AssociationId=found)
        made = ec2.associate_iam_instance_profile(IamInstanceProfile=profile, InstanceId=one)
        made = made["IamInstanceProfileAssociation"]["AssociationId"]
        ec2.replace_iam_instance_profile_association(IamInstanceProfile=profile, AssociationId=made)

    def managed(self, ids):
        def online():
            filters = [{"Key": "InstanceIds", "Values": ids}]
            found = self.ssm.describe_instance_information(Filters=filters)["InstanceInformationList"]
            return len(found) == 2 and all(one["PingStatus"] == "Online" for one in found)

        until("both hosts are online", online)
        self.ssm.describe_instance_information(MaxResults=5)
        refused("ValidationException", self.ssm.describe_instance_information, MaxResults=4)
        refused("InvalidInstanceId", self.ssm.send_command, InstanceIds=["i-0123456789abcdef0"],
                DocumentName="AWS-RunShellScript", Parameters={"commands": ["true"]})

    def send(self, ids, *lines, **more):
        arguments = {"DocumentName": "AWS-RunShellScript", "Parameters": {"commands": list(lines)}, **more}
        return self.ssm.send_command(InstanceIds=ids, **arguments)["Command"]["CommandId"]

    def ended(self, command, one):
        last = {}

        def look():
            try:
                last.update(self.ssm.get_command_invocation(CommandId=command, InstanceId=one))
            except self.ssm.exceptions.InvocationDoesNotExist:
                return False
            return last["Status"] not in ("Pending", "InProgress", "Delayed", "Cancelling")

        until(f"the command ended on {one}", look)
        return last

    def commands(self, ids):
        ssm = self.ssm
        good = self.send(ids, "echo out", "echo err >&2", Comment="good", TimeoutSeconds=60)
        bad = self.send(ids[:1], "exit 3")
        long = self.send(ids[1:], "sleep 600")
        for one in ids:
            assert self.ended(good, one)["Status"] == "Success"
        assert self.ended(bad, ids[0])["ResponseCode"] == 3
        ssm.cancel_command(CommandId=long)
        assert self.ended(long, ids[1])["Status"] == "Cancelled"
        by_tag = ssm.send_command(Targets=[{"Key": "tag:Name", "Values": ["conformance"]}], MaxConcurrency="1",
                                  MaxErrors="0", DocumentName="AWS-RunShellScript", Parameters={"commands": ["true"]})
        by_tag = by_tag["Command"]["CommandId"]
        for one in ids:
            assert self.ended(by_tag, one)["Status"] == "Success"
        ssm.list_commands()
        ssm.list_commands(CommandId=good)
        ssm.list_commands(Filters=[{"key": "Status", "value": "Success"}])
        ssm.list_commands(InstanceId=ids[0], MaxResults=1)
        ssm.list_command_invocations(CommandId=good)
        ssm.list_command_invocations(CommandId=good, Details=True)
        ssm.list_command_invocations(InstanceId=ids[0], MaxResults=1)
        ssm.get_command_invocation(CommandId=good, InstanceId=ids[0], PluginName="aws:runShellScript")
        unknown = "00000000-0000-4000-8000-000000000000"
        refused("InvocationDoesNotExist", ssm.get_command_invocation, CommandId=unknown, InstanceId=ids[0])
        refused("InvalidPluginName", ssm.get_command_invocation, CommandId=good, InstanceId=ids[0], PluginName="x")
        refused("InvalidCommandId", ssm.cancel_command, CommandId=unknown)
        refused("InvalidDocument", ssm.send_command, InstanceIds=ids, DocumentName="no-such-document")
        refused("ValidationException", ssm.send_command, DocumentName="AWS-RunShellScript",
                InstanceIds=[f"i-{number:017x}" for number in range(51)], Parameters={"commands": ["true"]})
        refused("NotImplemented", ssm.start_session, Target=ids[0])

    def parameters(self):
        ssm = self.ssm
        ssm.put_parameter(Name="/proof/plain", Value="1", Type="String")
        ssm.put_parameter(Name="/proof/secret", Value="2", Type="SecureString")
        ssm.get_parameter(Name="/proof/plain")
        ssm.get_parameter(Name="/proof/secret", WithDecryption=True)
        ssm.get_parameters(Names=["/proof/plain", "/proof/none"])
        ssm.get_parameters_by_path(Path="/proof", Recursive=True)
        ssm.get_parameter_history(Name="/proof/plain")
        ssm.describe_parameters()
        refused("ParameterNotFound", ssm.get_parameter, Name="/proof/none")
        ssm.delete_parameter(Name="/proof/plain")
        ssm.delete_parameters(Names=["/proof/secret"])

    def stop_and_start(self, one):
        ec2 = self.ec2
        ec2.stop_instances(InstanceIds=[one])
        ec2.describe_instances(InstanceIds=[one])
        ec2.get_waiter("instance_stopped").wait(InstanceIds=[one], WaiterConfig={"Delay": 1})
        ec2.describe_instances(InstanceIds=[one])
        ec2.describe_instance_status(InstanceIds=[one], IncludeAllInstances=True)
        ec2.modify_instance_attribute(InstanceId=one, InstanceType={"Value": "t3.small"})
        ec2.start_instances(InstanceIds=[one])
        ec2.get_waiter("instance_running").wait(InstanceIds=[one], WaiterConfig={"Delay": 1})

    def network(self):
        """A second network, made and deleted in Terraform's order; what is in use must refuse to go."""
        ec2 = self.ec2
        vpc = ec2.create_vpc(CidrBlock="10.0.0.0/24")["Vpc"]["VpcId"]
        ec2.describe_vpcs(VpcIds=[vpc])
        ec2.modify_vpc_attribute(VpcId=vpc, EnableDnsHostnames={"Value": True})
        ec2.describe_vpc_attribute(VpcId=vpc, Attribute="enableDnsHostnames")
        subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.0.0/26")["Subnet"]["SubnetId"]
        ec2.describe_subnets(SubnetIds=[subnet])
        ec2.modify_subnet_attribute(SubnetId=subnet, MapPublicIpOnLaunch={"Value": True})
        gateway = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
        ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)
        ec2.describe_internet_gateways(InternetGatewayIds=[gateway])
        table = ec2.create_route_table(VpcId=vpc)["RouteTable"]["RouteTableId"]
        ec2.create_route(RouteTableId=table, DestinationCidrBlock="0.0.0.0/0", GatewayId=gateway)
        association = ec2.associate_route_table(RouteTableId=table, SubnetId=subnet)["AssociationId"]
        ec2.describe_route_tables(RouteTableIds=[table])
        group = ec2.create_security_group(GroupName="conformance", Description="x", VpcId=vpc)["GroupId"]
        rule = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
        ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[rule])
        refused("InvalidPermission.Duplicate", ec2.authorize_security_group_ingress, GroupId=group, IpPermissions=[rule])
        ec2.describe_security_group_rules(Filters=[{"Name": "group-id", "Values": [group]}])
        ec2.revoke_security_group_ingress(GroupId=group, IpPermissions=[rule])
        ec2.authorize_security_group_egress(GroupId=group, IpPermissions=[rule])
        ec2.revoke_security_group_egress(GroupId=group, IpPermissions=[rule])
        address = ec2.allocate_address(Domain="vpc")["AllocationId"]
        nat = ec2.create_nat_gateway(SubnetId=subnet, AllocationId=address)["NatGateway"]["NatGatewayId"]
        ec2.describe_nat_gateways(NatGatewayIds=[nat])
        ec2.create_route_table(VpcId=vpc)
        ec2.describe_network_acls(Filters=[{"Name": "vpc-id", "Values": [vpc]}])
        acl = ec2.create_network_acl(VpcId=vpc)["NetworkAcl"]["NetworkAclId"]
        ec2.delete_network_acl(NetworkAclId=acl)
        interface = ec2.create_network_interface(SubnetId=subnet)["NetworkInterface"]["NetworkInterfaceId"]
        ec2.describe_network_interfaces(NetworkInterfaceIds=[interface])
        refused("DependencyViolation", ec2.delete_subnet, SubnetId=subnet)
        ec2.delete_network_interface(NetworkInterfaceId=interface)
        ec2.create_flow_logs(ResourceIds=[vpc], ResourceType="VPC", TrafficType="ALL",
                             LogGroupName="x", DeliverLogsPermissionArn="arn:aws:iam::123456789012:role/x")
        ec2.describe_flow_logs()
        ec2.delete_nat_gateway(NatGatewayId=nat)
        until("the NAT gateway is deleted", lambda: all(
            one["State"] == "deleted" for one in ec2.describe_nat_gateways(NatGatewayIds=[nat])["NatGateways"]))
        ec2.release_address(AllocationId=address)
        ec2.delete_security_group(GroupId=group)
        refused("InvalidGroup.NotFound", ec2.describe_security_groups, GroupIds=[group])
        ec2.disassociate_route_table(AssociationId=association)
        ec2.delete_route(RouteTableId=table, DestinationCidrBlock="0.0.0.0/0")
        for one in ec2.describe_route_tables(Filters=[{"Name": "vpc-id", "Values": [vpc]}])["RouteTables"]:
            if not any(part["Main"] for part in one["Associations"]):
                ec2.delete_route_table(RouteTableId=one["RouteTableId"])
        ec2.detach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)
        ec2.delete_internet_gateway(InternetGatewayId=gateway)
        ec2.delete_subnet(SubnetId=subnet)
        ec2.delete_vpc(VpcId=vpc)
        refused("InvalidVpcID.NotFound", ec2.describe_vpcs, VpcIds=[vpc])

    def groups_of_instances(self):
        ec2, groups = self.ec2, client("autoscaling")
        data = {"ImageId": self.given.image, "InstanceType": "t3.micro"}
        template = ec2.create_launch_template(LaunchTemplateName="conformance", LaunchTemplateData=data)
        template = template["LaunchTemplate"]["LaunchTemplateId"]
        ec2.create_launch_template_version(LaunchTemplateId=template, LaunchTemplateData=data)
        ec2.describe_launch_templates(LaunchTemplateIds=[template])
        ec2.describe_launch_template_versions(LaunchTemplateId=template)
        groups.describe_auto_scaling_groups()
        groups.describe_scaling_activities()
        groups.describe_launch_configurations()
        ec2.delete_launch_template(LaunchTemplateId=template)

    def other_services(self):
        """What the Terraform modules and the tools call besides; it passes to the emulator."""
        client("sts").get_caller_identity()
        iam = client("iam")
        iam.get_role(RoleName=self.given.profile)
        iam.list_attached_role_policies(RoleName=self.given.profile)
        iam.get_instance_profile(InstanceProfileName=self.given.profile)
        secrets = client("secretsmanager")
        secrets.get_random_password(PasswordLength=24)
        secrets.create_secret(Name="conformance", SecretString="x")
        secrets.get_secret_value(SecretId="conformance")
        secrets.describe_secret(SecretId="conformance")
        secrets.delete_secret(SecretId="conformance", ForceDeleteWithoutRecovery=True)
        logs = client("logs")
        logs.create_log_group(logGroupName="/conformance")
        logs.describe_log_groups(logGroupNamePrefix="/conformance")
        logs.delete_log_group(logGroupName="/conformance")
        keys = client("kms")
        key = keys.create_key()["KeyMetadata"]["KeyId"]
        keys.describe_key(KeyId=key)
        keys.schedule_key_deletion(KeyId=key)
        client("cloudwatch").describe_alarms()
        buckets = client("s3")
        buckets.create_bucket(Bucket="conformance-of-answers")
        buckets.put_object(Bucket="conformance-of-answers", Key="a/b", Body=b"x")
        buckets.get_object(Bucket="conformance-of-answers", Key="a/b")
        buckets.delete_object(Bucket="conformance-of-answers", Key="a/b")
        buckets.delete_bucket(Bucket="conformance-of-answers")
        client("route53").list_hosted_zones()
        client("rds").describe_db_instances()
        client("elbv2").describe_load_balancers()
        client("elasticache").describe_cache_clusters()
        client("mq").list_brokers()
        refused("NotImplemented", client("mq").create_broker, BrokerName="x")

    def end(self, ids):
        ec2 = self.ec2
        ec2.terminate_instances(InstanceIds=ids)
        ec2.describe_instances(InstanceIds=ids)
        ec2.get_waiter("instance_terminated").wait(InstanceIds=ids, WaiterConfig={"Delay": 1})
        ec2.describe_instances(InstanceIds=ids)
        refused("IncorrectInstanceState", ec2.start_instances, InstanceIds=ids[:1])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("answers")
    for name in ("vpc", "subnet", "group", "profile", "image"):
        parser.add_argument(f"--{name}", required=True)
    given = parser.parse_args()
    try:
        Session(given).run()
    finally:
        with open(given.answers, "w", encoding="utf-8") as file:
            file.writelines(json.dumps(record, default=str) + "\n" for record in RECORDS)


main()
