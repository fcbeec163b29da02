//! What is known of an app's cookies: which names are tokens, and what part of a value is the id.

/// A cookie of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CookieRule {
    /// Which names it covers.
    pub name: NamePattern,
    /// What the cookie is to the app.
    pub kind: CookieKind,
    /// How the id is taken out of the value.
    pub extract: Extract,
}

/// What a configured cookie is to the app.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CookieKind {
    /// It carries the session.
    Session,
    /// Another cookie that signs a browser in again (remember-me). A token of its own, dying with its session (R3).
    Companion,
}

/// A cookie name, or a prefix of names (`"remember_web_*"`). Names are compared byte for byte, as browsers do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NamePattern {
    /// This name.
    Exact(String),
    /// Every name that starts so.
    Prefix(String),
}

impl NamePattern {
    /// Reads the configuration's form: `*` at the end makes a prefix.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        match text.strip_suffix('*') {
            Some(prefix) => Self::Prefix(prefix.to_owned()),
            None => Self::Exact(text.to_owned()),
        }
    }

    /// Whether `name` is covered.
    #[must_use]
    pub fn matches(&self, name: &[u8]) -> bool {
        match self {
            Self::Exact(exact) => exact.as_bytes() == name,
            Self::Prefix(prefix) => name.starts_with(prefix.as_bytes()),
        }
    }

    /// Whether `name` is covered when case is ignored.
    #[must_use]
    pub fn matches_any_case(&self, name: &[u8]) -> bool {
        match self {
            Self::Exact(exact) => exact.as_bytes().eq_ignore_ascii_case(name),
            Self::Prefix(prefix) => {
                name.get(..prefix.len()).is_some_and(|head| head.eq_ignore_ascii_case(prefix.as_bytes()))
            }
        }
    }

    /// The fixed part of the name.
    #[must_use]
    pub fn stem(&self) -> &str {
        match self {
            Self::Exact(text) | Self::Prefix(text) => text,
        }
    }
}

/// How the id is taken out of a cookie's value. In every form surrounding double quotes are no part of the id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extract {
    /// The value is the id.
    Whole,
    /// Servlet containers append the route of the node, `id.node1`; a failover changes it and not the session (F3).
    WithoutRoute,
}

impl Extract {
    /// The usual form for a cookie of this name.
    #[must_use]
    pub fn for_name(name: &str) -> Self {
        if name.eq_ignore_ascii_case("JSESSIONID") { Self::WithoutRoute } else { Self::Whole }
    }

    /// The id within `value`; empty when there is none.
    #[must_use]
    pub fn id(self, value: &[u8]) -> &[u8] {
        let bare = match value {
            [b'"', inner @ .., b'"'] => inner,
            other => other,
        };
        match self {
            Self::Whole => bare,
            Self::WithoutRoute => bare.split(|b| *b == b'.').next().unwrap_or(bare),
        }
    }
}

/// The rule that covers `name`, with its index.
#[must_use]
pub fn rule_for<'a>(rules: &'a [CookieRule], name: &[u8]) -> Option<(usize, &'a CookieRule)> {
    rules.iter().enumerate().find(|(_, rule)| rule.name.matches(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_taken_out_of_values() {
        for (extract, value, id) in [
            (Extract::Whole, "abc.node1", "abc.node1"),
            (Extract::Whole, "\"abc\"", "abc"),
            (Extract::WithoutRoute, "abc.node1", "abc"),
            (Extract::WithoutRoute, "\"abc.node2\"", "abc"),
            (Extract::WithoutRoute, "", ""),
        ] {
            assert_eq!(extract.id(value.as_bytes()), id.as_bytes());
        }
    }

    #[test]
    fn a_star_at_the_end_makes_a_prefix() {
        assert!(NamePattern::parse("remember_web_*").matches(b"remember_web_59ba"));
        assert!(!NamePattern::parse("sid").matches(b"sid2"));
        assert!(!NamePattern::parse("sid").matches(b"SID"));
        assert!(NamePattern::parse("sid").matches_any_case(b"SID"));
    }
}
