variable "project" {
  description = "Project; tag of the bucket and the table."
  type        = string
  default     = "calldata-foundation"
}

variable "owner" {
  description = "Who answers for the states; a tag of the bucket and the table."
  type        = string
  default     = "platform"
}

variable "region" {
  description = "AWS region of the bucket and the table."
  type        = string
}

variable "bucket_name" {
  description = "Name of the bucket for the states."
  type        = string
}

variable "lock_table_name" {
  description = "Name of the DynamoDB table that locks the states."
  type        = string
}

variable "require_tls" {
  description = "Whether requests for states without TLS are refused."
  type        = bool
  default     = true
}
