# dev: the whole platform on one host.

locals {
  name = "${var.project}-${var.environment}"

  # What cleanup-orphans trusts.
  tags = {
    project     = var.project
    environment = var.environment
    owner       = var.owner
    managed-by  = "terraform"
  }

  hosts = {
    "${var.environment}-platform-1" = {
      groups = ["asterisk", "database", "message_bus", "nginx", "sip", "uc_engine"]
      vars   = {}
    }
  }
}

module "networking" {
  source = "../../modules/networking"

  name                 = local.name
  vpc_cidr             = var.vpc_cidr
  public_subnet_cidrs  = var.public_subnet_cidrs
  private_subnet_cidrs = var.private_subnet_cidrs
  nat_gateways         = var.nat_gateways
}

module "foundation_asterisk" {
  source = "../../modules/foundation-asterisk"

  project              = var.project
  environment          = var.environment
  name                 = local.name
  vpc_id               = module.networking.vpc_id
  sip_domain           = var.sip_domain
  sip_users            = var.sip_users
  sip_cidrs            = var.sip_cidrs
  http_cidrs           = var.http_cidrs
  rtp_port_min         = var.rtp_port_min
  rtp_port_max         = var.rtp_port_max
  secret_generation    = var.secret_generation
  secret_generations   = var.secret_generations
  secret_recovery_days = var.secret_recovery_days
}

module "compute" {
  source   = "../../modules/compute"
  for_each = local.hosts

  project                = var.project
  name                   = each.key
  instance_type          = var.instance_type
  ami_id                 = var.ami_id
  subnet_id              = module.networking.public_subnet_ids[0]
  security_group_ids     = [module.foundation_asterisk.security_group_id]
  public_ip              = true
  root_volume_size_gib   = var.root_volume_size_gib
  extra_packages         = var.extra_packages
  keep_root_volume       = var.keep_root_volume
  secret_arns            = module.foundation_asterisk.secret_arns
  parameter_paths        = ["/${var.project}/${var.environment}"]
  termination_protection = var.termination_protection
}
