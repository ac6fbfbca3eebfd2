//! Ranges of IPv4 addresses.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// A range of addresses, `10.20.0.0/16`; bits behind the prefix are zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cidr {
    network: u32,
    prefix: u32,
}

impl Cidr {
    /// Every address.
    pub const ALL: Self = Self { network: 0, prefix: 0 };

    /// One address.
    pub fn host(address: Ipv4Addr) -> Self {
        Self { network: address.into(), prefix: 32 }
    }

    /// Length of the prefix in bits.
    pub fn prefix(self) -> u32 {
        self.prefix
    }

    /// Its first address that is not the network's own; the prefix has to leave room for one.
    pub fn first(self) -> Ipv4Addr {
        Ipv4Addr::from(self.network.saturating_add(1))
    }

    /// Whether an address in it is one of its first four or its last, which AWS keeps.
    pub fn reserves(self, address: Ipv4Addr) -> bool {
        let offset = u32::from(address).wrapping_sub(self.network);
        offset < 4 || offset == !mask(self.prefix)
    }

    /// Whether all of `other` lies in it.
    pub fn contains(self, other: Self) -> bool {
        self.prefix <= other.prefix && other.network & mask(self.prefix) == self.network
    }
}

fn mask(prefix: u32) -> u32 {
    u32::MAX.checked_shl(32 - prefix).unwrap_or(0)
}

impl FromStr for Cidr {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (address, prefix) = text.split_once('/').ok_or(())?;
        let address: Ipv4Addr = address.parse().map_err(drop)?;
        let prefix: u32 = prefix.parse().map_err(drop)?;
        if prefix > 32 {
            return Err(());
        }
        Ok(Self { network: u32::from(address) & mask(prefix), prefix })
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = Ipv4Addr::from(self.network);
        if self.prefix == 32 {
            write!(f, "{address}")
        } else {
            write!(f, "{address}/{}", self.prefix)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_read_normalised_and_compared() {
        let check = |text: &str, expected: Option<&str>| {
            let found = text.parse::<Cidr>().ok().map(|cidr| cidr.to_string());
            assert_eq!(found.as_deref(), expected, "{text}");
        };
        check("10.20.3.4/16", Some("10.20.0.0/16"));
        check("0.0.0.0/0", Some("0.0.0.0/0"));
        check("10.20.3.4/32", Some("10.20.3.4"));
        check("10.20.3.4", None);
        check("10.20.3.4/33", None);
        check("::/0", None);
        let cidr = |text: &str| text.parse::<Cidr>().expect("a range");
        assert!(Cidr::ALL.contains(cidr("10.0.0.0/8")));
        assert!(cidr("10.0.0.0/8").contains(Cidr::host(Ipv4Addr::new(10, 255, 0, 1))));
        assert!(!cidr("10.0.0.0/16").contains(cidr("10.0.0.0/8")));
        assert!(!cidr("10.0.0.0/16").contains(cidr("10.1.0.0/16")));
    }
}
