variable "name" {
  description = "Name of the VPC and first part of the names in it."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,62}$", var.name))
    error_message = "name must have 2 to 63 lower-case letters, digits and hyphens and start with a letter."
  }
}

variable "vpc_cidr" {
  description = "Address range of the VPC, /16 to /28."
  type        = string

  validation {
    condition     = can(cidrnetmask(var.vpc_cidr)) && try(tonumber(split("/", var.vpc_cidr)[1]) >= 16 && tonumber(split("/", var.vpc_cidr)[1]) <= 28, false)
    error_message = "vpc_cidr must be an IPv4 range between /16 and /28, as EC2 demands."
  }
}

variable "public_subnet_cidrs" {
  description = "Address ranges of the public subnets, spread over the zones in this order."
  type        = list(string)

  validation {
    condition = length(var.public_subnet_cidrs) > 0 && alltrue([
      for cidr in var.public_subnet_cidrs : try(
        tonumber(split("/", cidr)[1]) >= tonumber(split("/", var.vpc_cidr)[1]) && cidrhost(
          "${cidrhost(cidr, 0)}/${split("/", var.vpc_cidr)[1]}", 0
        ) == cidrhost(var.vpc_cidr, 0), false
      )
    ])
    error_message = "public_subnet_cidrs must hold at least one IPv4 range, all inside vpc_cidr."
  }

  validation {
    condition     = length(distinct(var.public_subnet_cidrs)) == length(var.public_subnet_cidrs)
    error_message = "public_subnet_cidrs must not name a range twice."
  }
}

variable "private_subnet_cidrs" {
  description = "Address ranges of the private subnets, spread over the zones in this order."
  type        = list(string)
  default     = []

  validation {
    condition = alltrue([
      for cidr in var.private_subnet_cidrs : try(
        tonumber(split("/", cidr)[1]) >= tonumber(split("/", var.vpc_cidr)[1]) && cidrhost(
          "${cidrhost(cidr, 0)}/${split("/", var.vpc_cidr)[1]}", 0
        ) == cidrhost(var.vpc_cidr, 0), false
      ) && !contains(var.public_subnet_cidrs, cidr)
    ])
    error_message = "private_subnet_cidrs must be IPv4 ranges inside vpc_cidr that no public subnet has."
  }
}

variable "nat_gateways" {
  description = "How private subnets reach the internet: `none`, a `single` gateway, or one per `zone`."
  type        = string
  default     = "none"

  validation {
    condition     = contains(["none", "single", "zone"], var.nat_gateways)
    error_message = "nat_gateways must be none, single or zone."
  }
}
