"""Where moto 5.2.5's records differ from AWS's and tools depend on it.

Only records are put right here. What EC2 refuses is refused before moto is asked (src/ec2/guard.rs); what takes its
time on AWS takes it there, too (src/ec2/nat.rs).
"""

import base64
import hashlib
import secrets
from functools import wraps

from moto.core.exceptions import JsonRESTError
from moto.core.utils import utcnow
from moto.ec2.models import EC2Backend, elastic_network_interfaces
from moto.ec2.models.elastic_network_interfaces import NetworkInterface
from moto.ec2.models.instances import Instance
from moto.ec2.models.launch_templates import LaunchTemplate
from moto.ec2.responses.elastic_ip_addresses import ElasticIPAddresses as ElasticIPAddressesResponse
from moto.ec2.responses.instances import InstanceResponse
from moto.ec2.utils import parse_user_data, random_iam_instance_profile_association_id
from moto.iam.exceptions import DeleteConflictException
from moto.iam.models import IAMBackend
from moto.kms.exceptions import ValidationException
from moto.kms.models import KmsBackend
from moto.secretsmanager.exceptions import InvalidRequestException
from moto.secretsmanager.models import SecretsManagerBackend
from moto.ssm.models import Parameter, SimpleSystemManagerBackend


def replaces(owner, name):
    """Puts a function in the place of a method; it gets the method as its first argument."""

    def place(function):
        method = getattr(owner, name)

        @wraps(method)
        def corrected(*args, **kwargs):
            return function(method, *args, **kwargs)

        setattr(owner, name, corrected)
        return function

    return place


# Network interfaces


@replaces(Instance, "prep_nics")
def launched_interfaces_end_with_the_instance(method, self, nic_spec, *args, **kwargs):
    asked = {int(nic["DeviceIndex"]): dict(nic) for nic in nic_spec}
    result = method(self, nic_spec, *args, **kwargs)
    for index, interface in self.nics.items():
        wish = asked.get(index, {})
        if not wish.get("NetworkInterfaceId") and wish.get("DeleteOnTermination") is not False:
            interface.delete_on_termination = True
    return result


@replaces(Instance, "terminate")
def a_terminated_instance_gives_its_addresses_back(method, self):
    for address in self.ec2_backend.addresses:
        if address.instance is self or address.eni in self.nics.values():
            self.ec2_backend.disassociate_address(address=address.public_ip)
    return method(self)


@replaces(EC2Backend, "delete_network_interface")
def a_deleted_interface_gives_its_address_back(method, self, eni_id):
    interface = self.enis.get(eni_id)
    result = method(self, eni_id)
    for address in interface.private_ip_addresses:
        interface.subnet.del_subnet_ip(address["PrivateIpAddress"])
    return result


class ServiceAttachment:
    """An interface that a service holds, as AWS shows it: attached to something that the account does not see."""

    def __init__(self, interface):
        self.attach_time = interface.attach_time
        self.attachment_id = interface.attachment_id
        self.delete_on_termination = False
        self.device_index = 1
        self.network_card_index = 0
        self.instance_id = None
        self.instance_owner_id = "amazon-aws"
        self.status = "attached"


def attachment(self):
    if not self.attachment_id:
        return None
    if self.instance is None:
        return ServiceAttachment(self)
    return elastic_network_interfaces.Attachment(self)


NetworkInterface.attachment = property(attachment)


@replaces(NetworkInterface, "get_filter_value")
def interfaces_know_more_filters(method, self, filter_name, method_name=None):
    shown = self.attachment
    values = {
        "association.allocation-id": lambda: self.association and self.association.get("allocationId"),
        "association.public-ip": lambda: self.public_ip,
        "attachment.device-index": lambda: shown and str(shown.device_index),
        "attachment.instance-owner-id": lambda: shown and shown.instance_owner_id,
        "attachment.status": lambda: shown and shown.status,
        "interface-type": lambda: self.interface_type,
        "mac-address": lambda: self.mac_address,
        "owner-id": lambda: self.owner_id,
        "requester-id": lambda: self.requester_id,
        "requester-managed": lambda: str(self.requester_managed).lower(),
        "source-dest-check": lambda: str(self.source_dest_check).lower(),
        "status": lambda: self.status,
    }
    if filter_name in values:
        return values[filter_name]()
    return method(self, filter_name, method_name)


# Instances


@replaces(InstanceResponse, "run_instances")
def a_launch_may_protect_its_instances(method, self):
    answer = method(self)
    if self._get_param("DisableApiTermination"):
        for instance in answer.result.instances:
            instance.disable_api_termination = True
    return answer


@replaces(EC2Backend, "run_instances")
def all_instances_of_a_launch_get_its_profile(method, self, *args, **kwargs):
    reservation = method(self, *args, **kwargs)
    profile = {
        name: kwargs[name]
        for name in ("iam_instance_profile_name", "iam_instance_profile_arn")
        if kwargs.get(name)
    }
    if profile:
        # The first one gets it from the caller.
        for instance in reservation.instances[1:]:
            self.associate_iam_instance_profile(instance.id, **profile)
    return reservation


@replaces(EC2Backend, "modify_instance_attribute")
def changed_user_data_is_what_launched_user_data_is(method, self, instance_id, key, value):
    if key == "user_data":
        value = parse_user_data(value or None)
    return method(self, instance_id, key, value)


@replaces(EC2Backend, "replace_iam_instance_profile_association")
def a_replaced_profile_is_the_instances(method, self, *args, **kwargs):
    association = method(self, *args, **kwargs)
    # "Returns a new association id" (API reference), and the instance has the new profile.
    association.association_id = random_iam_instance_profile_association_id()
    association.instance.iam_instance_profile = {
        "Arn": association.iam_instance_profile.arn,
        "Id": association.association_id,
    }
    return association


@replaces(EC2Backend, "modify_instance_metadata_options")
def metadata_options_that_are_not_named_stay(method, self, instance_id, **options):
    now = self.get_instance(instance_id).metadata_options
    kept = {
        "http_tokens": now.http_tokens,
        "hop_limit": now.http_put_response_hop_limit,
        "http_endpoint": now.http_endpoint,
        "http_protocol": now.http_protocol_ipv6,
        "metadata_tags": now.instance_metadata_tags,
    }
    named = {name: value for name, value in options.items() if value is not None}
    return method(self, instance_id, **{**kept, **named})


@replaces(EC2Backend, "associate_address")
def an_address_leads_to_one_interface_and_an_interface_has_one(
    method, self, instance=None, eni=None, address=None, allocation_id=None, reassociate=False
):
    found = self.address_by_ip([address]) if address else self.address_by_allocation([allocation_id])
    target = eni or instance.nics[0]
    chosen = found[0]
    # EC2 reassociates unless it is told not to (API reference, `AllowReassociation`).
    if chosen.eni and chosen.eni is not target and reassociate is not False:
        self.disassociate_address(address=chosen.public_ip)
    answer = method(self, instance, eni, address, allocation_id, reassociate)
    for other in self.addresses:
        if other is not chosen and other.eni is target:
            other.eni = other.instance = other.association_id = None
    if answer.instance is None and target.instance is not None:
        answer.instance = target.instance
    return answer


@replaces(ElasticIPAddressesResponse, "associate_address")
def an_address_is_reassociated_unless_forbidden(method, self):
    read = self._get_param
    self._get_param = lambda name, *default: (
        read(name) is not False if name == "AllowReassociation" else read(name, *default)
    )
    try:
        return method(self)
    finally:
        self._get_param = read


@replaces(NetworkInterface, "start")
def an_elastic_address_stays_at_a_start(method, self):
    if not any(address.eni is self for address in self.ec2_backend.addresses):
        method(self)


@replaces(NetworkInterface, "stop")
def an_elastic_address_stays_at_a_stop(method, self):
    if not any(address.eni is self for address in self.ec2_backend.addresses):
        method(self)


def forget_instance(backend, instance_id):
    """Takes a terminated instance out of the records."""
    for reservation in list(backend.reservations.values()):
        reservation.instances = [one for one in reservation.instances if one.id != instance_id]
        if not reservation.instances:
            backend.reservations.pop(reservation.id, None)


# NAT gateways


@replaces(EC2Backend, "create_nat_gateway")
def the_interface_of_a_nat_gateway_is_its_own(method, self, *args, **kwargs):
    gateway = method(self, *args, **kwargs)
    interface = gateway._eni
    address = interface.subnet.get_available_subnet_ip(interface)
    gateway.private_ip = interface.private_ip_address = address
    interface.private_ip_addresses = [{"Primary": True, "PrivateIpAddress": address}]
    for shown in gateway.address_set:
        shown["privateIp"] = address
    interface.description = f"Interface for NAT Gateway {gateway.id}"
    interface.interface_type = "nat_gateway"
    interface.requester_managed = True
    interface.source_dest_check = False
    interface.status = "in-use"
    interface.attach_time = utcnow()
    interface.attachment_id = f"ela-attach-{secrets.token_hex(9)[:17]}"
    return gateway


# What goes with a subnet and a VPC


@replaces(EC2Backend, "delete_subnet")
def a_subnet_takes_its_associations_along(method, self, subnet_id):
    subnet = method(self, subnet_id)
    for table in self.route_tables.values():
        for association, target in list(table._associations.items()):
            if target == subnet_id:
                del table._associations[association]
    for acl in self.network_acls.values():
        for association in list(acl._associations):
            if acl._associations[association].subnet_id == subnet_id:
                del acl._associations[association]
    return subnet


@replaces(EC2Backend, "delete_vpc")
def a_vpc_takes_its_default_network_acl_along(method, self, vpc_id):
    vpc = method(self, vpc_id)
    for acl in list(self.network_acls.values()):
        if acl.vpc_id == vpc_id:
            del self.network_acls[acl.id]
    return vpc


# Launch templates: their own tags are no part of what they launch.


@replaces(LaunchTemplate, "create_version")
def tags_of_a_template_are_not_in_its_versions(method, self, data, *args, **kwargs):
    return method(self, without_own_tags(data), *args, **kwargs)


# Tags that are added later show, too: moto keeps those of the creation.
LaunchTemplate.tags = property(lambda self: self.get_tags(), lambda self, tags: None)


def without_own_tags(data):
    if not data or not data.get("TagSpecifications"):
        return data
    kept = [spec for spec in data["TagSpecifications"] if spec.get("ResourceType") != "launch-template"]
    return {**data, "TagSpecifications": kept}


# IAM


@replaces(IAMBackend, "delete_policy")
def a_policy_in_use_stays(method, self, policy_arn):
    policy = self.get_policy(policy_arn)
    if policy.attachment_count:
        raise DeleteConflictException("Cannot delete a policy attached to entities.")
    if len(policy.versions) > 1:
        raise DeleteConflictException(
            "This policy has more than one version. Before you delete a policy, you must delete the policy's "
            "versions. The default version is deleted with the policy."
        )
    return method(self, policy_arn)


@replaces(IAMBackend, "delete_user")
def a_user_with_keys_or_groups_stays(method, self, user_name):
    user = self.get_user(user_name)
    if user.access_keys:
        raise DeleteConflictException("Cannot delete entity, must delete access keys first.")
    if any(user in group.users for group in self.groups.values()):
        raise DeleteConflictException("Cannot delete entity, must remove users from group first.")
    return method(self, user_name)


@replaces(IAMBackend, "delete_group")
def a_group_with_users_stays(method, self, group_name):
    group = self.groups.get(group_name)
    if group is not None and group.users:
        raise DeleteConflictException("Cannot delete entity, must remove users from group first.")
    return method(self, group_name)


# Keys and secrets that wait for their deletion


class KeyInvalidState(JsonRESTError):
    code = 400

    def __init__(self, key):
        super().__init__("KMSInvalidStateException", f"{key.arn} is pending deletion.")


@replaces(KmsBackend, "schedule_key_deletion")
def a_key_is_scheduled_once(method, self, key_id, pending_window_in_days):
    limit = None
    if pending_window_in_days < 7:
        limit = "greater than or equal to 7"
    elif pending_window_in_days > 30:
        limit = "less than or equal to 30"
    if limit:
        raise ValidationException(
            f"1 validation error detected: Value '{pending_window_in_days}' at 'pendingWindowInDays' failed to "
            f"satisfy constraint: Member must have value {limit}"
        )
    usable(self, key_id)
    return method(self, self.any_id_to_key_id(key_id), pending_window_in_days)


def usable(backend, key_id):
    key = backend.keys.get(backend.any_id_to_key_id(key_id))
    if key is not None and key.key_state == "PendingDeletion":
        raise KeyInvalidState(key)


def only_usable_keys(name):
    @replaces(KmsBackend, name)
    def with_a_usable_key(method, self, key_id, *args, **kwargs):
        usable(self, key_id)
        return method(self, key_id, *args, **kwargs)


for operation in ("encrypt", "generate_data_key"):
    only_usable_keys(operation)


@replaces(SecretsManagerBackend, "create_secret")
def a_name_is_taken_until_the_deletion(method, self, name, *args, **kwargs):
    secret = self.secrets.get(name) if name in self.secrets else None
    if secret is not None and secret.is_deleted():
        raise InvalidRequestException(
            "You can't create this secret because a secret with this name is already scheduled for deletion."
        )
    return method(self, name, *args, **kwargs)


@replaces(SimpleSystemManagerBackend, "describe_parameters")
def a_name_without_a_value_is_no_parameter(method, self, *args, **kwargs):
    # A refused PutParameter leaves the name behind, and the list would fail on it from then on.
    for name in [name for name, versions in dict.items(self._parameters) if not versions]:
        dict.pop(self._parameters, name)
    return method(self, *args, **kwargs)


SEAL = secrets.token_bytes(32)


@replaces(Parameter, "response_object")
def a_secret_is_not_readable_without_decryption(method, self, decrypt=False, region=None):
    shown = method(self, decrypt, region)
    if self.parameter_type == "SecureString" and not decrypt:
        # Of the form and length that KMS gives, the same for each version; nobody can open it.
        plain = f"{self.name} {self.version} {self.value}".encode()
        sealed = hashlib.shake_256(SEAL + plain).digest(150 + len(self.value))
        shown["Value"] = base64.b64encode(b"\x01\x02\x02\x00x" + sealed).decode()
    return shown
