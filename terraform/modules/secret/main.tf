# One secret: a JSON object of given fields and drawn passwords. The passwords are ephemeral values written through
# a write-only argument: neither a plan nor the state holds one, and what was drawn in a run that stores nothing is
# forgotten. Only a new `generation` stores a new draw.

ephemeral "aws_secretsmanager_random_password" "this" {
  for_each = toset(var.generated)

  password_length     = var.password_length
  exclude_punctuation = true # Passwords become parts of URLs and configuration files.
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

  secret_string_wo = jsonencode(merge(var.fields, {
    for key in var.generated : key => ephemeral.aws_secretsmanager_random_password.this[key].random_password
  }))
}
