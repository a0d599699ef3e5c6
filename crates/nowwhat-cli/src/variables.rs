//! What the templates know of a service: its `deploy/nowwhat.toml`, and what follows from it.

use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Where a service says it, from its own folder.
pub(crate) const FILE: &str = "deploy/nowwhat.toml";

/// Longest name: that of a user of Linux.
const NAME_BYTES_MAX: usize = 32;

/// What a service says of itself. Program, system user, group, /var/lib/NAME, /etc/NAME/NAME.toml and the unit follow from `name`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Variables {
    pub(crate) name: String,
    /// Its name for people.
    pub(crate) title: String,
    /// What it does, in half a sentence.
    pub(crate) description: String,
    /// What the program is called with to serve.
    #[serde(default)]
    pub(crate) arguments: Vec<String>,
    /// Port of the public listener.
    pub(crate) api_port: u16,
    /// Port of the admin listener.
    pub(crate) admin_port: u16,
    /// What it may take of memory, as systemd writes sizes.
    pub(crate) memory_max: String,
    /// Settings of its own that are secrets, which systemd hands over.
    #[serde(default)]
    pub(crate) credentials: Vec<String>,
    /// Whom to write to: `Name <address>`.
    pub(crate) maintainer: String,
    /// Address of the source.
    pub(crate) repository: String,
    /// As SPDX writes it.
    pub(crate) license: String,
    /// What its variables begin with, without the underscore. It follows from the name.
    #[serde(skip_deserializing)]
    pub(crate) env_prefix: String,
}

/// A service that does not say what the templates need.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VariablesError {
    #[error("cannot read {}: run this in the folder of a service that has it", .0.display())]
    Read(PathBuf, #[source] std::io::Error),
    #[error("{}", .0.display())]
    Form(PathBuf, #[source] toml::de::Error),
    #[error("{0:?} cannot be the name of a service: {1}")]
    Name(String, &'static str),
    #[error("api_port and admin_port are both {0}")]
    SamePort(u16),
}

impl Variables {
    /// Reads those of the service in a folder.
    pub(crate) fn read(folder: &Path) -> Result<Self, VariablesError> {
        let file = folder.join(FILE);
        let text = std::fs::read_to_string(&file).map_err(|error| VariablesError::Read(file.clone(), error))?;
        let variables: Self = toml::from_str(&text).map_err(|error| VariablesError::Form(file, error))?;
        variables.complete()
    }

    /// What follows from the name; refuses what cannot be.
    pub(crate) fn complete(mut self) -> Result<Self, VariablesError> {
        if let Some(flaw) = name_flaw(&self.name) {
            return Err(VariablesError::Name(self.name, flaw));
        }
        if self.api_port == self.admin_port {
            return Err(VariablesError::SamePort(self.api_port));
        }
        // As nowwhat makes it.
        self.env_prefix = self.name.to_uppercase().replace('-', "_");
        Ok(self)
    }
}

/// What is wrong with a name, if anything: it is a crate's, a user's, a unit's and a folder's.
fn name_flaw(name: &str) -> Option<&'static str> {
    let is_legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    match name {
        _ if !name.starts_with(|c: char| c.is_ascii_lowercase()) => Some("it begins with a letter from a to z"),
        _ if !name.chars().all(is_legal) => Some("it has letters from a to z, digits and hyphens"),
        _ if name.ends_with('-') || name.contains("--") => Some("a hyphen stands between two others"),
        _ if name.len() > NAME_BYTES_MAX => Some("it has at most 32 characters"),
        // Crates of these names would hide those that the service is made with.
        "nowwhat" | "axum" | "serde" | "tokio" | "tracing" | "core" | "std" | "alloc" | "test" | "proc-macro" => {
            Some("a crate that it needs has this name")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
        name = "shop-window"
        title = "Shop window"
        description = "shows what there is"
        api_port = 8000
        admin_port = 8001
        memory_max = "256M"
        maintainer = "Shop <shop@example.com>"
        repository = "https://example.com/shop"
        license = "MIT"
    "#;

    fn read(text: &str) -> Result<Variables, VariablesError> {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(dir.path().join("deploy")).expect("made");
        std::fs::write(dir.path().join(FILE), text).expect("written");
        Variables::read(dir.path())
    }

    #[test]
    fn the_prefix_of_variables_follows_from_the_name() {
        assert_eq!(read(TEXT).expect("read").env_prefix, "SHOP_WINDOW");
    }

    #[test]
    fn what_is_missing_unknown_or_impossible_is_refused() {
        let refused = |text: &str| format!("{:?}", read(text).expect_err("it is refused"));
        assert!(refused(&TEXT.replace("license", "# license")).contains("license"));
        assert!(refused(&format!("{TEXT}\nports = 1")).contains("ports"));
        assert!(refused(&TEXT.replace("8001", "8000")).contains("SamePort"));
        for name in ["", "Shop", "9shop", "shop_window", "shop-", "a--b", "nowwhat", &"a".repeat(33)] {
            assert!(refused(&TEXT.replace("shop-window", name)).contains("Name("), "{name}");
        }
        assert!(matches!(Variables::read(Path::new("/nowhere")), Err(VariablesError::Read(..))));
    }
}
