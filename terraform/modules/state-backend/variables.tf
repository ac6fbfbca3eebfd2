variable "bucket_name" {
  description = "Name of the bucket for the states; unique in all of AWS."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9-]{1,57}[a-z0-9]$", var.bucket_name))
    error_message = "bucket_name must have 3 to 59 lower-case letters, digits and hyphens (dots break TLS with S3; the log bucket adds -log)."
  }
}

variable "lock_table_name" {
  description = "Name of the DynamoDB table that locks the states."
  type        = string

  validation {
    condition     = can(regex("^[A-Za-z0-9_.-]{3,255}$", var.lock_table_name))
    error_message = "lock_table_name must have 3 to 255 letters, digits, dots, hyphens and underscores."
  }
}

variable "kms_key_arn" {
  description = "Key that encrypts the states; null takes S3's own (AES256)."
  type        = string
  default     = null

  validation {
    condition     = var.kms_key_arn == null || can(regex("^arn:[a-z-]+:kms:", var.kms_key_arn))
    error_message = "kms_key_arn must be the ARN of a KMS key, or null."
  }
}

variable "noncurrent_version_days" {
  description = "Days after which a replaced version of a state is deleted."
  type        = number
  default     = 365

  validation {
    condition     = var.noncurrent_version_days >= 7
    error_message = "noncurrent_version_days must be at least 7: a broken state is often noticed only after some days."
  }
}

variable "require_tls" {
  description = "Whether requests without TLS are refused. Only an endpoint that speaks plain HTTP, as a rehearsal's does, needs false."
  type        = bool
  default     = true
}

variable "log_days" {
  description = "Days after which the access log of the states is deleted."
  type        = number
  default     = 90

  validation {
    condition     = var.log_days >= 1 && floor(var.log_days) == var.log_days
    error_message = "log_days must be a whole number from 1."
  }
}
