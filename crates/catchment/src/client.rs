//! Talking to a running collector: finding it, its token, asking over HTTP.

use crate::data_dir::DataDir;
use anyhow::{Context, anyhow, bail};
use clap::Args;
use nowwhat::Environment;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::Duration;
use ureq::http::Response;
use ureq::{Agent, Body};

/// Where the collector is.
#[derive(Args, Clone, Default)]
pub(crate) struct Server {
    /// Address of the API, such as http://127.0.0.1:4711 [default: $CATCHMENT_URL, else what the data folder says].
    #[arg(long, value_name = "URL")]
    pub(crate) url: Option<String>,
    /// Data folder of a collector on this machine [default: ./data, else /var/lib/catchment].
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
}

/// A collector that was found.
pub(crate) struct Client {
    agent: Agent,
    pub(crate) url: String,
    /// Its data folder, when it is on this machine.
    pub(crate) dir: Option<DataDir>,
    token: Option<String>,
}

impl Client {
    /// Finds the collector and the token: `CATCHMENT_TOKEN`, else the data folder's admin token.
    pub(crate) fn find(server: &Server, environment: &Environment) -> anyhow::Result<Self> {
        let known = [PathBuf::from("data"), PathBuf::from("/var/lib/catchment")];
        let folders: Vec<&Path> = match &server.data_dir {
            Some(dir) => vec![dir],
            None => known.iter().map(PathBuf::as_path).filter(|dir| dir.exists()).collect(),
        };
        let found = folders.iter().map(|dir| DataDir::of(dir)).find_map(|dir| Some((dir.addresses()?, dir)));
        let given =
            server.url.as_deref().or_else(|| environment.get("CATCHMENT_URL").filter(|_| server.data_dir.is_none()));
        let url = match (given, &found) {
            (Some(url), _) => url.trim_end_matches('/').to_owned(),
            (None, Some((addresses, _))) => format!("http://{}", addresses.api),
            (None, None) => {
                let looked: Vec<String> = folders.iter().map(|f| f.display().to_string()).collect();
                let looked =
                    if looked.is_empty() { "./data or /var/lib/catchment".to_owned() } else { looked.join(", ") };
                bail!(
                    "no running collector found in {looked}: start one with `catchment serve`, or say where it is with --url or --data-dir"
                )
            }
        };
        let dir = found.map(|(_, dir)| dir).or_else(|| folders.first().map(|f| DataDir::of(f)));
        let token = match environment.get("CATCHMENT_TOKEN") {
            Some(token) => Some(token.to_owned()),
            None => dir.as_ref().map(|dir| DataDir::token(&dir.admin_token_path())).transpose()?.flatten(),
        };
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(Duration::from_secs(10)))
            .timeout_global(Some(Duration::from_secs(900)))
            .build()
            .new_agent();
        Ok(Self { agent, url, dir, token })
    }

    /// The token that was found.
    pub(crate) fn token(&self) -> anyhow::Result<&str> {
        self.token
            .as_deref()
            .ok_or_else(|| anyhow!("no token: set CATCHMENT_TOKEN, or name the collector's --data-dir"))
    }

    /// Gets a path with the found token.
    pub(crate) fn get(&self, path: &str) -> anyhow::Result<Value> {
        let request =
            self.agent.get(format!("{}{path}", self.url)).header("authorization", format!("Bearer {}", self.token()?));
        json(good(self.reached(request.call())?)?)
    }

    /// Posts JSON with the found token.
    pub(crate) fn post_json(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        let accept = ("accept", "application/json");
        json(good(self.post(
            path,
            self.token()?,
            body.to_string().as_bytes(),
            &[("content-type", "application/json"), accept],
        )?)?)
    }

    /// Posts bytes with a token; any status is an answer.
    pub(crate) fn post(
        &self,
        path: &str,
        token: &str,
        body: &[u8],
        headers: &[(&str, &str)],
    ) -> anyhow::Result<Response<Body>> {
        let mut request =
            self.agent.post(format!("{}{path}", self.url)).header("authorization", format!("Bearer {token}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.reached(request.send(body))
    }

    fn reached(&self, result: Result<Response<Body>, ureq::Error>) -> anyhow::Result<Response<Body>> {
        result.with_context(|| format!("no answer from {}", self.url))
    }
}

/// An answer that is no error; an error becomes a sentence with the server's code and request id.
pub(crate) fn good(mut response: Response<Body>) -> anyhow::Result<Response<Body>> {
    if response.status().is_success() {
        return Ok(response);
    }
    let status = response.status().as_u16();
    let text = response.body_mut().read_to_string().unwrap_or_default();
    let Ok(problem) = serde_json::from_str::<Value>(&text) else { bail!("the server answered {status}: {text}") };
    let field = |name: &str| problem[name].as_str().unwrap_or_default();
    let said = if field("detail").is_empty() { field("title") } else { field("detail") };
    bail!("{said} ({status} {}, request id {})", field("code"), field("request_id"))
}

/// The body as JSON.
pub(crate) fn json(mut response: Response<Body>) -> anyhow::Result<Value> {
    let text = response.body_mut().with_config().limit(1 << 30).read_to_string().context("the answer broke off")?;
    serde_json::from_str(&text).context("the answer is not JSON")
}
