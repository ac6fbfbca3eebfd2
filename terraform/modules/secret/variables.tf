variable "name" {
  description = "Name of the secret, e.g. `calldata-foundation/dev/database`."
  type        = string

  validation {
    # A hyphen and six characters at the end look like what Secrets Manager appends to the name in an ARN.
    condition     = can(regex("^[A-Za-z0-9/_+=.@-]{1,256}$", var.name)) && !can(regex("-[A-Za-z0-9]{6}$", var.name))
    error_message = "name must have 1 to 256 letters, digits and /_+=.@- and not end in a hyphen and six letters or digits."
  }
}

variable "description" {
  description = "What the secret is for."
  type        = string
}

variable "fields" {
  description = "Fields of the JSON object that are not secret, such as a user name."
  type        = map(string)
  default     = {}
}

variable "generated" {
  description = "Fields of the JSON object that hold a drawn password."
  type        = list(string)

  validation {
    condition     = length(var.generated) > 0 && length(setintersection(var.generated, keys(var.fields))) == 0
    error_message = "generated must name at least one field, and none that fields has."
  }
}

variable "given" {
  description = "Passwords to store instead of drawn ones, by field: for a secret that takes over from another one."
  type        = map(string)
  default     = {}
  ephemeral   = true
}

variable "password_length" {
  description = "Characters of each password."
  type        = number
  default     = 32

  validation {
    condition     = var.password_length >= 20 && var.password_length <= 128
    error_message = "password_length must be 20 to 128."
  }
}

variable "generation" {
  description = "Raise it to draw and store new passwords at the next apply."
  type        = number
  default     = 1

  validation {
    condition     = var.generation >= 1 && floor(var.generation) == var.generation
    error_message = "generation must be a whole number from 1."
  }
}

variable "recovery_days" {
  description = "Days in which the deleted secret can be restored: 7 to 30, or 0 for none (its name is free at once)."
  type        = number
  default     = 30

  validation {
    condition     = var.recovery_days == 0 || (var.recovery_days >= 7 && var.recovery_days <= 30)
    error_message = "recovery_days must be 0 or 7 to 30, as Secrets Manager demands."
  }
}

variable "kms_key_arn" {
  description = "Key that encrypts the secret; null takes the account's own key for Secrets Manager."
  type        = string
  default     = null

  validation {
    condition     = var.kms_key_arn == null || can(regex("^arn:[a-z-]+:kms:", var.kms_key_arn))
    error_message = "kms_key_arn must be the ARN of a KMS key, or null."
  }
}
