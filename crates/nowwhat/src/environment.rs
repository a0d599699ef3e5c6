//! The environment of the process, read once.

use crate::small_file::{Readable, read_text};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::Path;

/// Variables with their values. One that is not UTF-8 has no value; [`load`](crate::config::load()) reports it when its name begins as a
/// setting's does.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    variables: BTreeMap<String, String>,
    /// The names of variables that are not UTF-8, what cannot be shown replaced.
    unreadable: Vec<String>,
    /// What is wrong with files of variables, a sentence each.
    flaws: Vec<String>,
}

impl Environment {
    /// The environment of this process.
    pub fn of_process() -> Self {
        Self::of(std::env::vars_os())
    }

    fn of(variables: impl Iterator<Item = (OsString, OsString)>) -> Self {
        let mut environment = Self::default();
        for (name, value) in variables {
            match (name.into_string(), value.into_string()) {
                (Ok(name), Ok(value)) => drop(environment.variables.insert(name, value)),
                (Ok(name), Err(_)) => environment.unreadable.push(name),
                (Err(name), _) => environment.unreadable.push(name.to_string_lossy().into_owned()),
            }
        }
        environment
    }

    /// Adds what a file of lines `NAME=value` says, where the environment says nothing. A missing file says nothing; one that cannot be
    /// read is among the problems of the configuration.
    pub fn with_file(mut self, path: &Path) -> Self {
        let text = match read_text(path, Readable::Regular) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return self,
            Err(error) => {
                self.flaws.push(format!("{}: {error}", path.display()));
                return self;
            }
        };
        for line in text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')) {
            if let Some((name, value)) = line.split_once('=') {
                let value = value.trim().trim_matches('"').to_owned();
                self.variables.entry(name.trim().to_owned()).or_insert(value);
            }
        }
        self
    }

    /// The value of a variable; none when it is not set or empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str).filter(|v| !v.is_empty())
    }

    /// All variables whose name begins with `prefix`.
    pub(crate) fn with_prefix<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        let pairs = self.variables.iter().filter(move |(name, _)| name.starts_with(prefix));
        pairs.map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// What is wrong with variables that this program would read, and with files of variables.
    pub(crate) fn problems<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = String> + use<'a> {
        let ours = move |name: &&String| name.starts_with(prefix) || *name == "CREDENTIALS_DIRECTORY";
        let variables = self.unreadable.iter().filter(ours);
        let variables = variables.map(|name| format!("environment {name}: its name or its value is not UTF-8"));
        variables.chain(self.flaws.iter().cloned())
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Environment {
    fn from_iter<T: IntoIterator<Item = (N, V)>>(pairs: T) -> Self {
        let variables = pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        Self { variables, ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStringExt;

    #[test]
    fn what_is_not_utf8_or_no_readable_file_is_a_problem_where_it_would_be_read() {
        let bytes = |text: &[u8]| OsString::from_vec(text.to_vec());
        let given: [(&[u8], &[u8]); 3] =
            [(b"BAKERY_OVEN__KEY", b"\xffhidden"), (b"BAKERY_\xff", b"x"), (b"OTHER", b"\xff")];
        let environment = Environment::of(given.into_iter().map(|(name, value)| (bytes(name), bytes(value))));
        let found: Vec<_> = environment.problems("BAKERY_").collect();
        assert_eq!(
            found,
            [
                "environment BAKERY_OVEN__KEY: its name or its value is not UTF-8",
                "environment BAKERY_\u{fffd}: its name or its value is not UTF-8",
            ]
        );
        let with = |path: &str| Environment::default().with_file(Path::new(path)).problems("BAKERY_").count();
        assert_eq!((with("/nowhere/.env"), with("/dev/zero"), with("/")), (0, 1, 1));
    }
}
