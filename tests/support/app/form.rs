//! What a sign-in request says, in each of the three ways a browser or a script may say it.

use std::convert::Infallible;

use bytes::Bytes;
use futures_util::stream;

use super::wire::Head;

/// The fields of a posted form: urlencoded, multipart, or the members of a JSON object.
pub async fn fields(head: &Head, body: &[u8]) -> Vec<(String, String)> {
    let kind = head.header("content-type").unwrap_or_default();
    if kind.starts_with("application/json") {
        from_json(body)
    } else if let Ok(boundary) = multer::parse_boundary(kind) {
        from_multipart(body, boundary).await
    } else {
        form_urlencoded::parse(body).into_owned().collect()
    }
}

/// The last value of a field: old frameworks differ on first or last, this one takes the last.
pub fn value<'a>(fields: &'a [(String, String)], name: &str) -> &'a str {
    fields.iter().rev().find(|(n, _)| n == name).map_or("", |(_, value)| value)
}

fn from_json(body: &[u8]) -> Vec<(String, String)> {
    let Ok(serde_json::Value::Object(members)) = serde_json::from_slice(body) else { return Vec::new() };
    members.into_iter().filter_map(|(name, value)| Some((name, value.as_str()?.to_owned()))).collect()
}

async fn from_multipart(body: &[u8], boundary: String) -> Vec<(String, String)> {
    let whole = stream::iter([Ok::<_, Infallible>(Bytes::copy_from_slice(body))]);
    let mut parts = multer::Multipart::new(whole, boundary);
    let mut fields = Vec::new();
    while let Ok(Some(field)) = parts.next_field().await {
        let name = field.name().unwrap_or_default().to_owned();
        if let Ok(text) = field.text().await {
            fields.push((name, text));
        }
    }
    fields
}
