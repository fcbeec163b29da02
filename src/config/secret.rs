//! Secrets: values that may stand in the environment or in a file of their own, and that are never shown.

use std::fmt;
use std::io::Read;
use std::path::Path;

use zeroize::Zeroizing;

use super::raw::Value;

/// The largest file that a value may name. Secrets and PEM files are far smaller.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Bytes that nobody may see: without `Display` and `Serialize`, masked in `Debug`, wiped when dropped.
#[derive(Clone)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// A secret of these bytes.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes, for the one place that needs them.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Value<'_> {
    /// A secret: `file:PATH`, or a text in which each `${NAME}` stands for a variable of the environment.
    pub(super) fn secret(&self) -> Option<Secret> {
        let text = self.text()?;
        match text.strip_prefix("file:") {
            Some(path) => self.file(path).map(Secret::new),
            None => self.with_environment(text).map(|text| Secret::new(text.into_bytes())),
        }
    }

    /// The text of a secret.
    pub(super) fn secret_text(&self) -> Option<Zeroizing<String>> {
        let secret = self.secret()?;
        let text = std::str::from_utf8(secret.expose()).map(|text| Zeroizing::new(text.to_owned()));
        if text.is_err() {
            self.fault("is not UTF-8 text", "the file must hold the text alone");
        }
        text.ok()
    }

    /// What a file holds, without the line end that editors add.
    pub(super) fn file(&self, path: &str) -> Option<Vec<u8>> {
        let path = self.sink.path(path);
        match read_bounded(&path) {
            Ok(mut bytes) => {
                let kept = bytes.trim_ascii_end().len();
                if bytes[kept..].iter().all(|b| matches!(b, b'\n' | b'\r')) {
                    bytes.truncate(kept);
                }
                Some(bytes)
            }
            Err(error) => {
                let hint =
                    "a relative path starts where the configuration is; the gateway must be able to read it";
                self.fault(format!("cannot read {}: {error}", path.display()), hint);
                None
            }
        }
    }

    fn with_environment(&self, text: &str) -> Option<String> {
        let mut out = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            let Some((name, tail)) = after.split_once('}') else {
                self.fault("\"${\" is not closed", "write ${NAME}");
                return None;
            };
            let Ok(value) = std::env::var(name) else {
                let hint = format!("set {name} where the gateway is started, or use file:PATH");
                self.fault(format!("the environment has no variable {name}"), hint);
                return None;
            };
            out.push_str(before);
            out.push_str(&value);
            rest = tail;
        }
        out.push_str(rest);
        Some(out)
    }
}

/// What a file holds, up to [`MAX_FILE_BYTES`].
pub(super) fn read_bounded(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(std::io::Error::other("it is larger than 1 MiB"));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_shows_nothing() {
        let secret = Secret::new(b"hunter2".to_vec());
        assert_eq!(format!("{secret:?}"), "Secret(..)");
        assert_eq!(secret.expose(), b"hunter2");
    }
}
