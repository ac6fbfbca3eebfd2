# The role that the host has: managed by Systems Manager, and reader of the secrets and parameters that it was given.

data "aws_partition" "current" {}
data "aws_caller_identity" "current" {}

data "aws_iam_policy_document" "assume" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["ec2.amazonaws.com"]
    }
  }
}

# What the agent does for Run Command and Session Manager. Amazon's AmazonSSMManagedInstanceCore also allows every plain
# parameter of the account (ssm:GetParameter*) and inventory, patching and packages, which nothing here uses.
data "aws_iam_policy_document" "agent" {
  # These actions know no resource.
  statement {
    sid = "Agent"
    actions = [
      "ssm:UpdateInstanceInformation",
      "ssmmessages:CreateControlChannel",
      "ssmmessages:CreateDataChannel",
      "ssmmessages:OpenControlChannel",
      "ssmmessages:OpenDataChannel",
      "ec2messages:AcknowledgeMessage",
      "ec2messages:DeleteMessage",
      "ec2messages:FailMessage",
      "ec2messages:GetEndpoint",
      "ec2messages:GetMessages",
      "ec2messages:SendReply",
    ]
    resources = ["*"]
  }

  # Without a list of associations the agent logs an error every some minutes.
  statement {
    sid       = "Associations"
    actions   = ["ssm:ListAssociations", "ssm:ListInstanceAssociations"]
    resources = ["*"]
  }

  dynamic "statement" {
    for_each = length(var.parameter_paths) > 0 ? [var.parameter_paths] : []

    content {
      sid     = "ReadOwnParameters"
      actions = ["ssm:GetParameter", "ssm:GetParameters", "ssm:GetParametersByPath"]
      resources = flatten([
        for path in statement.value : [for suffix in ["", "/*"] :
          "arn:${data.aws_partition.current.partition}:ssm:${data.aws_region.current.name}:${data.aws_caller_identity.current.account_id}:parameter${path}${suffix}"
        ]
      ])
    }
  }
}

data "aws_iam_policy_document" "secrets" {
  count = length(var.secret_arns) > 0 ? 1 : 0

  statement {
    sid       = "ReadNamedSecrets"
    actions   = ["secretsmanager:GetSecretValue", "secretsmanager:DescribeSecret"]
    resources = var.secret_arns
  }
}

resource "aws_iam_role" "this" {
  name               = "${var.project}-${var.name}"
  description        = "What ${var.name} may do."
  assume_role_policy = data.aws_iam_policy_document.assume.json
}

resource "aws_iam_role_policy" "agent" {
  name   = "systems-manager"
  role   = aws_iam_role.this.name
  policy = data.aws_iam_policy_document.agent.json
}

resource "aws_iam_role_policy" "secrets" {
  count = length(var.secret_arns) > 0 ? 1 : 0

  name   = "read-secrets"
  role   = aws_iam_role.this.name
  policy = data.aws_iam_policy_document.secrets[0].json
}

resource "aws_iam_instance_profile" "this" {
  name = "${var.project}-${var.name}"
  role = aws_iam_role.this.name
}
