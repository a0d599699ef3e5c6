//! `nowwhat new NAME`: writes a service into a folder of its own.

use crate::files::{FileError, write};
use crate::templates::{Extra, RenderError, Set, render};
use crate::variables::{Variables, VariablesError};
use clap::Args;
use std::path::{Path, PathBuf};

/// Which service, and what it is made with.
#[derive(Args)]
pub(crate) struct NewArgs {
    /// Its name: of the program, the crate, the system user and the unit. Letters from a to z, digits and hyphens.
    name: String,
    /// Folder to write it into; it is made [default: NAME].
    #[arg(long, value_name = "DIR")]
    path: Option<PathBuf>,
    /// Take nowwhat from this folder [default: that of the clone which this program was built in].
    #[arg(long, value_name = "DIR", conflicts_with = "nowwhat_git")]
    nowwhat_path: Option<PathBuf>,
    /// Take nowwhat from this repository of git.
    #[arg(long, value_name = "URL")]
    nowwhat_git: Option<String>,
}

/// Why there is no new service.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NewError {
    #[error(transparent)]
    Variables(#[from] VariablesError),
    #[error(transparent)]
    Render(#[from] RenderError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{} is there already and not empty: nothing is written over it", .0.display())]
    Taken(PathBuf),
    #[error("{}: there is no nowwhat in it; say where it is with --nowwhat-path DIR or --nowwhat-git URL", .0.display())]
    NoNowwhat(PathBuf, #[source] std::io::Error),
}

/// Writes the service, and says what to do next.
pub(crate) fn run(args: &NewArgs) -> Result<String, NewError> {
    let variables = begun(&args.name).complete()?;
    let folder = args.path.clone().unwrap_or_else(|| PathBuf::from(&args.name));
    if std::fs::read_dir(&folder).is_ok_and(|mut entries| entries.next().is_some()) || folder.is_file() {
        return Err(NewError::Taken(folder));
    }
    let extra = Extra { nowwhat: nowwhat(args)?, rust_version: env!("CARGO_PKG_RUST_VERSION") };
    let mut files = render(Set::Service, &variables, &extra)?;
    files.extend(render(Set::Deploy, &variables, &extra)?);
    for file in &files {
        write(&folder, file)?;
    }
    Ok(told(&folder, files.len(), &extra.nowwhat))
}

/// What a new service says of itself, to be made true by whoever has it.
fn begun(name: &str) -> Variables {
    let words = name.replace('-', " ");
    let mut letters = words.chars();
    let title = letters.next().map(|first| first.to_uppercase().collect::<String>() + letters.as_str());
    Variables {
        name: name.to_owned(),
        title: title.unwrap_or_default(),
        description: "A service on nowwhat".to_owned(),
        arguments: Vec::new(),
        api_port: 8000,
        admin_port: 8001,
        memory_max: "256M".to_owned(),
        credentials: Vec::new(),
        slow_routes: Vec::new(),
        maintainer: "Operations <operations@example.com>".to_owned(),
        repository: format!("https://example.com/{name}"),
        license: "MIT OR Apache-2.0".to_owned(),
        env_prefix: String::new(),
    }
}

/// The entry of `Cargo.toml`.
fn nowwhat(args: &NewArgs) -> Result<String, NewError> {
    if let Some(git) = &args.nowwhat_git {
        return Ok(format!("{{ git = {git:?} }}"));
    }
    // It is on no registry, where anybody could take its name.
    let path = args.nowwhat_path.as_deref().unwrap_or(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../nowwhat")));
    let manifest = path.join("Cargo.toml").canonicalize();
    let manifest = manifest.map_err(|error| NewError::NoNowwhat(path.to_owned(), error))?;
    Ok(format!("{{ path = {:?} }}", manifest.parent().unwrap_or(path).display().to_string()))
}

fn told(folder: &Path, files: usize, nowwhat: &str) -> String {
    let folder = folder.display();
    let elsewhere = match nowwhat.starts_with("{ path") {
        true => format!(
            "It takes nowwhat from this machine, {nowwhat}; for others name its repository in Cargo.toml, as --nowwhat-git does.\n"
        ),
        false => String::new(),
    };
    format!("{files} files in {folder}; go on with:\n\n  cd {folder}\n  make run\n  make test\n\n{elsewhere}")
}
