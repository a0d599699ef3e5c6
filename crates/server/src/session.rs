//! Sessions of browsers: their cookie (RFC 6265bis), and that a request which is let in by it comes from a page of this very origin.
//!
//! A browser sends a cookie along whoever made it send the request. So one that changes something has to say where it comes from: by `Sec-Fetch-Site`,
//! which no page can write (Fetch Metadata), and where a browser leaves that out, over plain HTTP away from this machine, by `Origin`.
//! (OWASP, Cross-Site Request Forgery Prevention.) `SameSite=Strict` alone would not do: all ports of a host are one site.

use crate::code::Code;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use nowwhat::Problem;
use nowwhat::request::AskedOrigin;

const COOKIE: &str = "catchment_session";
/// A browser takes a cookie of such a name only from this very host, and over TLS alone (RFC 6265bis, 4.1.3).
const HOST_PREFIX: &str = "__Host-";
static CORP: HeaderName = HeaderName::from_static("cross-origin-resource-policy");
static SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The secret of the session that a request shows; none when it shows none.
///
/// # Errors
/// 401 when it shows two: one is another host's doing, and whose it is cannot be told.
pub(crate) fn shown(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    if !headers.contains_key(header::COOKIE) {
        return Ok(None);
    }
    let name = cookie_name(headers);
    let mut secrets = cookies(headers).filter(|(own, _)| *own == name.as_bytes()).map(|(_, value)| value);
    let Some(first) = secrets.next() else { return Ok(None) };
    if secrets.any(|other| other != first) {
        return Err(ended(&format!("the request has several cookies {name}: remove them, and sign in again")));
    }
    Ok(Some(String::from_utf8_lossy(first).into_owned()))
}

/// The cookie of a session that begins, for so many seconds.
pub(crate) fn cookie(headers: &HeaderMap, secret: &str, seconds: u64) -> HeaderValue {
    let secure = if is_over_tls(headers) { "; Secure" } else { "" };
    let name = cookie_name(headers);
    let cookie = format!("{name}={secret}; HttpOnly; SameSite=Strict; Path=/; Max-Age={seconds}{secure}");
    HeaderValue::try_from(cookie).expect("a secret is plain ASCII")
}

/// The cookie that removes it.
pub(crate) fn no_cookie(headers: &HeaderMap) -> HeaderValue {
    cookie(headers, "", 0)
}

fn is_over_tls(headers: &HeaderMap) -> bool {
    AskedOrigin::of_current(headers).is_some_and(|asked| asked.scheme.as_str() == "https")
}

/// Lets nobody keep what is answered to a session, nor a page of elsewhere take it for a script or a picture; but for what has a version and is everybody's: a token keeps shared caches off by itself
/// (RFC 9111, 3.5), a cookie does not, and the next one at the same browser is somebody else.
pub(crate) async fn unkept(request: Request, next: Next) -> Response {
    let has_session = !matches!(shown(request.headers()), Ok(None));
    let mut response = next.run(request).await;
    if has_session && !response.headers().contains_key(header::ETAG) {
        let headers = response.headers_mut();
        headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(CORP.clone(), HeaderValue::from_static("same-origin"));
    }
    response
}

/// 401 for a session that is none any more.
pub(crate) fn ended(detail: &str) -> Problem {
    crate::auth::no_session(Code::InvalidSession.problem(detail))
}

/// Checks that a page of this origin made the browser send a request.
///
/// # Errors
/// 403 when another did, or nothing tells.
pub(crate) fn comes_from_here(headers: &HeaderMap) -> Result<(), Problem> {
    match said(headers) {
        Some(true) => Ok(()),
        Some(false) if headers.contains_key(&SEC_FETCH_SITE) => {
            Err(cross_site("a page of another origin made the browser send this, and nothing was done"))
        }
        Some(false) => Err(cross_site(
            "Origin names another host or port than was asked, and nothing was done. A proxy passes on `Host` as it came, or is one of \
             `http.trusted_proxies`",
        )),
        None => Err(cross_site(
            "a request with the cookie of a session says where it comes from, by Sec-Fetch-Site or Origin, and this one does not: a program \
             sends a token instead",
        )),
    }
}

/// The same for what needs no cookie: a program says nothing of where it comes from.
///
/// # Errors
/// 403 when a page of another origin made the browser send it.
pub(crate) fn comes_from_nowhere_else(headers: &HeaderMap) -> Result<(), Problem> {
    if said(headers).is_none() { Ok(()) } else { comes_from_here(headers) }
}

/// Checks that no page of elsewhere made the browser read something by the cookie: whether it was answered, and how soon, would tell that page about
/// the data. Where a browser says nothing of it, over plain HTTP away from this machine, it is taken.
///
/// # Errors
/// 403 when another page did.
pub(crate) fn is_read_from_here(headers: &HeaderMap) -> Result<(), Problem> {
    match site(headers) {
        // Somebody opened the address, or is here.
        None | Some(Site::Here | Site::Nowhere) => Ok(()),
        Some(Site::Elsewhere) => Err(cross_site(
            "a page of another origin made the browser ask this: open it from the page of this collector",
        )),
    }
}

/// Whether a browser came to a page by what is no page of elsewhere, and so shows the cookie if it has one. None when it does not say.
pub(crate) fn shows_its_cookie(headers: &HeaderMap) -> Option<bool> {
    site(headers).map(|site| site != Site::Elsewhere)
}

/// Who made a browser send a request, as `Sec-Fetch-Site` has it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Site {
    Here,
    /// No page did.
    Nowhere,
    Elsewhere,
}

fn site(headers: &HeaderMap) -> Option<Site> {
    let mut values = headers.get_all(&SEC_FETCH_SITE).iter();
    let first = values.next()?;
    Some(match (first.as_bytes(), values.next()) {
        (b"same-origin", None) => Site::Here,
        (b"none", None) => Site::Nowhere,
        _ => Site::Elsewhere,
    })
}

/// Whether the request says that it comes from a page of this origin; none when it says nothing.
fn said(headers: &HeaderMap) -> Option<bool> {
    if let Some(site) = site(headers) {
        return Some(site == Site::Here);
    }
    let mut origins = headers.get_all(header::ORIGIN).iter();
    let origin = origins.next()?;
    Some(origins.next().is_none() && AskedOrigin::of_current(headers).is_some_and(|asked| asked.is_named_by(origin)))
}

fn cross_site(detail: &str) -> Problem {
    Code::CrossSite.problem(detail)
}

/// With the port that was asked: a browser sends a cookie to all ports of its host, and several collectors may be there.
fn cookie_name(headers: &HeaderMap) -> String {
    let port = AskedOrigin::of_current(headers).and_then(|asked| asked.host?.port_u16());
    let prefix = if is_over_tls(headers) { HOST_PREFIX } else { "" };
    port.map_or_else(|| format!("{prefix}{COOKIE}"), |port| format!("{prefix}{COOKIE}_{port}"))
}

/// All cookies of a request by name, without quotes.
fn cookies(headers: &HeaderMap) -> impl Iterator<Item = (&[u8], &[u8])> {
    let lines = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes);
    let pairs = lines.flat_map(|line| line.split(|byte| *byte == b';'));
    pairs.filter_map(|pair| {
        let at = pair.iter().position(|byte| *byte == b'=')?;
        let value = pair[at + 1..].trim_ascii();
        let unquoted = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\""));
        Some((pair[..at].trim_ascii(), unquoted.unwrap_or(value)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(told: &[(&'static str, &[u8])]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in told {
            headers.append(*name, HeaderValue::from_bytes(value).expect("a value"));
        }
        headers
    }

    #[test]
    fn the_session_is_found_among_other_cookies_however_they_are_written() {
        let of = |lines: &[&[u8]]| {
            let told: Vec<_> = lines.iter().map(|line| ("cookie", *line)).collect();
            shown(&headers(&told)).map_err(|problem| problem.code())
        };
        let some = |secret: &str| Ok(Some(secret.to_owned()));
        assert_eq!(of(&[]), Ok(None));
        assert_eq!(of(&[b"catchment_session=a-b_C"]), some("a-b_C"));
        assert_eq!(of(&[b"x=1; catchment_session=abc; y=2"]), some("abc"));
        assert_eq!(of(&[b"x", b"\xff\xfe=\xff;;=; catchment_session=\"abc\" "]), some("abc"));
        assert_eq!(of(&[b"catchment_session=abc", b"catchment_session=abc"]), some("abc"), "twice the same");
        assert_eq!(of(&[b"catchment_session="]), some(""));
        for other in [
            &b"catchment_session_4711=abc"[..],
            b"xcatchment_session=abc",
            b"catchment_session",
            b"Catchment_Session=abc",
            b"x=catchment_session=abc",
        ] {
            assert_eq!(of(&[other]), Ok(None), "{}", String::from_utf8_lossy(other));
        }
        let two = of(&[b"catchment_session=abc; catchment_session=abd"]);
        assert_eq!(two, Err(Code::InvalidSession.name()), "whose is it?");
    }

    #[test]
    fn what_says_nothing_or_something_else_than_here_is_not_from_here() {
        let of = |told: &[(&'static str, &[u8])]| said(&headers(told));
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[("sec-fetch-site", b"same-origin")]), Some(true));
        assert_eq!(of(&[("sec-fetch-site", b"same-origin"), ("origin", b"null")]), Some(true), "a browser knows");
        for other in [&b"same-site"[..], b"cross-site", b"none", b"", b"Same-Origin", b"same-origin, cross-site"] {
            assert_eq!(of(&[("sec-fetch-site", other)]), Some(false));
        }
        assert_eq!(of(&[("sec-fetch-site", b"same-origin"), ("sec-fetch-site", b"same-origin")]), Some(false));
        assert_eq!(of(&[("origin", b"http://127.0.0.1")]), Some(false), "no request is served, none has this origin");
    }
}
