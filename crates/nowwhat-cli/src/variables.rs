//! What the templates know of a service: its `deploy/nowwhat.toml`, and what follows from it.

use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Where a service says it, from its own folder.
pub(crate) const FILE: &str = "deploy/nowwhat.toml";

/// Longest name: that of a user of Linux.
const NAME_BYTES_MAX: usize = 32;

/// Longest setting: behind the service's name it is that of a file.
const SETTING_BYTES_MAX: usize = 200;

/// Most digits of what it may take of memory: gigabytes of so many digits are still a number of 64 bits.
const MEMORY_DIGITS_MAX: usize = 9;

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
    /// What it may take of memory: a whole number and `K`, `M` or `G`, as systemd and Kubernetes understand them.
    pub(crate) memory_max: String,
    /// Settings of its own that are secrets, which systemd hands over.
    #[serde(default)]
    pub(crate) credentials: Vec<String>,
    /// Routes that may take long: they do not count for the objective of latency.
    #[serde(default)]
    pub(crate) slow_routes: Vec<String>,
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
    #[error("{key} = {value:?} cannot be: {flaw}")]
    Value { key: &'static str, value: String, flaw: &'static str },
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
        if let Some((key, value, flaw)) = self.flaw() {
            return Err(VariablesError::Value { key, value, flaw });
        }
        // As nowwhat makes it.
        self.env_prefix = self.name.to_uppercase().replace('-', "_");
        Ok(self)
    }

    /// The first value that would be something else, or a command, where a template puts it: which, and why.
    fn flaw(&self) -> Option<(&'static str, String, &'static str)> {
        let label = |text: &str| text_flaw(text).or_else(|| label_flaw(text));
        let texts = [
            ("title", &self.title, label(&self.title)),
            ("description", &self.description, text_flaw(&self.description)),
            ("memory_max", &self.memory_max, memory_flaw(&self.memory_max)),
            ("maintainer", &self.maintainer, label(&self.maintainer)),
            ("repository", &self.repository, address_flaw(&self.repository)),
            ("license", &self.license, license_flaw(&self.license)),
        ];
        let arguments = self.arguments.iter().map(|text| ("arguments", text, argument_flaw(text)));
        let credentials = self.credentials.iter().map(|text| ("credentials", text, setting_flaw(text)));
        let slow_routes = self.slow_routes.iter().map(|text| ("slow_routes", text, route_flaw(text)));
        let ports = [("api_port", self.api_port), ("admin_port", self.admin_port)];
        let no_port = ports.into_iter().find(|(_, port)| *port == 0);
        let no_port = no_port.map(|(key, port)| (key, port.to_string(), "a port is from 1 to 65535"));
        let mut texts = texts.into_iter().chain(arguments).chain(credentials).chain(slow_routes);
        no_port.or_else(|| texts.find_map(|(key, text, flaw)| Some((key, text.clone(), flaw?))))
    }
}

/// What is wrong with a text, if anything: it stands in scripts, units, rules and JSON as it is.
fn text_flaw(text: &str) -> Option<&'static str> {
    let is_sign = |c: char| c.is_control() || is_unseen(c) || "\"\\$`%{}".contains(c);
    match text {
        _ if text.trim() != text || text.is_empty() => Some("it is not empty, and no blanks are around it"),
        _ if text.contains(is_sign) => Some("it is one line without \" \\ $ ` % { } and signs that nobody sees"),
        _ => None,
    }
}

/// Ends a line for YAML and others, turns what follows, or is seen by nobody.
fn is_unseen(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// What is wrong with an argument, if anything: the unit has it without quotes, and a `;` alone would end the command.
fn argument_flaw(text: &str) -> Option<&'static str> {
    let is_sign = |c: char| c.is_whitespace() || "';".contains(c);
    text_flaw(text).or_else(|| text.contains(is_sign).then_some("it has no blanks, no quotes and no ;"))
}

/// What is wrong with the name of a thing or of somebody, if anything: it also stands in YAML without quotes, and in the list of users.
fn label_flaw(text: &str) -> Option<&'static str> {
    match text {
        _ if !text.starts_with(char::is_alphanumeric) => Some("it begins with a letter or a digit"),
        _ if text.contains([':', '#']) => Some("it has neither : nor #"),
        _ => None,
    }
}

fn memory_flaw(size: &str) -> Option<&'static str> {
    let number = size.strip_suffix(['K', 'M', 'G']).unwrap_or_default();
    let is_whole = number.bytes().all(|byte| byte.is_ascii_digit()) && !number.starts_with('0') && !number.is_empty();
    // More, systemd takes for a mistake, and leaves the service without a bound.
    let is_size = is_whole && number.len() <= MEMORY_DIGITS_MAX;
    (!is_size).then_some("it is a whole number of at most 9 digits and K, M or G, such as 256M")
}

fn address_flaw(address: &str) -> Option<&'static str> {
    let rest = address.strip_prefix("https://").or_else(|| address.strip_prefix("http://")).unwrap_or_default();
    let is_sign = |c: char| c.is_ascii_alphanumeric() || "/.-_~:@+".contains(c);
    (rest.is_empty() || !rest.chars().all(is_sign)).then_some("it is an address such as https://example.com/shop")
}

fn license_flaw(license: &str) -> Option<&'static str> {
    let is_sign = |c: char| c.is_ascii_alphanumeric() || ".-+() ".contains(c);
    let begins = license.starts_with(|c: char| c.is_ascii_alphabetic() || c == '(');
    (!begins || !license.chars().all(is_sign)).then_some("it is written as SPDX does, such as MIT OR Apache-2.0")
}

fn setting_flaw(setting: &str) -> Option<&'static str> {
    let is_sign = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._".contains(c);
    // `..` would be a folder, and longer no name of a file.
    let is_setting = setting.len() <= SETTING_BYTES_MAX && setting.split('.').all(|part| !part.is_empty());
    (!is_setting || !setting.chars().all(is_sign)).then_some("it is a setting such as auth.admin_token")
}

fn route_flaw(route: &str) -> Option<&'static str> {
    let is_sign = |c: char| c.is_ascii_alphanumeric() || "/-_.{}*".contains(c);
    let is_route = route.starts_with('/') && route.chars().all(is_sign);
    (!is_route).then_some("it is a route such as /api/v1/query or /things/{id}: / and letters, digits, - _ . { } *")
}

/// Words of Rust in any edition: no crate can be used that has one as its name.
const WORDS: &str = "abstract as async await become box break const continue crate do dyn else enum extern false final fn for gen if impl in \
                     let loop macro match mod move mut override priv pub ref return self static struct super trait true try type typeof \
                     unsafe unsized use virtual where while yield";

/// Crates that the service is made with: its own would hide them.
const CRATES: &str = "nowwhat axum serde serde-json tokio tracing core std alloc test proc-macro";

/// Folders of cargo's beside the program.
const BUILD_FOLDERS: &str = "build deps examples incremental";

/// What a Debian has: the service's program, package, user, unit and folders would take its place.
const DEBIAN: &str = include_str!("debian.txt");

/// Why a name of [`DEBIAN`] is none for a service.
const HAS: &str = "a Debian has a program, a package, a user, a unit or a folder of this name";

/// What is wrong with a name, if anything: it is a crate's, a user's, a unit's and a folder's.
fn name_flaw(name: &str) -> Option<&'static str> {
    let is_legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let has = |names: &str| names.split_whitespace().any(|taken| taken == name);
    match name {
        _ if !name.starts_with(|c: char| c.is_ascii_lowercase()) => Some("it begins with a letter from a to z"),
        _ if !name.chars().all(is_legal) => Some("it has letters from a to z, digits and hyphens"),
        _ if name.ends_with('-') || name.contains("--") => Some("a hyphen stands between two others"),
        _ if name.len() > NAME_BYTES_MAX => Some("it has at most 32 characters"),
        _ if has(CRATES) => Some("a crate that it needs has this name"),
        _ if has(WORDS) => Some("it is a word of Rust"),
        _ if has(BUILD_FOLDERS) => Some("cargo keeps what it builds under this name"),
        _ if DEBIAN.lines().any(|line| !line.starts_with('#') && line.split(' ').any(|taken| taken == name)) => {
            Some(HAS)
        }
        _ if name.starts_with("systemd") => Some(HAS),
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

    #[test]
    fn no_name_is_taken_that_rust_cargo_or_the_system_has_for_something_else() {
        let flaw = |name: &str| name_flaw(name).unwrap_or("none");
        for (flawed, names) in [
            ("a crate that it needs has this name", ["serde-json", "proc-macro", "axum"]),
            ("it is a word of Rust", ["match", "gen", "self"]),
            ("cargo keeps what it builds under this name", ["deps", "build", "incremental"]),
            (HAS, ["root", "www-data", "systemd-shop"]),
            (HAS, ["ls", "paste", "login"]),
            (HAS, ["prometheus", "nginx", "ssl"]),
        ] {
            for name in names {
                assert_eq!(flaw(name), flawed, "{name}");
            }
        }
        for name in ["match-maker", "shop", "roots", "serde-jsonl", "from", "debootstrap", "ls-colors", "logins"] {
            assert_eq!(flaw(name), "none", "{name}");
        }
    }

    /// What is said of a file with this value, a piece of TOML.
    fn told(key: &str, value: &str) -> String {
        let old = TEXT.lines().find(|line| line.trim_start().starts_with(&format!("{key} = ")));
        let text = match old {
            Some(old) => TEXT.replace(old, &format!("{key} = {value}")),
            None => format!("{TEXT}\n{key} = {value}"),
        };
        read(&text).map_or_else(|error| error.to_string(), |_| "taken".to_owned())
    }

    #[test]
    fn no_value_is_taken_that_would_be_something_else_where_a_template_puts_it() {
        for (key, values) in [
            (
                "title",
                [
                    r#"'The "shop"'"#,
                    "'Shop: window'",
                    "'#1'",
                    "'[shop]'",
                    "''",
                    r#""a\nb""#,
                    r#""a\u2028b""#,
                    r#""a\u202eb""#,
                ]
                .as_slice(),
            ),
            (
                "description",
                &["'runs $(reboot)'", "'`reboot`'", r"'a \ b'", "'100 %'", "'{{ shop }}'", "' a '", r#""a\"b""#],
            ),
            (
                "memory_max",
                &[
                    "'9999999999G'",
                    "'lots'",
                    "'0'",
                    "'50%'",
                    "'300MiB'",
                    "'infinity'",
                    "'1.5G'",
                    "'M'",
                    "'012M'",
                    "'1T'",
                ],
            ),
            ("maintainer", &["'- Shop <shop@example.com>'", "'Shop: <shop@example.com>'"]),
            (
                "repository",
                &["'git@example.com:shop'", "'https://'", "'https://example.com/a b'", "'https://example.com/#a'"],
            ),
            ("license", &["'MIT\"'", "'MIT: all'", "''"]),
            ("api_port", &["0"]),
            ("arguments", &["['serve', '%h']", "[\"it's\"]", "['--x=a b']", "['serve', ';']"]),
            ("credentials", &["['auth.token', 'a b']", "['..']", "['.']", "['auth..token']", "['auth.']"]),
            (
                "slow_routes",
                &[
                    "['/a', '/b\"']",
                    "['.*']",
                    "['']",
                    "['/a|/b']",
                    "['/a+']",
                    "['/a b']",
                    "['/a\\d']",
                    "['/a$']",
                    "['a']",
                ],
            ),
        ] {
            for value in values {
                let refused = told(key, value);
                assert!(
                    refused.starts_with(&format!("{key} = ")) && refused.contains("cannot be: "),
                    "{value}: {refused}"
                );
            }
        }
    }

    #[test]
    fn what_stands_well_everywhere_is_taken() {
        for (key, value) in [
            ("title", "\"Bob's shop, the 2nd\""),
            ("description", "'keeps what is there: bread & more (a shop)'"),
            ("memory_max", "'999999999G'"),
            ("arguments", "['serve', '--name=Bérénice']"),
            // Quoted where YAML would take it for something else.
            ("title", "'null'"),
            ("license", "'MIT OR (Apache-2.0 WITH LLVM-exception)'"),
            ("credentials", "['auth.admin_token']"),
            ("slow_routes", "['/api/v1/export.csv', '/things/{id}', '/files/{*path}', '/a-b_c']"),
        ] {
            assert_eq!(told(key, value), "taken", "{key}");
        }
    }
}
