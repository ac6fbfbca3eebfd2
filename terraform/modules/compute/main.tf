# One host: a Debian instance with its role, its first-boot user data and, where asked for, a fixed public address.

data "aws_region" "current" {}

data "aws_ami" "debian" {
  count = var.ami_id == null ? 1 : 0

  owners      = ["136693071363"] # Debian's account, https://wiki.debian.org/Cloud/AmazonEC2Image
  most_recent = true

  filter {
    name   = "name"
    values = ["debian-${var.debian_release}-amd64-*"]
  }

  filter {
    name   = "architecture"
    values = ["x86_64"]
  }

  filter {
    name   = "virtualization-type"
    values = ["hvm"]
  }
}

locals {
  ami_id = var.ami_id == null ? data.aws_ami.debian[0].id : var.ami_id

  packages = sort(distinct(concat(var.base_packages, var.extra_packages)))

  user_data = templatefile("${path.module}/user-data.yml.tftpl", {
    packages        = local.packages
    region          = data.aws_region.current.name
    key_url         = var.agent_key_url
    key_fingerprint = var.agent_key_fingerprint
  })
}

# The root volume is encrypted when the host is made; another key would mean another host, without the data of this one.
resource "terraform_data" "root_volume_key" {
  input = coalesce(var.root_volume_kms_key_arn, "the account's own key")

  lifecycle {
    ignore_changes = [input]

    postcondition {
      condition     = self.output == coalesce(var.root_volume_kms_key_arn, "the account's own key")
      error_message = "root_volume_kms_key_arn of ${var.name} cannot change from ${self.output}: the host would be replaced by one without its data. Set it back; or back up the data, destroy the host and make it anew."
    }
  }
}

resource "aws_instance" "this" {
  ami                     = local.ami_id
  instance_type           = var.instance_type
  subnet_id               = var.subnet_id
  vpc_security_group_ids  = var.security_group_ids
  iam_instance_profile    = aws_iam_instance_profile.this.name
  user_data               = local.user_data
  disable_api_termination = var.termination_protection
  monitoring              = var.detailed_monitoring

  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required" # IMDSv2 only: a forged request through a proxy on the host gets nothing.
    http_put_response_hop_limit = 1
  }

  root_block_device {
    volume_type = "gp3"
    volume_size = var.root_volume_size_gib
    encrypted   = true
    kms_key_id  = var.root_volume_kms_key_arn

    delete_on_termination = !var.keep_root_volume

    tags = { Name = "${var.name}-root" }
  }

  tags = { Name = var.name }

  # Without its policies the agent could not register and the roles could not read their secrets.
  depends_on = [aws_iam_role_policy.agent, aws_iam_role_policy.secrets]

  lifecycle {
    # The host holds the only copy of its data, so what counts at the first boot only never replaces it: a newer image
    # of Debian's, or other user data. Ansible installs what the package list gains (see the output `packages`).
    # To move on purpose: plan with `-replace` and the address of this resource, after a backup.
    ignore_changes = [ami, user_data]
  }
}

# An address of its own, so that a replaced host is reached where the old one was.
resource "aws_eip" "this" {
  count = var.public_ip ? 1 : 0

  domain = "vpc"

  tags = { Name = var.name }
}

resource "aws_eip_association" "this" {
  count = var.public_ip ? 1 : 0

  allocation_id = aws_eip.this[0].id
  instance_id   = aws_instance.this.id
}
