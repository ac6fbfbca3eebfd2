mock_provider "aws" {
  mock_data "aws_availability_zones" {
    defaults = {
      names = ["us-east-1a", "us-east-1b", "us-east-1c"]
    }
  }
}

variables {
  name                = "example-dev"
  vpc_cidr            = "10.20.0.0/16"
  public_subnet_cidrs = ["10.20.1.0/24", "10.20.2.0/24"]
}

run "public_subnets_lie_in_different_zones_and_reach_the_internet" {
  command = plan

  assert {
    condition     = [for cidr in var.public_subnet_cidrs : aws_subnet.public[cidr].availability_zone] == ["us-east-1a", "us-east-1b"]
    error_message = "Subnets must be spread over the zones in order."
  }

  assert {
    condition     = aws_route.internet.destination_cidr_block == "0.0.0.0/0" && length(aws_route_table_association.public) == 2
    error_message = "Every public subnet must have a route to the internet."
  }

  assert {
    condition     = length(aws_nat_gateway.this) == 0 && length(aws_subnet.private) == 0
    error_message = "What is not asked for must not be made: a NAT gateway costs money."
  }
}

run "one_gateway_serves_every_private_subnet" {
  command = plan

  variables {
    private_subnet_cidrs = ["10.20.101.0/24", "10.20.102.0/24"]
    nat_gateways         = "single"
  }

  assert {
    condition     = length(aws_nat_gateway.this) == 1 && length(aws_route.nat) == 2
    error_message = "Both private subnets must share one gateway."
  }
}

run "a_gateway_per_zone" {
  command = plan

  variables {
    private_subnet_cidrs = ["10.20.101.0/24", "10.20.102.0/24"]
    nat_gateways         = "zone"
  }

  assert {
    condition     = length(aws_nat_gateway.this) == 2 && length(aws_eip.nat) == 2
    error_message = "Every zone must have its own gateway and address."
  }
}

run "private_subnets_without_gateway_stay_closed" {
  command = plan

  variables {
    private_subnet_cidrs = ["10.20.101.0/24"]
  }

  assert {
    condition     = length(aws_route.nat) == 0 && length(aws_route_table_association.private) == 1
    error_message = "Without NAT there must be no way out."
  }
}

# One plan for all of them: each named variable must be refused, or the run fails.
run "wrong_values_are_refused" {
  command         = plan
  expect_failures = [var.name, var.public_subnet_cidrs, var.nat_gateways]

  variables {
    name                = "Example"        # a capital
    public_subnet_cidrs = ["10.21.1.0/24"] # outside the VPC
    nat_gateways        = "instance"       # not offered
  }
}

run "a_vpc_larger_than_ec2_allows_is_refused" {
  command         = plan
  expect_failures = [var.vpc_cidr]

  variables {
    vpc_cidr            = "10.0.0.0/8"
    public_subnet_cidrs = ["10.20.1.0/24"]
  }
}

run "a_subnet_named_twice_is_refused" {
  command         = plan
  expect_failures = [var.public_subnet_cidrs]

  variables {
    public_subnet_cidrs = ["10.20.1.0/24", "10.20.1.0/24"]
  }
}

run "a_subnet_larger_than_the_vpc_is_refused" {
  command         = plan
  expect_failures = [var.public_subnet_cidrs]

  variables {
    public_subnet_cidrs = ["10.0.0.0/8"]
  }
}

run "a_private_subnet_that_is_public_is_refused" {
  command         = plan
  expect_failures = [var.private_subnet_cidrs]

  variables {
    private_subnet_cidrs = ["10.20.1.0/24"]
  }
}

# From here on a network lives.
run "a_network_lives" {
  command = apply
}

run "another_range_of_a_living_network_is_refused" {
  command         = plan
  expect_failures = [terraform_data.fixed["vpc_cidr"], terraform_data.fixed["public_subnet_cidrs[0]"], terraform_data.fixed["public_subnet_cidrs[1]"]]

  variables {
    vpc_cidr            = "10.30.0.0/16"
    public_subnet_cidrs = ["10.30.1.0/24", "10.30.2.0/24"]
  }
}

run "a_subnet_before_the_first_one_is_refused" {
  command         = plan
  expect_failures = [terraform_data.fixed["public_subnet_cidrs[0]"], terraform_data.fixed["public_subnet_cidrs[1]"]]

  variables {
    public_subnet_cidrs = ["10.20.9.0/24", "10.20.1.0/24", "10.20.2.0/24"]
  }
}

run "a_further_subnet_is_added" {
  command = plan

  variables {
    public_subnet_cidrs = ["10.20.1.0/24", "10.20.2.0/24", "10.20.3.0/24"]
  }

  assert {
    condition     = length(aws_subnet.public) == 3 && aws_vpc.this.id == run.a_network_lives.vpc_id
    error_message = "A subnet at the end of the list must leave the rest alone."
  }
}
