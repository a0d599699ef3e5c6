//! Reading all sources, and finding everything that is wrong with them.

use super::file;
use super::spec::{Spec, by_section};
use super::value::Value;
use crate::environment::Environment;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

/// Where settings may come from, besides the environment.
#[derive(Clone, Debug)]
pub struct Sources {
    /// The program's name: `bakery` reads `BAKERY_…` and `/etc/bakery/bakery.toml`.
    pub name: &'static str,
    /// `--config`: the file, which must exist.
    pub config: Option<PathBuf>,
    /// `--env`: the name of the environment.
    pub env: Option<String>,
    /// Flags that are settings: `section.key`, value, the flag's name.
    pub flags: Vec<(&'static str, String, &'static str)>,
    /// Variables without a section that the program reads itself, without its prefix: `URL` for `BAKERY_URL`. `ENV` and `CONFIG` are
    /// always among them.
    pub reserved: &'static [&'static str],
}

impl Sources {
    /// The name of the environment, when it is said.
    pub(crate) fn environment_name<'a>(&'a self, environment: &'a Environment) -> Option<&'a str> {
        self.env.as_deref().or_else(|| environment.get(&format!("{}ENV", prefix(self.name))))
    }

    /// The sources of a program without any flag given.
    pub fn of(name: &'static str) -> Self {
        Self { name, config: None, env: None, flags: Vec::new(), reserved: &[] }
    }
}

/// What the variables of a program begin with: `BAKERY_` for `bakery`.
pub(crate) fn prefix(name: &str) -> String {
    format!("{}_", name.to_uppercase().replace('-', "_"))
}

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

/// A value with its origin.
#[derive(Clone, Debug)]
pub struct Given {
    /// The text, interpolated.
    pub text: String,
    /// Where it came from.
    pub origin: Origin,
    /// Whether it is never shown: the setting is a secret, or its text is made of one.
    pub secret: bool,
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

/// Valid settings with their origins.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// Name of the environment: `dev`, `qa`, `staging`, `prod`.
    pub env: String,
    /// Variables with the program's prefix that are no settings.
    pub ignored: Vec<String>,
    pub(super) specs: Vec<Spec>,
    pub(super) values: BTreeMap<String, Given>,
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
        let text = &self.given(&format!("{section}.{key}")).text;
        T::parse(text).unwrap_or_else(|| panic!("{section}.{key} was checked when it was loaded"))
    }

    /// Which settings have another text in `newer`, which was loaded for the same declarations. Where a text came from does not
    /// matter.
    pub fn changes(&self, newer: &Self) -> Changes {
        let mut changes = Changes::default();
        for spec in by_section(&self.specs) {
            let name = spec.name();
            if self.given(&name).text != newer.given(&name).text {
                let kind = if spec.reloadable { &mut changes.reloadable } else { &mut changes.at_start };
                kind.push(name);
            }
        }
        changes
    }

    /// The newer settings, but what cannot be reloaded as it is here.
    pub fn reloaded(&self, newer: &Self) -> Self {
        let mut reloaded = newer.clone();
        for spec in self.specs.iter().filter(|spec| !spec.reloadable) {
            reloaded.values.insert(spec.name(), self.given(&spec.name()).clone());
        }
        reloaded
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

/// Reads all sources.
///
/// # Errors
/// [`Problems`]: all of them.
///
/// # Panics
/// When a setting is declared twice.
pub fn load(specs: &[Spec], sources: &Sources, environment: &Environment) -> Result<Loaded, Problems> {
    // Before anything is read: such a program is wrong whatever it is given.
    drop(by_section(specs));
    let prefix = prefix(sources.name);
    let env = sources.environment_name(environment).unwrap_or("prod").to_owned();
    let mut loading = Loading { specs, given: BTreeMap::new(), problems: Vec::new(), ignored: Vec::new() };
    if env.is_empty() || !env.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_') {
        loading.problems.push(format!("the environment's name {env:?} is not made of letters, digits, - and _"));
    }
    loading.files(sources, environment.get(&format!("{prefix}CONFIG")), &env);
    loading.credentials(environment);
    loading.variables(environment, &prefix, sources.reserved);
    for (name, text, flag) in &sources.flags {
        loading.give(name, text.clone(), Origin::Flag(flag));
    }
    loading.finish(env)
}

struct Loading<'a> {
    specs: &'a [Spec],
    given: BTreeMap<String, Given>,
    problems: Vec<String>,
    ignored: Vec<String>,
}

impl Loading<'_> {
    fn files(&mut self, sources: &Sources, variable: Option<&str>, env: &str) {
        let named = sources.config.clone().or_else(|| variable.map(PathBuf::from));
        let must_exist = named.is_some();
        let path = named.unwrap_or_else(|| PathBuf::from(format!("/etc/{0}/{0}.toml", sources.name)));
        if must_exist || path.exists() {
            self.file(&path);
        }
        let of_env = path.with_file_name(format!("{}.{env}.toml", sources.name));
        if of_env != path && of_env.exists() {
            self.file(&of_env);
        }
    }

    fn file(&mut self, path: &Path) {
        match file::read(path) {
            Ok(entries) => {
                for entry in entries {
                    self.give(&entry.name, entry.text, Origin::File(path.to_path_buf(), entry.line));
                }
            }
            Err(problems) => self.problems.extend(problems),
        }
    }

    /// systemd's credentials: files named `section.key`.
    fn credentials(&mut self, environment: &Environment) {
        let Some(folder) = environment.get("CREDENTIALS_DIRECTORY") else {
            return;
        };
        for spec in self.specs.iter().filter(|s| s.secret) {
            let path = Path::new(folder).join(spec.name());
            if path.exists() {
                self.secret_file(&spec.name(), &path, Origin::Credential(path.clone()));
            }
        }
    }

    fn variables(&mut self, environment: &Environment, prefix: &str, reserved: &[&str]) {
        for (variable, value) in environment.with_prefix(prefix) {
            let rest = &variable[prefix.len()..];
            match rest.split_once("__") {
                Some((section, key)) => {
                    let name = format!("{}.{}", section.to_lowercase(), key.to_lowercase());
                    self.give(&name, value.to_owned(), Origin::Variable(variable.to_owned()));
                }
                None if ["ENV", "CONFIG"].contains(&rest) || reserved.contains(&rest) => {}
                None => self.ignored.push(variable.to_owned()),
            }
        }
    }

    fn give(&mut self, name: &str, text: String, origin: Origin) {
        if self.specs.iter().any(|s| s.name() == name) {
            self.given.insert(name.to_owned(), Given { text, origin, secret: false });
            return;
        }
        let secret = name.strip_suffix("_file").filter(|n| self.specs.iter().any(|s| s.secret && s.name() == *n));
        match secret {
            Some(secret) => self.secret_file(secret, Path::new(&text), origin),
            None => {
                let hint = nearest(name, self.specs).map(|n| format!("; did you mean {n}?")).unwrap_or_default();
                self.problems.push(format!("unknown key {name} ({origin}){hint}"));
            }
        }
    }

    fn secret_file(&mut self, name: &str, path: &Path, origin: Origin) {
        match std::fs::read_to_string(path) {
            Ok(text) => {
                let text = text.trim_end().to_owned();
                self.given.insert(name.to_owned(), Given { text, origin, secret: true });
            }
            Err(error) => self.problems.push(format!("{name}: cannot read {}: {error} ({origin})", path.display())),
        }
    }

    fn finish(mut self, env: String) -> Result<Loaded, Problems> {
        let mut values: BTreeMap<String, Given> = BTreeMap::new();
        for spec in self.specs {
            let default = || Given { text: spec.default.to_owned(), origin: Origin::Default, secret: false };
            let given = self.given.remove(&spec.name()).unwrap_or_else(default);
            values.insert(spec.name(), Given { secret: spec.secret, ..given });
        }
        let plain = values.clone();
        for spec in self.specs {
            let given = values.get_mut(&spec.name()).expect("just put in");
            match interpolated(&given.text, &plain) {
                Ok((text, of_secrets)) => {
                    given.text = text;
                    given.secret |= of_secrets;
                }
                Err(flaw) => self.problems.push(format!("{}: {flaw} ({})", spec.name(), given.origin)),
            }
            if let Some(flaw) = spec.flaw(&given.text) {
                let shown = if given.secret { "***".to_owned() } else { format!("{:?}", given.text) };
                self.problems.push(format!("{} = {shown}: {flaw} ({})", spec.name(), given.origin));
            }
        }
        if self.problems.is_empty() {
            Ok(Loaded { env, ignored: self.ignored, specs: self.specs.to_vec(), values })
        } else {
            Err(Problems(self.problems))
        }
    }
}

/// `${section.key}` replaced by what that setting says itself, and whether one of these is a secret.
fn interpolated(text: &str, values: &BTreeMap<String, Given>) -> Result<(String, bool), String> {
    let (mut out, mut of_secrets) = (String::new(), false);
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        let (name, behind) = after.split_once('}').ok_or("`${` without `}`")?;
        let value = values.get(name).ok_or_else(|| format!("${{{name}}} is no setting"))?;
        if value.text.contains("${") {
            return Err(format!("${{{name}}} is itself made of others"));
        }
        out += before;
        out += &value.text;
        of_secrets |= value.secret;
        rest = behind;
    }
    Ok((out + rest, of_secrets))
}

/// The declared name that looks most like an unknown one, when it looks alike at all.
fn nearest(name: &str, specs: &[Spec]) -> Option<String> {
    let distances = specs.iter().map(|s| (distance(name, &s.name()), s.name()));
    distances.min().filter(|(far, _)| *far <= 1 + name.len() / 4).map(|(_, name)| name)
}

/// Levenshtein's distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let cost = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = cost.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests;
