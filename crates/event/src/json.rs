//! A scanner over JSON text (RFC 8259): it checks everything, and keeps nothing but where values begin and end.
//!
//! It promises to accept exactly the grammar, to never recurse, and to tell syntax (the text cannot be read on) from what is
//! wrong within one value though the text can be read on: lone surrogates, and nesting beyond the limit. UTF-8 is checked by
//! the caller.

use std::ops::Range;

/// The text cannot be read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SyntaxError {
    /// Byte offset in the text given to the scanner.
    pub(crate) offset: usize,
    /// What was expected there.
    pub(crate) expected: &'static str,
}

/// What is wrong within a value that can be read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    LoneSurrogate { offset: usize },
    TooDeep { offset: usize },
}

/// Kinds of containers, one bit each.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Open {
    Array,
    Object,
}

/// The scanner, at a place in a text.
pub(crate) struct Scanner<'a> {
    text: &'a [u8],
    pub(crate) at: usize,
    open: Vec<u64>,
    depth: usize,
    nesting_max: usize,
    pub(crate) flaw: Option<Flaw>,
    /// Number of escapes so far.
    pub(crate) escapes: usize,
}

impl<'a> Scanner<'a> {
    pub(crate) fn new(text: &'a [u8], nesting_max: usize) -> Self {
        Self { text, at: 0, open: Vec::new(), depth: 0, nesting_max, flaw: None, escapes: 0 }
    }

    /// Passes over white space and gives the next byte, not consumed.
    #[inline]
    pub(crate) fn peek(&mut self) -> Option<u8> {
        while let Some(&byte) = self.text.get(self.at) {
            if !matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
                return Some(byte);
            }
            self.at += 1;
        }
        None
    }

    /// Consumes `byte`, if it is next.
    #[inline]
    pub(crate) fn eat(&mut self, byte: u8) -> bool {
        let next = self.peek() == Some(byte);
        self.at += usize::from(next);
        next
    }

    /// Reads an object whose `{` is next, and tells of each member: its key with quotes, and its value.
    pub(crate) fn object(&mut self, mut member: impl FnMut(&'a [u8], Range<usize>)) -> Result<(), SyntaxError> {
        debug_assert_eq!(self.text.get(self.at), Some(&b'{'));
        self.push(Open::Object);
        self.at += 1;
        if !self.eat(b'}') {
            loop {
                let key = self.key()?;
                self.peek();
                let start = self.at;
                self.value()?;
                member(&self.text[key], start..self.at);
                if self.eat(b'}') {
                    break;
                }
                if !self.eat(b',') {
                    return Err(self.expected("a comma or the end of the object"));
                }
            }
        }
        self.pop();
        Ok(())
    }

    /// Reads one value of any kind.
    pub(crate) fn value(&mut self) -> Result<(), SyntaxError> {
        let base = self.depth;
        loop {
            match self.peek() {
                Some(b'{') => {
                    self.push(Open::Object);
                    self.at += 1;
                    if self.peek() != Some(b'}') {
                        self.key()?;
                        continue;
                    }
                    self.at += 1;
                    self.pop();
                }
                Some(b'[') => {
                    self.push(Open::Array);
                    self.at += 1;
                    if self.peek() != Some(b']') {
                        continue;
                    }
                    self.at += 1;
                    self.pop();
                }
                Some(b'"') => self.string()?,
                Some(b'-' | b'0'..=b'9') => self.number()?,
                Some(b't') => self.literal(b"true")?,
                Some(b'f') => self.literal(b"false")?,
                Some(b'n') => self.literal(b"null")?,
                _ => return Err(self.expected("a value")),
            }
            if self.close_to(base)? {
                return Ok(());
            }
        }
    }

    /// After a value: closes what closes; true when back at `base`, false when another value follows.
    fn close_to(&mut self, base: usize) -> Result<bool, SyntaxError> {
        while self.depth > base {
            let open = self.innermost();
            match (self.peek(), open) {
                (Some(b','), Open::Array) => {
                    self.at += 1;
                    return Ok(false);
                }
                (Some(b','), Open::Object) => {
                    self.at += 1;
                    self.key()?;
                    return Ok(false);
                }
                (Some(b']'), Open::Array) | (Some(b'}'), Open::Object) => {
                    self.at += 1;
                    self.pop();
                }
                (_, Open::Array) => return Err(self.expected("a comma or the end of the array")),
                (_, Open::Object) => return Err(self.expected("a comma or the end of the object")),
            }
        }
        Ok(true)
    }

    /// Reads a key and its colon; gives the key with its quotes.
    pub(crate) fn key(&mut self) -> Result<Range<usize>, SyntaxError> {
        if self.peek() != Some(b'"') {
            return Err(self.expected("a key in quotes"));
        }
        let start = self.at;
        self.string()?;
        let end = self.at;
        if !self.eat(b':') {
            return Err(self.expected("a colon"));
        }
        Ok(start..end)
    }

    fn string(&mut self) -> Result<(), SyntaxError> {
        self.at += 1;
        loop {
            self.at += plain_bytes(&self.text[self.at..]);
            match self.text.get(self.at) {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') => self.escape()?,
                Some(_) => return Err(self.expected("no control character in a string")),
                None => return Err(self.expected("the end of the string")),
            }
        }
    }

    fn escape(&mut self) -> Result<(), SyntaxError> {
        let start = self.at;
        self.escapes += 1;
        match self.text.get(self.at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 2,
            Some(b'u') => {
                let first = self.unit()?;
                let high = (0xd800..0xdc00).contains(&first);
                let pair = high && self.text.get(self.at..self.at + 2) == Some(b"\\u".as_slice());
                let lone = match (pair, high) {
                    (true, _) => {
                        let after_first = self.at;
                        let low = self.unit()?;
                        let low = (0xdc00..0xe000).contains(&low);
                        if !low {
                            self.at = after_first;
                        }
                        !low
                    }
                    (false, high) => high || (0xdc00..0xe000).contains(&first),
                };
                if lone {
                    self.flaw.get_or_insert(Flaw::LoneSurrogate { offset: start });
                }
            }
            _ => {
                self.at += 1;
                return Err(self.expected("an escape that JSON knows"));
            }
        }
        Ok(())
    }

    /// Reads an escape of four digits, such as `\u00e9`.
    fn unit(&mut self) -> Result<u32, SyntaxError> {
        let digits = self.text.get(self.at + 2..self.at + 6).and_then(|d| std::str::from_utf8(d).ok());
        let digits = digits.filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()));
        match digits.and_then(|d| u32::from_str_radix(d, 16).ok()) {
            Some(unit) => {
                self.at += 6;
                Ok(unit)
            }
            None => Err(self.expected("four hexadecimal digits")),
        }
    }

    fn number(&mut self) -> Result<(), SyntaxError> {
        self.at += usize::from(self.text[self.at] == b'-');
        match self.text.get(self.at) {
            Some(b'0') => self.at += 1,
            Some(b'1'..=b'9') => self.digits(),
            _ => return Err(self.expected("a digit")),
        }
        if self.text.get(self.at) == Some(&b'.') {
            self.at += 1;
            self.some_digits()?;
        }
        if let Some(b'e' | b'E') = self.text.get(self.at) {
            self.at += 1;
            if let Some(b'+' | b'-') = self.text.get(self.at) {
                self.at += 1;
            }
            self.some_digits()?;
        }
        Ok(())
    }

    fn some_digits(&mut self) -> Result<(), SyntaxError> {
        let start = self.at;
        self.digits();
        if self.at == start { Err(self.expected("a digit")) } else { Ok(()) }
    }

    fn digits(&mut self) {
        while let Some(b'0'..=b'9') = self.text.get(self.at) {
            self.at += 1;
        }
    }

    fn literal(&mut self, word: &'static [u8]) -> Result<(), SyntaxError> {
        if self.text[self.at..].starts_with(word) {
            self.at += word.len();
            return Ok(());
        }
        Err(self.expected("true, false or null"))
    }

    pub(crate) fn expected(&self, expected: &'static str) -> SyntaxError {
        SyntaxError { offset: self.at, expected }
    }

    fn push(&mut self, open: Open) {
        let (word, bit) = (self.depth / 64, self.depth % 64);
        if word == self.open.len() {
            self.open.push(0);
        }
        match open {
            Open::Object => self.open[word] |= 1 << bit,
            Open::Array => self.open[word] &= !(1 << bit),
        }
        self.depth += 1;
        if self.depth > self.nesting_max {
            self.flaw.get_or_insert(Flaw::TooDeep { offset: self.at });
        }
    }

    fn pop(&mut self) {
        self.depth -= 1;
    }

    fn innermost(&self) -> Open {
        let last = self.depth - 1;
        if self.open[last / 64] >> (last % 64) & 1 == 1 { Open::Object } else { Open::Array }
    }
}

/// Number of bytes before the next quote, backslash or control character; eight at a time.
#[inline]
fn plain_bytes(text: &[u8]) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    let zero_byte = |x: u64| x.wrapping_sub(ONES) & !x & HIGHS;
    let mut at = 0;
    for word in text.chunks_exact(8) {
        let word = u64::from_le_bytes(word.try_into().expect("eight bytes"));
        let quote = zero_byte(word ^ (ONES * u64::from(b'"')));
        let backslash = zero_byte(word ^ (ONES * u64::from(b'\\')));
        let control = word.wrapping_sub(ONES * 0x20) & !word & HIGHS;
        let found = quote | backslash | control;
        if found != 0 {
            return at + (found.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    at + text[at..].iter().take_while(|b| !matches!(b, b'"' | b'\\' | 0..0x20)).count()
}

/// The JSON pointer (RFC 6901) to the value in which an offset lies; none at the top. The text may be no JSON after the offset, and no
/// UTF-8.
pub(crate) fn pointer_to(text: &[u8], offset: usize) -> Option<String> {
    /// A step into an object, none before its first key, or into an array.
    enum Step<'a> {
        Key(Option<&'a [u8]>),
        Index(usize),
    }
    let mut steps: Vec<Step<'_>> = Vec::new();
    let mut at = 0;
    while at < offset {
        let mut next = at + 1;
        match (text[at], steps.last_mut()) {
            (b'{', _) => steps.push(Step::Key(None)),
            (b'[', _) => steps.push(Step::Index(0)),
            (b'}' | b']', _) => drop(steps.pop()),
            (b',', Some(Step::Key(key))) => *key = None,
            (b',', Some(Step::Index(index))) => *index += 1,
            (b'"', last) => {
                next = after_string(text, at);
                if let (Some(Step::Key(key @ None)), true) = (last, next <= offset) {
                    *key = Some(&text[at..next]);
                }
            }
            _ => {}
        }
        at = next;
    }
    let mut pointer = String::new();
    for step in steps {
        match step {
            Step::Key(None) => {}
            Step::Key(Some(key)) => {
                let name = serde_json::from_slice(key);
                let name = name.unwrap_or_else(|_| String::from_utf8_lossy(&key[1..key.len() - 1]).into_owned());
                pointer.extend(["/", &name.replace('~', "~0").replace('/', "~1")]);
            }
            Step::Index(index) => pointer.extend(["/", &index.to_string()]),
        }
    }
    (!pointer.is_empty()).then_some(pointer)
}

/// Where a string that begins at an offset is over.
fn after_string(text: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while let Some(&byte) = text.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    text.len()
}

/// A string's text, its quotes and escapes taken away. The string was scanned before and has no lone surrogate.
pub(crate) fn unescaped(quoted: &str) -> std::borrow::Cow<'_, str> {
    let inner = &quoted[1..quoted.len() - 1];
    if !inner.contains('\\') {
        return inner.into();
    }
    let mut text = String::with_capacity(inner.len());
    let mut rest = inner;
    while let Some((before, after)) = rest.split_once('\\') {
        text.push_str(before);
        let (kind, after) = after.split_at(1);
        rest = after;
        match kind {
            "b" => text.push('\u{8}'),
            "f" => text.push('\u{c}'),
            "n" => text.push('\n'),
            "r" => text.push('\r'),
            "t" => text.push('\t'),
            "u" => {
                let hex = |s: &str| u32::from_str_radix(s, 16).unwrap_or(0xfffd);
                let mut unit = hex(&rest[..4]);
                rest = &rest[4..];
                if (0xd800..0xdc00).contains(&unit) && rest.starts_with("\\u") {
                    unit = 0x10000 + ((unit - 0xd800) << 10) + (hex(&rest[2..6]).wrapping_sub(0xdc00) & 0x3ff);
                    rest = &rest[6..];
                }
                text.push(char::from_u32(unit).unwrap_or(char::REPLACEMENT_CHARACTER));
            }
            other => text.push_str(other),
        }
    }
    text.push_str(rest);
    text.into()
}
