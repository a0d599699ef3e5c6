//! Testing a service as its users use it: the whole service on free ports, its answers, its log lines, its metrics.
//!
//! ```
//! use axum::Router;
//! use nowwhat::{Service, routing::get, testkit::TestServer};
//!
//! async fn hello() -> &'static str {
//!     "hello"
//! }
//! let service = Service::new(nowwhat::version!(), Vec::new());
//! let server = TestServer::start(&service, |config| config, async |_| Ok(Router::new().route("/", get(hello))));
//! assert_eq!(server.get("/").send().text(), "hello");
//! assert_eq!(server.line("[200] GET / (")["status"], 200);
//! assert_eq!(server.metric("http_requests_total{method=\"GET\",route=\"/\",status=\"200\"}"), 1.0);
//! ```

use crate::config::{Loaded, Problems, Sources, Turn, prefix};
use crate::environment::Environment;
use crate::metrics::SharedRegistry;
use crate::serve::Inherited;
use crate::service::{Ask, Boot, BoxError, Output, Service, prepare, serve};
use crate::systemd::Systemd;
use crate::telemetry::Captured;
use axum::Router;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::{self, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use serde::Serialize;
use serde_json::Value;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

/// How long a condition may take to come true.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Settings of a server under test: `config.set("log.level", "debug")`.
#[derive(Clone, Debug, Default)]
pub struct TestConfig {
    settings: Vec<(String, String)>,
    env: Option<String>,
}

impl TestConfig {
    /// Gives a setting a value.
    pub fn set(mut self, name: &str, value: impl ToString) -> Self {
        self.settings.push((name.to_owned(), value.to_string()));
        self
    }

    /// With a configuration file, which is read again at every reload. What [`TestConfig::set`] says comes before it.
    ///
    /// # Panics
    /// When its name is not UTF-8.
    pub fn file(self, path: &Path) -> Self {
        self.set("config", path.to_str().expect("a name of UTF-8"))
    }

    /// The name of the environment; `prod` when it is not said.
    pub fn env(self, name: &str) -> Self {
        Self { env: Some(name.to_owned()), ..self }
    }
}

/// A running service. It stops in order when it is dropped.
pub struct TestServer {
    /// The address of the public listener.
    pub address: SocketAddr,
    /// The address of the admin listener.
    pub admin_address: SocketAddr,
    captured: Captured,
    registry: SharedRegistry,
    asks: UnboundedSender<Ask>,
    thread: Option<JoinHandle<Result<(), BoxError>>>,
    client: Runtime,
    pool: legacy::Client<HttpConnector, Full<Bytes>>,
}

impl std::fmt::Debug for TestServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TestServer").field("address", &self.address).finish_non_exhaustive()
    }
}

impl TestServer {
    /// Starts `service` as its `main` does and waits until it is ready.
    ///
    /// # Panics
    /// When its configuration has problems, its start fails, or it is not ready in time.
    pub fn start<S>(service: &Service, config: impl FnOnce(TestConfig) -> TestConfig, start: S) -> Self
    where
        S: AsyncFnOnce(&mut Boot) -> Result<Router, BoxError> + Send + 'static,
    {
        let config = config(TestConfig::default());
        let loaded = load(service, &config, Turn::First).unwrap_or_else(|error| panic!("{error}"));
        let prepared = prepare(service, loaded, Output::Captured).unwrap_or_else(|error| panic!("{error}"));
        let (captured, registry) = (prepared.captured(), prepared.registry());
        let (asks, asked) = unbounded_channel();
        let (tell, ready) = sync_channel(1);
        let theirs = captured.clone();
        let service = service.clone();
        let thread = std::thread::spawn(move || {
            theirs.this_thread();
            let mut runtime = tokio::runtime::Builder::new_multi_thread();
            let runtime = runtime.worker_threads(2).enable_all().on_thread_start(move || theirs.this_thread());
            let runtime = runtime.build().map_err(|e| BoxError::from(format!("cannot start threads: {e}")))?;
            let reload = Arc::new(move || load(&service, &config, Turn::Again));
            let started = async |boot: &mut Boot| {
                let routes = start(boot).await?;
                // Nobody waits any more when the test has failed already.
                let _ = tell.send([boot.address, boot.admin_address]);
                Ok(routes)
            };
            let place = prepared.boot(Inherited::default(), Systemd::default());
            let done = runtime.block_on(serve(place, asked, reload, started));
            prepared.end();
            done
        });
        let [address, admin_address] = match ready.recv_timeout(PATIENCE) {
            Ok(addresses) => addresses,
            Err(RecvTimeoutError::Timeout) => panic!("the service did not start in time"),
            Err(RecvTimeoutError::Disconnected) => match thread.join() {
                Ok(Err(error)) => panic!("the service did not start: {}", crate::error_chain(error.as_ref())),
                Ok(Ok(())) => panic!("the service ended before it was ready"),
                Err(panic) => std::panic::resume_unwind(panic),
            },
        };
        let client = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a client's runtime");
        let pool = legacy::Client::builder(TokioExecutor::new()).build_http();
        let server = Self { address, admin_address, captured, registry, asks, thread: Some(thread), client, pool };
        wait_until("ready", || server.admin("/readyz").send().status == StatusCode::OK);
        server
    }

    /// A request to the public listener.
    pub fn request(&self, method: Method, path: &str) -> TestRequest<'_> {
        let uri = format!("http://{}{path}", self.address);
        TestRequest { server: self, method, uri, headers: HeaderMap::new(), body: Bytes::new() }
    }

    /// A GET of the public listener.
    pub fn get(&self, path: &str) -> TestRequest<'_> {
        self.request(Method::GET, path)
    }

    /// A POST to the public listener.
    pub fn post(&self, path: &str) -> TestRequest<'_> {
        self.request(Method::POST, path)
    }

    /// A GET of the admin listener.
    pub fn admin(&self, path: &str) -> TestRequest<'_> {
        let uri = format!("http://{}{path}", self.admin_address);
        TestRequest { server: self, method: Method::GET, uri, headers: HeaderMap::new(), body: Bytes::new() }
    }

    /// The log lines so far, as the objects that JSON lines are: those of the service's own runtime from debug on, whatever
    /// `log.level` says. Servers at the same time in one process do not see each other's.
    pub fn lines(&self) -> Vec<Value> {
        let lines = self.captured.lines();
        lines.iter().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect()
    }

    /// The newest log line whose message holds `text`, as soon as there is one.
    ///
    /// # Panics
    /// When none comes in time.
    pub fn line(&self, text: &str) -> Value {
        let found = || self.lines().into_iter().rfind(|l| l["message"].as_str().is_some_and(|m| m.contains(text)));
        let deadline = Instant::now() + PATIENCE;
        loop {
            match found() {
                Some(line) => return line,
                None if Instant::now() > deadline => panic!("no line with {text:?} in {:#?}", self.captured.lines()),
                None => std::thread::sleep(Duration::from_millis(2)),
            }
        }
    }

    /// The value of a metric, named as Prometheus shows it, with its labels; 0 when there is none.
    pub fn metric(&self, name: &str) -> f64 {
        let headers = HeaderMap::new();
        let answer =
            crate::metrics::exposition(&self.registry.read().unwrap_or_else(PoisonError::into_inner), &headers);
        let body = self.client.block_on(answer.into_body().collect()).expect("text").to_bytes();
        let text = String::from_utf8_lossy(&body);
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.map_or(0.0, |value| value.parse().expect("a number"))
    }

    /// Asks the service to read its settings again, as SIGHUP does.
    pub fn reload(&self) {
        self.asks.send(Ask::Reload).expect("it runs");
    }

    /// Asks the service to stop, waits, and tells how it ended.
    ///
    /// # Errors
    /// What its stop failed with.
    ///
    /// # Panics
    /// When the service panicked.
    pub fn stop(mut self) -> Result<(), BoxError> {
        self.end().expect("it runs")
    }

    fn end(&mut self) -> Option<Result<(), BoxError>> {
        // One that has ended already hears nothing.
        let _ = self.asks.send(Ask::Stop("the test"));
        let thread = self.thread.take()?;
        Some(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        // A failing test tells its own reason.
        if !std::thread::panicking()
            && let Some(Err(error)) = self.end()
        {
            panic!("the service ended with: {}", crate::error_chain(error.as_ref()));
        }
    }
}

fn load(service: &Service, config: &TestConfig, turn: Turn) -> Result<Loaded, Problems> {
    let free =
        [("http.listen", "127.0.0.1:0"), ("admin.listen", "127.0.0.1:0")].map(|(n, v)| (n.to_owned(), v.to_owned()));
    let variable = |(name, value): &(String, String)| {
        let name = name.to_uppercase().replace('.', "__");
        (prefix(service.version.name) + &name, value.clone())
    };
    let environment: Environment = free.iter().chain(&config.settings).map(variable).collect();
    let sources = Sources { env: config.env.clone(), ..service.sources() };
    service.read(&sources, &environment, turn)
}

/// Waits until a condition holds.
///
/// # Panics
/// When it does not in time.
pub fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "{what} did not happen in time");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A request that is not sent yet.
#[derive(Debug)]
#[must_use]
pub struct TestRequest<'a> {
    server: &'a TestServer,
    method: Method,
    uri: String,
    headers: HeaderMap,
    body: Bytes,
}

impl TestRequest<'_> {
    /// With a header.
    ///
    /// # Panics
    /// When it cannot be one.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        let name: HeaderName = name.parse().expect("a header's name");
        self.headers.append(name, HeaderValue::from_str(value).expect("a header's value"));
        self
    }

    /// With a bearer token.
    pub fn bearer(self, token: &str) -> Self {
        self.header("authorization", &format!("Bearer {token}"))
    }

    /// With a body.
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// With a body of JSON.
    ///
    /// # Panics
    /// When the value cannot be JSON.
    pub fn json(self, value: &impl Serialize) -> Self {
        let body = serde_json::to_vec(value).expect("it can be JSON");
        self.header("content-type", "application/json").body(body)
    }

    /// Sends it and waits for the whole answer.
    ///
    /// # Panics
    /// When there is none.
    pub fn send(self) -> TestAnswer {
        let mut request = http::Request::new(Full::new(self.body));
        *request.method_mut() = self.method;
        *request.uri_mut() = self.uri.parse().expect("an address");
        *request.headers_mut() = self.headers;
        self.server.client.block_on(async {
            let answer = self.server.pool.request(request).await.expect("an answer");
            let (head, body) = answer.into_parts();
            let body = body.collect().await.expect("a whole answer").to_bytes();
            TestAnswer { status: head.status, headers: head.headers, body }
        })
    }
}

/// An answer.
#[derive(Debug)]
pub struct TestAnswer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

impl TestAnswer {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// When it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {:?}", self.text()))
    }

    /// A header as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}
