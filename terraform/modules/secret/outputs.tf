output "arn" {
  description = "ARN of the secret."
  value       = aws_secretsmanager_secret.this.arn

  # Whoever gets the ARN may read at once.
  depends_on = [aws_secretsmanager_secret_version.this]
}
