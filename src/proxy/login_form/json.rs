//! JSON bodies. Readers differ in which of two members with one name they keep, and in whether case matters, so all
//! that fit are counted.

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{FormFault, Found};

pub(super) fn read(body: &[u8], field: &str, found: &mut Found) -> Result<(), FormFault> {
    let path = path_of(field);
    let mut json = serde_json::Deserializer::from_slice(body);
    let read = Seek { path: &path, found }.deserialize(&mut json).and_then(|()| json.end());
    read.map_err(|_| FormFault::Malformed)
}

/// The members on the way to the field.
fn path_of(field: &str) -> Vec<String> {
    match jsonptr::Pointer::parse(field) {
        Ok(pointer) if field.starts_with('/') => {
            pointer.tokens().map(|token| token.decoded().into_owned()).collect()
        }
        _ => vec![field.to_owned()],
    }
}

/// Goes down `path`, past everything else.
struct Seek<'s> {
    path: &'s [String],
    found: &'s mut Found,
}

impl Seek<'_> {
    fn leaf(self, text: impl FnOnce() -> Result<String, FormFault>) {
        if self.path.is_empty() {
            self.found.add(text());
        }
    }
}

impl<'de> DeserializeSeed<'de> for Seek<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seek<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        self.leaf(|| Ok(text.to_owned()));
        Ok(())
    }

    // Numbers name people too: of staff, of accounts.
    fn visit_u64<E>(self, number: u64) -> Result<(), E> {
        self.leaf(|| Ok(number.to_string()));
        Ok(())
    }

    fn visit_i64<E>(self, number: i64) -> Result<(), E> {
        self.leaf(|| Ok(number.to_string()));
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        self.leaf(|| Err(FormFault::NotText));
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        self.leaf(|| Err(FormFault::NotText));
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { path, found } = self;
        if path.is_empty() {
            found.add(Err(FormFault::NotText));
        }
        while let Some(key) = map.next_key::<String>()? {
            match path.split_first() {
                Some((member, rest)) if key.eq_ignore_ascii_case(member) => {
                    map.next_value_seed(Seek { path: rest, found: &mut *found })?;
                }
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let Self { path, found } = self;
        if path.is_empty() {
            found.add(Err(FormFault::NotText));
        }
        let wanted = path.first().and_then(|member| member.parse::<usize>().ok());
        let mut at = 0;
        loop {
            let there = match path.split_first().filter(|_| wanted == Some(at)) {
                Some((_, rest)) => list.next_element_seed(Seek { path: rest, found: &mut *found })?.is_some(),
                None => list.next_element::<IgnoredAny>()?.is_some(),
            };
            if !there {
                return Ok(());
            }
            at += 1;
        }
    }
}
