//! The document as a whole: reads each section and gathers the faults of all.

use std::net::SocketAddr;
use std::path::Path;

use toml::de::DeTable;

use super::fault::{Fault, Faults};
use super::raw::{Mark, Section, Sink};
use super::secret::read_bounded;
use super::tenancy::Tenancy;
use super::{Config, admin, app, limits, listen, policy, roles, store};

/// Reads and checks a configuration file. Relative paths in it start where the file is.
///
/// # Errors
/// All faults of the file at once.
pub fn load(path: &Path) -> Result<Config, Faults> {
    let file = path.display().to_string();
    let whole = |message: String, hint: &str| {
        let (key, hint) = (String::new(), hint.to_owned());
        Faults::new(vec![Fault { file: file.clone(), line: 0, key, message, hint }])
    };
    let bytes = read_bounded(path).map_err(|error| {
        whole(
            format!("cannot be read: {error}"),
            "name the file with --config; it must be readable for the gateway",
        )
    })?;
    let text = String::from_utf8(bytes)
        .map_err(|_| whole("is not UTF-8 text".to_owned(), "save the file in UTF-8 encoding"))?;
    check_text(&file, &text, path.parent().unwrap_or(Path::new("")))
}

/// Checks the text of a configuration; `base_dir` is where its relative paths start.
///
/// # Errors
/// All faults of the text at once.
pub fn check_text(file_name: &str, text: &str, base_dir: &Path) -> Result<Config, Faults> {
    let (document, errors) = DeTable::parse_recoverable(text);
    let sink = Sink::new(file_name, text, base_dir, &errors);
    let config = read(Section::root(&sink, document.get_ref()));
    let faults = sink.into_faults();
    if faults.is_empty() { Ok(config) } else { Err(Faults::new(faults)) }
}

/// Reads every section. Where one is faulty the configuration holds placeholders, and is never used.
fn read(mut root: Section<'_>) -> Config {
    let listeners = listeners(&mut root);
    listen::refuse_shared(&listeners, root.sink);
    let apps = app::read_all(&mut root);
    let tenancy = Tenancy::of(apps.iter().map(|read| &read.app));
    let store = store::read(root.sub("store"));
    app::refuse_adoption_in_memory(root.sink, &apps, &store.kind);
    let config = Config {
        listen: listen::read(root.sub("listen")),
        policy: policy::read(root.sub("policy"), &apps, &tenancy),
        roles: roles::read_all(&root.sub("roles"), &tenancy),
        admin: admin::read(root.sub("admin"), &tenancy),
        store,
        limits: limits::read_limits(root.sub("limits")),
        drain: limits::read_drain(root.sub("drain")),
        log: limits::read_log(root.sub("log")),
        apps: apps.into_iter().map(|read| read.app).collect(),
    };
    root.finish();
    config
}

/// Every address that the file would listen at; what cannot be read is told by the section itself.
fn listeners(root: &mut Section<'_>) -> Vec<(Mark, SocketAddr)> {
    let keys = [("listen", "http"), ("listen", "https"), ("admin", "listen"), ("admin", "probes")];
    let at = |(section, key)| {
        let value = root.value(section)?.section_quietly()?.value(key)?;
        let address = value.as_text()?.parse().ok()?;
        Some((value.at, address))
    };
    keys.into_iter().filter_map(at).collect()
}
