# Who may reach Asterisk and the web entry of its host. The same variables feed the rules here and,
# through the inventory, Asterisk's own configuration: a port cannot be open in one and closed in the other.

locals {
  ports = {
    sip-udp = { protocol = "udp", from = var.sip_port, to = var.sip_port, cidrs = var.sip_cidrs, what = "SIP over UDP" }
    sip-tcp = { protocol = "tcp", from = var.sip_port, to = var.sip_port, cidrs = var.sip_cidrs, what = "SIP over TCP" }
    rtp     = { protocol = "udp", from = var.rtp_port_min, to = var.rtp_port_max, cidrs = var.sip_cidrs, what = "RTP" }
    http    = { protocol = "tcp", from = 80, to = 80, cidrs = var.http_cidrs, what = "HTTP" }
  }

  ingress = merge([
    for name, port in local.ports : { for cidr in port.cidrs : "${name} ${cidr}" => merge(port, { cidr = cidr }) }
  ]...)
}

resource "aws_security_group" "this" {
  name        = "${var.name}-asterisk"
  description = "SIP, RTP and HTTP of ${var.name}"
  vpc_id      = var.vpc_id

  tags = { Name = "${var.name}-asterisk" }
}

resource "aws_vpc_security_group_ingress_rule" "this" {
  for_each = local.ingress

  security_group_id = aws_security_group.this.id
  description       = each.value.what
  ip_protocol       = each.value.protocol
  from_port         = each.value.from
  to_port           = each.value.to
  cidr_ipv4         = each.value.cidr

  tags = { Name = "${var.name}-${split(" ", each.key)[0]}" }
}

# Packages, AWS and the phones' own media ports, which nobody knows before the call.
resource "aws_vpc_security_group_egress_rule" "all" {
  security_group_id = aws_security_group.this.id
  description       = "Packages, AWS and media to phones"
  ip_protocol       = "-1"
  cidr_ipv4         = "0.0.0.0/0"

  tags = { Name = "${var.name}-out" }
}
