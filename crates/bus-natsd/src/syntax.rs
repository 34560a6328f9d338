//! Writing nats-server's configuration syntax.

use std::fmt::Write as _;
use std::path::Path;

use crate::error::ConfigError;

/// A double-quoted string. Quotes and backslashes are escaped; a variable (`$NAME`) is only ever read outside of quotes.
pub(crate) fn quoted(what: &'static str, text: &str) -> Result<String, ConfigError> {
    if text.chars().any(char::is_control) {
        return Err(ConfigError::Unwritable { what, text: text.to_owned() });
    }
    Ok(format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")))
}

/// A path, made absolute, so that the server may be started from anywhere.
pub(crate) fn quoted_path(what: &'static str, path: &Path) -> Result<String, ConfigError> {
    let absolute =
        std::path::absolute(path).map_err(|source| ConfigError::Path { what, path: path.to_owned(), source })?;
    match absolute.to_str() {
        Some(text) => quoted(what, text),
        None => Err(ConfigError::Unwritable { what, text: absolute.to_string_lossy().into_owned() }),
    }
}

/// `[ "a", "b" ]`.
pub(crate) fn quoted_list(what: &'static str, texts: &[String]) -> Result<String, ConfigError> {
    let mut list = String::from("[");
    for (position, text) in texts.iter().enumerate() {
        let comma = if position == 0 { "" } else { "," };
        // Writing to a string cannot fail.
        let _ = write!(list, "{comma} {}", quoted(what, text)?);
    }
    list.push_str(" ]");
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_and_backslashes_are_escaped() {
        assert_eq!(quoted("name", r#"a "b" \c $d #e"#).unwrap(), r#""a \"b\" \\c $d #e""#);
        assert_eq!(quoted_list("names", &["a".into(), "b".into()]).unwrap(), r#"[ "a", "b" ]"#);
    }

    #[test]
    fn control_characters_are_refused() {
        for text in ["a\nb", "a\0b", "\u{7f}", "\u{85}"] {
            assert!(quoted("name", text).is_err(), "{text:?}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_path_that_is_not_utf8_is_refused() {
        use std::os::unix::ffi::OsStrExt;
        let path = Path::new(std::ffi::OsStr::from_bytes(b"/a/\xff"));
        assert!(matches!(quoted_path("cert", path), Err(ConfigError::Unwritable { .. })));
    }
}
