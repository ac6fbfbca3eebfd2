variable "project" {
  description = "Project, first part of the secrets' names."
  type        = string
}

variable "environment" {
  description = "Environment, second part of the secrets' names."
  type        = string

  validation {
    condition     = contains(["dev", "staging", "prod"], var.environment)
    error_message = "environment must be dev, staging or prod."
  }
}

variable "name" {
  description = "First part of the names of the security group."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,62}$", var.name))
    error_message = "name must have 2 to 63 lower-case letters, digits and hyphens and start with a letter."
  }
}

variable "vpc_id" {
  description = "VPC of the security group."
  type        = string
}

variable "sip_port" {
  description = "Port of SIP, UDP and TCP."
  type        = number
  default     = 5060

  validation {
    condition     = var.sip_port >= 1024 && var.sip_port <= 65535 && floor(var.sip_port) == var.sip_port
    error_message = "sip_port must be a whole number from 1024 to 65535."
  }
}

variable "rtp_port_min" {
  description = "First UDP port of RTP."
  type        = number
  default     = 10000

  validation {
    condition     = var.rtp_port_min >= 1024 && var.rtp_port_min % 2 == 0
    error_message = "rtp_port_min must be an even number from 1024: RTP takes the even port of a pair (RFC 3550, section 11)."
  }
}

variable "rtp_port_max" {
  description = "Last UDP port of RTP; a call takes two ports on each of its legs."
  type        = number
  default     = 20000

  validation {
    condition     = var.rtp_port_max <= 65535 && var.rtp_port_max - var.rtp_port_min >= 3
    error_message = "rtp_port_max must be at most 65535 and leave room for one call after rtp_port_min (4 ports)."
  }

  validation {
    condition     = var.sip_port < var.rtp_port_min || var.sip_port > var.rtp_port_max
    error_message = "rtp_port_min to rtp_port_max must not hold sip_port."
  }
}

variable "sip_cidrs" {
  description = "Address ranges that may send SIP and RTP."
  type        = list(string)

  validation {
    condition     = length(var.sip_cidrs) > 0 && alltrue([for cidr in var.sip_cidrs : can(cidrnetmask(cidr))])
    error_message = "sip_cidrs must hold at least one IPv4 range such as 203.0.113.0/24."
  }
}

variable "http_cidrs" {
  description = "Address ranges that may open HTTP."
  type        = list(string)

  validation {
    condition     = length(var.http_cidrs) > 0 && alltrue([for cidr in var.http_cidrs : can(cidrnetmask(cidr))])
    error_message = "http_cidrs must hold at least one IPv4 range such as 203.0.113.0/24."
  }
}

variable "sip_domain" {
  description = "Domain of the SIP addresses, and realm of their digests."
  type        = string

  validation {
    condition     = can(regex("^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\\.)+[a-z]{2,63}$", var.sip_domain))
    error_message = "sip_domain must be a lower-case domain name such as dev.example.com."
  }
}

variable "sip_users" {
  description = "SIP users that get a password; each is also its extension."
  type        = list(string)

  validation {
    condition     = length(var.sip_users) > 0 && alltrue([for user in var.sip_users : can(regex("^[0-9]{2,15}$", user))])
    error_message = "sip_users must hold at least one number of 2 to 15 digits."
  }

  validation {
    condition     = length(distinct(var.sip_users)) == length(var.sip_users)
    error_message = "sip_users must not name a user twice."
  }
}

variable "database_username" {
  description = "Role that owns the telephony database."
  type        = string
  default     = "asterisk"

  validation {
    condition     = can(regex("^[a-z_][a-z0-9_]{0,62}$", var.database_username))
    error_message = "database_username must be a PostgreSQL name: at most 63 lower-case letters, digits and underscores, not starting with a digit."
  }
}

variable "message_bus_username" {
  description = "User of the message bus."
  type        = string
  default     = "foundation"

  validation {
    condition     = can(regex("^[a-z][a-z0-9_-]{0,62}$", var.message_bus_username)) && var.message_bus_username != "guest"
    error_message = "message_bus_username must have at most 63 lower-case letters, digits, underscores and hyphens, and not be guest."
  }
}

variable "secret_generation" {
  description = "Raise it to draw new passwords for everything at the next apply: database, message bus and every SIP user."
  type        = number
  default     = 1
}

variable "secret_generations" {
  description = "Raise one to draw one new password at the next apply: `database`, `message-bus`, or a SIP user, e.g. `{ 1002 = 2 }`. What is not named is at 1."
  type        = map(number)
  default     = {}

  validation {
    condition     = alltrue([for value in values(var.secret_generations) : value >= 1 && floor(value) == value])
    error_message = "secret_generations must hold whole numbers from 1."
  }

  validation {
    condition     = length(setsubtract(keys(var.secret_generations), concat(["database", "message-bus"], var.sip_users))) == 0
    error_message = "secret_generations may name database, message-bus and the users in sip_users only."
  }
}

variable "secret_recovery_days" {
  description = "Days in which a deleted secret can be restored: 7 to 30, or 0 for none (its name is free at once)."
  type        = number
  default     = 30
}

variable "secret_kms_key_arn" {
  description = "Key that encrypts the secrets; null takes the account's own key for Secrets Manager."
  type        = string
  default     = null
}
