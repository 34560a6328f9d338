//! Why a text is not a policy.

use alloc::string::String;
use core::fmt;
use core::ops::Range;

use crate::delivery::DeliveryError;

/// A place in a policy text, printed as `line 3, column 8`. Both count from 1, columns in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

impl Position {
    /// Where `span` begins in `text`.
    pub(super) fn of(text: &str, span: &Range<usize>) -> Self {
        let before = text.get(..span.start).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Self {
            line: before.matches('\n').count() + 1,
            column: before.chars().count() - before.get(..line_start).map_or(0, |lines| lines.chars().count()) + 1,
        }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

/// Why a text is not a policy.
///
/// What the text says at that place is shown shortened and, outside ASCII, escaped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// The text is longer than [`MAX_POLICY_LEN`](crate::MAX_POLICY_LEN).
    #[error("the policy has {len} bytes, at most {max} are allowed")]
    TooLong {
        /// How long it is, in bytes.
        len: usize,
        /// The longest that is allowed, in bytes.
        max: usize,
    },
    /// There are more rules than [`MAX_RULES`](crate::MAX_RULES).
    #[error("the policy has {count} rules, at most {max} are allowed: let rules name several types, or `*`")]
    TooManyRules {
        /// How many there are.
        count: usize,
        /// The most that are allowed.
        max: usize,
    },
    /// There are more rules about forms than [`MAX_FORMS`](crate::MAX_FORMS).
    #[error("the policy has {count} forms, at most {max} are allowed: let forms name several types, or `*`")]
    TooManyForms {
        /// How many there are.
        count: usize,
        /// The most that are allowed.
        max: usize,
    },
    /// There are more rules about delivery than [`MAX_DELIVERIES`](crate::MAX_DELIVERIES).
    #[error("the policy has {count} deliveries, at most {max} are allowed: let deliveries name several types, or `*`")]
    TooManyDeliveries {
        /// How many there are.
        count: usize,
        /// The most that are allowed.
        max: usize,
    },
    /// There are more consumers than [`MAX_DURABLES`](crate::MAX_DURABLES).
    #[error("the policy has {count} durables, at most {max} are allowed: let durables name several types, or `*`")]
    TooManyDurables {
        /// How many there are.
        count: usize,
        /// The most that are allowed.
        max: usize,
    },
    /// Rules about delivery, or consumers of what they keep, that do not fit together.
    #[error("{at}: {error}")]
    Delivery {
        /// Where the table begins that does not fit, of several the last.
        at: Position,
        /// What does not fit.
        error: DeliveryError,
    },
    /// The text is not TOML.
    #[error("{at}: not valid TOML: {problem}")]
    Syntax {
        /// Where.
        at: Position,
        /// What the parser says.
        problem: String,
    },
    /// A key that does not exist.
    #[error("{at}: unknown key `{key}`: the keys here are {allowed}")]
    UnknownKey {
        /// Where.
        at: Position,
        /// The key.
        key: String,
        /// The keys that exist there.
        allowed: String,
    },
    /// A key that a rule or the policy must have.
    #[error("{at}: the key `{key}` is missing here")]
    MissingKey {
        /// Where the table begins.
        at: Position,
        /// The key.
        key: &'static str,
    },
    /// A value that its key does not allow.
    #[error("{at}: `{key}`: {problem}")]
    Value {
        /// Where.
        at: Position,
        /// The key.
        key: &'static str,
        /// What the text says there, what is wrong with it and what is allowed.
        problem: String,
    },
    /// A form that says nothing.
    #[error("{at}: a form must have `seal`, `compress` or both")]
    EmptyForm {
        /// Where the table begins.
        at: Position,
    },
    /// Forms that together name more recipients than one message can be sealed for:
    /// [`MAX_RECIPIENTS`](crate::MAX_RECIPIENTS).
    #[error(
        "{at}: a message that this form is about would be sealed for {count} recipients, the owner of its inbox and those \
         of other forms included, at most {max} are allowed: name fewer"
    )]
    TooManyRecipients {
        /// Where the table of the last of these forms begins.
        at: Position,
        /// How many recipients there would be.
        count: usize,
        /// The most that are allowed.
        max: usize,
    },
}

/// The longest piece of a policy text that an error shows, in characters.
const MAX_SHOWN: usize = 80;

/// Shortens and escapes untrusted text for an error message. Quotes stay as they are.
pub(super) fn printable(text: &str) -> String {
    let mut shown = String::new();
    for character in text.chars().take(MAX_SHOWN) {
        match character {
            ' '..='~' => shown.push(character),
            _ => shown.extend(character.escape_default()),
        }
    }
    if text.chars().nth(MAX_SHOWN).is_some() {
        shown.push('…');
    }
    shown
}
