//! Reading TOML values together with their places in the text.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::ops::{Range, RangeInclusive};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{PolicyError, Position, printable};

/// A TOML document and its text.
pub(super) struct Document<'t> {
    text: &'t str,
    root: Spanned<DeTable<'t>>,
}

impl<'t> Document<'t> {
    pub(super) fn parse(text: &'t str) -> Result<Self, PolicyError> {
        match DeTable::parse(text) {
            Ok(root) => Ok(Self { text, root }),
            Err(error) => Err(PolicyError::Syntax {
                at: Position::of(text, &error.span().unwrap_or_default()),
                problem: printable(error.message()),
            }),
        }
    }

    pub(super) fn table(&self) -> Table<'_> {
        Table { text: self.text, span: 0..0, entries: self.root.get_ref() }
    }
}

/// A table, or the document itself, whose keys are read one by one.
pub(super) struct Table<'a> {
    text: &'a str,
    span: Range<usize>,
    entries: &'a DeTable<'a>,
}

/// A text value and where it stands.
pub(super) struct Text<'a> {
    text: &'a str,
    key: &'static str,
    span: Range<usize>,
    pub(super) value: &'a str,
}

impl<'a> Table<'a> {
    /// Refuses every key but these; of several unknown ones, it reports the first in the text.
    pub(super) fn allow_only(&self, keys: &[&'static str]) -> Result<(), PolicyError> {
        let unknown = self.entries.keys().filter(|key| !keys.contains(&key.get_ref().as_ref()));
        match unknown.min_by_key(|key| key.span().start) {
            None => Ok(()),
            Some(key) => Err(PolicyError::UnknownKey {
                at: Position::of(self.text, &key.span()),
                key: printable(key.get_ref()),
                allowed: keys.join(", "),
            }),
        }
    }

    /// Refuses one key of those that exist.
    pub(super) fn forbid(&self, key: &'static str, rule: &str) -> Result<(), PolicyError> {
        match self.entries.get(key) {
            None => Ok(()),
            Some(value) => Err(self.wrong(key, value, rule)),
        }
    }

    /// Requires an integer to be this one.
    pub(super) fn version(&self, key: &'static str, version: &str) -> Result<(), PolicyError> {
        let value = self.entries.get(key).ok_or_else(|| self.missing(key))?;
        match value.get_ref() {
            DeValue::Integer(integer) if integer.as_str() == version => Ok(()),
            _ => Err(self.wrong(key, value, &format!("it must be {version}, the version that this program reads"))),
        }
    }

    /// The tables of an array of tables; none if the key is absent.
    pub(super) fn tables(&self, key: &'static str) -> Result<Vec<Table<'a>>, PolicyError> {
        let Some(value) = self.entries.get(key) else {
            return Ok(Vec::new());
        };
        let rule = format!("it must be tables that begin with `[[{key}]]`");
        let DeValue::Array(array) = value.get_ref() else {
            return Err(self.wrong(key, value, &rule));
        };
        let table = |item: &'a Spanned<DeValue<'a>>| match item.get_ref() {
            DeValue::Table(entries) => Ok(Table { text: self.text, span: item.span(), entries }),
            _ => Err(self.wrong(key, item, &rule)),
        };
        array.iter().map(table).collect()
    }

    /// A text, if the key is there.
    pub(super) fn text(&self, key: &'static str) -> Result<Option<Text<'a>>, PolicyError> {
        match self.entries.get(key) {
            None => Ok(None),
            Some(value) => self.as_text(key, value, "it must be a text in quotes").map(Some),
        }
    }

    /// `true` or `false`, if the key is there.
    pub(super) fn boolean(&self, key: &'static str) -> Result<Option<bool>, PolicyError> {
        let read = |value: &Spanned<DeValue<'_>>| match value.get_ref() {
            DeValue::Boolean(boolean) => Ok(*boolean),
            _ => Err(self.wrong(key, value, "it must be true or false")),
        };
        self.entries.get(key).map(read).transpose()
    }

    /// A whole number within these bounds, if the key is there.
    pub(super) fn integer(&self, key: &'static str, bounds: RangeInclusive<u64>) -> Result<Option<u32>, PolicyError> {
        let read = |value: &Spanned<DeValue<'_>>| {
            let number = match value.get_ref() {
                DeValue::Integer(integer) => u64::from_str_radix(integer.as_str(), integer.radix()).ok(),
                _ => None,
            };
            let number = number.filter(|number| bounds.contains(number)).and_then(|number| u32::try_from(number).ok());
            let rule = || format!("it must be a whole number, {} to {}", bounds.start(), bounds.end());
            number.ok_or_else(|| self.wrong(key, value, &rule()))
        };
        self.entries.get(key).map(read).transpose()
    }

    /// A text that must be there.
    pub(super) fn required_text(&self, key: &'static str) -> Result<Text<'a>, PolicyError> {
        self.text(key)?.ok_or_else(|| self.missing(key))
    }

    /// The texts of an array, or `None` if the value is a text or absent. Anything else breaks `rule`.
    pub(super) fn texts(&self, key: &'static str, rule: &str) -> Result<Option<Vec<Text<'a>>>, PolicyError> {
        let Some(value) = self.entries.get(key) else {
            return Ok(None);
        };
        match value.get_ref() {
            DeValue::String(_) => Ok(None),
            DeValue::Array(items) if !items.is_empty() => {
                let texts = items.iter().map(|item| self.as_text(key, item, rule));
                texts.collect::<Result<_, _>>().map(Some)
            }
            _ => Err(self.wrong(key, value, rule)),
        }
    }

    fn as_text(&self, key: &'static str, value: &'a Spanned<DeValue<'a>>, rule: &str) -> Result<Text<'a>, PolicyError> {
        match value.get_ref() {
            DeValue::String(text) => Ok(Text { text: self.text, key, span: value.span(), value: text }),
            _ => Err(self.wrong(key, value, rule)),
        }
    }

    /// Where the table begins.
    pub(super) fn at(&self) -> Position {
        Position::of(self.text, &self.span)
    }

    fn missing(&self, key: &'static str) -> PolicyError {
        PolicyError::MissingKey { at: self.at(), key }
    }

    fn wrong(&self, key: &'static str, value: &Spanned<DeValue<'_>>, rule: &str) -> PolicyError {
        PolicyError::Value {
            at: Position::of(self.text, &value.span()),
            key,
            problem: found(self.text, &value.span(), rule),
        }
    }
}

impl Text<'_> {
    /// Parses the value. The error of `parse` names the value and says what is wrong with it.
    pub(super) fn parse<T, E: fmt::Display>(&self, parse: impl FnOnce(&str) -> Result<T, E>) -> Result<T, PolicyError> {
        parse(self.value).map_err(|error| self.error(error.to_string()))
    }

    /// The error that the value breaks `rule`.
    pub(super) fn wrong(&self, rule: &str) -> PolicyError {
        self.error(found(self.text, &self.span, rule))
    }

    fn error(&self, problem: String) -> PolicyError {
        PolicyError::Value { at: Position::of(self.text, &self.span), key: self.key, problem }
    }
}

/// What the text says at `span`, and the rule that it breaks.
fn found(text: &str, span: &Range<usize>, rule: &str) -> String {
    format!("found {}: {rule}", printable(text.get(span.clone()).unwrap_or_default()))
}
