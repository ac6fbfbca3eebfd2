# One secret: a JSON object of given fields and drawn passwords. The passwords are ephemeral values written through
# a write-only argument: neither a plan nor the state holds one, and what was drawn in a run that stores nothing is
# forgotten. A new `generation` stores a new draw, and so does a change of what the secret is made of.

ephemeral "aws_secretsmanager_random_password" "this" {
  for_each = toset(var.generated)

  password_length     = var.password_length
  exclude_punctuation = true # Passwords become parts of URLs and configuration files.
}

# Terraform cannot compare what is write-only, so what the secret is made of is kept here: a change of it would
# otherwise be no change at all, and never reach the secret.
resource "terraform_data" "shape" {
  input = {
    fields          = var.fields
    generated       = sort(var.generated)
    password_length = var.password_length
  }
}

resource "aws_secretsmanager_secret" "this" {
  name                    = var.name
  description             = var.description
  recovery_window_in_days = var.recovery_days
  kms_key_id              = var.kms_key_arn
}

resource "aws_secretsmanager_secret_version" "this" {
  secret_id                = aws_secretsmanager_secret.this.id
  secret_string_wo_version = var.generation

  # A password given by the caller counts instead of the drawn one.
  secret_string_wo = jsonencode(merge(var.fields, {
    for key in var.generated :
    key => try(coalesce(var.given[key]), ephemeral.aws_secretsmanager_random_password.this[key].random_password)
  }))

  lifecycle {
    replace_triggered_by = [terraform_data.shape]
  }
}
