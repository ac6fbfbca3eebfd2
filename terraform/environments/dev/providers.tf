provider "aws" {
  region = var.region

  # The default of 25 waits for more than half an hour, e.g. for capacity that a zone does not have.
  max_retries = 10

  default_tags {
    tags = local.tags
  }
}
