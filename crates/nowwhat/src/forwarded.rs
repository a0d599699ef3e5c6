//! Who a request came from, when proxies stand before the service.
//!
//! **What is believed:** the headers of a peer that is a trusted proxy, one of two kinds, told by the operator: `X-Forwarded-*`, which
//! nginx, HAProxy and load balancers write, or `Forwarded` (RFC 7239). Never both: a proxy passes on the kind it does not write as
//! the client sent it. From the right, each address that a trusted proxy told is believed; the first that is no trusted proxy is the
//! client. What a trusted proxy tells as unknown, obfuscated or unreadable ends the walk at the proxy that told it.
//!
//! **What the proxies owe:** to append to their header or to overwrite it. One that does neither lets its clients write it.
//! `proxy/nginx.conf` is an nginx that does.

mod node;

use crate::config::Value;
use http::header::{FORWARDED, HOST};
use http::uri::{Authority, Scheme};
use http::{HeaderMap, HeaderName};
use node::{Element, address, from_the_right};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// A network such as `10.0.0.0/8`, or a single address. Bits beyond its length do not count. IPv4 mapped into IPv6 is IPv4.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    /// Bits that all its addresses share.
    length: u8,
}

impl Network {
    /// Whether an address lies in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                (own.to_bits() ^ other.to_bits()).leading_zeros() >= self.length.into()
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                (own.to_bits() ^ other.to_bits()).leading_zeros() >= self.length.into()
            }
            _ => false,
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Value for Network {
    const EXPECTED: &'static str = "an address or a network such as 127.0.0.1 or 10.0.0.0/8";
    fn parse(text: &str) -> Option<Self> {
        let (address, length) = text.split_once('/').map_or((text, None), |(address, length)| (address, Some(length)));
        let address: IpAddr = address.parse().ok()?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let length = match length {
            // `parse` alone would take `+8`.
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => digits.parse().ok().filter(|n| *n <= bits)?,
            Some(_) => return None,
            None => bits,
        };
        Some(match address {
            IpAddr::V4(v4) => Self { address: IpAddr::V4(shared_v4(v4, length)), length },
            IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
                Some(v4) if length >= 96 => {
                    Self { address: IpAddr::V4(shared_v4(v4, length - 96)), length: length - 96 }
                }
                _ => Self { address: IpAddr::V6(shared_v6(v6, length)), length },
            },
        })
    }
}

fn shared_v4(address: Ipv4Addr, length: u8) -> Ipv4Addr {
    Ipv4Addr::from_bits(address.to_bits() & u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0))
}

fn shared_v6(address: Ipv6Addr, length: u8) -> Ipv6Addr {
    Ipv6Addr::from_bits(address.to_bits() & u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0))
}

/// The kind of headers that the trusted proxies write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ForwardedBy {
    /// `X-Forwarded-For`, `X-Forwarded-Proto`, `X-Forwarded-Host`.
    #[default]
    XForwarded,
    /// `Forwarded`, by RFC 7239.
    Forwarded,
}

impl Value for ForwardedBy {
    const EXPECTED: &'static str = "x-forwarded or forwarded";
    fn parse(text: &str) -> Option<Self> {
        match text {
            "x-forwarded" => Some(Self::XForwarded),
            "forwarded" => Some(Self::Forwarded),
            _ => None,
        }
    }
}

/// The proxies whose headers are believed. By default none. Cheap to clone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedProxies {
    networks: Arc<[Network]>,
    by: ForwardedBy,
}

/// What the trusted proxies told of the client, nearest first: `hops` of them spoke.
struct Walk {
    client: IpAddr,
    hops: usize,
}

impl TrustedProxies {
    /// Proxies in `networks`, which write headers of one kind.
    pub fn new(networks: Vec<Network>, by: ForwardedBy) -> Self {
        Self { networks: networks.into(), by }
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.networks.iter().any(|network| network.contains(address))
    }

    /// The client's address: the peer's own when the peer is no trusted proxy.
    pub fn client_address(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        self.walk(peer, headers).client
    }

    /// The scheme that the client spoke to the first trusted proxy, `http` or `https`; none when no proxy told it, so that it is the
    /// one of the connection.
    pub fn client_scheme(&self, peer: IpAddr, headers: &HeaderMap) -> Option<Scheme> {
        let told = self.told(peer, headers, &X_FORWARDED_PROTO, |element| element.proto)?;
        [Scheme::HTTP, Scheme::HTTPS].into_iter().find(|scheme| told.eq_ignore_ascii_case(scheme.as_str()))
    }

    /// The host, with its port, that the client asked for: what the first trusted proxy told, else the header `Host`. None when there
    /// is none or it is no host.
    pub fn client_host(&self, peer: IpAddr, headers: &HeaderMap) -> Option<Authority> {
        let told = self.told(peer, headers, &X_FORWARDED_HOST, |element| element.host);
        host(&told.or_else(|| Some(headers.get(HOST)?.to_str().ok()?.to_owned()))?)
    }

    /// The same without the header `Host`: none when no proxy told a host.
    pub(crate) fn told_host(&self, peer: IpAddr, headers: &HeaderMap) -> Option<Authority> {
        host(&self.told(peer, headers, &X_FORWARDED_HOST, |element| element.host)?)
    }

    fn walk(&self, peer: IpAddr, headers: &HeaderMap) -> Walk {
        let mut walk = Walk { client: peer.to_canonical(), hops: 0 };
        if !self.trusts(peer) {
            return walk;
        }
        let name = if self.by == ForwardedBy::Forwarded { &FORWARDED } else { &X_FORWARDED_FOR };
        for element in elements(headers, name) {
            walk.hops += 1;
            let hop = match self.by {
                ForwardedBy::XForwarded => address(element),
                ForwardedBy::Forwarded => Element::read(element).and_then(|e| address(&e.node?)),
            };
            let Some(hop) = hop else { break };
            walk.client = hop;
            if !self.trusts(hop) {
                break;
            }
        }
        walk
    }

    /// What was told beside the client's address: by the proxy that told that one, or, where fewer were told, by the farthest that
    /// told any.
    fn told(
        &self,
        peer: IpAddr,
        headers: &HeaderMap,
        name: &HeaderName,
        part: impl FnOnce(Element) -> Option<String>,
    ) -> Option<String> {
        if !self.trusts(peer) {
            return None;
        }
        // A proxy may tell scheme and host without any address.
        let hops = self.walk(peer, headers).hops.max(1);
        match self.by {
            ForwardedBy::XForwarded => elements(headers, name).take(hops).last().map(str::to_owned),
            ForwardedBy::Forwarded => part(Element::read(elements(headers, &FORWARDED).take(hops).last()?)?),
        }
    }
}

/// A host with or without a port, and without a user.
fn host(text: &str) -> Option<Authority> {
    text.parse().ok().filter(|host: &Authority| !host.as_str().contains('@') && !host.host().is_empty())
}

/// The elements of a header that is a list, the last one first, over all its lines.
fn elements<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let lines = headers.get_all(name).iter().rev();
    lines.flat_map(|line| from_the_right(line.as_bytes(), b',')).filter(|element| !element.is_empty())
}

#[cfg(test)]
mod tests;
