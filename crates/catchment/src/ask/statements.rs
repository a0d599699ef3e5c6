//! Statements in a text: where each ends, and what stands between quotation marks.

/// What a text holds.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Split<'a> {
    /// The statements that end with a semicolon, without it.
    pub(super) whole: Vec<&'a str>,
    /// What comes after them; empty when there is nothing but blanks and comments.
    pub(super) rest: &'a str,
}

/// Within what a text ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Within {
    /// Words and signs.
    Statement,
    /// A text, a name in quotation marks or a comment.
    Quoted,
}

/// Takes a text apart into its statements.
pub(super) fn split(text: &str) -> Split<'_> {
    let (mut whole, mut from, mut is_empty) = (Vec::new(), 0, true);
    for part in Parts::of(text) {
        match part.kind {
            Kind::End => {
                if !is_empty {
                    whole.push(text[from..part.from].trim());
                }
                (from, is_empty) = (part.until, true);
            }
            Kind::Blank => {}
            // One that is not closed goes on; one up to the end of its line ends with the text.
            Kind::Comment => is_empty &= part.is_closed || text[part.from..].starts_with("--"),
            Kind::Quoted | Kind::Other => is_empty = false,
        }
    }
    Split { whole, rest: if is_empty { "" } else { text[from..].trim() } }
}

/// Within what a text ends.
pub(super) fn end(text: &str) -> Within {
    match Parts::of(text).last() {
        Some(Part { kind: Kind::Quoted | Kind::Comment, is_closed: false, .. }) => Within::Quoted,
        _ => Within::Statement,
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Blank,
    Comment,
    Quoted,
    End,
    Other,
}

struct Part {
    kind: Kind,
    from: usize,
    until: usize,
    is_closed: bool,
}

/// The parts of a text, one after another.
struct Parts<'a> {
    text: &'a str,
    at: usize,
    /// The character before is of a name.
    in_name: bool,
}

impl<'a> Parts<'a> {
    fn of(text: &'a str) -> Self {
        Self { text, at: 0, in_name: false }
    }
}

impl Iterator for Parts<'_> {
    type Item = Part;

    fn next(&mut self) -> Option<Part> {
        let rest = &self.text[self.at..];
        let first = rest.chars().next()?;
        let (kind, length) = match first {
            ';' => (Kind::End, Some(1)),
            '-' if rest.starts_with("--") => (Kind::Comment, rest.find('\n').map(|at| at + 1)),
            '/' if rest.starts_with("/*") => (Kind::Comment, comment(rest)),
            '\'' => (Kind::Quoted, closed(rest, 1, '\'', None)),
            'e' | 'E' if !self.in_name && rest[1..].starts_with('\'') => {
                (Kind::Quoted, closed(rest, 2, '\'', Some('\\')))
            }
            '"' => (Kind::Quoted, closed(rest, 1, '"', None)),
            '$' if !self.in_name => match dollars(rest) {
                Some(mark) => {
                    let end = rest[mark.len()..].find(mark).map(|at| at + 2 * mark.len());
                    (Kind::Quoted, end)
                }
                None => (Kind::Other, Some(1)),
            },
            c if c.is_whitespace() => (Kind::Blank, Some(c.len_utf8())),
            c => (Kind::Other, Some(c.len_utf8())),
        };
        self.in_name = kind == Kind::Other && is_of_name(first);
        let from = self.at;
        self.at += length.unwrap_or(rest.len());
        Some(Part { kind, from, until: self.at, is_closed: length.is_some() })
    }
}

pub(super) fn is_of_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Length of what begins with `from` bytes and ends with a mark; twice the mark, or one behind the other sign, stands for itself.
fn closed(text: &str, from: usize, mark: char, escape: Option<char>) -> Option<usize> {
    let mut signs = text[from..].char_indices().peekable();
    while let Some((at, sign)) = signs.next() {
        if Some(sign) == escape {
            signs.next();
        } else if sign == mark && signs.next_if(|(_, next)| *next == mark).is_none() {
            return Some(from + at + 1);
        }
    }
    None
}

/// Length of a comment, which may have others in it.
fn comment(text: &str) -> Option<usize> {
    let (mut depth, mut at) = (0, 0);
    loop {
        let next = at + text[at..].find("*/")?;
        match text[at..next].find("/*") {
            Some(inner) => (depth, at) = (depth + 1, at + inner + 2),
            None if depth == 1 => return Some(next + 2),
            None => (depth, at) = (depth - 1, next + 2),
        }
    }
}

/// What a text between dollar signs begins and ends with: `$$` or `$name$`.
fn dollars(text: &str) -> Option<&str> {
    let name = text[1..].find(|c| !is_of_name(c))?;
    let is_name = !text[1..].starts_with(|c: char| c.is_ascii_digit());
    (is_name && text[1 + name..].starts_with('$')).then(|| &text[..name + 2])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_end_with_a_semicolon_that_is_not_quoted() {
        let of = |text: &'static str| {
            let Split { whole, rest } = split(text);
            (whole, rest)
        };
        assert_eq!(of("SELECT 1; SELECT ';' ;SELECT\n2"), (vec!["SELECT 1", "SELECT ';'"], "SELECT\n2"));
        assert_eq!(of("SELECT 'it''s;' \"a\"\";\" -- no;\n, 2;"), (vec!["SELECT 'it''s;' \"a\"\";\" -- no;\n, 2"], ""));
        assert_eq!(of("SELECT E'\\';' x;"), (vec!["SELECT E'\\';' x"], ""));
        assert_eq!(of("SELECT e'a', name'b;';"), (vec!["SELECT e'a', name'b;'"], ""));
        assert_eq!(of("/* a; /* b; */ ; */ SELECT 1; -- end"), (vec!["/* a; /* b; */ ; */ SELECT 1"], ""));
        assert_eq!(of("SELECT $$a;$$, $q$;$$;$q$, $1;"), (vec!["SELECT $$a;$$, $q$;$$;$q$, $1"], ""));
        assert_eq!(of(" ;; \n"), (vec![], ""));
        assert_eq!(of("SELECT '; x"), (vec![], "SELECT '; x"));
        assert_eq!(of("/* open; "), (vec![], "/* open;"));
        assert_eq!(of("SELECT ü'ä;';ö"), (vec!["SELECT ü'ä;'"], "ö"));
    }

    #[test]
    fn it_is_known_within_what_a_text_ends() {
        for quoted in ["SELECT 'a", "\"", "SELECT 1 /* ", "a -- b", "$$;"] {
            assert_eq!(end(quoted), Within::Quoted, "{quoted}");
        }
        for plain in ["", "SELECT 'a'", "a -- b\n", "/* */", "$$ $$", "$1", "it''"] {
            assert_eq!(end(plain), Within::Statement, "{plain}");
        }
    }
}
