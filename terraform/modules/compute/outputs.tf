output "instance_id" {
  description = "Instance ID of the host."
  value       = aws_instance.this.id
}

output "private_ip" {
  description = "Address of the host inside the VPC."
  value       = aws_instance.this.private_ip
}

output "public_ip" {
  description = "Address of the host on the internet, or null."
  value       = var.public_ip ? aws_eip.this[0].public_ip : null

  # The address is of use once it leads to the host.
  depends_on = [aws_eip_association.this]
}

output "role_name" {
  description = "Name of the host's role, to attach further policies."
  value       = aws_iam_role.this.name
}

output "packages" {
  description = "Debian packages that the host must have, for Ansible: what was added after the first boot is installed by it."
  value       = local.packages
}

output "user_data" {
  description = "User data of the first boot; holds no secret."
  value       = local.user_data
}

output "inventory_host" {
  description = "The host as the inventory contract wants it, less groups and vars."
  value = {
    instance_id = aws_instance.this.id
    private_ip  = aws_instance.this.private_ip
    public_ip   = var.public_ip ? aws_eip.this[0].public_ip : null
  }

  depends_on = [aws_eip_association.this]
}
