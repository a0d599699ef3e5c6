//! The grammar of RFC 7239, read from the right: what a client wrote stands left of what the proxies added and cannot hide it, not
//! even with a quotation that never ends.

use std::net::IpAddr;

/// One element of `Forwarded`: what one proxy told.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Element {
    /// `for`: who asked that proxy.
    pub(super) node: Option<String>,
    pub(super) proto: Option<String>,
    pub(super) host: Option<String>,
}

impl Element {
    /// None when it is no list of pairs, or names one twice (which RFC 7239, 4 forbids).
    pub(super) fn read(text: &str) -> Option<Self> {
        let mut element = Self::default();
        for pair in from_the_right(text.as_bytes(), b';').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=')?;
            let place = match name.trim().to_ascii_lowercase().as_str() {
                "for" => &mut element.node,
                "proto" => &mut element.proto,
                "host" => &mut element.host,
                _ => continue,
            };
            if place.replace(unquoted(value.trim())?).is_some() {
                return None;
            }
        }
        Some(element)
    }
}

/// A token, or a quoted text without its quotes.
fn unquoted(text: &str) -> Option<String> {
    let Some(inner) = text.strip_prefix('"') else {
        return (!text.contains('"')).then(|| text.to_owned());
    };
    let (mut out, mut escaped) = (String::new(), false);
    for c in inner.strip_suffix('"')?.chars() {
        match c {
            '\\' if !escaped => escaped = true,
            '"' if !escaped => return None,
            c => {
                out.push(c);
                escaped = false;
            }
        }
    }
    (!escaped).then_some(out)
}

/// An address as proxies write it: alone, with a port, IPv6 in brackets or bare.
pub(super) fn address(text: &str) -> Option<IpAddr> {
    let host = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            return (port.is_empty() || port.starts_with(':'))
                .then(|| host.parse::<std::net::Ipv6Addr>().ok())?
                .map(canonical);
        }
        None => text,
    };
    let with_port = || host.split_once(':')?.0.parse::<std::net::Ipv4Addr>().ok().map(IpAddr::V4);
    host.parse().ok().or_else(with_port).map(|address: IpAddr| address.to_canonical())
}

fn canonical(address: std::net::Ipv6Addr) -> IpAddr {
    IpAddr::V6(address).to_canonical()
}

/// The parts between separators that stand in no quotation, the last one first, without space around. One that is no text is `?`,
/// which nothing reads: it must not vanish.
pub(super) fn from_the_right(line: &[u8], separator: u8) -> impl Iterator<Item = &str> {
    let mut rest = Some(line);
    let parts = std::iter::from_fn(move || {
        let whole = rest?;
        let mut quoted = false;
        for (n, byte) in whole.iter().enumerate().rev() {
            if *byte == b'"' {
                let backslashes = whole[..n].iter().rev().take_while(|b| **b == b'\\').count();
                // Only in a quotation a backslash escapes; from the right, the last quote is its end in any case.
                quoted ^= !quoted || backslashes % 2 == 0;
            } else if *byte == separator && !quoted {
                rest = Some(&whole[..n]);
                return Some(&whole[n + 1..]);
            }
        }
        rest = None;
        Some(whole)
    });
    parts.map(|part| str::from_utf8(part).unwrap_or("?").trim())
}
