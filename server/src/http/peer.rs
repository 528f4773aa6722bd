//! Who is at the other end of a connection.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use axum::http::HeaderMap;
use dashmap::DashMap;

use crate::config::Networks;

/// The client's address, set by the listener.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub SocketAddr);

/// The address of the client that a request comes from: the socket's, unless that is a trusted proxy's. Then what
/// `X-Forwarded-For` says is read from its end, where each proxy writes whom it heard from, up to the first that is not
/// trusted: whatever stands before was written by the client itself.
pub(crate) fn client_address(peer: IpAddr, headers: &HeaderMap, trusted: &Networks) -> IpAddr {
    let mut client = peer.to_canonical();
    let lines: Vec<&str> = headers
        .get_all("x-forwarded-for")
        .iter()
        .map(|value| value.to_str().unwrap_or(""))
        .collect();
    let mut hops = lines.iter().flat_map(|line| line.split(',')).rev();
    while trusted.contain(client) {
        // What is no address ends what can be relied upon.
        let Some(hop) = hops.next().and_then(forwarded) else {
            break;
        };
        client = hop;
    }
    client
}

/// An address as proxies write it: alone, or with a port.
fn forwarded(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let address = text
        .parse::<IpAddr>()
        .ok()
        .or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()))
        .or_else(|| text.strip_prefix('[')?.strip_suffix(']')?.parse().ok())?;
    Some(address.to_canonical())
}

/// What counts as one client: an IPv4 address, or a /64 of IPv6, which one customer of a provider has for himself.
/// Source: RFC 6177.
pub(crate) fn one_client(address: IpAddr) -> IpAddr {
    const NETWORK: u128 = !0 << 64;
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & NETWORK).into(),
        address @ IpAddr::V4(_) => address,
    }
}

/// Open connections of each client.
#[derive(Debug, Default)]
pub(crate) struct Connections(DashMap<IpAddr, usize>);

/// A connection that counts until this is dropped.
#[derive(Debug)]
pub(crate) struct Counted {
    all: Arc<Connections>,
    client: IpAddr,
}

impl Connections {
    /// Counts one more connection of `address`, unless it has `most` already.
    pub(crate) fn take(self: &Arc<Self>, address: IpAddr, most: usize) -> Option<Counted> {
        let client = one_client(address);
        let mut open = self.0.entry(client).or_default();
        if *open >= most {
            return None;
        }
        *open += 1;
        Some(Counted {
            all: Arc::clone(self),
            client,
        })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if let Some(mut open) = self.all.0.get_mut(&self.client) {
            *open -= 1;
        }
        self.all.0.remove_if(&self.client, |_, open| *open == 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(peer: &str, forwarded: &[&str], trusted: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for line in forwarded {
            headers.append("x-forwarded-for", line.parse().unwrap());
        }
        let trusted: Vec<String> = trusted.iter().map(ToString::to_string).collect();
        let trusted = Networks::parse(&trusted).unwrap();
        client_address(peer.parse().unwrap(), &headers, &trusted).to_string()
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        let proxies = &["10.0.0.0/8"][..];
        for (peer, forwarded, trusted, expected) in [
            ("9.9.9.9", &["1.2.3.4"][..], &[][..], "9.9.9.9"),
            ("9.9.9.9", &["1.2.3.4"], proxies, "9.9.9.9"),
            ("10.0.0.1", &["1.2.3.4"], proxies, "1.2.3.4"),
            ("::ffff:10.0.0.1", &["1.2.3.4:5555"], proxies, "1.2.3.4"),
            ("10.0.0.1", &["[2001:db8::1]:443"], proxies, "2001:db8::1"),
            ("10.0.0.1", &["[2001:db8::1]"], proxies, "2001:db8::1"),
            // What the client wrote itself stands before what the proxies heard.
            ("10.0.0.1", &["6.6.6.6, 1.2.3.4, 10.0.0.2"], proxies, "1.2.3.4"),
            ("10.0.0.1", &["6.6.6.6", "1.2.3.4,10.0.0.2"], proxies, "1.2.3.4"),
            ("10.0.0.1", &["1.2.3.4, unknown"], proxies, "10.0.0.1"),
            ("10.0.0.1", &[], proxies, "10.0.0.1"),
            ("10.0.0.1", &["10.0.0.2"], proxies, "10.0.0.2"),
        ] {
            assert_eq!(client(peer, forwarded, trusted), expected, "{peer} {forwarded:?}");
        }
    }

    #[test]
    fn connections_are_counted_for_each_client() {
        let all = Arc::new(Connections::default());
        let take = |address: &str| all.take(address.parse().unwrap(), 2);
        let first = (take("1.1.1.1"), take("::ffff:1.1.1.1"));
        assert!(first.0.is_some() && first.1.is_some());
        assert!(take("1.1.1.1").is_none());
        assert!(take("1.1.1.2").is_some(), "another one is not concerned");
        let network = (take("2001:db8::1"), take("2001:db8::2"));
        assert!(network.0.is_some() && network.1.is_some() && take("2001:db8::3").is_none());
        drop(first);
        assert!(take("1.1.1.1").is_some());
        drop(network);
        assert!(all.0.is_empty(), "who has left is forgotten");
    }
}
