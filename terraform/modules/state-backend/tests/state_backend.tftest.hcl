mock_provider "aws" {
  mock_data "aws_partition" {
    defaults = {
      partition = "aws"
    }
  }

  mock_data "aws_iam_policy_document" {
    defaults = {
      json = "{}"
    }
  }
}

variables {
  bucket_name     = "example-tfstate-123456789012-us-east-1"
  lock_table_name = "example-tfstate-lock"
}

run "states_are_versioned_encrypted_and_private" {
  command = plan

  assert {
    condition     = aws_s3_bucket_versioning.this.versioning_configuration[0].status == "Enabled"
    error_message = "The bucket must keep old versions."
  }

  assert {
    condition     = one([for rule in aws_s3_bucket_server_side_encryption_configuration.this.rule : rule.apply_server_side_encryption_by_default[0].sse_algorithm]) == "AES256"
    error_message = "The bucket must be encrypted without a key being named."
  }

  assert {
    condition = alltrue([
      aws_s3_bucket_public_access_block.this.block_public_acls,
      aws_s3_bucket_public_access_block.this.block_public_policy,
      aws_s3_bucket_public_access_block.this.ignore_public_acls,
      aws_s3_bucket_public_access_block.this.restrict_public_buckets,
    ])
    error_message = "Nothing may make a state public."
  }

  assert {
    condition     = aws_s3_bucket.this.lifecycle_rule[0].noncurrent_version_expiration[0].days == 365
    error_message = "Old versions must go after a year."
  }
}

run "states_travel_over_tls_only_and_every_access_is_logged" {
  command = plan

  assert {
    condition = alltrue([
      for name in ["state", "log"] :
      data.aws_iam_policy_document.tls_only[name].statement[0].effect == "Deny"
      && one(data.aws_iam_policy_document.tls_only[name].statement[0].condition).variable == "aws:SecureTransport"
      && one(data.aws_iam_policy_document.tls_only[name].statement[0].condition).values == tolist(["false"])
    ])
    error_message = "A request without TLS must be refused."
  }

  assert {
    condition     = aws_s3_bucket_policy.this[0].bucket == aws_s3_bucket.this.bucket && aws_s3_bucket_policy.log.bucket == aws_s3_bucket.log.bucket
    error_message = "Both buckets must have the policy."
  }

  assert {
    condition     = aws_s3_bucket_logging.this.target_bucket == aws_s3_bucket.log.bucket && aws_s3_bucket.log.bucket == "example-tfstate-123456789012-us-east-1-log"
    error_message = "The states' bucket must write its access log to the log bucket."
  }

  assert {
    condition     = aws_s3_bucket.log.lifecycle_rule[0].expiration[0].days == 90
    error_message = "Old logs must go."
  }
}

run "lock_table_is_what_the_backend_expects" {
  command = plan

  assert {
    condition     = aws_dynamodb_table.lock.hash_key == "LockID" && aws_dynamodb_table.lock.deletion_protection_enabled
    error_message = "The S3 backend looks for the key LockID; the table must not be deleted by mistake."
  }
}

run "a_key_of_ones_own_is_used" {
  command = plan

  variables {
    kms_key_arn = "arn:aws:kms:us-east-1:123456789012:key/00000000-0000-0000-0000-000000000000"
  }

  assert {
    condition     = one([for rule in aws_s3_bucket_server_side_encryption_configuration.this.rule : rule.apply_server_side_encryption_by_default[0].sse_algorithm]) == "aws:kms"
    error_message = "A named key must be used."
  }
}

# One plan for all of them: each named variable must be refused, or the run fails.
run "wrong_values_are_refused" {
  command         = plan
  expect_failures = [var.bucket_name, var.lock_table_name, var.kms_key_arn, var.noncurrent_version_days, var.log_days]

  variables {
    bucket_name             = "example.tfstate"                      # dots break TLS with S3
    lock_table_name         = "terraform locks"                      # a space
    kms_key_arn             = "00000000-0000-0000-0000-000000000000" # an id, not an ARN
    noncurrent_version_days = 6                                      # less than a week
    log_days                = 0                                      # no log at all
  }
}
