//! Which keys of a plain JSON event name its type, time, id and subject.

use crate::json::{Scanner, unescaped};
use crate::time::shortened;

/// JSON pointers (RFC 6901) to the fields that are read as well; an empty one switches the reading off. A name without a slash
/// is a key at the top.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldNames {
    /// Names the type; by default `/type`.
    pub type_field: String,
    /// Names the time; by default `/time`.
    pub time_field: String,
    /// Names the id; by default none: an `id` in plain JSON is often the id of a device or an object.
    pub id_field: String,
    /// Names the subject; by default none.
    pub subject_field: String,
}

impl Default for FieldNames {
    fn default() -> Self {
        Self {
            type_field: "/type".into(),
            time_field: "/time".into(),
            id_field: String::new(),
            subject_field: String::new(),
        }
    }
}

/// A pointer that RFC 6901 does not allow.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a JSON pointer: `~` stands only in `~0` and `~1`")]
pub struct BadPointer(pub String);

/// A pointer taken apart.
#[derive(Clone, Debug)]
pub(crate) struct Pointer {
    pub(crate) text: String,
    tokens: Vec<String>,
}

impl Pointer {
    pub(crate) fn parse(text: &str) -> Result<Option<Self>, BadPointer> {
        if text.is_empty() {
            return Ok(None);
        }
        let Some(path) = text.strip_prefix('/') else {
            let token = text.to_owned();
            return Ok(Some(Self {
                text: format!("/{}", token.replace('~', "~0").replace('/', "~1")),
                tokens: vec![token],
            }));
        };
        let bad = |token: &str| token.split('~').skip(1).any(|after| !after.starts_with(['0', '1']));
        if path.split('/').any(bad) {
            return Err(BadPointer(shortened(text)));
        }
        let tokens = path.split('/').map(|t| t.replace("~1", "/").replace("~0", "~")).collect();
        Ok(Some(Self { text: text.to_owned(), tokens }))
    }

    /// Whether a key, with its quotes, is the pointer's first token.
    #[inline]
    pub(crate) fn starts_at(&self, quoted: &[u8]) -> bool {
        let (first, inner) = (self.tokens[0].as_bytes(), &quoted[1..quoted.len() - 1]);
        inner == first
            || (inner.contains(&b'\\') && std::str::from_utf8(quoted).is_ok_and(|q| unescaped(q).as_bytes() == first))
    }

    /// Follows the other tokens into a value that was scanned before.
    pub(crate) fn follow<'a>(&self, value: &'a str) -> Option<&'a str> {
        self.tokens[1..].iter().try_fold(value, |value, token| step(value, token))
    }
}

fn step<'a>(value: &'a str, token: &str) -> Option<&'a str> {
    let mut found = None;
    let mut scanner = Scanner::new(value.as_bytes(), usize::MAX);
    match scanner.peek()? {
        b'{' => {
            let same = |key: &[u8]| std::str::from_utf8(key).is_ok_and(|k| unescaped(k) == token);
            scanner
                .object(|key, span| {
                    if same(key) {
                        found = Some(span)
                    }
                })
                .ok()?;
        }
        b'[' => {
            let index: usize = token.parse().ok()?;
            scanner.at += 1;
            for at in 0.. {
                scanner.peek()?;
                let start = scanner.at;
                scanner.value().ok()?;
                if at == index {
                    found = Some(start..scanner.at);
                    break;
                }
                if !scanner.eat(b',') {
                    break;
                }
            }
        }
        _ => {}
    }
    found.map(|span| &value[span])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers_lead_into_objects_and_arrays() {
        let text = r#"{"a":{"b/c":[10,{"d\u0065":"x"}]}}"#;
        let follow =
            |p: &str| Pointer::parse(p).expect("a pointer").expect("not empty").follow(text).map(str::to_owned);
        // The first token was matched by the caller: these begin with one that is passed over.
        assert_eq!(follow("/_/a/b~1c/0").as_deref(), Some("10"));
        assert_eq!(follow("/_/a/b~1c/1/de").as_deref(), Some("\"x\""));
        assert_eq!(follow("/_/a/none"), None);
        assert_eq!(follow("/_/a/b~1c/2"), None);
        assert!(Pointer::parse("/a~2").is_err());
    }
}
