# The real provider without an account: it plans new resources without a call. The secrets are left out, since their
# passwords would be drawn by a call and Terraform 1.11 has no mock for what is ephemeral.
provider "aws" {
  region                      = "us-east-1"
  access_key                  = "none"
  secret_key                  = "none"
  skip_credentials_validation = true
  skip_metadata_api_check     = true
  skip_requesting_account_id  = true
}

override_module {
  target = module.secret
  outputs = {
    arn = "arn:aws:secretsmanager:us-east-1:123456789012:secret:example"
  }
}

override_module {
  target = module.sip_user
  outputs = {
    arn = "arn:aws:secretsmanager:us-east-1:123456789012:secret:user"
  }
}

override_data {
  target = data.aws_caller_identity.current
  values = {
    account_id = "123456789012"
  }
}

override_data {
  target = data.aws_secretsmanager_secrets.sip_users
  values = {
    arns = []
  }
}

variables {
  project     = "example"
  environment = "dev"
  name        = "example-dev"
  vpc_id      = "vpc-0123456789abcdef0"
  sip_domain  = "dev.example.com"
  sip_users   = ["1001", "1002"]
  sip_cidrs   = ["192.0.2.0/24", "198.51.100.0/24"]
  http_cidrs  = ["192.0.2.0/24"]
}

run "each_range_may_reach_sip_rtp_and_http_and_nothing_else" {
  command = plan

  assert {
    condition = toset([
      for rule in aws_vpc_security_group_ingress_rule.this : "${rule.ip_protocol} ${rule.from_port}-${rule.to_port} ${rule.cidr_ipv4}"
      ]) == toset([
      "udp 5060-5060 192.0.2.0/24", "udp 5060-5060 198.51.100.0/24",
      "tcp 5060-5060 192.0.2.0/24", "tcp 5060-5060 198.51.100.0/24",
      "udp 10000-20000 192.0.2.0/24", "udp 10000-20000 198.51.100.0/24",
      "tcp 80-80 192.0.2.0/24",
    ])
    error_message = "The open ports are not the expected ones."
  }
}

run "one_variable_feeds_the_rules_and_the_inventory" {
  command = plan

  variables {
    rtp_port_min = 30000
    rtp_port_max = 30099
    sip_port     = 5070
  }

  assert {
    condition     = aws_vpc_security_group_ingress_rule.this["rtp 192.0.2.0/24"].from_port == output.inventory_vars.rtp_port_min && aws_vpc_security_group_ingress_rule.this["rtp 192.0.2.0/24"].to_port == output.inventory_vars.rtp_port_max && output.inventory_vars.rtp_port_max == 30099
    error_message = "The RTP range of the rules and of the inventory differ."
  }

  assert {
    condition     = aws_vpc_security_group_ingress_rule.this["sip-udp 192.0.2.0/24"].from_port == 5070 && output.inventory_vars.sip_port == 5070
    error_message = "The SIP port of the rules and of the inventory differ."
  }
}

run "the_inventory_holds_references_to_secrets" {
  command = plan

  assert {
    condition     = alltrue([for name, value in output.inventory_vars : startswith(value, "arn:aws:secretsmanager:") if endswith(name, "_secret_arn")])
    error_message = "A secret must be an ARN."
  }

  assert {
    condition     = contains(output.secret_arns, "arn:aws:secretsmanager:us-east-1:123456789012:secret:example/dev/sip-users/*") && length(output.secret_arns) == 3
    error_message = "The host must be given both logins and, by their path, the secrets of the SIP users."
  }

  assert {
    condition     = output.inventory_vars.sip_user_secret_arns == { "1001" = "arn:aws:secretsmanager:us-east-1:123456789012:secret:user", "1002" = "arn:aws:secretsmanager:us-east-1:123456789012:secret:user" }
    error_message = "Every SIP user must have a secret of his own."
  }

  assert {
    condition     = local.secrets["database"].fields.username == "asterisk" && toset(keys(local.secrets)) == toset(["database", "message-bus"])
    error_message = "The database role must have its name, and no secret is shared by the SIP users."
  }
}

# One plan for all of them: each named variable must be refused, or the run fails.
run "wrong_values_are_refused" {
  command = plan
  expect_failures = [
    var.environment, var.name, var.sip_port, var.rtp_port_min, var.sip_cidrs, var.http_cidrs,
    var.sip_domain, var.sip_users, var.database_username, var.message_bus_username,
  ]

  variables {
    environment          = "stage"       # staging is meant
    name                 = "Example"     # a capital
    sip_port             = 506           # privileged
    rtp_port_min         = 10001         # odd
    sip_cidrs            = ["192.0.2.1"] # an address, not a range
    http_cidrs           = []            # nobody
    sip_domain           = "localhost"   # no dot
    sip_users            = ["alice"]     # no number
    database_username    = "Asterisk"    # a capital
    message_bus_username = "guest"       # published
  }
}

run "an_rtp_range_too_small_for_a_call_is_refused" {
  command         = plan
  expect_failures = [var.rtp_port_max]

  variables {
    rtp_port_min = 10000
    rtp_port_max = 10002
  }
}

run "an_rtp_range_that_holds_the_sip_port_is_refused" {
  command         = plan
  expect_failures = [var.rtp_port_max]

  variables {
    rtp_port_min = 5000
    rtp_port_max = 6000
  }
}

run "a_sip_user_named_twice_is_refused" {
  command         = plan
  expect_failures = [var.sip_users]

  variables {
    sip_users = ["1001", "1001"]
  }
}

run "a_generation_of_nobody_is_refused" {
  command         = plan
  expect_failures = [var.secret_generations]

  variables {
    secret_generations = { 1003 = 2 }
  }
}
