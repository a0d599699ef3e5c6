//! `${section.key}` in a text stands for what that setting says itself; `$${` is a literal `${`.

use std::fmt;

/// Why a text cannot be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Flaw {
    /// A `${` without `}`.
    Open,
    /// A name that is no setting.
    Unknown(String),
    /// The name of a setting that is itself made of others.
    Nested(String),
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open => f.write_str("`${` without `}`; a literal one is written `$${`"),
            Self::Unknown(name) => write!(f, "${{{name}}} is no setting"),
            Self::Nested(name) => write!(f, "${{{name}}} is itself made of others"),
        }
    }
}

/// What a text is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part<'a> {
    /// Itself.
    Text(&'a str),
    /// The value of the setting with this name.
    Setting(&'a str),
}

/// The parts of a text.
///
/// # Errors
/// [`Flaw::Open`].
pub(super) fn parts(text: &str) -> Result<Vec<Part<'_>>, Flaw> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        if let Some(before) = before.strip_suffix('$') {
            parts.extend([Part::Text(before), Part::Text("${")]);
            rest = after;
            continue;
        }
        let (name, behind) = after.split_once('}').ok_or(Flaw::Open)?;
        parts.extend([Part::Text(before), Part::Setting(name)]);
        rest = behind;
    }
    parts.push(Part::Text(rest));
    Ok(parts)
}

/// The text with what others say in its place. `value` tells what the setting with a name says itself.
///
/// # Errors
/// [`Flaw`].
pub(super) fn interpolated(text: &str, value: impl Fn(&str) -> Result<String, Flaw>) -> Result<String, Flaw> {
    let said = |part| match part {
        Part::Text(text) => Ok(text.to_owned()),
        Part::Setting(name) => value(name),
    };
    parts(text)?.into_iter().map(said).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_doubled_dollar_is_a_literal_one_and_the_rest_is_replaced() {
        let oven = |name: &str| (name == "a.b").then(|| "oven".to_owned()).ok_or_else(|| Flaw::Unknown(name.into()));
        let made = |text| interpolated(text, oven);
        for (text, expected) in [
            ("", ""),
            ("$5 and $$5 and {}", "$5 and $$5 and {}"),
            ("x${a.b}y${a.b}", "xovenyoven"),
            ("$${a.b}", "${a.b}"),
            ("pa$${ss", "pa${ss"),
            ("$${${a.b}}", "${oven}"),
        ] {
            assert_eq!(made(text).as_deref(), Ok(expected), "{text}");
        }
        assert_eq!(made("${a.b"), Err(Flaw::Open));
        assert_eq!(made("${a}"), Err(Flaw::Unknown("a".to_owned())));
    }
}
