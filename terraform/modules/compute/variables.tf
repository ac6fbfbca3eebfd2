variable "project" {
  description = "Project, first part of the names that must be unique in the account."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,30}$", var.project))
    error_message = "project must have 2 to 31 lower-case letters, digits and hyphens and start with a letter."
  }
}

variable "name" {
  description = "Name of the host, e.g. `dev-platform-1`; the inventory knows it by this name."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,30}$", var.name))
    error_message = "name must have 2 to 31 lower-case letters, digits and hyphens and start with a letter."
  }
}

variable "instance_type" {
  description = "EC2 instance type, of the x86_64 kind."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]*\\.[a-z0-9-]+$", var.instance_type))
    error_message = "instance_type must look like t3.xlarge."
  }

  validation {
    condition     = !can(regex("^([a-z]+[0-9]+[a-z]*g[a-z]*|a1)\\.", var.instance_type))
    error_message = "instance_type must not be a Graviton type: the image is amd64."
  }
}

variable "debian_release" {
  description = "Debian release of the image: 12 is what the platform's packages are made for."
  type        = number
  default     = 12

  validation {
    condition     = contains([11, 12, 13], var.debian_release)
    error_message = "debian_release must be 11, 12 or 13."
  }
}

variable "ami_id" {
  description = "Image to boot instead of Debian's newest of `debian_release`. Counts only when the host is made."
  type        = string
  default     = null

  validation {
    condition     = var.ami_id == null || can(regex("^ami-[0-9a-f]{8,17}$", var.ami_id))
    error_message = "ami_id must look like ami-0123456789abcdef0, or be null."
  }
}

variable "subnet_id" {
  description = "Subnet that the host is in."
  type        = string
}

variable "security_group_ids" {
  description = "Security groups of the host."
  type        = list(string)

  validation {
    condition     = length(var.security_group_ids) > 0 && length(var.security_group_ids) <= 5
    error_message = "security_group_ids must name 1 to 5 groups: without one, the VPC's closed default group would apply."
  }
}

variable "public_ip" {
  description = "Whether the host has an Elastic IP."
  type        = bool
  default     = false
}

variable "root_volume_size_gib" {
  description = "Size of the root volume in GiB."
  type        = number
  default     = 50

  validation {
    condition     = var.root_volume_size_gib >= 8 && var.root_volume_size_gib <= 16384 && floor(var.root_volume_size_gib) == var.root_volume_size_gib
    error_message = "root_volume_size_gib must be a whole number from 8 (the image's size) to 16384."
  }
}

variable "root_volume_kms_key_arn" {
  description = "Key that encrypts the root volume; null takes the account's own key for EBS."
  type        = string
  default     = null

  validation {
    condition     = var.root_volume_kms_key_arn == null || can(regex("^arn:[a-z-]+:kms:", var.root_volume_kms_key_arn))
    error_message = "root_volume_kms_key_arn must be the ARN of a KMS key, or null."
  }
}

variable "secret_arns" {
  description = "Secrets that the host may read."
  type        = list(string)
  default     = []
}

variable "parameter_paths" {
  description = "Paths in Parameter Store that the host may read, e.g. `/calldata-foundation/dev`."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for path in var.parameter_paths : can(regex("^(/[A-Za-z0-9_.-]+)+$", path))])
    error_message = "parameter_paths must hold paths such as /example/dev: with a slash at the start, none at the end, no wildcard."
  }
}

variable "keep_root_volume" {
  description = "Whether the root volume, and the data on it, stays when the host is terminated. It then costs money until somebody deletes it."
  type        = bool
  default     = true
}

variable "agent_key_url" {
  description = "Where the keys of Amazon's SSM agent are loaded from at the first boot. Only the one of `agent_key_fingerprint` counts."
  type        = string
  default     = "https://raw.githubusercontent.com/aws/amazon-ecs-agent/master/scripts/amazon-ssm-agent.gpg"

  validation {
    condition     = can(regex("^https://[A-Za-z0-9./_~%-]+$", var.agent_key_url))
    error_message = "agent_key_url must be an https:// URL."
  }
}

variable "agent_key_fingerprint" {
  description = "Fingerprint of the key that must have signed the SSM agent's package; Amazon publishes it on the page Verifying the signature of SSM Agent."
  type        = string
  default     = "1C5B395CBE5E74E2F1CA21592784DBF388D19D46" # Expires on 2027-11-25.

  validation {
    condition     = can(regex("^[0-9A-F]{40}$", var.agent_key_fingerprint))
    error_message = "agent_key_fingerprint must have 40 hexadecimal digits, capitals, without spaces."
  }
}

variable "base_packages" {
  description = "Debian packages that every host needs before Ansible can run on it."
  type        = list(string)
  default     = ["acl", "ansible-core", "awscli", "ca-certificates", "curl", "gnupg", "gpgv", "jq", "python3", "python3-apt"]
}

variable "extra_packages" {
  description = "Debian packages besides `base_packages`: installed at the first boot, later additions by Ansible."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for name in var.extra_packages : can(regex("^[a-z0-9][a-z0-9+.-]+$", name))])
    error_message = "extra_packages must be names of Debian packages."
  }
}

variable "termination_protection" {
  description = "Whether EC2 refuses to terminate the host."
  type        = bool
  default     = false
}

variable "detailed_monitoring" {
  description = "Whether CloudWatch gets figures every minute (at a price) and not every five."
  type        = bool
  default     = false
}
