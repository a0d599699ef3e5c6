//! `catchment login`: a link that signs a browser in, once.

use crate::client::{Client, Server};
use clap::Args;
use nowwhat::Environment;
use nowwhat::cli::print;
use serde_json::{Value, json};

#[derive(Args)]
pub(crate) struct LoginArgs {
    /// Answer as JSON: {"url": ..., "code": ..., "expires_at": ...}.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

pub(crate) fn run(args: &LoginArgs, environment: &Environment) -> anyhow::Result<()> {
    let client = Client::find(&args.server, environment)?;
    let made = client.ask(http::Method::POST, "/api/v1/session/code", None)?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (code, expires_at) = (text(&made["code"]), text(&made["expires_at"]));
    // Behind the #, which a browser sends to nobody: the code is in no log of a server or a proxy.
    let url = format!("{}/#/sign-in?code={code}", client.url);
    Ok(print(match args.json {
        true => format!("{}\n", json!({ "url": url, "code": code, "expires_at": expires_at })),
        false => format!(
            "{url}\n\nOpen it in a browser: it signs in as the token that this command used. It works once, until {expires_at} (5 minutes).\n"
        ),
    })?)
}
