//! What whoever listens says to a supervisor, over its stdin: lines.

use std::fmt;

/// One word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// So many bytes of stdout and of stderr are safe elsewhere, from the first on: `ack <stdout> <stderr>`.
    Ack([u64; 2]),
    /// The outcome and all output are safe elsewhere: `stored`. The supervisor then removes the spool and ends; at the end of its
    /// stdin without this, it leaves the spool and ends. Of a program that wrote nothing it does not wait for it.
    Stored,
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ack([stdout, stderr]) => writeln!(f, "ack {stdout} {stderr}"),
            Self::Stored => writeln!(f, "stored"),
        }
    }
}

/// The longest line that is a word.
const LONGEST: usize = 64;

/// Takes words out of bytes that come cut anywhere.
#[derive(Debug, Default)]
pub struct Words {
    pending: Vec<u8>,
}

impl Words {
    /// Adds bytes, and gives back the words that are whole now. Other lines, of a newer daemon, are passed over.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<Word> {
        let mut words = Vec::new();
        for byte in bytes {
            match byte {
                b'\n' => {
                    words.extend(std::str::from_utf8(&self.pending).ok().and_then(parse));
                    self.pending.clear();
                }
                // Cut off, so that a line without an end takes no memory. What is cut is no word.
                _ if self.pending.len() > LONGEST => {}
                byte => self.pending.push(*byte),
            }
        }
        words
    }
}

fn parse(line: &str) -> Option<Word> {
    let mut parts = line.split(' ');
    match (parts.next()?, parts.next(), parts.next()) {
        ("stored", None, None) => Some(Word::Stored),
        ("ack", Some(stdout), Some(stderr)) => Some(Word::Ack([stdout.parse().ok()?, stderr.parse().ok()?])),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_come_out_whole_however_the_bytes_are_cut() {
        let said = format!("{}{}other\n{}\nack 1\n{}", Word::Ack([5, 7]), "x".repeat(99), "y", Word::Stored);
        for size in 1..=said.len() {
            let mut words = Words::default();
            let found: Vec<_> = said.as_bytes().chunks(size).flat_map(|piece| words.push(piece)).collect();
            assert_eq!(found, [Word::Ack([5, 7]), Word::Stored], "in pieces of {size}");
        }
    }
}
