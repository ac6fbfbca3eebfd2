mock_provider "aws" {
  mock_data "aws_region" {
    defaults = {
      name = "us-east-1"
    }
  }

  mock_data "aws_partition" {
    defaults = {
      partition = "aws"
    }
  }

  mock_data "aws_caller_identity" {
    defaults = {
      account_id = "123456789012"
    }
  }

  mock_data "aws_ami" {
    defaults = {
      id = "ami-0123456789abcdef0"
    }
  }

  mock_data "aws_iam_policy_document" {
    defaults = {
      json = "{}"
    }
  }
}

variables {
  project            = "example"
  name               = "dev-platform-1"
  instance_type      = "t3.xlarge"
  subnet_id          = "subnet-0123456789abcdef0"
  security_group_ids = ["sg-0123456789abcdef0"]
}

run "a_host_is_encrypted_and_takes_imdsv2_only" {
  command = plan

  assert {
    condition     = aws_instance.this.root_block_device[0].encrypted && aws_instance.this.root_block_device[0].volume_type == "gp3"
    error_message = "The root volume must be encrypted, of type gp3."
  }

  assert {
    condition     = aws_instance.this.metadata_options[0].http_tokens == "required" && aws_instance.this.metadata_options[0].http_put_response_hop_limit == 1
    error_message = "Metadata must take IMDSv2 only, from the host itself."
  }

  assert {
    condition     = aws_instance.this.ami == "ami-0123456789abcdef0"
    error_message = "Debian's newest image must be booted."
  }

  assert {
    condition     = length(aws_eip.this) == 0 && length(aws_iam_role_policy.secrets) == 0
    error_message = "What is not asked for must not be made."
  }
}

run "the_agent_may_do_its_work_and_read_no_parameter" {
  command = plan

  assert {
    condition = length(setsubtract(
      ["ssm:UpdateInstanceInformation", "ssmmessages:OpenControlChannel", "ssmmessages:CreateControlChannel", "ssmmessages:OpenDataChannel", "ssmmessages:CreateDataChannel", "ec2messages:GetMessages"],
      data.aws_iam_policy_document.agent.statement[0].actions
    )) == 0
    error_message = "Hosts are reached through Systems Manager only: the role must allow it."
  }

  assert {
    condition     = length([for statement in data.aws_iam_policy_document.agent.statement : true if anytrue([for action in statement.actions : strcontains(action, "Parameter") || strcontains(action, "*")])]) == 0
    error_message = "Without paths, the role must allow no parameter and no wildcard of actions."
  }
}

run "a_host_reads_parameters_below_its_own_paths_only" {
  command = plan

  variables {
    parameter_paths = ["/example/dev"]
  }

  assert {
    condition = toset(one([for statement in data.aws_iam_policy_document.agent.statement : statement.resources if statement.sid == "ReadOwnParameters"])) == toset([
      "arn:aws:ssm:us-east-1:123456789012:parameter/example/dev", "arn:aws:ssm:us-east-1:123456789012:parameter/example/dev/*",
    ])
    error_message = "The policy must name the path and what is below it."
  }
}

run "the_agent_is_installed_only_with_the_pinned_signature" {
  command = plan

  assert {
    condition     = strcontains(output.user_data, "fingerprint=1C5B395CBE5E74E2F1CA21592784DBF388D19D46\n") && strcontains(output.user_data, "VALIDSIG .*$fingerprint")
    error_message = "The package of the agent must be checked against Amazon's key."
  }

  assert {
    condition     = !strcontains(split("gpgv --status-fd", output.user_data)[0], "dpkg --install")
    error_message = "Nothing may be installed before the check."
  }
}

run "user_data_is_yaml_that_installs_what_ansible_needs" {
  command = plan

  variables {
    extra_packages = ["htop"]
  }

  assert {
    condition     = startswith(output.user_data, "#cloud-config\n")
    error_message = "cloud-init tells the kind of user data by its first line."
  }

  assert {
    condition     = length(setsubtract(["ansible-core", "awscli", "acl", "python3", "htop"], yamldecode(output.user_data).packages)) == 0
    error_message = "Packages are missing from the user data."
  }

  assert {
    condition     = strcontains(output.user_data, "https://s3.us-east-1.amazonaws.com/amazon-ssm-us-east-1/latest/debian_")
    error_message = "The agent must come from the host's own region."
  }

  assert {
    condition     = length(output.user_data) < 16384
    error_message = "EC2 takes 16 KB of user data."
  }
}

run "a_host_reads_only_the_secrets_it_was_given" {
  command = plan

  variables {
    secret_arns = ["arn:aws:secretsmanager:us-east-1:123456789012:secret:example/dev/database-AbCdEf"]
  }

  assert {
    condition     = data.aws_iam_policy_document.secrets[0].statement[0].resources == toset(["arn:aws:secretsmanager:us-east-1:123456789012:secret:example/dev/database-AbCdEf"])
    error_message = "The policy must name the secrets."
  }

  assert {
    condition     = length(aws_iam_role_policy.secrets) == 1
    error_message = "The role must have the policy."
  }
}

run "a_public_host_has_an_address_of_its_own" {
  command = plan

  variables {
    public_ip = true
  }

  assert {
    condition     = aws_eip.this[0].domain == "vpc" && length(aws_eip_association.this) == 1
    error_message = "A public host must have an Elastic IP."
  }
}

run "a_named_image_is_booted" {
  command = plan

  variables {
    ami_id = "ami-00000000"
  }

  assert {
    condition     = aws_instance.this.ami == "ami-00000000" && length(data.aws_ami.debian) == 0
    error_message = "A named image must be taken without a search."
  }
}

# One plan for all of them: each named variable must be refused, or the run fails.
run "wrong_values_are_refused" {
  command = plan
  expect_failures = [
    var.project, var.name, var.instance_type, var.debian_release, var.ami_id, var.security_group_ids,
    var.root_volume_size_gib, var.root_volume_kms_key_arn, var.extra_packages, var.parameter_paths,
    var.agent_key_url, var.agent_key_fingerprint,
  ]

  variables {
    project                 = "Example"      # a capital
    name                    = "platform.dev" # a dot
    instance_type           = "t3"           # no size
    debian_release          = 10             # no longer made
    ami_id                  = "debian-12"    # a name, not an id
    security_group_ids      = []             # the closed default group would apply
    root_volume_size_gib    = 4              # less than the image
    root_volume_kms_key_arn = "alias/aws/ebs"
    extra_packages          = ["htop; reboot"]
    parameter_paths         = ["/"]                           # all of them
    agent_key_url           = "http://example.com/amazon.gpg" # no TLS
    agent_key_fingerprint   = "2784DBF388D19D46"              # a key id, not a fingerprint
  }
}

run "a_graviton_type_is_refused" {
  command         = plan
  expect_failures = [var.instance_type]

  variables {
    instance_type = "t4g.xlarge"
  }
}

# From here on a host lives.
run "a_host_lives" {
  command = apply
}

run "another_package_replaces_nothing_and_goes_to_ansible" {
  command = plan

  variables {
    extra_packages = ["htop"]
    ami_id         = "ami-11111111"
  }

  assert {
    condition     = aws_instance.this.id == run.a_host_lives.instance_id
    error_message = "The host holds the only copy of its data: a package or an image must not replace it."
  }

  assert {
    condition     = contains(output.packages, "htop")
    error_message = "Ansible must be told of the package."
  }

  assert {
    condition     = aws_instance.this.root_block_device[0].delete_on_termination == false
    error_message = "The root volume must stay unless the caller says otherwise."
  }
}

run "another_key_of_the_root_volume_is_refused" {
  command         = plan
  expect_failures = [terraform_data.root_volume_key]

  variables {
    root_volume_kms_key_arn = "arn:aws:kms:us-east-1:123456789012:key/00000000-0000-0000-0000-000000000000"
  }
}
