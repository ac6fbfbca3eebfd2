provider "aws" {
  region                      = "us-east-1"
  access_key                  = "none"
  secret_key                  = "none"
  skip_credentials_validation = true
  skip_requesting_account_id  = true
  skip_metadata_api_check     = true
}
variables {
  project     = "p"
  environment = "dev"
  name        = "p-dev"
  vpc_id      = "vpc-1"
  sip_domain  = "a.example"
  sip_users   = ["1001"]
  sip_cidrs   = ["10.0.0.0/8"]
  http_cidrs  = ["10.0.0.0/8"]
}
run "x" { command = plan }
override_module {
  target  = module.secret
  outputs = { arn = "arn:aws:secretsmanager:us-east-1:123456789012:secret:x" }
}
