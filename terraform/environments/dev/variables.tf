# The defaults are dev; terraform.tfvars (not committed) changes what one account needs otherwise.

variable "project" {
  description = "Project; tag of everything and first part of names."
  type        = string
  default     = "calldata-foundation"
}

variable "environment" {
  description = "Name of this environment."
  type        = string
  default     = "dev"

  validation {
    condition     = var.environment == "dev"
    error_message = "environment must be dev here: another environment is another folder with a state of its own."
  }
}

variable "owner" {
  description = "Who answers for what this environment makes; a tag of everything."
  type        = string
  default     = "platform"

  validation {
    condition     = can(regex("^[A-Za-z0-9 _.:/=+@-]{1,128}$", var.owner))
    error_message = "owner must be a tag value: 1 to 128 letters, digits, spaces and _.:/=+@-."
  }
}

variable "region" {
  description = "AWS region; the scripts set it from AWS_REGION."
  type        = string
  default     = "us-east-1"

  validation {
    condition     = can(regex("^[a-z]{2}(-[a-z]+)+-[0-9]$", var.region))
    error_message = "region must look like us-east-1."
  }
}

variable "vpc_cidr" {
  description = "Address range of the VPC."
  type        = string
  default     = "10.20.0.0/16"
}

variable "public_subnet_cidrs" {
  description = "Address ranges of the public subnets, one zone each."
  type        = list(string)
  default     = ["10.20.1.0/24", "10.20.2.0/24", "10.20.3.0/24"]
}

variable "private_subnet_cidrs" {
  description = "Address ranges of the private subnets; dev needs none."
  type        = list(string)
  default     = []
}

variable "nat_gateways" {
  description = "How private subnets reach the internet: `none`, `single` or `zone`."
  type        = string
  default     = "none"
}

variable "instance_type" {
  description = "EC2 instance type of the host."
  type        = string
  default     = "t3.xlarge"
}

variable "ami_id" {
  description = "Image to boot instead of Debian 12's newest."
  type        = string
  default     = null
}

variable "root_volume_size_gib" {
  description = "Size of the root volume in GiB."
  type        = number
  default     = 50
}

variable "extra_packages" {
  description = "Debian packages besides those that every host has. Ansible installs what is added; nothing is removed."
  type        = list(string)
  default     = []
}

variable "keep_root_volume" {
  description = "Whether the root volume, with the database on it, stays when the host is terminated; dev is thrown away whole."
  type        = bool
  default     = false
}

variable "termination_protection" {
  description = "Whether EC2 refuses to terminate the host."
  type        = bool
  default     = false
}

variable "sip_domain" {
  description = "Domain of the SIP addresses."
  type        = string
  default     = "dev.calldata-foundation.internal"
}

variable "sip_users" {
  description = "SIP users that get a password."
  type        = list(string)
  default     = ["1001", "1002"]
}

variable "sip_cidrs" {
  description = "Address ranges that may send SIP and RTP; dev is open, digest passwords guard it."
  type        = list(string)
  default     = ["0.0.0.0/0"]
}

variable "http_cidrs" {
  description = "Address ranges that may open HTTP."
  type        = list(string)
  default     = ["0.0.0.0/0"]
}

variable "rtp_port_min" {
  description = "First UDP port of RTP: security group and Asterisk take it from here."
  type        = number
  default     = 10000
}

variable "rtp_port_max" {
  description = "Last UDP port of RTP."
  type        = number
  default     = 20000
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
}

variable "secret_recovery_days" {
  description = "Days in which a deleted secret can be restored; 0 frees its name at once, so that dev can be made anew."
  type        = number
  default     = 0
}
