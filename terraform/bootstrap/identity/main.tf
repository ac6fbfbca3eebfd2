# Which account these credentials belong to: the name of the state's bucket hangs on it. Makes nothing, keeps no state.

provider "aws" {
  region      = var.region
  max_retries = 3 # This is the first call of all: whether AWS can be reached is told soon.
}

data "aws_caller_identity" "current" {}

variable "region" {
  description = "AWS region to ask in."
  type        = string
}

output "account_id" {
  description = "Account of the credentials."
  value       = data.aws_caller_identity.current.account_id
}
