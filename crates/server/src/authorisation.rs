//! Who may do what: every route with the roles that may use it, as one table.
//!
//! The router is made from it (`routes.rs`), every handler asks it ([`permit`](crate::auth::permit)), `docs/API.md` shows it, and the
//! description of the API (`openapi.rs`) takes paths, summaries and roles from it. So a route that is not in the table does not exist, and a
//! test asks all of them as all roles.

use axum::routing::MethodFilter;
use registry::Role::{self, Admin, Enrol, Operator, Reader, SendOnly, Sensor};

/// One row of the table.
struct Row {
    name: &'static str,
    summary: &'static str,
    method: MethodFilter,
    method_name: &'static str,
    path: &'static str,
    roles: Option<&'static [Role]>,
}

macro_rules! acts {
    ($(#[doc = $summary:literal] $act:ident $method:ident $path:literal $roles:expr;)*) => {
        /// What a request asks for: one for each method of each path.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Act { $(#[doc = $summary] $act,)* }

        impl Act {
            /// All acts, in the order of the documentation.
            pub(crate) const ALL: &'static [Act] = &[$(Act::$act,)*];

            fn row(self) -> Row {
                match self { $(Act::$act => Row {
                    name: stringify!($act), summary: $summary, method: MethodFilter::$method,
                    method_name: stringify!($method), path: $path, roles: $roles,
                },)* }
            }
        }
    };
}

acts! {
    /// A sender of webhooks asks whether it may send.
    ValidateWebhook OPTIONS "/api/v1/events" None;
    /// Send a batch of events.
    SendEvents POST "/api/v1/events" Some(&[Sensor, SendOnly]);
    /// The events, a page at a time.
    ListEvents GET "/api/v1/events" Some(&[Reader, Admin]);
    /// The events as they come.
    TailEvents GET "/api/v1/events/tail" Some(&[Reader, Admin]);
    /// One event.
    ReadEvent GET "/api/v1/events/{id}" Some(&[Reader, Admin]);
    /// Store events of an export again.
    ImportEvents POST "/api/v1/import" Some(&[Admin]);
    /// Ask in SQL.
    Query POST "/api/v1/query" Some(&[Reader, Admin]);
    /// Ask in SQL, by an address alone.
    QueryByAddress GET "/api/v1/query" Some(&[Reader, Admin]);
    /// The fields of `data`, by type of event.
    ListFields GET "/api/v1/fields" Some(&[Reader, Admin]);
    /// How the collector is.
    ReadOverview GET "/api/v1/overview" Some(&[Reader, Operator, Admin]);
    /// How the collector is, each second.
    FollowOverview GET "/api/v1/overview/live" Some(&[Reader, Operator, Admin]);
    /// How the collector was.
    ReadHistory GET "/api/v1/overview/history" Some(&[Reader, Operator, Admin]);
    /// What was rejected; a sensor sees its own.
    ReadRejected GET "/api/v1/rejected" Some(&[Sensor, Reader, Operator, Admin]);
    /// Register a sensor.
    RegisterSensor POST "/api/v1/sensor" Some(&[Enrol, Admin]);
    /// A sensor about itself.
    SeeItself GET "/api/v1/sensor" Some(&[Sensor, Admin]);
    /// All sensors.
    ListSensors GET "/api/v1/sensors" Some(&[Operator, Admin]);
    /// One sensor.
    ReadSensor GET "/api/v1/sensors/{id}" Some(&[Operator, Admin]);
    /// Change labels and zone of a sensor, disable it, enable it.
    ChangeSensor PATCH "/api/v1/sensors/{id}" Some(&[Operator, Admin]);
    /// Disable a sensor: its tokens are refused, its events stay.
    DisableSensor DELETE "/api/v1/sensors/{id}" Some(&[Operator, Admin]);
    /// Erase the events that a sensor has sent so far.
    EraseEvents DELETE "/api/v1/sensors/{id}/events" Some(&[Operator, Admin]);
    /// How far the last erasure of a sensor's events is.
    ReadErasure GET "/api/v1/sensors/{id}/events" Some(&[Operator, Admin]);
    /// Make another token for a sensor.
    RotateToken POST "/api/v1/sensors/{id}/token" Some(&[Operator, Admin]);
    /// Make a token.
    AddToken POST "/api/v1/tokens" Some(&[Admin]);
    /// All tokens.
    ListTokens GET "/api/v1/tokens" Some(&[Admin]);
    /// One token.
    ReadToken GET "/api/v1/tokens/{id}" Some(&[Admin]);
    /// Revoke a token.
    RevokeToken DELETE "/api/v1/tokens/{id}" Some(&[Admin]);
    /// Sign in with a token or the code of a link.
    BeginSession POST "/api/v1/session" None;
    /// Who is signed in, or whose token it is.
    ReadSession GET "/api/v1/session" Some(&[Enrol, Reader, Operator, Admin]);
    /// Sign out.
    EndSession DELETE "/api/v1/session" None;
    /// Make a code for a link to sign in.
    MakeSignInCode POST "/api/v1/session/code" Some(&[Reader, Operator, Admin]);
    /// Make a copy of all that is there, and hold it while it is copied away on the collector's machine.
    MakeBackup POST "/api/v1/backups" Some(&[Admin]);
    /// Say how far the copying of a backup is.
    FollowBackup PATCH "/api/v1/backups/{id}" Some(&[Admin]);
    /// Who changed what.
    ReadAudit GET "/api/v1/audit" Some(&[Admin]);
    /// The web page.
    ShowPage GET "/" None;
    /// The files of the web page.
    ReadPageFile GET "/page/{version}/{file}" None;
    /// This description of the API.
    Describe GET "/openapi.json" None;
    /// A page to try the API.
    ShowDocs GET "/docs" None;
    /// The files of that page.
    ReadDocsFile GET "/docs/{file}" None;
}

impl Act {
    /// The method of its route.
    pub(crate) fn method(self) -> MethodFilter {
        self.row().method
    }

    /// The name of its method, as requests have it.
    pub(crate) fn method_name(self) -> &'static str {
        self.row().method_name
    }

    /// Whether it may change something: what comes with a cookie has to say where it comes from then.
    pub(crate) fn changes(self) -> bool {
        self.method_name() != "GET"
    }

    /// Whether a session does not do in place of a token: none begins another.
    pub(crate) fn needs_token_itself(self) -> bool {
        self == Act::MakeSignInCode
    }

    /// Whether somebody who signed in with a token of this role may do it.
    pub(crate) fn takes_session_of(self, role: Role) -> bool {
        self.is_allowed(role) && !self.needs_token_itself() && Act::MakeSignInCode.is_allowed(role)
    }

    /// Its name, as the code has it.
    pub(crate) fn name(self) -> &'static str {
        self.row().name
    }

    /// What it is, in a few words.
    pub(crate) fn summary(self) -> &'static str {
        self.row().summary.trim()
    }

    /// The path of its route.
    pub(crate) fn path(self) -> &'static str {
        self.row().path
    }

    /// Whether a token of this role may do it.
    pub(crate) fn is_allowed(self, role: Role) -> bool {
        self.row().roles.is_none_or(|roles| roles.contains(&role))
    }

    /// The roles that may do it; none where no token is needed.
    pub(crate) fn roles(self) -> Option<&'static [Role]> {
        self.row().roles
    }

    /// The roles that may do it, in words.
    pub(crate) fn roles_in_words(self) -> String {
        let names: Vec<&str> = self.roles().unwrap_or(&Role::ALL).iter().map(|role| role.name()).collect();
        names.join(" or ")
    }
}

/// The table of all routes and roles in Markdown, as `docs/API.md` shows it.
pub fn roles_table() -> String {
    let names = Role::ALL.map(|role| format!("`{}`", role.name())).join(" | ");
    let mut table = format!("| route | no token | {names} |\n|---|---|{}\n", "---|".repeat(Role::ALL.len()));
    let cell = |is_allowed| if is_allowed { "yes" } else { "" };
    for act in Act::ALL {
        let row = act.row();
        let cells = Role::ALL.map(|role| cell(act.is_allowed(role))).join(" | ");
        table += &format!("| `{} {}` | {} | {cells} |\n", row.method_name, row.path, cell(row.roles.is_none()));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_router_knows_no_path_but_those_of_the_table() {
        let code = include_str!("routes.rs").lines().filter(|line| !line.trim_start().starts_with("//"));
        let paths: Vec<&str> = code.filter(|line| line.contains("\"/") || line.contains(".nest")).collect();
        assert!(paths.is_empty(), "name the route in the table of authorisation.rs instead: {paths:?}");
        let routes = include_str!("routes.rs");
        for act in Act::ALL {
            assert!(routes.contains(&format!("Act::{act:?}")), "{act:?} has no handler in routes.rs");
        }
    }

    #[test]
    fn an_admin_may_do_all_but_send() {
        for act in Act::ALL {
            assert_eq!(act.is_allowed(Admin), *act != Act::SendEvents, "{act:?}");
        }
        assert_eq!(Act::SendEvents.roles_in_words(), "sensor or send_only");
    }
}
