output "bucket_name" {
  description = "Name of the bucket for the states."
  value       = aws_s3_bucket.this.id
}

output "bucket_arn" {
  description = "ARN of the bucket, for the policy of the role that deploys."
  value       = aws_s3_bucket.this.arn
}

output "lock_table_name" {
  description = "Name of the DynamoDB table that locks the states."
  value       = aws_dynamodb_table.lock.name
}

output "lock_table_arn" {
  description = "ARN of the table, for the policy of the role that deploys."
  value       = aws_dynamodb_table.lock.arn
}

output "log_bucket_name" {
  description = "Name of the bucket for the access log of the states."
  value       = aws_s3_bucket.log.id
}
