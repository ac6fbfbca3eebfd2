# Passwords that nobody ever types; hosts read them through their role. Each SIP user has a secret of his own, so that
# adding, renewing or removing him is a change of one secret in the plan and touches nobody else.

data "aws_partition" "current" {}
data "aws_region" "current" {}
data "aws_caller_identity" "current" {}

locals {
  prefix = "${var.project}/${var.environment}"

  secrets = merge({
    database = {
      description = "Role of the telephony database"
      fields      = { username = var.database_username }
      generated   = ["password"]
    }
    message-bus = {
      description = "User of the message bus"
      fields      = { username = var.message_bus_username }
      generated   = ["password"]
    }
    }, local.shared_sip_users ? {
    sip-users = {
      description = "SIP users and their passwords"
      fields      = {}
      generated   = var.sip_users
    }
  } : {})
}

module "secret" {
  source   = "../secret"
  for_each = local.secrets

  name          = "${local.prefix}/${each.key}"
  description   = each.value.description
  fields        = each.value.fields
  generated     = each.value.generated
  generation    = var.secret_generation + lookup(var.secret_generations, each.key, 1) - 1
  recovery_days = var.secret_recovery_days
  kms_key_arn   = var.secret_kms_key_arn
}

module "sip_user" {
  source   = "../secret"
  for_each = toset(var.sip_users)

  name          = "${local.prefix}/sip-users/${each.key}"
  description   = "SIP user ${each.key}"
  fields        = { username = each.key }
  generated     = ["password"]
  given         = { password = try(local.shared_passwords[each.key], null) }
  generation    = var.secret_generation + lookup(var.secret_generations, each.key, 1) - 1
  recovery_days = var.secret_recovery_days
  kms_key_arn   = var.secret_kms_key_arn
}

# Until 0.1.0 one secret held the passwords of all users. Where it is still there, a user without a secret of his own
# takes his password over from it. Once every user has one, the next apply deletes the old secret.

data "aws_secretsmanager_secrets" "sip_users" {
  filter {
    name   = "name"
    values = ["${local.prefix}/sip-users"]
  }
}

locals {
  # The filter is a prefix, so the names are looked at again.
  sip_user_names   = [for arn in data.aws_secretsmanager_secrets.sip_users.arns : replace(split(":", arn)[6], "/-[A-Za-z0-9]{6}$/", "")]
  new_sip_users    = [for user in var.sip_users : user if !contains(local.sip_user_names, "${local.prefix}/sip-users/${user}")]
  shared_sip_users = contains(local.sip_user_names, "${local.prefix}/sip-users") && length(local.new_sip_users) > 0
}

ephemeral "aws_secretsmanager_secret_version" "shared" {
  count = local.shared_sip_users ? 1 : 0

  secret_id = "${local.prefix}/sip-users"
}

locals {
  shared_passwords = {
    for user, password in(local.shared_sip_users ? jsondecode(ephemeral.aws_secretsmanager_secret_version.shared[0].secret_string) : {}) :
    user => password if contains(local.new_sip_users, user)
  }
}
