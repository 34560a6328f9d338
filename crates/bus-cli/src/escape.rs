//! Text of a peer, made safe to show: nothing in it can steer a terminal, or make text look like another.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Whether a character is not shown itself but acts on what is: controls (Cc), format characters such as those that
/// turn the direction of text or are invisible (Cf), and the separators of lines and paragraphs (Zl, Zp).
fn is_unseen(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{ad}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' | '\u{890}' | '\u{891}' | '\u{8e2}'
            | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}' | '\u{110bd}' | '\u{110cd}' | '\u{13430}'..='\u{1343f}'
            | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

/// A peer's text for people: on one line, with what is unseen escaped as in Rust.
pub(crate) fn plain(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if is_unseen(character) {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}

/// JSON that says the same, with what is unseen escaped as JSON does. White space between its values is kept.
pub(crate) fn json(text: &str) -> Cow<'_, str> {
    // Outside of strings, JSON has no such characters but white space, and within them that is escaped already.
    let is_raw = |character| is_unseen(character) && !matches!(character, '\n' | '\r' | '\t');
    if !text.contains(is_raw) {
        return text.into();
    }
    let mut shown = String::with_capacity(text.len() + 32);
    for character in text.chars() {
        if is_raw(character) {
            for unit in character.encode_utf16(&mut [0; 2]) {
                // Writing to a string cannot fail.
                let _ = write!(shown, "\\u{unit:04x}");
            }
        } else {
            shown.push(character);
        }
    }
    shown.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNSEEN: &str = "\u{1b}\u{7f}\u{85}\u{9b}\u{ad}\u{200b}\u{2028}\u{202e}\u{2066}\u{feff}\u{e0041}";

    #[test]
    fn what_is_unseen_is_escaped_for_people() {
        assert_eq!(plain("ä \"x\" \\ 语 a\u{301}"), "ä \"x\" \\ 语 a\u{301}");
        assert_eq!(plain("a\u{202e}b\n"), "a\\u{202e}b\\n");
        assert!(plain(UNSEEN).is_ascii());
    }

    #[test]
    fn what_is_unseen_is_escaped_in_json_and_means_the_same() {
        let value = serde_json::json!({ UNSEEN: [UNSEEN, "ä\n语"] });
        let written = value.to_string();
        let shown = json(&written);
        assert!(!shown.contains(is_unseen), "{shown}");
        assert!(shown.contains("\\u009b") && shown.contains("\\udb40\\udc41") && shown.contains('语'), "{shown}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
        assert!(matches!(json("{\"a\":1}\n"), Cow::Borrowed(_)));
    }
}
