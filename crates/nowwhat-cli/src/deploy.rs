//! `nowwhat deploy`: writes `deploy/` of a service, or tells whether it is current.

use crate::files::{FileError, is_current, write};
use crate::templates::{Extra, RenderError, Rendered, Set, render};
use crate::variables::{Variables, VariablesError};
use clap::Args;
use std::fmt::Write;
use std::path::Path;

/// How `deploy/` is written.
#[derive(Args)]
pub(crate) struct DeployArgs {
    /// Write nothing; fail when a file is not what the templates give.
    #[arg(long)]
    check: bool,
}

/// Why `deploy/` is not written, or not current.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DeployError {
    #[error(transparent)]
    Variables(#[from] VariablesError),
    #[error(transparent)]
    Render(#[from] RenderError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error("not what the templates give for deploy/nowwhat.toml; `nowwhat deploy` writes it:{0}")]
    Differs(String),
}

/// Writes or checks `deploy/` of the service in the working directory, and says what was done.
pub(crate) fn run(args: &DeployArgs) -> Result<String, DeployError> {
    let folder = Path::new(".");
    let variables = Variables::read(folder)?;
    let files = render(Set::Deploy, &variables, &Extra::default())?;
    let total = files.len();
    let mut stale = Vec::new();
    for file in files {
        if !is_current(folder, &file)? {
            stale.push(file);
        }
    }
    if args.check {
        return match stale.is_empty() {
            true => Ok(format!("deploy/ is current, {total} files\n")),
            false => {
                Err(DeployError::Differs(stale.iter().fold(String::new(), |text, file| text + "\n" + &shown(file))))
            }
        };
    }
    let mut told = String::new();
    for file in &stale {
        write(folder, file)?;
        let _ = writeln!(told, "{}", shown(file));
    }
    let _ = writeln!(told, "{} of {total} files written", stale.len());
    Ok(told)
}

fn shown(file: &Rendered) -> String {
    file.path.display().to_string()
}
