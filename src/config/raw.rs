//! The file as written: a TOML document with spans, walked section by section.
//!
//! The walk is by hand and not by serde, so that it goes on after a fault and every fault knows its line (R28).
//! A [`Section`] remembers which keys were asked for; [`Section::finish`] refuses the others.

use std::cell::RefCell;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::fault::Fault;

/// A place in the document.
#[derive(Clone, Debug)]
pub(super) struct Mark {
    /// `app[0].cookie`.
    pub(super) key: String,
    offset: usize,
}

/// Gathers the faults of one file.
pub(super) struct Sink<'t> {
    file: &'t str,
    text: &'t str,
    base: &'t Path,
    /// Lines that are no TOML. What was recovered of them is guesswork, so nothing more is said about them.
    broken: Vec<usize>,
    /// The same for this line and all that follow it.
    broken_from: usize,
    faults: RefCell<Vec<Fault>>,
}

impl<'t> Sink<'t> {
    /// A sink that holds the faults of syntax already.
    pub(super) fn new(file: &'t str, text: &'t str, base: &'t Path, errors: &[toml::de::Error]) -> Self {
        let (broken, broken_from, faults) = (Vec::new(), usize::MAX, RefCell::default());
        let mut sink = Self { file, text, base, broken, broken_from, faults };
        let mut open_list = Vec::new();
        for error in errors {
            let line = sink.line(error.span().map_or(0, |span| span.start));
            // One mistake often confuses the parser several times over.
            if !sink.is_broken(line) {
                sink.push(line, "", error.message().to_owned(), syntax_hint(error.message()).to_owned());
            }
            sink.broken.push(line);
            if error.message().starts_with(OPEN_LIST) {
                open_list.push(line);
            }
        }
        // Two such lines mean that a list was never closed: what follows was read as its elements.
        open_list.dedup();
        if let [first, _, ..] = open_list[..] {
            sink.broken_from = first;
            sink.faults.get_mut().retain(|fault| fault.line <= first);
        }
        sink
    }

    pub(super) fn fault(&self, at: &Mark, message: impl Into<String>, hint: impl Into<String>) {
        let line = self.line(at.offset);
        if !self.is_broken(line) {
            self.push(line, &at.key, message.into(), hint.into());
        }
    }

    /// A fault by absence; not told of a text that could not be read whole.
    pub(super) fn missing(&self, at: &Mark, message: impl Into<String>, hint: impl Into<String>) {
        if self.broken.is_empty() {
            self.fault(at, message, hint);
        }
    }

    fn is_broken(&self, line: usize) -> bool {
        line >= self.broken_from || self.broken.contains(&line)
    }

    fn push(&self, line: usize, key: &str, message: String, hint: String) {
        let (file, key) = (self.file.to_owned(), key.to_owned());
        self.faults.borrow_mut().push(Fault { file, line, key, message, hint });
    }

    fn line(&self, offset: usize) -> usize {
        let upto = self.text.as_bytes().get(..offset).unwrap_or(self.text.as_bytes());
        1 + memchr::memchr_iter(b'\n', upto).count()
    }

    /// A path of the file; a relative one starts where the file is.
    pub(super) fn path(&self, text: &str) -> PathBuf {
        self.base.join(text)
    }

    pub(super) fn into_faults(self) -> Vec<Fault> {
        self.faults.into_inner()
    }
}

/// What the parser says of everything after a list that is not closed.
const OPEN_LIST: &str = "missing comma between array elements";

fn syntax_hint(message: &str) -> &'static str {
    if message.starts_with(OPEN_LIST) {
        "a list ends with \"]\", and its elements stand between commas"
    } else if message.contains("duplicate key") {
        "a key may stand once in its table, and a [table] once in the file: remove or join the second"
    } else if message.contains("header") || message.contains("`]`") {
        "a table starts with [name], an entry of a list of tables with [[name]]"
    } else {
        "texts, durations and sizes stand in double quotes; numbers, true and false do not"
    }
}

/// A value with its place.
#[derive(Clone)]
pub(super) struct Value<'t> {
    pub(super) sink: &'t Sink<'t>,
    pub(super) at: Mark,
    de: &'t DeValue<'t>,
}

impl<'t> Value<'t> {
    fn new(sink: &'t Sink<'t>, key: String, spanned: &'t Spanned<DeValue<'t>>) -> Self {
        let at = Mark { key, offset: spanned.span().start };
        Self { sink, at, de: spanned.get_ref() }
    }

    pub(super) fn fault(&self, message: impl Into<String>, hint: impl Into<String>) {
        self.sink.fault(&self.at, message, hint);
    }

    /// Reports that the value should have been `wanted` (with its article).
    pub(super) fn wrong_type(&self, wanted: &str, hint: &str) {
        let found = match self.de {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) => "an integer",
            DeValue::Float(_) => "a float",
            DeValue::Boolean(_) => "a boolean",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        self.fault(format!("must be {wanted}, not {found}"), hint);
    }

    /// The string, without a fault when it is something else.
    pub(super) fn as_text(&self) -> Option<&'t str> {
        self.de.as_str()
    }

    /// The boolean, without a fault when it is something else.
    pub(super) fn as_flag(&self) -> Option<bool> {
        self.de.as_bool()
    }

    pub(super) fn is_whole(&self) -> bool {
        self.de.is_integer()
    }

    pub(super) fn is_zero(&self) -> bool {
        self.de.as_integer().is_some_and(|integer| integer.as_str() == "0")
    }

    pub(super) fn is_table(&self) -> bool {
        self.de.is_table()
    }

    pub(super) fn is_empty_list(&self) -> bool {
        self.de.as_array().is_some_and(|list| list.is_empty())
    }

    pub(super) fn text(&self) -> Option<&'t str> {
        let text = self.as_text();
        if text.is_none() {
            self.wrong_type("a string", "write it in double quotes");
        }
        text
    }

    pub(super) fn flag(&self) -> Option<bool> {
        let flag = self.as_flag();
        if flag.is_none() {
            self.wrong_type("true or false", "write true or false, without quotes");
        }
        flag
    }

    /// A whole number within `range`.
    pub(super) fn whole(&self, range: Range<u64>) -> Option<u64> {
        let Some(integer) = self.de.as_integer() else {
            self.wrong_type("a whole number", "write the number alone, without quotes");
            return None;
        };
        let number =
            u64::from_str_radix(integer.as_str(), integer.radix()).ok().filter(|n| range.contains(n));
        if number.is_none() {
            let (least, most) = (range.start, range.end - 1);
            self.fault(
                format!("{integer} is out of range"),
                format!("write a number from {least} to {most}"),
            );
        }
        number
    }

    /// The elements of a list.
    pub(super) fn list(&self) -> Vec<Value<'t>> {
        let Some(array) = self.de.as_array() else {
            self.wrong_type("a list", "write it in brackets: [\"...\"]");
            return Vec::new();
        };
        let element = |(i, value)| Self::new(self.sink, format!("{}[{i}]", self.at.key), value);
        array.iter().enumerate().map(element).collect()
    }

    /// The elements of a list, or the one value that stands in its place.
    pub(super) fn one_or_more(&self) -> Vec<Value<'t>> {
        if self.de.is_array() { self.list() } else { vec![self.clone()] }
    }

    pub(super) fn section(&self) -> Option<Section<'t>> {
        let section = self.section_quietly();
        if section.is_none() {
            self.wrong_type("a table", "write { key = value }");
        }
        section
    }

    /// The table, without a fault when it is something else.
    pub(super) fn section_quietly(&self) -> Option<Section<'t>> {
        let table = self.de.as_table()?;
        Some(Section { sink: self.sink, at: self.at.clone(), table: Some(table), known: Vec::new() })
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(&self, choices: &[(&'static str, T)]) -> Option<T> {
        let text = self.text()?;
        let found = choices.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        if found.is_none() {
            let words: Vec<_> = choices.iter().map(|(word, _)| *word).collect();
            self.fault(format!("{text:?} is not known here"), suggestion(text, &words));
        }
        found
    }
}

/// A table being read. A section that the file does not have reads as empty, so that its defaults hold.
pub(super) struct Section<'t> {
    pub(super) sink: &'t Sink<'t>,
    pub(super) at: Mark,
    table: Option<&'t DeTable<'t>>,
    known: Vec<&'static str>,
}

impl<'t> Section<'t> {
    pub(super) fn root(sink: &'t Sink<'t>, table: &'t DeTable<'t>) -> Self {
        let at = Mark { key: String::new(), offset: 0 };
        Self { sink, at, table: Some(table), known: Vec::new() }
    }

    /// Whether the file has this section.
    pub(super) fn is_present(&self) -> bool {
        self.table.is_some()
    }

    pub(super) fn fault(&self, message: impl Into<String>, hint: impl Into<String>) {
        self.sink.fault(&self.at, message, hint);
    }

    fn key_of(&self, key: &str) -> String {
        if self.at.key.is_empty() { key.to_owned() } else { format!("{}.{key}", self.at.key) }
    }

    /// The value of `key`, which is known from now on.
    pub(super) fn value(&mut self, key: &'static str) -> Option<Value<'t>> {
        if !self.known.contains(&key) {
            self.known.push(key);
        }
        self.table?.get(key).map(|value| Value::new(self.sink, self.key_of(key), value))
    }

    /// The value of `key`; its absence is a fault.
    pub(super) fn required(&mut self, key: &'static str, hint: &str) -> Option<Value<'t>> {
        let value = self.value(key);
        if value.is_none() {
            let at = Mark { key: self.key_of(key), offset: self.at.offset };
            self.sink.missing(&at, "is missing", hint);
        }
        value
    }

    pub(super) fn flag(&mut self, key: &'static str, default: bool) -> bool {
        self.value(key).and_then(|value| value.flag()).unwrap_or(default)
    }

    pub(super) fn list(&mut self, key: &'static str) -> Vec<Value<'t>> {
        self.value(key).map(|value| value.list()).unwrap_or_default()
    }

    /// The table `key`; empty when the file has none.
    pub(super) fn sub(&mut self, key: &'static str) -> Section<'t> {
        let at = Mark { key: self.key_of(key), offset: self.at.offset };
        let empty = Section { sink: self.sink, at, table: None, known: Vec::new() };
        self.value(key).and_then(|value| value.section()).unwrap_or(empty)
    }

    /// The list of tables `key`.
    pub(super) fn tables(&mut self, key: &'static str) -> Vec<Section<'t>> {
        let Some(value) = self.value(key) else { return Vec::new() };
        if value.is_table() {
            let hint =
                format!("write [[{key}]] with double brackets before what belongs to it", key = value.at.key);
            value.wrong_type("a list of tables", &hint);
            return Vec::new();
        }
        value.list().iter().filter_map(Value::section).collect()
    }

    /// All entries by name, for tables whose keys the file chooses.
    pub(super) fn entries(&self) -> Vec<(&'t str, Value<'t>)> {
        let entry = |(key, value): (&'t Spanned<_>, _)| {
            let key: &'t str = std::borrow::Borrow::borrow(key);
            (key, Value::new(self.sink, self.key_of(key), value))
        };
        self.table.map(|table| table.iter().map(entry).collect()).unwrap_or_default()
    }

    /// Refuses every key that was not asked for.
    pub(super) fn finish(self) {
        self.finish_with(|_| None);
    }

    /// As [`Section::finish`]; `elsewhere` may know where a key belongs.
    pub(super) fn finish_with(self, elsewhere: impl Fn(&str) -> Option<String>) {
        for key in self.table.into_iter().flat_map(|table| table.keys()) {
            let name: &str = key.get_ref();
            if self.known.contains(&name) {
                continue;
            }
            let hint = elsewhere(name).unwrap_or_else(|| suggestion(name, &self.known));
            let at = Mark { key: self.key_of(name), offset: key.span().start };
            self.sink.fault(&at, "unknown key", hint);
        }
    }
}

/// "Did you mean", or the list of what is known.
pub(super) fn suggestion(word: &str, known: &[&str]) -> String {
    let distance = |candidate: &&&str| strsim::damerau_levenshtein(word, candidate);
    match known.iter().min_by_key(distance) {
        Some(best) if distance(&best) <= 1 + word.len() / 5 => format!("did you mean {best:?}?"),
        _ => format!("known here: {}", known.join(", ")),
    }
}
