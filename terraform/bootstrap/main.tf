# The state backend of one account and region. Its own state lies in the bucket that it makes:
# scripts/bootstrap.sh creates it with a local state and moves that state in.

terraform {
  backend "s3" {
    encrypt      = true
    use_lockfile = true
  }
}

provider "aws" {
  region = var.region

  default_tags {
    tags = {
      project     = var.project
      environment = "shared"
      owner       = var.owner
      managed-by  = "terraform"
    }
  }
}

module "state_backend" {
  source = "../modules/state-backend"

  bucket_name     = var.bucket_name
  lock_table_name = var.lock_table_name
  require_tls     = var.require_tls
}
