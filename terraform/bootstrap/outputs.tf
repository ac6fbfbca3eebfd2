output "bucket_name" {
  description = "Name of the bucket for the states."
  value       = module.state_backend.bucket_name
}

output "lock_table_name" {
  description = "Name of the DynamoDB table that locks the states."
  value       = module.state_backend.lock_table_name
}
