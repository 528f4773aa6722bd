use std::net::IpAddr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Addresses and networks in CIDR notation, such as `10.0.0.0/8` or `::1`. Source: RFC 4632.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Networks(Vec<Network>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Network {
    address: IpAddr,
    /// Leading bits that count.
    bits: u32,
}

impl Networks {
    /// Reads networks; an error names the one that is none.
    pub(crate) fn parse(texts: &[String]) -> Result<Self, String> {
        texts
            .iter()
            .map(|text| {
                Network::parse(text)
                    .ok_or_else(|| format!("\"{text}\" is no address or network, such as 10.0.0.0/8"))
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Whether `address` is in one of them. An IPv4 address mapped into IPv6 is the IPv4 address.
    pub(crate) fn contain(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(address))
    }
}

impl Network {
    fn parse(text: &str) -> Option<Self> {
        let (address, bits) = match text.split_once('/') {
            None => (text, None),
            Some((address, bits)) => (address, Some(bits.parse().ok()?)),
        };
        let address: IpAddr = address.trim().parse().ok()?;
        let most = |address: IpAddr| if address.is_ipv4() { 32_u32 } else { 128 };
        let bits = bits.unwrap_or(most(address));
        let (address, bits) = match address.to_canonical() {
            // IPv4 mapped into IPv6 is IPv4: its first 96 bits are always the same.
            canonical if canonical != address => (canonical, bits.checked_sub(96)?),
            same => (same, bits),
        };
        (bits <= most(address)).then_some(Self { address, bits })
    }

    fn contains(&self, other: IpAddr) -> bool {
        match (self.address, other) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let differs = own.to_bits() ^ other.to_bits();
                differs.leading_zeros() >= self.bits
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let differs = own.to_bits() ^ other.to_bits();
                differs.leading_zeros() >= self.bits
            }
            _ => false,
        }
    }
}

impl Serialize for Networks {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = |network: &Network| format!("{}/{}", network.address, network.bits);
        serializer.collect_seq(self.0.iter().map(text))
    }
}

impl<'de> Deserialize<'de> for Networks {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let texts = Vec::<String>::deserialize(deserializer)?;
        Self::parse(&texts).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contain(networks: &[&str], address: &str) -> bool {
        let texts: Vec<String> = networks.iter().map(ToString::to_string).collect();
        Networks::parse(&texts).unwrap().contain(address.parse().unwrap())
    }

    #[test]
    fn networks_are_read_bit_by_bit() {
        for (networks, address, expected) in [
            (&["10.0.0.0/8"][..], "10.200.3.4", true),
            (&["10.0.0.0/8"], "11.0.0.1", false),
            (&["10.0.0.0/8"], "::ffff:10.1.1.1", true),
            (&["192.168.1.7"], "192.168.1.7", true),
            (&["192.168.1.7"], "192.168.1.8", false),
            (&["0.0.0.0/0"], "8.8.8.8", true),
            (&["0.0.0.0/0"], "2001:db8::1", false),
            (&["2001:db8::/32", "::1"], "2001:db8:ffff::1", true),
            (&["2001:db8::/32", "::1"], "::1", true),
            (&["2001:db8::/32", "::1"], "2001:db9::1", false),
            (&["::ffff:10.0.0.0/104"], "10.9.9.9", true),
            (&["::ffff:10.0.0.0/104"], "11.0.0.1", false),
            (&[], "127.0.0.1", false),
        ] {
            assert_eq!(contain(networks, address), expected, "{networks:?} {address}");
        }
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for text in [
            "",
            "ten",
            "10.0.0.0/33",
            "::/129",
            "10.0.0.0/x",
            "10.0.0.0/-1",
            "::ffff:10.0.0.0/8",
        ] {
            assert!(Networks::parse(&[text.to_owned()]).is_err(), "{text}");
        }
    }
}
