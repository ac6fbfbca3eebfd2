output "security_group_id" {
  description = "Security group of a host that runs Asterisk."
  value       = aws_security_group.this.id
}

output "secret_arns" {
  description = "ARNs of the secrets, for the role of the host that reads them."
  value       = [for name in sort(keys(local.secrets)) : module.secret[name].arn]
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
    sip_users_secret_arn   = module.secret["sip-users"].arn
  }
}
