output "vpc_id" {
  description = "Id of the VPC."
  value       = aws_vpc.this.id
}

output "vpc_cidr" {
  description = "Address range of the VPC."
  value       = aws_vpc.this.cidr_block
}

output "public_subnet_ids" {
  description = "Ids of the public subnets, in the order of their ranges."
  value       = [for cidr in var.public_subnet_cidrs : aws_subnet.public[cidr].id]
}

output "private_subnet_ids" {
  description = "Ids of the private subnets, in the order of their ranges."
  value       = [for cidr in var.private_subnet_cidrs : aws_subnet.private[cidr].id]
}

output "nat_public_ips" {
  description = "Addresses that private hosts appear with on the internet."
  value       = [for cidr in local.nat_subnets : aws_eip.nat[cidr].public_ip]
}

# Who uses a public subnet needs its way out as well.
output "internet_route_id" {
  description = "Id of the route to the internet; depend on it when a host needs the internet as it boots."
  value       = aws_route.internet.id
}
