//! The templates that the program carries, and what they are for a service. `templates/README.md` says how they are written.

use crate::variables::Variables;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Serde, Value};
use minijinja::{AutoEscape, Environment, UndefinedBehavior};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// One file below `templates/`.
#[derive(Debug)]
struct Template {
    /// The folder it lies in: `deploy` or `service`.
    set: &'static str,
    /// From that folder on.
    path: &'static str,
    text: &'static str,
    is_executable: bool,
}

const TEMPLATES: &[Template] = include!(concat!(env!("OUT_DIR"), "/templates.rs"));

/// The ending that keeps a template from being taken for what it becomes.
const ENDING: &str = ".in";

/// Which templates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Set {
    /// What it takes to deploy a service.
    Deploy,
    /// All else of a new service.
    Service,
}

impl Set {
    fn folder(self) -> &'static str {
        match self {
            Self::Deploy => "deploy",
            Self::Service => "service",
        }
    }
}

/// A file of a service.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Rendered {
    /// From the service's folder on.
    pub(crate) path: PathBuf,
    pub(crate) text: String,
    pub(crate) is_executable: bool,
}

/// A template that cannot be rendered.
#[derive(Debug, thiserror::Error)]
#[error("templates/{path}")]
pub(crate) struct RenderError {
    path: String,
    source: minijinja::Error,
}

/// What a service's own files know beside its variables.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Extra {
    /// Where nowwhat comes from, as an entry of `Cargo.toml`; empty for a service that is there already.
    pub(crate) nowwhat: String,
    /// The oldest version of Rust it is built with.
    pub(crate) rust_version: &'static str,
}

#[derive(Serialize)]
struct Context<'a> {
    #[serde(flatten)]
    variables: &'a Variables,
    #[serde(flatten)]
    extra: &'a Extra,
}

/// All files of a set for a service.
pub(crate) fn render(set: Set, variables: &Variables, extra: &Extra) -> Result<Vec<Rendered>, RenderError> {
    let environment = environment();
    let context = Value::from(Serde(Context { variables, extra }));
    let of_set = TEMPLATES.iter().filter(|template| template.set == set.folder());
    let rendered = of_set.map(|template| {
        let text = environment.render_named_str(template.path, template.text, &context);
        let text =
            text.map_err(|source| RenderError { path: format!("{}/{}", template.set, template.path), source })?;
        let path = match set {
            Set::Deploy => Path::new("deploy").join(path(template.path, &variables.name)),
            Set::Service => path(template.path, &variables.name).into(),
        };
        Ok(Rendered { path, text, is_executable: template.is_executable })
    });
    rendered.collect()
}

/// `__name__` is the service's name; the ending goes.
fn path(template: &str, name: &str) -> String {
    template.strip_suffix(ENDING).unwrap_or(template).replace("__name__", name)
}

/// Signs that neither Ansible nor Go nor GitHub uses.
fn environment() -> Environment<'static> {
    let syntax = SyntaxConfig::builder()
        .block_delimiters("<%", "%>")
        .variable_delimiters("<<", ">>")
        .comment_delimiters("<#", "#>")
        .trim_blocks(true)
        .lstrip_blocks(true)
        .keep_trailing_newline(true)
        .build()
        .expect("they differ");
    let mut environment = Environment::new();
    environment.set_syntax(syntax);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment
}
