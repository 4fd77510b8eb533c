//! API keys. A file of them holds hashes only.

use std::fmt::Write;

/// What a key begins with, so that one that lies about somewhere is recognised.
const PREFIX: &str = "brigade-";

/// The bytes of a new key that are random.
const RANDOM_BYTES: usize = 32;

/// A key file that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the key file is no 'NAME HASH' with 64 hexadecimal digits")]
pub struct KeyFileError {
    /// Counted from 1.
    pub line: usize,
}

/// Keys that are accepted: a name and the BLAKE3 hash of each. Keys are 256 random bits, so a
/// fast hash tells nothing of them.
#[derive(Debug, Clone, Default)]
pub struct ApiKeys {
    keys: Vec<(String, blake3::Hash)>,
}

impl ApiKeys {
    /// Reads a key file: `NAME HASH` on each line; empty ones and those after `#` are skipped.
    pub fn parse(text: &str) -> Result<Self, KeyFileError> {
        let mut keys = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let key = line
                .split_once(char::is_whitespace)
                .and_then(|(name, hash)| {
                    Some((name.to_owned(), blake3::Hash::from_hex(hash.trim()).ok()?))
                });
            keys.push(key.ok_or(KeyFileError { line: index + 1 })?);
        }
        Ok(Self { keys })
    }

    /// Whether nobody has a key.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The name of a key's owner. Takes the same time whichever key it is.
    pub fn owner(&self, key: &str) -> Option<&str> {
        let hash = blake3::hash(key.as_bytes());
        let mut owner = None;
        for (name, known) in &self.keys {
            // `blake3::Hash` compares in constant time.
            if *known == hash {
                owner = Some(name.as_str());
            }
        }
        owner
    }
}

/// A new key from random bytes, and the line that a key file has for it.
pub fn new_key(name: &str, random: [u8; RANDOM_BYTES]) -> (String, String) {
    let mut key = PREFIX.to_owned();
    for byte in random {
        // Writing to a string cannot fail.
        let _ = write!(key, "{byte:02x}");
    }
    let line = format!("{name} {}", blake3::hash(key.as_bytes()).to_hex());
    (key, line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_key_is_known_by_its_line_alone() {
        let (key, line) = new_key("ann", [7; 32]);
        assert!(!line.contains(&key));
        let keys = ApiKeys::parse(&format!("# keys\n\n{line}\r\n")).unwrap();
        assert_eq!(keys.owner(&key), Some("ann"));
        assert_eq!(keys.owner(&key[1..]), None);
        assert_eq!(keys.owner(""), None);
    }

    #[test]
    fn a_broken_file_is_refused_with_its_line() {
        for (text, line) in [("ann", 1), ("\nann 12", 2), ("# a\n# b\nann xyz", 3)] {
            assert_eq!(ApiKeys::parse(text).unwrap_err(), KeyFileError { line });
        }
        assert!(ApiKeys::parse("# none\n").unwrap().is_empty());
    }
}
