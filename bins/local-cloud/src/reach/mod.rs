//! Who reaches whom: security groups, subnets, routes and gateways as EC2 has them, turned into packet rules.
//!
//! Pure. [`topology`] reads EC2's answers, [`plan`] decides, [`filter`] writes nftables. Asking and applying happen in
//! `crate::ec2::enforce`.

pub mod cidr;
pub mod filter;
pub mod plan;
pub mod rule;
pub mod services;
pub mod topology;

#[cfg(test)]
mod tests;
