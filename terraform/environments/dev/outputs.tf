# The contract with tf-to-inventory: one type in every environment, never a secret.
output "inventory" {
  description = "Hosts, groups and variables for Ansible and the tools."
  value = {
    version     = 1
    project     = var.project
    environment = var.environment
    region      = var.region
    hosts = {
      for name, host in local.hosts : name => merge(module.compute[name].inventory_host, host, {
        vars = merge(host.vars, { host_packages = module.compute[name].packages })
      })
    }
    scaling_groups = {}
    vars           = module.foundation_asterisk.inventory_vars
    group_vars     = {}
  }
}

output "public_ips" {
  description = "Addresses of the hosts on the internet, by host name."
  value       = { for name, host in module.compute : name => host.public_ip }
}

output "instance_ids" {
  description = "Instance IDs, by host name."
  value       = { for name, host in module.compute : name => host.instance_id }
}

output "vpc_id" {
  description = "Id of the VPC."
  value       = module.networking.vpc_id
}

output "health_url" {
  description = "Health document of the platform."
  value       = "http://${module.compute["${var.environment}-platform-1"].public_ip}/health"
}

output "sip_target" {
  description = "Where phones register, as smoke-test-sip takes it."
  value       = "sip:${module.compute["${var.environment}-platform-1"].public_ip}:${module.foundation_asterisk.inventory_vars.sip_port}"
}
