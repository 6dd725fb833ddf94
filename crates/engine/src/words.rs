//! Words that come from inside a container, or may: nothing of them reaches a status, an event, a log or a terminal as it is.

use std::fmt::Write as _;

/// How long words are at most, in bytes.
const LONGEST: usize = 4096;
/// What stands for the rest.
const CUT: &str = " … (cut off)";

/// `words`, fit to be shown: no longer than 4 KiB, and what a terminal would obey is escaped, as in `\u{1b}`.
///
/// This is the one place for it: every text of a supervisor goes through here, and every explanation that comes over a program's
/// own streams.
pub(crate) fn shown(words: &str) -> String {
    let words = words.trim();
    let mut shown = String::with_capacity(words.len().min(LONGEST));
    for character in words.chars() {
        if is_obeyed(character) {
            // Writing to a String cannot fail.
            let _ = write!(shown, "{}", character.escape_default());
        } else {
            shown.push(character);
        }
        if shown.len() > LONGEST {
            shown.truncate(shown.floor_char_boundary(LONGEST - CUT.len()));
            shown.push_str(CUT);
            break;
        }
    }
    shown
}

/// The same of bytes, of which the end may be missing. What is no text shows as U+FFFD.
pub(crate) fn shown_bytes(words: &[u8]) -> String {
    shown(&String::from_utf8_lossy(words))
}

/// Control characters, and those that change how what follows is seen: its direction, or whether it is seen at all.
fn is_obeyed(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_words_stay_as_they_are() {
        for words in ["", "exec: \"nope\": not found", "größer ≤ 🐘"] {
            assert_eq!(shown(words), words);
        }
        assert_eq!(shown("\n words\r\n"), "words");
    }

    #[test]
    fn what_a_terminal_would_obey_is_escaped() {
        assert_eq!(shown("a\u{1b}]0;x\u{7}b\r\nc\u{9b}2J\u{202e}d\0"), r"a\u{1b}]0;x\u{7}b\r\nc\u{9b}2J\u{202e}d\u{0}");
        assert_eq!(shown_bytes(b"a\xff\x1b[2J"), "a\u{fffd}\\u{1b}[2J");
    }

    #[test]
    fn long_words_are_cut_off_and_say_so() {
        assert_eq!(shown(&"x".repeat(LONGEST)), "x".repeat(LONGEST));
        for long in ["x".repeat(LONGEST + 1), "ß".repeat(LONGEST), "\u{1b}".repeat(LONGEST), "🐘\0".repeat(1 << 20)]
        {
            let shown = shown(&long);
            assert!(shown.len() <= LONGEST && shown.ends_with(CUT), "{shown}");
        }
    }
}
