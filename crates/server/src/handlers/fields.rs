//! `GET /api/v1/fields`: which fields of `data` there are, by type of event.

use crate::app::App;
use crate::auth;
use crate::authorisation::Act;
use crate::handlers::query::problem_of;
use crate::pages;
use crate::parameters::parameters;
use axum::extract::{RawQuery, State};
use axum::response::Response;
use http::HeaderMap;
use nowwhat::Problem;
use query::KnownField;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// The parameters of the address.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct Parameters {
    /// Only those of events of this type.
    r#type: Option<String>,
}

/// The fields of `data` that are known, live events included.
#[derive(Serialize, ToSchema)]
pub(crate) struct Fields {
    /// The types of events, in the order of their names.
    types: Vec<TypeFields>,
    /// Whether there may be more: beyond 10,000 fields, 256 types in a file, 128 bytes of a type or of a path, below eight other fields, and in files
    /// that were not written by this collector.
    partial: bool,
}

/// The fields of the events of a type.
#[derive(Serialize, ToSchema)]
struct TypeFields {
    r#type: String,
    /// In the order of their names.
    fields: Vec<Field>,
}

/// A field.
#[derive(Serialize, ToSchema)]
#[schema(as = KnownField)]
struct Field {
    /// As it is asked in SQL.
    #[schema(examples("data.room.temperature"))]
    name: String,
    /// The type that it has there.
    #[schema(examples("double", "boolean", "text"))]
    r#type: String,
    /// Whether it has a column of its own; otherwise it is read from the text.
    column: bool,
    /// What kinds of values were sent: `number`, `text`, `boolean`, `list`.
    #[schema(examples(json!(["number", "text"])))]
    values: Vec<&'static str>,
}

/// The fields that there are.
pub(crate) async fn get_fields(
    State(app): State<App>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    auth::permit(&app, &headers, Act::ListFields).await?;
    let asked: Parameters = parameters(query.as_deref(), "type")?;
    let look = async {
        let turn = app.shared.queries.turn().await?;
        app.shared.queries.fields(turn, app.shared.engine.view().newest.clone()).await
    };
    let known = nowwhat::db(look).await.map_err(problem_of)?;
    let wanted = known.types.into_iter().filter(|(name, _)| asked.r#type.as_ref().is_none_or(|wanted| wanted == name));
    let types = wanted
        .map(|(r#type, fields)| TypeFields { r#type, fields: fields.into_iter().map(Field::from).collect() })
        .collect();
    pages::whole(&app, &Fields { types, partial: known.is_partial })
}

impl From<KnownField> for Field {
    fn from(KnownField { name, kind, is_column, values }: KnownField) -> Self {
        Self { name, r#type: kind, column: is_column, values }
    }
}
