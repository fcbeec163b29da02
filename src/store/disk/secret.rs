//! The gateway's own secret, where the configuration names none: made at the first start, for its owner alone (R24).

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::StoreFault;
use crate::store::Secrets;
use crate::store::keys::{SECRET_BYTES, derive_key, new_secret};

/// What the secrets of the directory make: its own, and the one before that somebody laid aside. Call it with the
/// directory's lock held.
pub(super) fn of(directory: &Path) -> Result<Secrets, StoreFault> {
    let (path, before) = (file_in(directory), directory.join("secret.previous"));
    let previous = found(&before)?.into_iter().collect();
    let current = match found(&path)? {
        Some(secret) => secret,
        None => make(&path).map_err(|source| StoreFault::Directory { path, source })?,
    };
    Ok(Secrets { previous, ..Secrets::from(current) })
}

fn found(path: &Path) -> Result<Option<[u8; 32]>, StoreFault> {
    match read(path) {
        Ok(secret) => Ok(Some(derive_key(&*secret))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(StoreFault::Directory { path: path.to_path_buf(), source }),
    }
}

/// Where it lies.
pub(super) fn file_in(directory: &Path) -> PathBuf {
    directory.join("secret")
}

fn read(path: &Path) -> std::io::Result<Zeroizing<[u8; SECRET_BYTES]>> {
    let mut secret = Zeroizing::new([0; SECRET_BYTES]);
    let mut file = std::fs::File::open(path)?;
    file.read_exact(&mut *secret)?;
    Ok(secret)
}

/// Written beside its place and moved there whole: half a secret would be another one after the next start.
fn make(path: &Path) -> std::io::Result<[u8; 32]> {
    let secret = new_secret();
    let beside = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    file.write_all(&*secret)?;
    file.sync_all()?;
    std::fs::rename(&beside, path)?;
    if let Some(directory) = path.parent() {
        std::fs::File::open(directory)?.sync_all()?;
    }
    Ok(derive_key(&*secret))
}
