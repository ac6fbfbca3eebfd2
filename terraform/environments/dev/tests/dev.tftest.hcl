# The real provider without an account: it plans new resources without a call. What would be asked of AWS is
# answered here.
provider "aws" {
  region                      = "us-east-1"
  access_key                  = "none"
  secret_key                  = "none"
  skip_credentials_validation = true
  skip_metadata_api_check     = true
  skip_requesting_account_id  = true
}

override_data {
  target = module.networking.data.aws_availability_zones.this
  values = {
    names = ["us-east-1a", "us-east-1b", "us-east-1c"]
  }
}

override_data {
  target = module.compute["dev-platform-1"].data.aws_ami.debian[0]
  values = {
    id = "ami-0123456789abcdef0"
  }
}

# Passwords are drawn by a call, and Terraform 1.11 has no mock for what is ephemeral.
override_module {
  target = module.foundation_asterisk.module.secret
  outputs = {
    arn = "arn:aws:secretsmanager:us-east-1:123456789012:secret:example"
  }
}

override_module {
  target = module.foundation_asterisk.module.sip_user
  outputs = {
    arn = "arn:aws:secretsmanager:us-east-1:123456789012:secret:user"
  }
}

override_data {
  target = module.foundation_asterisk.data.aws_caller_identity.current
  values = {
    account_id = "123456789012"
  }
}

override_data {
  target = module.compute["dev-platform-1"].data.aws_caller_identity.current
  values = {
    account_id = "123456789012"
  }
}

override_data {
  target = module.foundation_asterisk.data.aws_secretsmanager_secrets.sip_users
  values = {
    arns = []
  }
}

run "the_inventory_keeps_its_contract" {
  command = plan

  assert {
    condition     = toset(keys(output.inventory)) == toset(["version", "project", "environment", "region", "hosts", "scaling_groups", "vars", "group_vars"])
    error_message = "The inventory's keys are not those of the contract."
  }

  assert {
    condition     = output.inventory.version == 1 && output.inventory.project == "calldata-foundation" && output.inventory.environment == "dev" && output.inventory.region == "us-east-1"
    error_message = "The inventory must say what it is of."
  }

  assert {
    condition     = keys(output.inventory.hosts) == ["dev-platform-1"]
    error_message = "dev has one host, whose name never changes."
  }

  assert {
    condition     = toset(keys(output.inventory.hosts["dev-platform-1"])) == toset(["instance_id", "private_ip", "public_ip", "groups", "vars"])
    error_message = "The host's keys are not those of the contract."
  }

  assert {
    condition     = toset(output.inventory.hosts["dev-platform-1"].groups) == toset(["uc_engine", "asterisk", "database", "message_bus", "nginx", "sip"])
    error_message = "The host of dev does everything."
  }

  assert {
    condition     = toset(keys(output.inventory.vars)) == toset(["sip_domain", "sip_port", "rtp_port_min", "rtp_port_max", "database_secret_arn", "message_bus_secret_arn", "sip_user_secret_arns"])
    error_message = "The inventory's variables are not those that Ansible expects."
  }
}

run "packages_go_to_ansible" {
  command = plan

  variables {
    extra_packages = ["htop"]
  }

  assert {
    condition     = contains(output.inventory.hosts["dev-platform-1"].vars.host_packages, "htop")
    error_message = "A package that is added must reach Ansible, for the host is not made anew."
  }
}

run "the_default_tags_are_those_that_cleanup_trusts" {
  command = plan

  variables {
    owner = "voice team"
  }

  assert {
    condition     = local.tags == { project = "calldata-foundation", environment = "dev", owner = "voice team", managed-by = "terraform" }
    error_message = "project, environment, owner and managed-by must be on everything."
  }
}

# One plan for all of them: each named variable must be refused, or the run fails.
run "wrong_values_are_refused" {
  command         = plan
  expect_failures = [var.environment, var.owner, var.region]

  variables {
    environment = "prod"       # a folder of its own
    owner       = "us & them"  # no tag value
    region      = "us-east-1a" # a zone
  }
}
