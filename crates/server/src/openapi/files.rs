//! Files for browsers: the two pages, and what they are made of.

use super::operation::{Described, text};
use super::parts::{header, of, path};
use crate::authorisation::Act;
use crate::code::Code;
use utoipa::openapi::Type;
use utoipa::openapi::content::{Content, ContentBuilder};
use utoipa::openapi::schema::ObjectBuilder;

pub(super) fn described(act: Act) -> Described {
    let known = of(Type::String).examples(["\"3f2a\""]);
    let unless = header("If-None-Match", "The `ETag` of what is there already.", known);
    let described = |text| Described::of(act, text).parameter(unless).answer(304, "It is the same still.", []);
    let object = ContentBuilder::new().schema(Some(ObjectBuilder::new())).build();
    match act {
        Act::Describe => described("").answer(200, "OpenAPI 3.1.", [("application/json", object)]),
        Act::ShowPage | Act::ShowDocs => {
            described("").answer(200, "The page.", [("text/html; charset=utf-8", text("<!doctype html>"))])
        }
        Act::ReadPageFile => {
            let version = of(Type::String).examples(["0f1e2d3c4b5a6978"]);
            let svg = ("image/svg+xml", text("<svg/>"));
            file(
                described("A browser may keep one that is asked for by the version of the page."),
                "main.js",
                Some(svg),
            )
            .parameter(path("version", "The version of the page, as it names its files.", version))
        }
        _ => file(described(""), "start.js", None),
    }
    .headers(200, &["ETag"])
}

fn file(described: Described, name: &str, more: Option<(&'static str, Content)>) -> Described {
    let contents = ["text/css; charset=utf-8", "text/javascript; charset=utf-8"].map(|kind| (kind, text("")));
    described
        .parameter(path("file", "The name of a file.", of(Type::String).examples([name])))
        .answer(200, "The file.", contents.into_iter().chain(more))
        .error(Code::NotFound)
}
