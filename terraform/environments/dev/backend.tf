terraform {
  # Bucket, key, region and lock table come from scripts/init.sh: they depend on the account.
  backend "s3" {
    encrypt      = true
    use_lockfile = true
  }
}
