//! Whom the service believes to have asked.

use super::*;
use proptest::prelude::*;

const PROXY: &str = "10.0.0.1";

fn proxies(by: ForwardedBy) -> TrustedProxies {
    TrustedProxies::new(Vec::parse("10.0.0.0/8, ::1, 2001:db8:1::/48").expect("networks"), by)
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn headers(lines: &[(&str, &str)]) -> HeaderMap {
    let pair =
        |(name, value): &(&str, &str)| (name.parse::<HeaderName>().expect("a name"), value.parse().expect("a value"));
    lines.iter().map(pair).collect()
}

fn client(by: ForwardedBy, lines: &[(&str, &str)]) -> String {
    proxies(by).client_address(ip(PROXY), &headers(lines)).to_string()
}

#[test]
fn networks_are_read_with_and_without_length_and_mapped_ipv4_is_ipv4() {
    let shown = |text| Network::parse(text).map(|network| network.to_string());
    for (text, network) in [
        ("127.0.0.1", "127.0.0.1/32"),
        ("10.1.2.3/8", "10.0.0.0/8"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("::1", "::1/128"),
        ("2001:db8:ffff::/32", "2001:db8::/32"),
        ("::/0", "::/0"),
        ("::ffff:10.1.0.0/104", "10.0.0.0/8"),
        ("::ffff:10.1.0.1", "10.1.0.1/32"),
    ] {
        assert_eq!(shown(text).as_deref(), Some(network), "{text}");
    }
    for text in
        ["", "10.0.0.0/33", "::/129", "10.0.0.0/", "10.0.0.0/+8", "10.0.0.0/-1", "10.0.0/8", "proxy", "1.2.3.4/8/8"]
    {
        assert_eq!(shown(text), None, "{text}");
    }
    let network = Network::parse("10.0.0.0/8").expect("a network");
    assert!(network.contains(ip("10.255.0.1")) && network.contains(ip("::ffff:10.0.0.1")));
    assert!(!network.contains(ip("11.0.0.0")) && !network.contains(ip("::1")) && !network.contains(ip("::10.0.0.1")));
    assert!(Network::parse("0.0.0.0/0").is_some_and(|all| all.contains(ip("255.1.1.1")) && !all.contains(ip("::1"))));
}

#[test]
fn a_peer_that_is_not_trusted_is_the_client_whatever_it_says() {
    let said = [
        ("x-forwarded-for", "1.2.3.4"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "bank"),
        ("forwarded", "for=1.2.3.4;proto=https;host=bank"),
        ("host", "shop:80"),
    ];
    for by in [ForwardedBy::XForwarded, ForwardedBy::Forwarded] {
        let (proxies, peer) = (proxies(by), ip("11.0.0.1"));
        assert_eq!(proxies.client_address(peer, &headers(&said)), peer);
        assert_eq!(proxies.client_scheme(peer, &headers(&said)), None);
        assert_eq!(proxies.client_host(peer, &headers(&said)).expect("a host"), "shop:80");
    }
    let nobody = TrustedProxies::default();
    assert_eq!(nobody.client_address(ip("127.0.0.1"), &headers(&said)), ip("127.0.0.1"));
}

#[test]
fn the_last_address_that_is_no_trusted_proxy_is_the_client() {
    let one = |value| client(ForwardedBy::XForwarded, &[("x-forwarded-for", value)]);
    assert_eq!(one("203.0.113.9"), "203.0.113.9");
    assert_eq!(one("1.1.1.1, 203.0.113.9, 10.0.0.7"), "203.0.113.9", "the left one is what the client claims");
    assert_eq!(one("203.0.113.9:4711, 10.0.0.7:80"), "203.0.113.9");
    assert_eq!(one("[2001:db8::1]:4711,::1"), "2001:db8::1");
    assert_eq!(one("::ffff:203.0.113.9"), "203.0.113.9");
    assert_eq!(one("10.0.0.3, 10.0.0.2"), "10.0.0.3", "all are trusted: the farthest");
    assert_eq!(one("1.1.1.1, unknown, 10.0.0.7"), "10.0.0.7", "nobody is believed beyond what is unreadable");
    assert_eq!(one(", 203.0.113.9 ,, "), "203.0.113.9", "empty elements do not count (RFC 9110, 5.6.1)");
    assert_eq!(one("\"1.1.1.1, 203.0.113.9"), "203.0.113.9");
    let lines = [("x-forwarded-for", "203.0.113.9"), ("x-forwarded-for", "10.0.0.7")];
    assert_eq!(client(ForwardedBy::XForwarded, &lines), "203.0.113.9");
    assert_eq!(client(ForwardedBy::XForwarded, &[]), PROXY);
}

#[test]
fn what_is_no_text_ends_the_walk_and_hides_nothing_that_a_proxy_adds() {
    let mut lines = headers(&[("x-forwarded-for", "1.1.1.1")]);
    lines.append(X_FORWARDED_FOR, http::HeaderValue::from_bytes(b"\xff").expect("bytes"));
    assert_eq!(proxies(ForwardedBy::XForwarded).client_address(ip(PROXY), &lines), ip(PROXY));
    lines.append(X_FORWARDED_FOR, http::HeaderValue::from_bytes(b"\xff, 203.0.113.9").expect("bytes"));
    assert_eq!(proxies(ForwardedBy::XForwarded).client_address(ip(PROXY), &lines), ip("203.0.113.9"));
}

#[test]
fn forwarded_is_read_with_quotes_ports_and_names_in_any_case() {
    let one = |value| client(ForwardedBy::Forwarded, &[("forwarded", value)]);
    assert_eq!(one("for=192.0.2.60;proto=http;by=203.0.113.43"), "192.0.2.60");
    assert_eq!(one("For=\"[2001:db8:cafe::17]:4711\""), "2001:db8:cafe::17");
    assert_eq!(one("for=192.0.2.43, for=198.51.100.17;by=\"a,b;c\\\"d\", for=10.0.0.7"), "198.51.100.17");
    assert_eq!(one("for=\"192.0.2.43:_port\" ; proto=https"), "192.0.2.43");
    assert_eq!(one("for=192.0.2.43, for=_gazonk, for=10.0.0.7"), "10.0.0.7", "obfuscated");
    assert_eq!(one("for=192.0.2.43, for=unknown"), PROXY);
    assert_eq!(one("for=192.0.2.43, by=10.0.0.1"), PROXY, "a proxy that does not tell who asked it");
    assert_eq!(one("for=192.0.2.43;for=192.0.2.44"), PROXY, "told twice");
    assert_eq!(one("nonsense"), PROXY);
}

#[test]
fn a_quotation_that_a_client_leaves_open_hides_nothing() {
    for claimed in ["for=\"1.1.1.1", "for=1.1.1.1;by=\"", "\"", "\\\"", "for=\"\\", "by=\"a\\\"b, for=2.2.2.2"] {
        let line = format!("{claimed}, for=203.0.113.9;proto=https");
        assert_eq!(client(ForwardedBy::Forwarded, &[("forwarded", &line)]), "203.0.113.9", "{line}");
        let lines = [("forwarded", claimed), ("forwarded", "for=\"203.0.113.9:80\"")];
        assert_eq!(client(ForwardedBy::Forwarded, &lines), "203.0.113.9", "{line}");
    }
}

#[test]
fn only_the_kind_of_header_that_the_proxies_write_is_believed() {
    let lines = [("x-forwarded-for", "203.0.113.9"), ("forwarded", "for=198.51.100.17")];
    assert_eq!(client(ForwardedBy::XForwarded, &lines), "203.0.113.9");
    assert_eq!(client(ForwardedBy::Forwarded, &lines), "198.51.100.17");
    assert_eq!(ForwardedBy::parse("forwarded"), Some(ForwardedBy::Forwarded));
    assert_eq!((ForwardedBy::parse("x-forwarded"), ForwardedBy::parse("both")), (Some(ForwardedBy::XForwarded), None));
}

#[test]
fn scheme_and_host_are_those_told_with_the_clients_address() {
    let proxies_x = proxies(ForwardedBy::XForwarded);
    let told = |lines: &[(&str, &str)]| {
        let lines = headers(lines);
        let (scheme, host) = (proxies_x.client_scheme(ip(PROXY), &lines), proxies_x.client_host(ip(PROXY), &lines));
        (scheme.map(|s| s.to_string()), host.map(|h| h.to_string()))
    };
    let some = |scheme: &str, host: &str| (Some(scheme.to_owned()), Some(host.to_owned()));
    let one = [
        ("x-forwarded-for", "203.0.113.9"),
        ("x-forwarded-proto", "HTTPS"),
        ("x-forwarded-host", "shop:8443"),
        ("host", "inner"),
    ];
    assert_eq!(told(&one), some("https", "shop:8443"));
    let chain = [
        ("x-forwarded-for", "1.1.1.1, 203.0.113.9, 10.0.0.7"),
        ("x-forwarded-proto", "ftp, https, http"),
        ("x-forwarded-host", "bank, shop, inner"),
    ];
    assert_eq!(told(&chain), some("https", "shop"), "the left ones are what the client claims");
    assert_eq!(told(&[("x-forwarded-proto", "gopher"), ("host", "shop")]), (None, Some("shop".to_owned())));
    assert_eq!(told(&[("x-forwarded-host", "me@bank")]), (None, None));
    let element = headers(&[
        ("forwarded", "for=1.1.1.1;proto=http;host=bank, for=203.0.113.9;proto=https;host=\"shop:8443\""),
        ("host", "inner"),
    ]);
    let proxies = proxies(ForwardedBy::Forwarded);
    assert_eq!(proxies.client_scheme(ip(PROXY), &element), Some(Scheme::HTTPS));
    assert_eq!(proxies.client_host(ip(PROXY), &element).expect("a host"), "shop:8443");
}

crate::settings! {
    /// For the test below.
    struct Settings {
        /// HTTP.
        http: Http {
            /// Proxies that are believed.
            trusted_proxies: Vec<Network> = "127.0.0.1,::1";
            /// What they write.
            forwarded_by: ForwardedBy = "x-forwarded";
        }
    }
}

#[test]
fn proxies_are_settings() {
    use crate::config::{Sources, load};
    let environment = [("SHOP_HTTP__TRUSTED_PROXIES", "10.0.0.0/8")].into_iter().collect();
    let loaded = load(&Settings::specs(), &Sources::of("shop"), &environment).expect("valid");
    let Settings { http } = Settings::from_loaded(&loaded);
    assert!(TrustedProxies::new(http.trusted_proxies, http.forwarded_by).trusts(ip("10.1.1.1")));
    let environment = [("SHOP_HTTP__TRUSTED_PROXIES", "10.0.0.0/80")].into_iter().collect();
    let problems = load(&Settings::specs(), &Sources::of("shop"), &environment).expect_err("no network").to_string();
    assert!(problems.contains("http.trusted_proxies = \"10.0.0.0/80\""), "{problems}");
}

proptest! {
    #[test]
    fn what_a_client_claims_never_panics_and_never_beats_what_the_proxy_adds(claim in "[ -~\u{80}-\u{ff}]{0,60}|(for=|\"|\\\\|,|;|\\[|:|1){0,30}") {
        let claim: Vec<u8> = claim.chars().filter_map(|c| u8::try_from(u32::from(c)).ok()).collect();
        for (by, name, added) in [
            (ForwardedBy::XForwarded, X_FORWARDED_FOR, ", 203.0.113.9"),
            (ForwardedBy::Forwarded, FORWARDED, ", for=203.0.113.9"),
        ] {
            let proxies = proxies(by);
            let mut lines = HeaderMap::new();
            lines.append(&name, http::HeaderValue::from_bytes(&claim).expect("bytes of a header"));
            proxies.client_address(ip(PROXY), &lines);
            proxies.client_scheme(ip(PROXY), &lines);
            proxies.client_host(ip(PROXY), &lines);
            let line = [claim.as_slice(), added.as_bytes()].concat();
            lines.insert(&name, http::HeaderValue::from_bytes(&line).expect("bytes of a header"));
            prop_assert_eq!(proxies.client_address(ip(PROXY), &lines), ip("203.0.113.9"));
        }
    }

    #[test]
    fn any_text_is_a_network_or_not(text in "\\PC{0,40}|[0-9a-f:./]{0,40}") {
        if let Some(network) = Network::parse(&text) {
            prop_assert!(network.contains(network.address));
            prop_assert_eq!(Network::parse(&network.to_string()), Some(network));
        }
    }
}
