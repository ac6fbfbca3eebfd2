# Passwords that nobody ever types; hosts read them by ARN through their role.

locals {
  secrets = {
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
    sip-users = {
      description = "SIP users and their passwords"
      fields      = {}
      generated   = var.sip_users
    }
  }
}

module "secret" {
  source   = "../secret"
  for_each = local.secrets

  name          = "${var.project}/${var.environment}/${each.key}"
  description   = each.value.description
  fields        = each.value.fields
  generated     = each.value.generated
  generation    = var.secret_generation
  recovery_days = var.secret_recovery_days
  kms_key_arn   = var.secret_kms_key_arn
}
