//! The origin that a client asked: what a cookie is bound to, and what a browser names when it says where a request comes from.

use super::Shared;
use crate::current;
use crate::forwarded::TrustedProxies;
use crate::serve::OverTls;
use axum::extract::{ConnectInfo, Request};
use http::header::HOST;
use http::uri::{Authority, Scheme};
use http::{HeaderMap, HeaderValue};
use std::net::{IpAddr, SocketAddr};

/// Scheme, host and port as the client asked for them, behind trusted proxies as these tell it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AskedOrigin {
    /// `https` when the connection is encrypted, or was up to a trusted proxy.
    pub scheme: Scheme,
    /// The host, with its port where that was said. None when the request names none.
    pub host: Option<Authority>,
}

impl AskedOrigin {
    /// That of the request which is being served, with its headers; none outside of a request.
    pub fn of_current(headers: &HeaderMap) -> Option<Self> {
        current::get().map(|current| current.way.origin(headers))
    }

    /// Whether it is the one that a browser names in the header `Origin` (RFC 6454): the same host and port. Where it is known that the client
    /// spoke `https`, that scheme too; without, a proxy that nobody named may have spoken it.
    pub fn is_named_by(&self, origin: &HeaderValue) -> bool {
        let Some(own) = &self.host else { return false };
        let Some((scheme, place)) = origin.to_str().ok().and_then(|origin| origin.split_once("://")) else {
            return false;
        };
        // The port that a browser leaves out, here and in `Host`.
        let left_out = match scheme {
            "http" if self.scheme != Scheme::HTTPS => 80,
            "https" => 443,
            _ => return false,
        };
        let port = |place: &Authority| place.port_u16().unwrap_or(left_out);
        place.parse().is_ok_and(|named: Authority| {
            !named.as_str().contains('@') && named.host().eq_ignore_ascii_case(own.host()) && port(&named) == port(own)
        })
    }
}

/// The way that a request came.
#[derive(Clone, Debug, Default)]
pub(crate) struct Way {
    peer: Option<IpAddr>,
    is_encrypted: bool,
    /// The host of the address, as HTTP/2 has it in `:authority`.
    authority: Option<Authority>,
    proxies: TrustedProxies,
}

impl Way {
    pub(super) fn of(shared: &Shared, request: &Request) -> Self {
        Self {
            peer: request.extensions().get().map(|ConnectInfo(peer): &ConnectInfo<SocketAddr>| peer.ip()),
            is_encrypted: request.extensions().get::<OverTls>().is_some(),
            authority: request.uri().authority().cloned(),
            proxies: shared.seen.proxies.clone(),
        }
    }

    fn origin(&self, headers: &HeaderMap) -> AskedOrigin {
        let own = if self.is_encrypted { Scheme::HTTPS } else { Scheme::HTTP };
        let scheme = self.peer.and_then(|peer| self.proxies.client_scheme(peer, headers)).unwrap_or(own);
        let told = self.peer.and_then(|peer| self.proxies.told_host(peer, headers));
        let said = || headers.get(HOST).and_then(|host| host.to_str().ok()?.parse().ok());
        // Over HTTP/1 the address has the last word too (RFC 9112, 3.2.2).
        AskedOrigin { scheme, host: told.or_else(|| self.authority.clone()).or_else(said) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forwarded::ForwardedBy;

    fn asked(scheme: Scheme, host: &str) -> AskedOrigin {
        AskedOrigin { scheme, host: host.parse().ok() }
    }

    #[test]
    fn a_browser_names_the_origin_that_was_asked_by_host_and_port() {
        let named = |asked: &AskedOrigin, origin: &'static str| asked.is_named_by(&HeaderValue::from_static(origin));
        let plain = asked(Scheme::HTTP, "bakery.example:4711");
        assert!(named(&plain, "http://bakery.example:4711") && named(&plain, "http://BAKERY.example:4711"));
        assert!(named(&plain, "https://bakery.example:4711"), "a proxy that nobody named may speak TLS");
        for other in [
            "http://bakery.example",
            "http://bakery.example:80",
            "http://bakery.example:47110",
            "http://mill.example:4711",
            "http://bakery.example.mill.example:4711",
            "http://me@bakery.example:4711",
            "http://bakery.example:4711/",
            "ftp://bakery.example:4711",
            "bakery.example:4711",
            "null",
            "",
        ] {
            assert!(!named(&plain, other), "{other}");
        }
        let without_port = asked(Scheme::HTTP, "bakery.example");
        assert!(named(&without_port, "http://bakery.example") && named(&without_port, "https://bakery.example"));
        assert!(named(&without_port, "http://bakery.example:80") && !named(&without_port, "http://bakery.example:443"));
        let encrypted = asked(Scheme::HTTPS, "bakery.example:443");
        assert!(named(&encrypted, "https://bakery.example") && !named(&encrypted, "http://bakery.example:443"));
        assert!(named(&asked(Scheme::HTTP, "[::1]:4711"), "http://[::1]:4711"));
        assert!(!named(&asked(Scheme::HTTP, ""), "http://"));
    }

    #[test]
    fn a_trusted_proxy_has_the_first_word_then_the_address_then_the_header() {
        let proxy: IpAddr = [192, 0, 2, 1].into();
        let network = crate::config::Value::parse("192.0.2.1").expect("an address");
        let proxies = TrustedProxies::new(vec![network], ForwardedBy::XForwarded);
        let headers = |told: &[(&'static str, &'static str)]| -> HeaderMap {
            told.iter().map(|(name, value)| (name.parse().expect("a name"), HeaderValue::from_static(value))).collect()
        };
        let told = headers(&[
            ("host", "inside:80"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "shop.example"),
            ("x-forwarded-for", "198.51.100.7"),
        ]);
        let authority = Some(Authority::from_static("address:81"));
        let mut way = Way { peer: Some(proxy), authority, proxies, ..Way::default() };
        assert_eq!(way.origin(&told), asked(Scheme::HTTPS, "shop.example"));
        way.peer = Some([192, 0, 2, 2].into());
        assert_eq!(way.origin(&told), asked(Scheme::HTTP, "address:81"), "of others nothing is believed");
        (way.peer, way.authority, way.is_encrypted) = (None, None, true);
        assert_eq!(way.origin(&told), asked(Scheme::HTTPS, "inside:80"));
        assert_eq!(way.origin(&HeaderMap::new()).host, None);
    }
}
