//! What a setting is: name, type, default, range, meaning.

use super::value::{FlawedElement, Value};

/// The smallest and the largest value, both allowed, as they are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// Smallest.
    pub min: &'static str,
    /// Largest.
    pub max: &'static str,
}

/// One declared setting.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Its section.
    pub section: &'static str,
    /// Its key in the section.
    pub key: &'static str,
    /// What the section is for.
    pub section_doc: &'static str,
    /// What the setting means.
    pub doc: &'static str,
    /// Its default, as it is written.
    pub default: &'static str,
    /// Its range, if it has one.
    pub range: Option<Range>,
    /// What it expects, in words.
    pub expected: &'static str,
    /// Whether it is never shown.
    pub secret: bool,
    /// Whether TOML writes it without quotes.
    pub bare: bool,
    /// Whether the running service takes a new value over.
    pub reloadable: bool,
    amount: fn(&str) -> Option<Option<u128>>,
    element: fn(&str) -> Option<FlawedElement>,
}

impl Spec {
    /// The setting of type `T`; `name` is section and key, `docs` their meaning.
    pub fn of<T: Value>(
        name: (&'static str, &'static str),
        docs: (&'static str, &'static str),
        default: &'static str,
    ) -> Self {
        Self {
            section: name.0,
            key: name.1,
            section_doc: docs.0,
            doc: docs.1,
            default,
            range: None,
            expected: T::EXPECTED,
            secret: T::SECRET,
            bare: T::BARE,
            reloadable: false,
            amount: |text| T::parse(text).map(|value| value.amount()),
            element: T::flawed_element,
        }
    }

    /// Allows values from `min` to `max` only.
    pub fn range(self, min: &'static str, max: &'static str) -> Self {
        Self { range: Some(Range { min, max }), ..self }
    }

    /// The running service takes a new value over.
    pub fn reload(self) -> Self {
        Self { reloadable: true, ..self }
    }

    /// `section.key`.
    pub fn name(&self) -> String {
        format!("{}.{}", self.section, self.key)
    }

    /// What is wrong with a value, if anything.
    pub(crate) fn flaw(&self, text: &str) -> Option<String> {
        let Some(amount) = (self.amount)(text) else {
            return Some(format!("expected {}", self.expected));
        };
        let (range, amount) = (self.range?, amount?);
        let bound = |text| (self.amount)(text).flatten().unwrap_or_default();
        if amount < bound(range.min) || amount > bound(range.max) {
            return Some(format!("allowed are {} to {}", range.min, range.max));
        }
        None
    }

    /// Which element of a list makes it none, if one does.
    pub(crate) fn flawed_element(&self, text: &str) -> Option<FlawedElement> {
        (self.element)(text)
    }

    /// The value as TOML writes it.
    pub(crate) fn toml(&self, text: &str) -> String {
        if self.bare && !text.is_empty() { text.to_owned() } else { format!("{text:?}") }
    }
}

/// The settings with another default for one of them: what a foundation declares, as a service wants it.
///
/// # Panics
/// When the setting is not declared, or the default is none that could be given.
pub fn with_default(mut specs: Vec<Spec>, name: &str, default: &'static str) -> Vec<Spec> {
    let spec = specs.iter_mut().find(|spec| spec.name() == name).unwrap_or_else(|| panic!("{name} is not declared"));
    // What refers to other settings is only known when they are loaded.
    if let Some(flaw) = spec.flaw(default).filter(|_| !default.contains("${")) {
        panic!("the default {default:?} of {name}: {flaw}");
    }
    spec.default = default;
    specs
}

/// The settings of each section together, sections and keys in the order in which they first come.
///
/// # Panics
/// When a setting is declared twice.
pub(super) fn by_section(specs: &[Spec]) -> Vec<&Spec> {
    let mut sections: Vec<&str> = Vec::new();
    for (n, spec) in specs.iter().enumerate() {
        let again = specs[..n].iter().any(|s| s.section == spec.section && s.key == spec.key);
        assert!(!again, "{} is declared twice", spec.name());
        if !sections.contains(&spec.section) {
            sections.push(spec.section);
        }
    }
    sections.iter().flat_map(|section| specs.iter().filter(move |s| s.section == *section)).collect()
}
