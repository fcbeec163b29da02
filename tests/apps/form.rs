//! What a person sees of a page's HTML: forms to fill in and links to follow. No parser: the pages are known.

use crate::support::browser::{Browser, Page};

/// Fills in the first form that posts, its hidden fields kept as they are, and submits it.
pub(crate) async fn submit(browser: &Browser, page: &Page, fields: &[(&str, &str)]) -> Page {
    let (action, hidden) = posting_form(&page.text());
    let mut all: Vec<(&str, &str)> =
        hidden.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    all.extend_from_slice(fields);
    browser.post_form(&action, &all).await
}

/// Whether there is a field of this name to fill in.
pub(crate) fn asks_for(page: &Page, field: &str) -> bool {
    page.text().contains(&format!("name=\"{field}\""))
}

/// Where the first link leads.
pub(crate) fn first_link(page: &Page) -> Option<String> {
    tags(&page.text(), "a").find_map(|tag| attribute(tag, "href"))
}

/// What stands between `before` and the next tag.
pub(crate) fn text_after(page: &Page, before: &str) -> Option<String> {
    let text = page.text();
    let (_, rest) = text.split_once(before)?;
    Some(rest.split('<').next().unwrap_or_default().trim().to_owned())
}

/// Action and hidden fields.
fn posting_form(html: &str) -> (String, Vec<(String, String)>) {
    let posts =
        |tag: &&str| attribute(tag, "method").is_some_and(|method| method.eq_ignore_ascii_case("post"));
    let tag = tags(html, "form").find(posts).expect("the page has a form that posts");
    let rest = &html[tag.as_ptr().addr() - html.as_ptr().addr()..];
    let form = rest.split("</form").next().unwrap_or(rest);
    let hidden = tags(form, "input").filter(|tag| attribute(tag, "type").as_deref() == Some("hidden"));
    let hidden = hidden.filter_map(|tag| Some((attribute(tag, "name")?, attribute(tag, "value")?)));
    (attribute(tag, "action").unwrap_or_default(), hidden.collect())
}

/// The opening tags of this name.
fn tags<'a>(html: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    let opening = format!("<{name} ");
    let starts: Vec<usize> = html.match_indices(&opening).map(|(at, _)| at).collect();
    starts.into_iter().map(|at| html[at..].split('>').next().unwrap_or_default())
}

fn attribute(tag: &str, name: &str) -> Option<String> {
    let (_, rest) = tag.split_once(&format!(" {name}="))?;
    let quote = rest.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    let value = rest[1..].split(quote).next()?;
    Some(value.replace("&amp;", "&"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_that_posts_is_found_with_its_hidden_fields() {
        let html = "<form action='find'><input type='hidden' name='x' value='1'></form>\n\
            <form id=\"l\" method=\"POST\" action='go;id=A?a=1&amp;b=2' >\
            <input type=\"hidden\" name=\"csrf\" value=\"t\"><input type=\"text\" name=\"user\"></form>\
            <input type=\"hidden\" name=\"late\" value=\"2\">";
        let (action, hidden) = posting_form(html);
        assert_eq!(action, "go;id=A?a=1&b=2");
        assert_eq!(hidden, [("csrf".to_owned(), "t".to_owned())]);
    }
}
