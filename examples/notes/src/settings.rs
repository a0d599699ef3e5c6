//! What the service can be told beside what every service can.

use nowwhat::bearer;
use nowwhat::config::{Loaded, Seconds, Secret, Url};
use sqlx::postgres::PgConnectOptions;
use std::time::Duration;

nowwhat::settings! {
    /// Resources and who may use the service.
    pub(crate) struct Settings {
        /// Postgres, which keeps the notes.
        database: Database {
            /// Its address, with user, password and database.
            url: Url = "postgres://notes@127.0.0.1:5432/notes";
            /// Connections at most.
            connections_max: u32 = "10", range "1".."1000";
            /// Time for one call: waiting for a connection, and the statement. After that the request is answered 503.
            timeout_seconds: Seconds = "2s", range "1s".."1m";
        }
        /// Redis, which keeps what was read; without it every read asks Postgres.
        cache: CacheSettings {
            /// Its address, such as redis://127.0.0.1:6379/0. Empty: no cache.
            url: Option<Url> = "";
            /// How long a note is kept. After a change that the cache missed, reads may be this old.
            ttl_seconds: Seconds = "60s", range "1s".."1d";
            /// Time for one call; after that Postgres is asked.
            timeout: Duration = "200ms", range "1ms".."10s";
        }
        /// Who may use the service.
        auth: Auth {
            /// The token of those who may read.
            reader_token: Option<Secret> = "", reload;
            /// The token of those who may read and write.
            editor_token: Option<Secret> = "", reload;
        }
    }
}

/// What is wrong beyond single keys, a sentence each. No sentence holds a password.
pub(crate) fn problems(loaded: &Loaded) -> Vec<String> {
    let Settings { database, cache, auth } = Settings::from_loaded(loaded);
    let given = |key: &str| loaded.given(key).origin.to_string();
    let mut problems = Vec::new();
    let postgres = ["postgres", "postgresql"].contains(&database.url.scheme());
    if !postgres || database.url.reveal().parse::<PgConnectOptions>().is_err() {
        problems.push(format!(
            "database.url = {:?}: expected an address such as postgres://user:password@127.0.0.1:5432/notes ({})",
            database.url,
            given("database.url")
        ));
    }
    if let Some(url) = &cache.url
        && (url.scheme() != "redis" || redis::Client::open(url.reveal()).is_err())
    {
        let expected = "expected an address such as redis://127.0.0.1:6379/0, or none";
        problems.push(format!("cache.url = {url:?}: {expected} ({})", given("cache.url")));
    }
    match (&auth.reader_token, &auth.editor_token) {
        (None, None) => problems.push(
            "auth.editor_token and auth.reader_token are empty: nobody could use the service; give at least one"
                .to_owned(),
        ),
        (Some(reader), Some(editor)) if reader == editor => problems.push(format!(
            "auth.reader_token is the same as auth.editor_token: readers could write; give two ({})",
            given("auth.reader_token")
        )),
        _ => {}
    }
    for (key, token) in [("auth.reader_token", &auth.reader_token), ("auth.editor_token", &auth.editor_token)] {
        if token.as_ref().is_some_and(|token| !bearer::can_be_sent(token.reveal())) {
            let hint = "no request can send it: use visible ASCII without blanks";
            problems.push(format!("{key}: {hint} ({})", given(key)));
        }
    }
    problems
}
