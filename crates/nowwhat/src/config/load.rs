//! Reading all sources, and finding everything that is wrong with them.

use super::file;
use super::hint::nearest;
use super::interpolation::{Flaw, Part, interpolated, parts};
use super::loaded::{Given, Ignored, Loaded, Origin, Problems};
use super::spec::{Spec, by_section};
use crate::environment::Environment;
use crate::small_file::{Readable, read_text};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The names that an environment can have.
const ENVIRONMENTS: [&str; 4] = ["dev", "qa", "staging", "prod"];

/// What stands for the text of a file that was not opened; it is secret and shown to nobody.
const UNREAD: &str = "unread";

/// Unknown keys that are told one by one, and so many flaws of one file; further ones are counted.
const TOLD_MAX: usize = 20;

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
    /// The name of the environment, when it is said, and where.
    pub(crate) fn environment_name<'a>(&'a self, environment: &'a Environment) -> Option<(&'a str, Origin)> {
        let variable = format!("{}ENV", prefix(self.name));
        match &self.env {
            Some(name) => Some((name, Origin::Flag("--env"))),
            None => environment.get(&variable).map(|name| (name, Origin::Variable(variable))),
        }
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

/// When sources are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// For the first time: a configuration file can be a pipe.
    First,
    /// Once more, while the service runs.
    Again,
    /// To show what is set: files of secrets are not opened.
    Shown,
}

/// Reads all sources.
///
/// # Errors
/// [`Problems`]: all of them.
///
/// # Panics
/// When a setting is declared twice.
pub fn load(specs: &[Spec], sources: &Sources, environment: &Environment) -> Result<Loaded, Problems> {
    find(specs, sources, environment, Turn::First).result()
}

/// Something that is wrong.
struct Problem {
    /// The setting that has no value because of it, when it is that of one.
    setting: Option<String>,
    sentence: String,
}

impl From<String> for Problem {
    fn from(sentence: String) -> Self {
        Self { setting: None, sentence }
    }
}

/// What was read, and everything that is wrong with it.
pub(crate) struct Found {
    /// The settings, with the default in place of each that is flawed.
    pub(crate) loaded: Loaded,
    problems: Vec<Problem>,
    flawed: BTreeSet<String>,
    /// Those whose default is none that could be given either.
    missing: BTreeSet<String>,
}

impl Found {
    /// Whether each of these settings has a value of its type.
    pub(crate) fn has(&self, specs: &[Spec]) -> bool {
        specs.iter().all(|spec| !self.missing.contains(&spec.name()))
    }

    /// Adds what several settings together have wrong. A sentence that names a flawed setting may only follow from its default, and is left
    /// out.
    pub(crate) fn add(&mut self, mut problems: Vec<String>) {
        leave_out(&mut problems, self.flawed.iter().map(String::as_str));
        self.problems.extend(problems.into_iter().map(Problem::from));
    }

    /// For a service that runs: flaws of settings that only a start takes over are put aside, for [`Loaded::flaws`].
    pub(crate) fn put_aside(mut self) -> Self {
        let specs = &self.loaded.specs;
        let is_reloadable = |name: &String| specs.iter().any(|spec| spec.reloadable && spec.name() == *name);
        let mut stopping = Vec::new();
        for problem in self.problems {
            match problem.setting.filter(|name| !is_reloadable(name)) {
                Some(name) => self.loaded.flaws.push((name, problem.sentence)),
                None => stopping.push(problem.sentence.into()),
            }
        }
        Self { problems: stopping, ..self }
    }

    /// The settings when nothing is wrong, else all problems, with the variables that may be meant otherwise.
    pub(crate) fn result(mut self) -> Result<Loaded, Problems> {
        if self.problems.is_empty() {
            return Ok(self.loaded);
        }
        self.problems.extend(self.loaded.ignored.iter().filter_map(Ignored::note).map(Problem::from));
        Err(Problems(self.problems.into_iter().map(|problem| problem.sentence).collect()))
    }
}

/// Leaves out what names a flawed setting: it may only follow from what stands in the place of its value.
pub(crate) fn leave_out<'a>(problems: &mut Vec<String>, flawed: impl Iterator<Item = &'a str> + Clone) {
    let goes_on = |after: &str| after.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
    let names = |problem: &str, name: &str| {
        problem.match_indices(name).any(|(start, _)| !goes_on(&problem[start + name.len()..]))
    };
    problems.retain(|problem| !flawed.clone().any(|name| names(problem, name)));
}

/// Reads all sources as [`load()`] does, and goes on where it ends.
pub(crate) fn find(specs: &[Spec], sources: &Sources, environment: &Environment, turn: Turn) -> Found {
    // Before anything is read: such a program is wrong whatever it is given.
    drop(by_section(specs));
    let prefix = prefix(sources.name);
    let (env, origin) = sources.environment_name(environment).unwrap_or(("prod", Origin::Default));
    let mut loading = Loading {
        specs: specs.iter().map(|spec| (spec.name(), spec)).collect(),
        given: BTreeMap::new(),
        flawed: BTreeSet::new(),
        problems: environment.problems(&prefix).map(Problem::from).collect(),
        turn,
        unknown: 0,
        ignored: Vec::new(),
    };
    let is_known = ENVIRONMENTS.contains(&env);
    if !is_known {
        let hint = meant_environment(env).map(|name| format!("; did you mean {name}?")).unwrap_or_default();
        let problem = format!("the environment's name {env:?} is none of {} ({origin}){hint}", ENVIRONMENTS.join(", "));
        loading.problems.push(problem.into());
    }
    let readable = if turn == Turn::Again { Readable::Again } else { Readable::Once };
    for path in files(sources, environment.get(&format!("{prefix}CONFIG")), is_known.then_some(env)) {
        loading.file(&path, readable);
    }
    loading.credentials(environment);
    loading.variables(environment, &prefix, sources.reserved);
    for (name, text, flag) in &sources.flags {
        loading.give(name, text.clone(), Origin::Flag(flag));
    }
    loading.finish(specs, env.to_owned())
}

fn meant_environment(env: &str) -> Option<&'static str> {
    let lower = env.to_lowercase();
    let longer = ENVIRONMENTS.into_iter().find(|name| lower.starts_with(name));
    longer.or_else(|| nearest(&lower, ENVIRONMENTS.into_iter()))
}

/// The configuration file and that of the environment, as far as they exist or must.
fn files(sources: &Sources, variable: Option<&str>, env: Option<&str>) -> Vec<PathBuf> {
    let named = sources.config.clone().or_else(|| variable.map(PathBuf::from));
    let must_exist = named.is_some();
    let path = named.unwrap_or_else(|| PathBuf::from(format!("/etc/{0}/{0}.toml", sources.name)));
    let of_env = env.map(|env| path.with_file_name(format!("{}.{env}.toml", sources.name)));
    let of_env = of_env.filter(|of_env| *of_env != path && may_exist(of_env));
    let path = (must_exist || may_exist(&path)).then_some(path);
    path.into_iter().chain(of_env).collect()
}

/// Whether there is such a file, or nobody may look: reading it then says why.
fn may_exist(path: &Path) -> bool {
    !matches!(path.try_exists(), Ok(false))
}

/// What a source says of a setting.
struct Said {
    text: Text,
    origin: Origin,
}

enum Text {
    /// With other settings in it, perhaps.
    Interpolated(String),
    /// What a secret's file holds.
    AsItIs(String),
    /// A secret's file that was not opened.
    Unread,
}

struct Loading<'a> {
    specs: BTreeMap<String, &'a Spec>,
    given: BTreeMap<String, Said>,
    flawed: BTreeSet<String>,
    problems: Vec<Problem>,
    turn: Turn,
    unknown: usize,
    ignored: Vec<Ignored>,
}

impl Loading<'_> {
    fn file(&mut self, path: &Path, readable: Readable) {
        let file::Said { entries, flaws } = file::read(path, readable);
        let untold = flaws.len().saturating_sub(TOLD_MAX);
        self.problems.extend(flaws.into_iter().take(TOLD_MAX).map(Problem::from));
        if untold > 0 {
            self.problems.push(format!("{}: {untold} further such lines", path.display()).into());
        }
        for entry in entries {
            self.give(&entry.name, entry.text, Origin::File(path.to_path_buf(), entry.line));
        }
    }

    /// systemd's credentials: files named `section.key`.
    fn credentials(&mut self, environment: &Environment) {
        let Some(folder) = environment.get("CREDENTIALS_DIRECTORY") else {
            return;
        };
        let secrets: Vec<String> = self.specs.values().filter(|s| s.secret).map(|s| s.name()).collect();
        for name in secrets {
            let path = Path::new(folder).join(&name);
            if may_exist(&path) {
                self.secret_file(&name, &path, Origin::Credential(path.clone()));
            }
        }
    }

    fn variables(&mut self, environment: &Environment, prefix: &str, reserved: &[&str]) {
        for (variable, value) in environment.with_prefix(prefix) {
            let rest = &variable[prefix.len()..];
            match rest.split_once("__") {
                Some((section, key)) if section.is_empty() || key.is_empty() => {
                    let missing = if key.is_empty() { "the key after" } else { "the section before" };
                    let problem = format!(
                        "environment {variable}: {missing} `__` is missing; a setting is written {prefix}SECTION__KEY"
                    );
                    self.problems.push(problem.into());
                }
                Some((section, key)) => {
                    let name = format!("{}.{}", section.to_lowercase(), key.to_lowercase());
                    self.give(&name, value.to_owned(), Origin::Variable(variable.to_owned()));
                }
                None if ["ENV", "CONFIG"].contains(&rest) || reserved.contains(&rest) => {}
                None => {
                    let meant = self.meant_variable(rest).map(|meant| format!("{prefix}{meant}"));
                    self.ignored.push(Ignored { name: variable.to_owned(), meant });
                }
            }
        }
    }

    /// The variable of a setting that is written with one underscore, without the prefix.
    fn meant_variable(&self, rest: &str) -> Option<String> {
        self.specs.values().find_map(|spec| {
            let (section, key) = (spec.section.to_uppercase(), spec.key.to_uppercase());
            let ending = rest.strip_prefix(&format!("{section}_{key}"))?;
            (ending.is_empty() || (spec.secret && ending == "_FILE")).then(|| format!("{section}__{key}{ending}"))
        })
    }

    fn give(&mut self, name: &str, text: String, origin: Origin) {
        if self.specs.contains_key(name) {
            self.put(name, Text::Interpolated(text), origin);
            return;
        }
        let secret = name.strip_suffix("_file").filter(|name| self.specs.get(*name).is_some_and(|spec| spec.secret));
        match secret {
            Some(secret) => self.secret_file(secret, Path::new(&text), origin),
            None => self.unknown(name, &origin),
        }
    }

    fn put(&mut self, name: &str, text: Text, origin: Origin) {
        if let Some(before) = self.given.get(name).filter(|before| before.origin.is_beside(&origin)) {
            let problem = format!("{name} is given twice: give it once ({}, {origin})", before.origin);
            self.flawed(name, problem);
        }
        self.given.insert(name.to_owned(), Said { text, origin });
    }

    /// A setting has no value because of a problem.
    fn flawed(&mut self, name: &str, sentence: String) {
        self.problems.push(Problem { setting: Some(name.to_owned()), sentence });
        self.flawed.insert(name.to_owned());
    }

    fn unknown(&mut self, name: &str, origin: &Origin) {
        self.unknown += 1;
        if self.unknown <= TOLD_MAX {
            let meant = nearest(name, self.specs.keys().map(String::as_str));
            let hint = meant.map(|name| format!("; did you mean {name}?")).unwrap_or_default();
            self.problems.push(format!("unknown key {name} ({origin}){hint}").into());
        }
    }

    fn secret_file(&mut self, name: &str, path: &Path, origin: Origin) {
        if self.turn == Turn::Shown {
            self.put(name, Text::Unread, origin);
            return;
        }
        let flaw = match read_text(path, Readable::Regular) {
            Ok(text) if !text.trim().is_empty() => {
                self.put(name, Text::AsItIs(text.trim_end().to_owned()), origin);
                return;
            }
            Ok(_) => format!("{name}: {} is empty: write the secret into it ({origin})", path.display()),
            Err(error) => format!("{name}: cannot read {}: {error} ({origin})", path.display()),
        };
        self.flawed(name, flaw);
        self.put(name, Text::AsItIs(String::new()), origin);
    }

    fn finish(mut self, specs: &[Spec], env: String) -> Found {
        if let Some(untold) = self.unknown.checked_sub(TOLD_MAX).filter(|untold| *untold > 0) {
            self.problems.push(format!("{untold} further unknown keys").into());
        }
        for spec in specs {
            self.given.entry(spec.name()).or_insert_with(|| by_default(spec));
        }
        let (mut values, mut missing) = (BTreeMap::new(), BTreeSet::new());
        for spec in specs {
            let name = spec.name();
            let given = match self.value(spec, &self.given[&name]) {
                Ok(given) if !self.flawed.contains(&name) => given,
                result => {
                    if let Some(flaw) = result.err().filter(|_| !self.flawed.contains(&name)) {
                        self.flawed(&name, flaw);
                    }
                    let default = self.value(spec, &by_default(spec));
                    default.unwrap_or_else(|_| {
                        missing.insert(name.clone());
                        Given {
                            text: String::new(),
                            origin: Origin::Default,
                            secret: spec.secret,
                            of_secret: false,
                            of: Vec::new(),
                        }
                    })
                }
            };
            values.insert(name, given);
        }
        let loaded = Loaded { env, ignored: self.ignored, specs: specs.to_vec(), values, flaws: Vec::new() };
        Found { loaded, problems: self.problems, flawed: self.flawed, missing }
    }

    /// The value of a setting, made of others and checked.
    fn value(&self, spec: &Spec, said: &Said) -> Result<Given, String> {
        let (name, origin) = (spec.name(), &said.origin);
        let (text, of) = self.made(&said.text).map_err(|flaw| match spec.secret {
            // What stands between the braces may be a part of the secret.
            true => format!(
                "{name}: a `${{` in it does not begin the name of a setting that has a value of its own; a literal one is written \
                 `$${{` ({origin})"
            ),
            false => format!("{name}: {flaw} ({origin})"),
        })?;
        let of_secret = of.iter().any(|name| self.specs[name.as_str()].secret);
        let secret = spec.secret || of_secret;
        // What is made of a file that was not opened can be judged by nobody.
        let texts = of.iter().map(|name| &self.given[name].text).chain([&said.text]);
        let unread = texts.into_iter().any(|text| matches!(text, Text::Unread));
        let Some(flaw) = spec.flaw(&text).filter(|_| !unread) else {
            return Ok(Given { text, origin: origin.clone(), secret, of_secret, of });
        };
        let shown = if secret { "***".to_owned() } else { format!("{text:?}") };
        let element = spec.flawed_element(&text).map(|element| {
            let shown = if secret { String::new() } else { format!(", {:?},", element.text) };
            format!("; element {}{shown} is not {}", element.position, element.expected)
        });
        Err(format!("{name} = {shown}: {flaw}{} ({origin})", element.unwrap_or_default()))
    }

    /// A text with what other settings say themselves in it, and the names of these.
    fn made(&self, text: &Text) -> Result<(String, Vec<String>), Flaw> {
        let text = match text {
            Text::AsItIs(text) => return Ok((text.clone(), Vec::new())),
            Text::Unread => return Ok((UNREAD.to_owned(), Vec::new())),
            Text::Interpolated(text) => text,
        };
        let of = parts(text)?.into_iter().filter_map(|part| match part {
            Part::Text(_) => None,
            Part::Setting(name) => Some(name.to_owned()),
        });
        let of = of.collect();
        let text = interpolated(text, |name| {
            let said = self.given.get(name).ok_or_else(|| Flaw::Unknown(name.to_owned()))?;
            match &said.text {
                Text::AsItIs(text) => Ok(text.clone()),
                Text::Unread => Ok(UNREAD.to_owned()),
                Text::Interpolated(text) => {
                    let nested = || Flaw::Nested(name.to_owned());
                    interpolated(text, |_| Err(nested())).map_err(|_| nested())
                }
            }
        })?;
        Ok((text, of))
    }
}

fn by_default(spec: &Spec) -> Said {
    Said { text: Text::Interpolated(spec.default.to_owned()), origin: Origin::Default }
}

#[cfg(test)]
mod tests;
