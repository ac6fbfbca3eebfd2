# The password itself is drawn in every plan, and Terraform 1.11 has no mock for what is ephemeral: what is tested here
# ends before it is drawn. That nothing of it is stored is checked where it is really applied.
provider "aws" {
  region                      = "us-east-1"
  access_key                  = "none"
  secret_key                  = "none"
  skip_credentials_validation = true
  skip_metadata_api_check     = true
  skip_requesting_account_id  = true
}

variables {
  name        = "example/dev/database"
  description = "Role of a database"
  fields      = { username = "asterisk" }
  generated   = ["password"]
}

# One plan for all of them: each named variable must be refused, or the run fails.
run "wrong_values_are_refused" {
  command = plan
  expect_failures = [
    var.name, var.generated, var.password_length, var.generation, var.recovery_days, var.kms_key_arn,
  ]

  variables {
    name            = "example/dev/db-abcdef" # looks like what is appended in an ARN
    generated       = ["username"]            # given already
    password_length = 8                       # too short
    generation      = 0                       # they start at 1
    recovery_days   = 3                       # AWS wants 7 at least
    kms_key_arn     = "alias/secrets"         # no ARN
  }
}

run "a_secret_without_a_password_is_refused" {
  command         = plan
  expect_failures = [var.generated]

  variables {
    generated = []
  }
}
