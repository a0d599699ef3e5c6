//! What was loaded: valid settings with their origins, or everything that is wrong with them.

use super::spec::{Spec, by_section};
use super::value::Value;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody said anything.
    Default,
    /// A file and its line.
    File(PathBuf, usize),
    /// A systemd credential.
    Credential(PathBuf),
    /// A variable of the environment.
    Variable(String),
    /// A flag of the command line.
    Flag(&'static str),
}

impl Origin {
    /// Whether both are of one source, in which none comes before the other.
    pub(super) fn is_beside(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::File(one, _), Self::File(other, _)) => one == other,
            (Self::Variable(_), Self::Variable(_)) => true,
            _ => false,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path, line) => write!(f, "{} line {line}", path.display()),
            Self::Credential(path) => write!(f, "credential {}", path.display()),
            Self::Variable(name) => write!(f, "environment {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// A value with its origin. `Debug` does not show a secret.
#[derive(Clone)]
pub struct Given {
    /// The text, interpolated.
    pub text: String,
    /// Where it came from.
    pub origin: Origin,
    /// Whether it is never shown: the setting is a secret, or its text is made of one.
    pub secret: bool,
    /// Whether its text took something from a secret by interpolation.
    pub(super) of_secret: bool,
    /// The settings whose text stands in it.
    pub(super) of: Vec<String>,
}

impl fmt::Debug for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = if self.secret { "***" } else { &self.text };
        f.debug_struct("Given").field("text", &text).field("origin", &self.origin).finish_non_exhaustive()
    }
}

/// Everything that is wrong with the configuration, a sentence each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(pub Vec<String>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl std::error::Error for Problems {}

/// A variable with the program's prefix that is no setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ignored {
    /// Its name.
    pub name: String,
    /// The variable of a setting that differs by one underscore.
    pub meant: Option<String>,
}

impl Ignored {
    /// What is told of a variable that may be meant otherwise.
    pub(crate) fn note(&self) -> Option<String> {
        let meant = self.meant.as_ref()?;
        Some(format!("note: {} is no setting and ignored; did you mean {meant}?", self.name))
    }
}

/// Valid settings with their origins.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// Name of the environment: `dev`, `qa`, `staging`, `prod`.
    pub env: String,
    /// Variables with the program's prefix that are no settings.
    pub ignored: Vec<Ignored>,
    pub(super) specs: Vec<Spec>,
    pub(super) values: BTreeMap<String, Given>,
    /// Flaws of settings that only a new start takes over, each with the setting's name: after a reading while the service runs. In the place
    /// of their values stand defaults.
    pub(super) flaws: Vec<(String, String)>,
}

impl Loaded {
    /// A value with its origin.
    ///
    /// # Panics
    /// When the setting was not declared.
    pub fn given(&self, name: &str) -> &Given {
        self.values.get(name).unwrap_or_else(|| panic!("{name} is not declared"))
    }

    /// The typed value of a setting.
    ///
    /// # Panics
    /// When the setting was not declared with this type.
    pub fn value<T: Value>(&self, section: &str, key: &str) -> T {
        let given = self.given(&format!("{section}.{key}"));
        let value = T::parse(&given.text);
        let value = value.unwrap_or_else(|| panic!("{section}.{key} was checked when it was loaded"));
        if given.of_secret { value.masked() } else { value }
    }

    /// Flaws of settings that only a new start takes over, each with the setting's name.
    pub(crate) fn flaws(&self) -> &[(String, String)] {
        &self.flaws
    }

    fn is_flawed(&self, name: &str) -> bool {
        self.flaws.iter().any(|(flawed, _)| flawed == name)
    }

    /// Which settings have another text in `newer`, which was loaded for the same declarations. Where a text came from does not
    /// matter. What is made of a setting that waits for a new start waits with it.
    pub fn changes(&self, newer: &Self) -> Changes {
        let differs = |name: &str| self.given(name).text != newer.given(name).text;
        let at_start: Vec<String> = self.specs.iter().filter(|s| !s.reloadable).map(Spec::name).collect();
        let waits = |name: &String| at_start.contains(name) && (newer.is_flawed(name) || differs(name));
        let mut changes = Changes::default();
        for spec in by_section(&self.specs) {
            let name = spec.name();
            if differs(&name) && !newer.is_flawed(&name) {
                let taken_over = spec.reloadable && !newer.given(&name).of.iter().any(waits);
                let kind = if taken_over { &mut changes.reloadable } else { &mut changes.at_start };
                kind.push(name);
            }
        }
        changes
    }

    /// The newer settings, but what cannot be reloaded as it is here.
    pub fn reloaded(&self, newer: &Self) -> Self {
        let mut reloaded = self.with_flaws_mended(newer);
        // What says the same has its newest origin.
        for name in self.changes(newer).at_start {
            reloaded.keep(&name, self);
        }
        reloaded
    }

    /// The newer settings as the next start would find them, but those that are flawed as they are here.
    pub(crate) fn with_flaws_mended(&self, newer: &Self) -> Self {
        let mut mended = newer.clone();
        for (name, _) in std::mem::take(&mut mended.flaws) {
            mended.keep(&name, self);
        }
        mended
    }

    /// Leaves a setting as it is in `older`, which was loaded for the same declarations.
    pub(crate) fn keep(&mut self, name: &str, older: &Self) {
        self.values.insert(name.to_owned(), older.given(name).clone());
    }

    /// Whether errors may show their causes to clients.
    pub fn is_dev(&self) -> bool {
        self.env == "dev"
    }
}

/// What is different after the sources were read again, by name, in the order of declaration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Settings that the running service takes over.
    pub reloadable: Vec<String>,
    /// Settings that only a new start takes over.
    pub at_start: Vec<String>,
}
