//! Talking to a running collector: finding it, its token, asking over HTTP.
//!
//! Neither a token nor a password in an address is ever shown. The tokens of a data folder go to the collector that runs over it and to nobody
//! else, unless both are named: an address may be anybody's. So it is looked at before each request whether that collector still runs. Over TLS
//! the one that a folder leads to is known by the very certificate that it serves; whoever is asked at an address that was given, by its name
//! and an authority.

use crate::data_dir::{Addresses, DataDir, OF_PACKAGE};
use anyhow::{Context, anyhow, bail, ensure};
use bytes::Bytes;
use clap::Args;
use http::uri::Authority;
use http::{Method, Request, StatusCode, Uri};
use nowwhat::Environment;
use nowwhat::cli::Usage;
use nowwhat::client::{Answer, Arriving, CallLimits, ClientError};
use nowwhat::dependency::DependencyMetrics;
use nowwhat::metrics::Registry;
use serde_json::Value;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// Bounds of one call.
const LIMITS: CallLimits = CallLimits { timeout: Duration::from_secs(900), body_bytes_max: ANSWER_BYTES_MAX };
/// Most bytes of an answer that is held whole.
pub(crate) const ANSWER_BYTES_MAX: usize = 1 << 30;
/// Where Debian keeps the certificate authorities that it trusts.
const SYSTEM_CA_FILE: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Where the collector is.
#[derive(Args, Clone, Default)]
pub(crate) struct Server {
    /// Address of the API, such as http://127.0.0.1:4711 [default: $CATCHMENT_URL, else what the data folder says].
    #[arg(long, value_name = "URL")]
    pub(crate) url: Option<String>,
    /// Data folder of a collector on this machine [default: ./data, else /var/lib/catchment]; with --url: its tokens are used there.
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Certificate authorities as PEM, for --url with https [default: $CATCHMENT_CA_FILE, else those of the system].
    #[arg(long, value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,
}

impl Server {
    fn ca_file(&self, environment: &Environment) -> Option<PathBuf> {
        let given = self.ca_file.clone().or_else(|| environment.get("CATCHMENT_CA_FILE").map(PathBuf::from));
        given.or_else(|| Some(PathBuf::from(SYSTEM_CA_FILE)).filter(|path| path.exists()))
    }
}

/// A collector that was found.
pub(crate) struct Client {
    /// One for all calls: a connection lives on the threads that opened it.
    pub(crate) runtime: Runtime,
    pub(crate) http: nowwhat::client::Client,
    pub(crate) url: String,
    /// Its data folder, when it is on this machine; only then are tokens read and kept there.
    pub(crate) dir: Option<DataDir>,
    /// The address by which that folder's collector was found; none when the user named both.
    found_at: Option<SocketAddr>,
    token: Option<Token>,
}

/// For how long one that is started again is looked for, and how often.
const RETURN_MAX: Duration = Duration::from_secs(30);
const RETURN_LOOK: Duration = Duration::from_millis(200);

/// Where a collector is asked: its address, its folder, and by which address it was found there.
type Place = (String, Option<DataDir>, Option<SocketAddr>);

/// The collector ended whose folder says where it is: nothing was sent.
#[derive(Debug)]
pub(crate) struct Ended(PathBuf);

impl std::error::Error for Ended {}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let dir = self.0.display();
        write!(
            f,
            "the collector over {dir} has ended, or has another address now: start it with `catchment serve`, and try again"
        )
    }
}

/// A token, and where it was found.
#[derive(Clone)]
pub(crate) enum Token {
    /// In `CATCHMENT_TOKEN`.
    Variable(String),
    /// The admin token of a data folder.
    Admin { text: String, path: PathBuf },
    /// The token of a sensor, kept in a data folder.
    Sensor { text: String, path: PathBuf },
}

impl Token {
    pub(crate) fn text(&self) -> &str {
        match self {
            Self::Variable(text) | Self::Admin { text, .. } | Self::Sensor { text, .. } => text,
        }
    }

    /// An answer to a request with this token that is no error; when the token is refused, the error says what can be done.
    pub(crate) fn good(&self, answer: Answer) -> anyhow::Result<Answer> {
        if answer.status != StatusCode::UNAUTHORIZED {
            return good(answer);
        }
        good(answer).with_context(|| match self {
            Self::Variable(_) => "the token in CATCHMENT_TOKEN is refused".to_owned(),
            Self::Admin { path, .. } => format!(
                "the token in {} is refused; the collector may use a configured auth.admin_token: set CATCHMENT_TOKEN to it",
                path.display()
            ),
            Self::Sensor { path, .. } => format!(
                "the sensor's token in {} is refused; it may be revoked, or of another collector: choose another --sensor, or remove the file to register the sensor again",
                path.display()
            ),
        })
    }
}

impl Client {
    /// Finds the collector and the token: `CATCHMENT_TOKEN`, else the data folder's admin token.
    pub(crate) fn find(server: &Server, environment: &Environment) -> anyhow::Result<Self> {
        let known = [PathBuf::from("data"), PathBuf::from(OF_PACKAGE)];
        let folders: Vec<&Path> = match &server.data_dir {
            Some(dir) => vec![dir],
            None => known.iter().map(PathBuf::as_path).filter(|dir| dir.exists()).collect(),
        };
        let variable = environment.get("CATCHMENT_URL").filter(|_| server.data_dir.is_none());
        let given = server.url.as_deref().map(|url| ("--url", url)).or(variable.map(|url| ("CATCHMENT_URL", url)));
        let (url, dir, found_at) = match (given, &server.data_dir) {
            (None, _) => running(&folders)?,
            (Some((origin, url)), Some(dir)) => (address(origin, url)?, Some(DataDir::of(dir)), None),
            (Some((origin, url)), None) => beside(address(origin, url)?, &folders),
        };
        let token = match environment.get("CATCHMENT_TOKEN") {
            // As it comes out of a file, with the end of its line.
            Some(token) => Some(Token::Variable(token.trim().to_owned())),
            None => dir.as_ref().map(kept_token).transpose()?.flatten(),
        };
        let http = nowwhat::client::Client::new(
            "the collector",
            LIMITS,
            &DependencyMetrics::register(&mut Registry::default()),
        );
        let found = dir.as_ref().filter(|_| found_at.is_some()).and_then(|dir| Some((dir, dir.addresses()?)));
        if let Some((dir, addresses)) = &found {
            lets_commands_in(dir, addresses)?;
        }
        let http = match (given, found) {
            _ if !url.starts_with("https://") => http,
            (None, Some((dir, addresses))) if addresses.certificate.is_some() => knowing(http, dir),
            _ => match server.ca_file(environment) {
                Some(path) => http.with_ca(&path)?,
                None => http,
            },
        };
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        Ok(Self { runtime: runtime.context("cannot start threads")?, http, url, dir, found_at, token })
    }

    /// Whether the collector of the folder is where it was found: after its end anybody may listen there.
    fn still_there(&self) -> Result<(), Ended> {
        match (&self.dir, self.found_at) {
            (Some(dir), Some(api)) if dir.addresses().is_none_or(|now| now.api != api) => {
                Err(Ended(dir.path().to_owned()))
            }
            _ => Ok(()),
        }
    }

    /// Whether the collector of a folder, which was away since then, may be one that is started again.
    pub(crate) fn may_return(&self, away_since: Instant) -> bool {
        self.found_at.is_some() && away_since.elapsed() < RETURN_MAX
    }

    /// Waits for a collector that is started again, as by an upgrade: meanwhile systemd may hold its address, or anybody.
    pub(crate) fn wait_for_return(&self, complain: impl Fn(&str)) {
        let Err(ended) = self.still_there() else { return };
        complain(&format!("{ended}: looking for it, for at most {} s", RETURN_MAX.as_secs()));
        let since = Instant::now();
        while self.still_there().is_err() && self.may_return(since) {
            std::thread::sleep(RETURN_LOOK);
        }
    }

    /// The token that was found.
    pub(crate) fn token(&self) -> anyhow::Result<&Token> {
        self.token.as_ref().ok_or_else(|| match &self.dir {
            Some(dir) => anyhow!(
                "no token: there is no {}; a collector with a configured auth.admin_token makes none: set CATCHMENT_TOKEN to it",
                dir.admin_token_path().display()
            ),
            None => anyhow!(
                "no token for {}: set CATCHMENT_TOKEN to one of that collector, or name its --data-dir beside --url; the tokens in a data folder go \
                 only to the collector that runs over it",
                self.url
            ),
        })
    }

    /// Gets a path with the found token.
    pub(crate) fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.ask(Method::GET, path, None)
    }

    /// Gets a path with the found token; the answer, of whatever status, comes part by part.
    pub(crate) fn begin(&self, path: &str, headers: &[(&str, &str)]) -> anyhow::Result<Arriving> {
        let token = self.token()?;
        self.still_there()?;
        let request = Request::get(format!("{}{path}", self.url)).header("authorization", bearer(token.text()));
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        self.wait_for(self.http.begin(request.body(Bytes::new()).context("no request")?))
    }

    /// The whole of an answer that is no error.
    pub(crate) fn whole(&self, arriving: Arriving) -> anyhow::Result<Answer> {
        self.token()?.good(self.wait_for(arriving.whole(LIMITS.body_bytes_max))?)
    }

    /// All of a list that comes in pages: `name` is its list, `next` what the next page is asked by, as in `next_before`.
    pub(crate) fn get_pages(&self, path: &str, name: &str, next: &str) -> anyhow::Result<Value> {
        let (mut all, mut from) = (Vec::new(), String::new());
        let begin = if path.contains('?') { '&' } else { '?' };
        loop {
            let page = self.get(&format!("{path}{begin}limit=1000{from}"))?;
            all.extend(page[name].as_array().into_iter().flatten().cloned());
            from = match &page[format!("next_{next}")] {
                Value::Null => return Ok(all.into()),
                Value::String(text) => format!("&{next}={text}"),
                other => format!("&{next}={other}"),
            };
        }
    }

    /// Asks with the found token, with a body of JSON when there is one; null when the answer has none.
    pub(crate) fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        let token = self.token()?;
        self.still_there()?;
        let request = Request::builder().method(method).uri(format!("{}{path}", self.url));
        let request = request.header("authorization", bearer(token.text())).header("content-type", "application/json");
        let body = body.map_or_else(Bytes::new, |body| body.to_string().into());
        let answer = token.good(self.wait_for(self.http.request(request.body(body).context("no request")?))?)?;
        Ok(if answer.bytes.is_empty() { Value::Null } else { answer.json()? })
    }

    /// Posts JSON with the found token.
    pub(crate) fn post_json(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        let headers = [("content-type", "application/json"), ("accept", "application/json")];
        let token = self.token()?;
        Ok(token.good(self.post(path, token.text(), body.to_string(), &headers)?)?.json()?)
    }

    /// Posts bytes with a token; any status is an answer.
    pub(crate) fn post(
        &self,
        path: &str,
        token: &str,
        body: impl Into<Bytes>,
        headers: &[(&str, &str)],
    ) -> anyhow::Result<Answer> {
        self.wait_for(self.http.request(self.posting(path, token, body.into(), headers)?))
    }

    /// Posts JSON with the found token; the answer, of whatever status, comes part by part.
    pub(crate) fn ask_for_parts(&self, path: &str, body: &Value, accept: &str) -> anyhow::Result<Arriving> {
        let headers = [("content-type", "application/json"), ("accept", accept)];
        let request = self.posting(path, self.token()?.text(), body.to_string().into(), &headers)?;
        self.wait_for(self.http.begin(request))
    }

    /// The same as it begins to come, when it is no error. Dropped before, it is asked no longer.
    pub(crate) async fn answered(&self, path: &str, body: &Value, accept: &str) -> anyhow::Result<Arriving> {
        let headers = [("content-type", "application/json"), ("accept", accept)];
        let token = self.token()?;
        let request = self.posting(path, token.text(), body.to_string().into(), &headers)?;
        let unanswered = || format!("no answer from {}", self.url);
        let arriving = self.http.begin(request).await.with_context(unanswered)?;
        if arriving.status.is_success() {
            return Ok(arriving);
        }
        token.good(arriving.whole(LIMITS.body_bytes_max).await.with_context(unanswered)?)?;
        bail!("the answer is not that of a collector")
    }

    /// Gets a path with the found token. Dropped before, it is asked no longer.
    pub(crate) async fn fetched(&self, path: &str) -> anyhow::Result<Value> {
        let token = self.token()?;
        self.still_there()?;
        let request = Request::get(format!("{}{path}", self.url)).header("authorization", bearer(token.text()));
        let answer = self.http.request(request.body(Bytes::new()).context("no request")?).await;
        Ok(token.good(answer.with_context(|| format!("no answer from {}", self.url))?)?.json()?)
    }

    /// A request to the API with a token, for [`Client::http`].
    pub(crate) fn posting(
        &self,
        path: &str,
        token: &str,
        body: Bytes,
        headers: &[(&str, &str)],
    ) -> anyhow::Result<Request<Bytes>> {
        self.still_there()?;
        let request = Request::post(format!("{}{path}", self.url)).header("authorization", bearer(token));
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        request.body(body).context("no request")
    }

    fn wait_for<T>(&self, call: impl Future<Output = Result<T, ClientError>>) -> anyhow::Result<T> {
        self.runtime.block_on(call).with_context(|| format!("no answer from {}", self.url))
    }
}

/// The address that `origin` gives, when a collector can be asked there.
fn address(origin: &str, url: &str) -> Result<String, Usage> {
    let refused = |why: String| Err(Usage(format!("{origin}{why}, such as http://127.0.0.1:4711")));
    let parsed = url.parse::<Uri>().ok().filter(|uri| matches!(uri.scheme_str(), Some("http" | "https")));
    let authority = parsed.as_ref().and_then(Uri::authority);
    // Before the address is shown: what cannot be taken apart may hold a password too.
    if authority.map_or(url, Authority::as_str).contains('@') {
        return refused(
            " has a user or a password: the token goes in CATCHMENT_TOKEN, the address is scheme, host and port"
                .to_owned(),
        );
    }
    // A port that is no number would be taken for none, and a fragment for nothing.
    let is_whole = |a: &Authority| !a.host().is_empty() && (a.port().is_some() || a.as_str() == a.host());
    match parsed.filter(|uri| uri.authority().is_some_and(is_whole) && !url.contains(['?', '#'])) {
        Some(uri) => Ok(uri.to_string().trim_end_matches('/').to_owned()),
        None => refused(format!(" {url:?}: write scheme, host and port")),
    }
}

/// The first of these folders over which a collector runs.
fn running(folders: &[&Path]) -> anyhow::Result<Place> {
    let mut running = folders.iter().map(|dir| DataDir::of(dir)).filter_map(|dir| Some((dir.addresses()?, dir)));
    running.next().map(|(addresses, dir)| (addresses.url(), Some(dir), Some(addresses.api))).ok_or_else(|| {
        if let Some(error) = folders.iter().find_map(|dir| DataDir::of(dir).kept_from_us()) {
            return error.context(
                "whether a collector runs cannot be told: run this as the user of the collector, or name it with --url and CATCHMENT_TOKEN",
            );
        }
        let looked: Vec<String> = folders.iter().map(|f| f.display().to_string()).collect();
        let looked = if looked.is_empty() { format!("./data or {OF_PACKAGE}") } else { looked.join(", ") };
        anyhow!(
            "no running collector found in {looked}: start one with `catchment serve`, or say where it is with --url or --data-dir"
        )
    })
}

/// An address, with the folder whose collector is asked there, if one is.
fn beside(url: String, folders: &[&Path]) -> Place {
    let Ok(asked) = url.parse::<Uri>() else { return (url, None, None) };
    let mut running = folders.iter().map(|dir| DataDir::of(dir)).filter_map(|dir| Some((dir.addresses()?, dir)));
    match running.find(|(addresses, _)| addresses.is_asked_at(&asked)) {
        // Of the addresses that are called localhost, another program may listen at the first.
        Some((addresses, dir)) if asked.scheme_str() == Some("http") && !addresses.tls => {
            (addresses.url(), Some(dir), Some(addresses.api))
        }
        Some((addresses, dir)) => (url, Some(dir), Some(addresses.api)),
        None => (url, None, None),
    }
}

/// For the collector that runs over a folder: it is known by the very certificate that it serves, whatever the names in it and whoever signed it.
pub(crate) fn knowing(http: nowwhat::client::Client, dir: &DataDir) -> nowwhat::client::Client {
    let dir = dir.clone();
    http.with_certificate(move || dir.addresses()?.certificate)
}

/// Commands have no certificate to show.
pub(crate) fn lets_commands_in(dir: &DataDir, addresses: &Addresses) -> anyhow::Result<()> {
    ensure!(
        !addresses.client_certificates_required,
        "the collector over {} lets in only who shows a certificate, and commands have none: set http.tls_client_certificates = \"optional\" and \
         restart it, or ask {} with `curl --cert`",
        dir.path().display(),
        addresses.url()
    );
    Ok(())
}

/// The admin token that a data folder keeps.
fn kept_token(dir: &DataDir) -> anyhow::Result<Option<Token>> {
    let path = dir.admin_token_path();
    Ok(DataDir::token(&path)?.map(|text| Token::Admin { text, path }))
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

/// What the server says of a request that it does not answer: problem details.
#[derive(Debug)]
pub(crate) struct Refused {
    status: u16,
    problem: Value,
}

impl Refused {
    /// The line and the column of what is wrong in a statement, when it is told.
    pub(crate) fn place(&self) -> Option<(usize, usize)> {
        let of = |name: &str| usize::try_from(self.problem["place"][name].as_u64()?).ok().filter(|number| *number > 0);
        Some((of("line")?, of("column")?))
    }
}

impl std::error::Error for Refused {}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let field = |name: &str| self.problem[name].as_str().unwrap_or_default();
        let said = if field("detail").is_empty() { field("title") } else { field("detail") };
        write!(f, "{said} ({} {}, request id {})", self.status, field("code"), field("request_id"))
    }
}

/// An answer that is no error; an error becomes a sentence with the server's code and request id.
pub(crate) fn good(answer: Answer) -> anyhow::Result<Answer> {
    if answer.status.is_success() {
        return Ok(answer);
    }
    let status = answer.status.as_u16();
    let Ok(problem) = answer.json() else {
        bail!("the server answered {status}: {}", String::from_utf8_lossy(&answer.bytes))
    };
    Err(Refused { status, problem }.into())
}
