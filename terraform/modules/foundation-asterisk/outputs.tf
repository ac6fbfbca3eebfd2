output "security_group_id" {
  description = "Security group of a host that runs Asterisk."
  value       = aws_security_group.this.id
}

output "secret_arns" {
  description = "ARNs of the secrets for the role of the host that reads them; those of all SIP users by their path, so that a new user changes no role."
  value = [
    module.secret["database"].arn,
    module.secret["message-bus"].arn,
    "arn:${data.aws_partition.current.partition}:secretsmanager:${data.aws_region.current.name}:${data.aws_caller_identity.current.account_id}:secret:${local.prefix}/sip-users/*",
  ]
}

output "inventory_vars" {
  description = "What Ansible and the smoke tests need to know, for the inventory; secrets by ARN only."
  value = {
    sip_domain             = var.sip_domain
    sip_port               = var.sip_port
    rtp_port_min           = var.rtp_port_min
    rtp_port_max           = var.rtp_port_max
    database_secret_arn    = module.secret["database"].arn
    message_bus_secret_arn = module.secret["message-bus"].arn
    sip_user_secret_arns   = { for user, secret in module.sip_user : user => secret.arn }
  }
}
