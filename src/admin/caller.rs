//! Who calls: the bearer token, its scopes, the tenant it is bound to.

use std::fmt;
use std::marker::PhantomData;
use std::net::IpAddr;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest;
use axum::extract::{FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::{Json, RequestExt};
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::problem::Problem;
use super::{Admin, Peer};
use crate::config::AdminToken;

/// The longest bearer token that is looked at, in bytes.
const MAX_TOKEN_BYTES: usize = 512;

/// The operator behind a call.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    /// The token's name.
    pub name: String,
    scopes: Vec<String>,
    /// The one tenant that the token is bound to.
    pub tenant: Option<String>,
}

impl Caller {
    /// Whether the token has `scope`.
    pub(super) fn has(&self, scope: &str) -> bool {
        self.scopes.iter().any(|own| own == "*" || own == scope)
    }

    /// Fails unless the token has `scope`.
    pub(super) fn needs(&self, scope: &str) -> Result<(), Problem> {
        if self.has(scope) { Ok(()) } else { Err(Problem::forbidden(scope)) }
    }

    /// Fails unless the token has `scope` and is bound to no tenant: the act concerns everybody.
    pub(super) fn needs_everywhere(&self, scope: &str) -> Result<(), Problem> {
        self.needs(scope)?;
        match &self.tenant {
            None => Ok(()),
            Some(_) => Err(Problem::new(StatusCode::FORBIDDEN, "this token is bound to one tenant")),
        }
    }

    /// Whether the token may see what belongs to `tenant`. What belongs to none is seen by unbound tokens alone (R9).
    pub(super) fn sees(&self, tenant: Option<&str>) -> bool {
        self.tenant.as_deref().is_none_or(|own| Some(own) == tenant)
    }
}

/// Compares the presented token's hash with every configured one, in constant time.
fn find<'a>(tokens: &'a [AdminToken], presented: &str) -> Option<&'a AdminToken> {
    if presented.len() > MAX_TOKEN_BYTES {
        return None;
    }
    let hash = digest::digest(&digest::SHA256, presented.as_bytes());
    let mut found = None;
    for token in tokens {
        // SECURITY: every token is compared, whichever fits.
        if verify_slices_are_equal(&token.hash, hash.as_ref()).is_ok() {
            found = Some(token);
        }
    }
    found
}

impl FromRequestParts<Admin> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, admin: &Admin) -> Result<Self, Problem> {
        let config = admin.gateway.config();
        let field = parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let presented = field.and_then(|text| {
            let (scheme, token) = text.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
        });
        let Some(token) = presented.and_then(|token| find(&config.admin.tokens, token)) else {
            admin.metrics.admin_refused();
            let peer = parts.extensions.get::<Peer>().and_then(|peer| peer.0);
            crate::telemetry::audit::admin_refused(peer, parts.uri.path());
            return Err(Problem::unauthorised());
        };
        Ok(Self { name: token.name.clone(), scopes: token.scopes.clone(), tenant: token.tenant.clone() })
    }
}

/// Query parameters; unknown or malformed ones are a 400 (R18).
pub(super) struct Parameters<T>(pub T);

impl<T: DeserializeOwned + Send> FromRequestParts<Admin> for Parameters<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Admin) -> Result<Self, Problem> {
        match Query::<T>::try_from_uri(&parts.uri) {
            Ok(Query(parameters)) => Ok(Self(parameters)),
            Err(rejection) => Err(Problem::bad_request(rejection.body_text())),
        }
    }
}

/// Path parameters; malformed ones name nothing.
pub(super) struct Segment(pub String);

impl FromRequestParts<Admin> for Segment {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, admin: &Admin) -> Result<Self, Problem> {
        let Path(segment) =
            Path::<String>::from_request_parts(parts, admin).await.map_err(|_| Problem::not_found())?;
        Ok(Self(segment))
    }
}

/// Two path parameters, in the same way.
pub(super) struct Segments(pub String, pub String);

impl FromRequestParts<Admin> for Segments {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, admin: &Admin) -> Result<Self, Problem> {
        let Path((first, second)) = Path::<(String, String)>::from_request_parts(parts, admin)
            .await
            .map_err(|_| Problem::not_found())?;
        Ok(Self(first, second))
    }
}

/// A JSON body; unknown members and wrong types are a 400.
pub(super) struct Document<T>(pub T);

impl<T: DeserializeOwned + 'static> axum::extract::FromRequest<Admin> for Document<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &Admin) -> Result<Self, Problem> {
        match request.extract::<Json<Object<T>>, _>().await {
            Ok(Json(Object(document))) => Ok(Self(document)),
            Err(rejection) if rejection.status() == StatusCode::UNPROCESSABLE_ENTITY => {
                Err(Problem::bad_request(rejection.body_text()))
            }
            Err(rejection) => Err(Problem::new(rejection.status(), rejection.body_text())),
        }
    }
}

/// What stands in a JSON object; serde would take an array of the members' values as well.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Members<T> {
            type Value = T;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<T, A::Error> {
                T::deserialize(MapAccessDeserializer::new(members))
            }
        }
        deserializer.deserialize_map(Members(PhantomData)).map(Self)
    }
}

/// An address of a filter.
pub(super) fn address(text: &str) -> Result<IpAddr, Problem> {
    text.parse::<IpAddr>()
        .map(|ip| ip.to_canonical())
        .map_err(|_| Problem::bad_request(format!("{text:?} is no IP address")))
}
