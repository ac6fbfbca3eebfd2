# One VPC with public subnets and, where asked for, private ones behind NAT gateways.

data "aws_availability_zones" "this" {
  state = "available"

  # Local zones and wavelength zones lack most instance types.
  filter {
    name   = "opt-in-status"
    values = ["opt-in-not-required"]
  }
}

locals {
  zones = data.aws_availability_zones.this.names

  # A list wraps around when there are more subnets than zones.
  public  = { for index, cidr in var.public_subnet_cidrs : cidr => element(local.zones, index) }
  private = { for index, cidr in var.private_subnet_cidrs : cidr => element(local.zones, index) }

  nat_subnets = {
    none   = []
    single = slice(var.public_subnet_cidrs, 0, min(1, length(var.public_subnet_cidrs)))
    zone   = var.public_subnet_cidrs
  }[var.nat_gateways]
}

# EC2 cannot change a range in place: Terraform would replace the VPC or the subnet, which fails half-way where something
# is in it, or takes the hosts and their data with it. So the first ranges are kept, and another one is refused in the plan.
resource "terraform_data" "fixed" {
  for_each = merge(
    { vpc_cidr = var.vpc_cidr },
    { for index, cidr in var.public_subnet_cidrs : "public_subnet_cidrs[${index}]" => cidr },
    { for index, cidr in var.private_subnet_cidrs : "private_subnet_cidrs[${index}]" => cidr },
  )

  input = each.value

  lifecycle {
    ignore_changes = [input]

    postcondition {
      condition     = self.output == each.value
      error_message = "${each.key} of a living network cannot change from ${self.output} to ${each.value}: everything in it would be replaced. Set it back; or back up the data, destroy the environment and deploy it again. A further subnet is added at the end of its list."
    }
  }
}

resource "aws_vpc" "this" {
  cidr_block           = var.vpc_cidr
  enable_dns_support   = true
  enable_dns_hostnames = true

  tags = { Name = var.name }
}

# The default group of a VPC admits everything between its members: it stays, without rules.
resource "aws_default_security_group" "this" {
  vpc_id = aws_vpc.this.id

  tags = { Name = "${var.name}-default-closed" }
}

resource "aws_internet_gateway" "this" {
  vpc_id = aws_vpc.this.id

  tags = { Name = var.name }
}

resource "aws_subnet" "public" {
  for_each = local.public

  vpc_id            = aws_vpc.this.id
  cidr_block        = each.key
  availability_zone = each.value

  tags = { Name = "${var.name}-public-${each.value}" }
}

resource "aws_route_table" "public" {
  vpc_id = aws_vpc.this.id

  tags = { Name = "${var.name}-public" }
}

resource "aws_route" "internet" {
  route_table_id         = aws_route_table.public.id
  destination_cidr_block = "0.0.0.0/0"
  gateway_id             = aws_internet_gateway.this.id
}

resource "aws_route_table_association" "public" {
  for_each = aws_subnet.public

  subnet_id      = each.value.id
  route_table_id = aws_route_table.public.id
}

resource "aws_eip" "nat" {
  for_each = toset(local.nat_subnets)

  domain = "vpc"

  tags = { Name = "${var.name}-nat-${local.public[each.key]}" }
}

resource "aws_nat_gateway" "this" {
  for_each = toset(local.nat_subnets)

  allocation_id = aws_eip.nat[each.key].id
  subnet_id     = aws_subnet.public[each.key].id

  tags = { Name = "${var.name}-${local.public[each.key]}" }

  depends_on = [aws_internet_gateway.this]
}

resource "aws_subnet" "private" {
  for_each = local.private

  vpc_id            = aws_vpc.this.id
  cidr_block        = each.key
  availability_zone = each.value

  tags = { Name = "${var.name}-private-${each.value}" }
}

resource "aws_route_table" "private" {
  for_each = local.private

  vpc_id = aws_vpc.this.id

  tags = { Name = "${var.name}-private-${each.value}" }
}

resource "aws_route" "nat" {
  for_each = length(local.nat_subnets) > 0 ? local.private : {}

  route_table_id         = aws_route_table.private[each.key].id
  destination_cidr_block = "0.0.0.0/0"

  # The gateway at the same place in the list is in the same zone.
  nat_gateway_id = aws_nat_gateway.this[
    element(local.nat_subnets, index(var.private_subnet_cidrs, each.key))
  ].id
}

resource "aws_route_table_association" "private" {
  for_each = aws_subnet.private

  subnet_id      = each.value.id
  route_table_id = aws_route_table.private[each.key].id
}
