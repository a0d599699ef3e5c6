//! Every error of the API as data: one enum, from which the answers and `docs/API.md` are made.
//!
//! Some are answered by nowwhat for every service: `invalid_host`, `invalid_path`, `method_not_allowed`, `body_timeout`, `request_timeout`, `timed_out`. They stand here for the
//! documentation, in nowwhat's words.

use http::StatusCode;
use nowwhat::Problem;

/// One row of the table of errors.
struct Row {
    name: &'static str,
    status: u16,
    retryable: Retryable,
    title: &'static str,
    advice: &'static str,
}

/// Whether the same request can succeed later.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Retryable {
    Yes,
    No,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident $name:literal $status:literal $retryable:ident $title:literal, $advice:literal;)*) => {
        /// What went wrong with a request, by a name that never changes.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Code { $($(#[$doc])* #[doc = $title] $variant,)* }

        impl Code {
            /// All codes, in the order of the documentation.
            pub const ALL: &'static [Code] = &[$(Code::$variant,)*];

            fn row(self) -> Row {
                match self { $(Code::$variant => Row {
                    name: $name, status: $status, retryable: Retryable::$retryable, title: $title, advice: $advice,
                },)* }
            }
        }
    };
}

codes! {
    InvalidBody "invalid_body" 400 No "The body cannot be read", "Mend the body at the place the detail names and send it again.";
    AllRejected "all_rejected" 400 No "Every event of the batch was rejected", "Mend the events listed in `rejected` and send them again.";
    AtomicRejected "atomic_rejected" 400 No "The atomic batch was rejected because of some of its events", "Mend the events listed in `rejected` and send the whole batch again, or leave `atomic` out to keep the others.";
    InvalidHost "invalid_host" 400 No "The request does not say whom it asks", "Send one header `Host`.";
    InvalidPath "invalid_path" 400 No "The path does not fit", "Mend the part of the path that the detail names.";
    InvalidParameter "invalid_parameter" 400 No "A parameter of the address is not understood", "Use the parameter as the detail says.";
    InvalidIdempotencyKey "invalid_idempotency_key" 400 No "The idempotency key cannot be used", "Send one header `Idempotency-Key` of 1 to 255 visible ASCII characters, in double quotes or bare.";
    InvalidName "invalid_name" 400 No "The sensor's name or labels cannot be used", "Choose a name or labels within the rule that the detail names.";
    InvalidField "invalid_field" 400 No "A field of the body cannot be used", "Mend the field that the detail names.";
    InvalidSql "invalid_sql" 400 No "The SQL cannot be answered", "Mend the statement at the place the detail names.";
    StatementNotAllowed "statement_not_allowed" 400 No "Only reading statements are allowed", "Ask with SELECT, EXPLAIN or SHOW.";
    SeveralTokens "several_tokens" 400 No "The request has more than one token", "Send one header `Authorization: Bearer TOKEN`.";
    MissingToken "missing_token" 401 No "A token is needed", "Send `Authorization: Bearer TOKEN`.";
    InvalidToken "invalid_token" 401 No "The token is not known, has expired or is revoked", "Use a valid token; `catchment sensor add NAME` makes one for a new sensor.";
    InvalidSession "invalid_session" 401 No "The session has ended, or is not known", "Sign in again.";
    InvalidCode "invalid_code" 401 No "The code is not known, was used or is too old", "Make another link with `catchment login`, or sign in with a token.";
    InsufficientScope "insufficient_scope" 403 No "The token may not do this", "Use a token with the role that the detail names.";
    CrossSite "cross_site" 403 No "The request does not come from a page of this origin", "Use the page of this collector; a program sends `Authorization: Bearer TOKEN` in place of a cookie.";
    CertificateRefused "certificate_refused" 403 No "The certificate of the client stands for no sensor that may come in", "Use a certificate whose name is the id of a registered sensor that is not disabled.";
    CertificateMismatch "certificate_mismatch" 403 No "The token and the certificate of the client are not of the same sensor", "Send a token of the sensor that the certificate names, or none.";
    EnrolmentUsedUp "enrolment_used_up" 403 No "The enrolment token has no uses left", "Use another enrolment token; `catchment token add NAME --role enrol --uses N` makes one.";
    NotFound "not_found" 404 No "There is nothing here", "See the documentation of the API for what there is.";
    MethodNotAllowed "method_not_allowed" 405 No "This cannot be done here", "Use one of the methods in the `Allow` header.";
    NotAcceptable "not_acceptable" 406 No "The answer has no format that the client takes", "Name one that the detail names in `Accept`, or leave `Accept` out.";
    BodyTimeout "body_timeout" 408 Yes "The body came too slowly", "Send the body without pauses.";
    RequestTimeout "request_timeout" 408 Yes "The request did not arrive in time", "Send the body without pauses.";
    NameTaken "name_taken" 409 No "A sensor of this name exists", "Choose another name, or use the token that this sensor has.";
    TokenConfigured "token_configured" 409 No "The configured admin token is not revoked here", "Change `auth.admin_token`, or remove the file `admin.token` and start again.";
    IdempotencyKeyInUse "idempotency_key_in_use" 409 Yes "A request with this idempotency key is running", "Send the same request again after `Retry-After` seconds: it gets the first one's answer.";
    BackupBusy "backup_busy" 409 Yes "Another backup is held, or events are being erased", "Send the same request again after `Retry-After` seconds; `catchment backup` does so for a while.";
    BodyTooLarge "body_too_large" 413 No "The body is too large", "Send less at once: split a batch.";
    TooManyEvents "too_many_events" 413 No "The batch has too many events", "Split the batch.";
    QueryTooLarge "query_too_large" 413 No "The query needs more memory or text than it may", "Ask for less: a shorter range of time, fewer groups, fewer columns.";
    UnsupportedMediaType "unsupported_media_type" 415 No "The content type or encoding is not understood", "Send JSON, NDJSON or CloudEvents in JSON or with the header `ce-specversion`, plain or with gzip, deflate or zstd.";
    IdempotencyKeyReused "idempotency_key_reused" 422 No "The idempotency key belongs to another request", "Send a new key with a new request; a repeated one has the same body, parameters and content type.";
    TooManyRows "too_many_rows" 413 No "The answer has more rows than it may", "Ask with a LIMIT, or page by position.";
    TooManyQueries "too_many_queries" 429 Yes "Too many queries are running", "Ask again after `Retry-After` seconds.";
    QuotaExceeded "quota_exceeded" 429 Yes "The sensor's quota is used up", "Send again after `Retry-After` seconds; `RateLimit` tells beforehand how much may come. An operator can raise the quota.";
    TooManyFailures "too_many_failures" 429 Yes "Too many unknown tokens came from this address", "Use a valid token, after `Retry-After` seconds.";
    Internal "internal" 500 No "Something failed here", "Give the request id to the operator: the log has the cause.";
    DamagedFile "damaged_file" 500 No "A data file that is asked for is damaged or gone", "Give the detail to the operator: `catchment inspect lake` names all files that are, `catchment inspect repair` keeps what can be read of them. Questions that do not need the file are answered.";
    RegistryDamaged "registry_damaged" 500 No "The registry is damaged", "The operator stops the collector and puts `registry.sqlite` from a backup in its place; the next start says more.";
    InFlightFull "in_flight_full" 503 Yes "Too many bytes are in flight", "Send again after `Retry-After` seconds.";
    SealBehind "seal_behind" 503 Yes "The lake cannot take events as fast as they come", "Send again after `Retry-After` seconds.";
    StorageFull "storage_full" 503 Yes "The disk is full", "Send again after `Retry-After` seconds; the operator has to make room.";
    LogPoisoned "log_poisoned" 503 Yes "The write-ahead log failed and the server restarts", "Send again after `Retry-After` seconds.";
    Stopping "stopping" 503 Yes "The server is stopping", "Send again after `Retry-After` seconds.";
    RejectedUnavailable "rejected_unavailable" 503 Yes "The rejected events cannot be kept or read now", "Send again after `Retry-After` seconds; the operator has to look after the disk.";
    RegistryBusy "registry_busy" 503 Yes "The registry is busy", "Send again after `Retry-After` seconds.";
    BackupFailed "backup_failed" 503 Yes "The copy for a backup could not be made", "Mend what the detail names, such as a full disk, and send it again.";
    TimedOut "timed_out" 503 Yes "The answer took too long", "Send again; an event with an id, or a request with an `Idempotency-Key`, is not stored twice.";
    QueryTimeout "query_timeout" 503 Yes "The query took longer than it may", "Ask for less, or raise `timeout_seconds`.";
}

impl Code {
    /// The stable name: `code` in the answer, and the end of its `type`.
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// What it means, in a few words.
    pub fn title(self) -> &'static str {
        self.row().title
    }

    /// What the client can do.
    pub(crate) fn advice(self) -> &'static str {
        self.row().advice
    }

    /// The status it is answered with.
    pub fn status(self) -> StatusCode {
        StatusCode::from_u16(self.row().status).expect("the table holds valid statuses")
    }

    /// Whether the same request can succeed later; then the answer has `Retry-After`.
    pub fn is_retryable(self) -> bool {
        self.row().retryable == Retryable::Yes
    }

    /// Whether it refuses a request whole for what it is or asks of the server, and is answered by a handler: nowwhat's own answers
    /// are made around them.
    pub(crate) fn turns_away(self) -> bool {
        matches!(self.row().status, 401 | 413 | 429 | 503) && self != Self::TimedOut
    }

    /// The problem as it is answered, with a detail of this one case.
    pub(crate) fn problem(self, detail: impl Into<String>) -> Problem {
        let row = self.row();
        let problem = Problem::new(self.status(), row.name, row.title).detail(detail);
        if self.is_retryable() { problem.retry_after(1) } else { problem }
    }
}

/// The registry did not answer: 503, or 500 when its file is damaged.
pub(crate) fn not_answered(what: &str, error: registry::RegistryError) -> Problem {
    if error.is_damage() {
        let detail = format!("{what}: `registry.sqlite` in the data folder is damaged");
        return Code::RegistryDamaged.problem(detail).cause(error);
    }
    Code::RegistryBusy.problem(what).cause(error)
}

/// The table of all errors in Markdown, as `docs/API.md` shows it.
pub fn codes_table() -> String {
    let mut table = String::from("| code | status | retry | meaning | what to do |\n|---|---|---|---|---|\n");
    for code in Code::ALL {
        let row = code.row();
        let retry = if code.is_retryable() { "yes" } else { "no" };
        table += &format!("| `{}` | {} | {retry} | {} | {} |\n", row.name, row.status, row.title, row.advice);
    }
    table
}

/// The table of the reasons for which single events are rejected, in Markdown.
pub fn rejections_table() -> String {
    let mut table = String::from("| code | meaning | what to do |\n|---|---|---|\n");
    for code in event::Code::ALL {
        table += &format!("| `{}` | {} | {} |\n", code.name(), code.meaning(), code.advice());
    }
    table
}
