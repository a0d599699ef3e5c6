//! A whole service on one page: configuration, logs, request ids, metrics, health, limits, orderly start and stop.

use axum::Router;
use axum::extract::State;
use nowwhat::extract::{Json, Path};
use nowwhat::metrics::Counter;
use nowwhat::routing::get;
use nowwhat::{Boot, BoxError, Service};
use serde_json::{Value, json};
use std::process::ExitCode;

nowwhat::settings! {
    /// What hello can be told.
    struct Settings {
        /// The greeting.
        hello: Hello {
            /// The word before the name.
            word: String = "Hello";
        }
    }
}

#[derive(Clone)]
struct App {
    word: String,
    greetings: Counter,
}

async fn hello(State(app): State<App>, Path(name): Path<String>) -> Json<Value> {
    nowwhat::bind("guest", name.as_str());
    app.greetings.inc();
    tracing::info!(word = app.word, "greeted");
    Json(json!({ "text": format!("{}, {name}!", app.word) }))
}

async fn start(boot: &mut Boot) -> Result<Router, BoxError> {
    let settings = Settings::from_loaded(&boot.loaded);
    let greetings = Counter::default();
    boot.metrics(|registry| registry.register("greetings", "Greetings given", greetings.clone()));
    let app = App { word: settings.hello.word, greetings };
    Ok(Router::new().route("/hello/{name}", get(hello)).with_state(app))
}

fn main() -> ExitCode {
    Service::new(nowwhat::version!("hello"), Settings::specs()).main(start)
}
