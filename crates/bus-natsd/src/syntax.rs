//! Writing nats-server's configuration syntax.

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

/// `[ "a" ]`; several texts have a line each, which nests within a user's permissions.
pub(crate) fn quoted_list(what: &'static str, texts: &[String]) -> Result<String, ConfigError> {
    let quoted: Vec<String> = texts.iter().map(|text| quoted(what, text)).collect::<Result<_, _>>()?;
    Ok(match quoted.as_slice() {
        [one] => format!("[ {one} ]"),
        several => format!("[\n              {}\n            ]", several.join("\n              ")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_and_backslashes_are_escaped() {
        assert_eq!(quoted("name", r#"a "b" \c $d #e"#).unwrap(), r#""a \"b\" \\c $d #e""#);
    }

    #[test]
    fn several_texts_have_a_line_each() {
        assert_eq!(quoted_list("names", &["a".into()]).unwrap(), r#"[ "a" ]"#);
        let lines = quoted_list("names", &["a".into(), "b".into()]).unwrap();
        assert_eq!(lines.split_whitespace().collect::<Vec<_>>(), ["[", r#""a""#, r#""b""#, "]"]);
        assert_eq!(lines.lines().count(), 4);
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
