# Who read or wrote a state, and when: S3's own access log, in a bucket of its own.

resource "aws_s3_bucket" "log" {
  bucket = "${var.bucket_name}-log"

  # As in main.tf: a resource of its own would cost 55 s on every new backend.
  lifecycle_rule {
    id                                     = "old-logs"
    enabled                                = true
    abort_incomplete_multipart_upload_days = 7

    expiration {
      days = var.log_days
    }
  }

  lifecycle {
    prevent_destroy = true
  }
}

# S3 delivers access logs to buckets with its own key (AES256) only.
resource "aws_s3_bucket_server_side_encryption_configuration" "log" {
  bucket = aws_s3_bucket.log.id

  rule {
    apply_server_side_encryption_by_default {
      sse_algorithm = "AES256"
    }
  }
}

resource "aws_s3_bucket_public_access_block" "log" {
  bucket = aws_s3_bucket.log.id

  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_ownership_controls" "log" {
  bucket = aws_s3_bucket.log.id

  rule {
    object_ownership = "BucketOwnerEnforced"
  }
}

resource "aws_s3_bucket_policy" "log" {
  bucket = aws_s3_bucket.log.bucket
  policy = data.aws_iam_policy_document.tls_only["log"].json

  depends_on = [aws_s3_bucket_public_access_block.log, aws_s3_bucket_ownership_controls.log]
}

resource "aws_s3_bucket_logging" "this" {
  bucket        = aws_s3_bucket.this.bucket
  target_bucket = aws_s3_bucket.log.bucket
  target_prefix = "state/"

  depends_on = [aws_s3_bucket_policy.log]
}
