//! The API's description, made from the code, and the page to try it on: `/openapi.json` and `/docs`. The page's files are in the
//! program; nothing is fetched from elsewhere.

use crate::routes;
use axum::Router;
use serde::Serialize;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{Components, OpenApi};
use utoipa::{Modify, OpenApi as _, ToSchema};
use utoipa_swagger_ui::SwaggerUi;

/// An error (RFC 9457), as `nowwhat::Problem` writes it.
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub(crate) struct ProblemBody {
    /// The kind, as an address.
    r#type: String,
    /// The kind, for people.
    title: String,
    /// The status of the answer.
    status: u16,
    /// The kind, for programs.
    code: String,
    /// What happened this time.
    detail: Option<String>,
    /// The request, as the log knows it.
    request_id: Option<String>,
}

#[derive(utoipa::OpenApi)]
#[openapi(
    info(title = "Notes"),
    paths(routes::list, routes::create, routes::find, routes::replace, routes::remove),
    modifiers(&Token)
)]
struct Description;

/// How to say who one is.
struct Token;

impl Modify for Token {
    fn modify(&self, description: &mut OpenApi) {
        let components = description.components.get_or_insert_with(Components::new);
        components.add_security_scheme("token", SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)));
    }
}

/// The page and the description.
pub(crate) fn page() -> Router {
    SwaggerUi::new("/docs").url("/openapi.json", Description::openapi()).into()
}
