//! `nowwhat deploy`: writes `deploy/` of a service, or tells whether it is current; begins what is the service's own there and missing.

use crate::files::{FileError, is_current, is_there, write};
use crate::templates::{Extra, RenderError, Rendered, Set, render};
use crate::variables::{FILE, Variables, VariablesError};
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
    for file in own(&variables)?.iter().filter(|file| !is_there(folder, file)) {
        write(folder, file)?;
        let _ = writeln!(told, "{}, yours from now on", shown(file));
    }
    let _ = writeln!(told, "{} of {total} files written", stale.len());
    Ok(told)
}

/// What the templates refer to below `deploy/` and the service says itself: begun as for a new one, and never written over.
fn own(variables: &Variables) -> Result<Vec<Rendered>, RenderError> {
    let files = render(Set::Service, variables, &Extra::default())?;
    let is_own = |file: &Rendered| file.path.starts_with("deploy") && file.path != Path::new(FILE);
    Ok(files.into_iter().filter(is_own).collect())
}

fn shown(file: &Rendered) -> String {
    file.path.display().to_string()
}
