//! Tokens: 256 random bits as text, and what is kept of them.

use sha2::{Digest, Sha256};
use std::fmt;

/// What the tokens made here begin with.
const PREFIX: &str = "cat_";
/// Random bytes of a token.
const RANDOM_BYTES: usize = 32;
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// A token in clear. It does not print itself; [`Token::reveal`] is the one way to its text.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// A new token: `cat_` and 43 characters of base64url over 32 random bytes.
    ///
    /// # Errors
    /// When the operating system gives no randomness.
    pub fn random() -> std::io::Result<Self> {
        let mut bytes = [0u8; RANDOM_BYTES];
        getrandom::fill(&mut bytes).map_err(std::io::Error::other)?;
        let mut text = String::from(PREFIX);
        for chunk in bytes.chunks(3) {
            let word = chunk.iter().fold(0u32, |w, b| w << 8 | u32::from(*b)) << (8 * (3 - chunk.len()));
            for i in 0..=chunk.len() {
                text.push(char::from(ALPHABET[(word >> (18 - 6 * i)) as usize & 63]));
            }
        }
        Ok(Self(text))
    }

    /// The text, to show it once.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(***)")
    }
}

/// Whether a token looks like one made here. Nobody guesses those, however often they try: they have 256 random bits.
pub(crate) fn is_random(token: &str) -> bool {
    token.strip_prefix(PREFIX).is_some_and(|text| {
        text.len() == (RANDOM_BYTES * 8).div_ceil(6) && text.bytes().all(|byte| ALPHABET.contains(&byte))
    })
}

/// What is kept of a token.
pub(crate) fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_long_random_and_do_not_print_themselves() {
        let (a, b) = (Token::random().expect("randomness"), Token::random().expect("randomness"));
        assert_eq!((a.reveal().len(), a == b), (47, false));
        assert_eq!(format!("{a:?}"), "Token(***)");
        assert!(is_random(a.reveal()) && is_random(b.reveal()));
        let (cut, other) = (&a.reveal()[..46], a.reveal().replace("cat_", "cat-"));
        let thought_of = "cat_the quick brown fox jumps over the lazy dog";
        assert!(["", "cat_", cut, &other, thought_of].into_iter().all(|text| !is_random(text)));
    }
}
