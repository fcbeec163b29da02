//! The API's description (OpenAPI), as a check of every answer: the route is described, its status is among those
//! that the description gives, and the body has the described members and no others.

use http::Method;
use serde_json::{Value, json};

use crate::api::{OPS, World};
use crate::support::browser::{Ask, Mode, Page};

/// Statuses that any path may answer with, since they come before or beside its handler.
const ANYWHERE: [u16; 2] = [404, 405];

pub(crate) struct Description(Value);

impl Description {
    pub(crate) fn read() -> Self {
        Self(serde_json::to_value(tenure::admin::openapi()).unwrap())
    }

    fn operation(&self, method: &Method, path: &str) -> Option<&Value> {
        let paths = self.0["paths"].as_object().unwrap();
        // A path without parameters comes before one with.
        let exact = paths.get(path);
        let fitting = || paths.iter().find(|(template, _)| fits(template, path)).map(|(_, item)| item);
        exact.or_else(fitting)?.get(method.as_str().to_lowercase())
    }

    /// Panics unless `page` is what the description promises for this call.
    pub(crate) fn check(&self, method: &Method, reference: &str, page: &Page) {
        let path = reference.split('?').next().unwrap();
        let call = format!("{method} {path}: {}", page.status);
        assert_eq!(page.header("cache-control"), Some("no-store"), "{call}");
        assert_eq!(page.header("x-content-type-options"), Some("nosniff"), "{call}");
        if page.status >= 400 {
            is_problem(&call, page);
        }
        let Some(operation) = self.operation(method, path) else {
            assert!(ANYWHERE.contains(&page.status) || path == "/v1/openapi.json", "{call} is not described");
            return;
        };
        let answer = &operation["responses"][page.status.to_string()];
        assert!(answer.is_object(), "{call} is not described");
        if let Some(schema) = answer.pointer("/content/application~1json/schema")
            && page.status < 400
        {
            self.conforms(&call, schema, &page.json());
        }
    }

    /// The members are those of the schema, at every depth; types are compared as far as utoipa writes them.
    fn conforms(&self, what: &str, schema: &Value, value: &Value) {
        if let Some(reference) = schema["$ref"].as_str() {
            let schema = self.0.pointer(reference.trim_start_matches('#')).expect("a schema by its name");
            return self.conforms(what, schema, value);
        }
        if let Some(choices) = schema["oneOf"].as_array() {
            let null = choices.iter().any(|choice| choice["type"] == "null");
            assert!(null || !value.is_null(), "{what}: null");
            let other = choices.iter().find(|choice| choice["type"] != "null").unwrap();
            if !value.is_null() {
                self.conforms(what, other, value);
            }
            return;
        }
        if schema.get("type").is_some() {
            assert!(is_of(&schema["type"], value), "{what}: {value} is no {}", schema["type"]);
        }
        if let (Some(properties), Some(members)) = (schema["properties"].as_object(), value.as_object()) {
            for name in schema["required"].as_array().into_iter().flatten() {
                assert!(members.contains_key(name.as_str().unwrap()), "{what} lacks {name}");
            }
            for (name, member) in members {
                let inner = properties.get(name).unwrap_or_else(|| panic!("{what}: {name} is not described"));
                self.conforms(&format!("{what} {name}"), inner, member);
            }
        }
        for item in value.as_array().into_iter().flatten() {
            self.conforms(what, &schema["items"], item);
        }
    }
}

fn is_problem(call: &str, page: &Page) {
    assert_eq!(page.header("content-type"), Some("application/problem+json"), "{call}");
    let problem = page.json();
    assert_eq!(problem["status"], json!(page.status), "{call}");
    assert!(problem["title"].is_string() && problem["detail"].is_string(), "{call}: {problem}");
    assert_eq!(problem["type"], json!("about:blank"), "{call}");
}

fn is_of(kind: &Value, value: &Value) -> bool {
    match kind {
        Value::Array(kinds) => kinds.iter().any(|kind| is_of(kind, value)),
        Value::String(kind) => match kind.as_str() {
            "null" => value.is_null(),
            "string" => value.is_string(),
            "integer" => value.is_u64() || value.is_i64(),
            "boolean" => value.is_boolean(),
            "array" => value.is_array(),
            "object" => value.is_object(),
            other => panic!("a type {other}"),
        },
        other => panic!("a type {other}"),
    }
}

fn fits(template: &str, path: &str) -> bool {
    let (template, path): (Vec<&str>, Vec<&str>) = (template.split('/').collect(), path.split('/').collect());
    template.len() == path.len()
        && template.iter().zip(path).all(|(part, given)| part.starts_with('{') || *part == given)
}

#[tokio::test]
async fn the_description_is_served_and_holds_every_route_of_the_contract() {
    let world = World::new().await;
    let document = world.send(Ask::get(Mode::Fetch, "/v1/openapi.json")).await.json();
    assert_eq!(document, Description::read().0);
    let mut routes: Vec<String> = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        let methods = item
            .as_object()
            .unwrap()
            .keys()
            .filter(|key| ["get", "post", "put", "delete"].contains(&key.as_str()));
        routes.extend(methods.map(|method| format!("{} {path}", method.to_uppercase())));
    }
    routes.sort();
    let contract = [
        "DELETE /v1/policy/{layer}/{name}",
        "DELETE /v1/sessions/{id}",
        "DELETE /v1/users/{user}/sessions",
        "GET /livez",
        "GET /metrics",
        "GET /readyz",
        "GET /v1/advice",
        "GET /v1/audit",
        "GET /v1/policy",
        "GET /v1/policy/effective",
        "GET /v1/policy/{layer}/{name}",
        "GET /v1/sessions",
        "GET /v1/sessions/{id}",
        "GET /v1/stats",
        "GET /v1/users",
        "POST /v1/drain",
        "POST /v1/reload",
        "POST /v1/sessions/revoke",
        "PUT /v1/policy/{layer}/{name}",
    ];
    assert_eq!(routes, contract);
}

#[tokio::test]
async fn every_described_route_is_served_and_every_v1_route_asks_for_a_token() {
    let world = World::new().await;
    let description = Description::read();
    for (path, item) in description.0["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
            let path = path.replace("{id}", "0").replace("{user}", "ann");
            let path = path.replace("{layer}", "tenant").replace("{name}", "acme");
            let page = world.send(Ask::get(Mode::Fetch, &path).method(method.clone())).await;
            let expected = if path.starts_with("/v1/") { 401 } else { 200 };
            assert_eq!(page.status, expected, "{method} {path}");
            assert_eq!(page.header("www-authenticate").is_some(), expected == 401);
        }
    }
    assert_eq!(world.call(OPS, Method::GET, "/v1/nothing", None).await.status, 404);
    assert_eq!(world.call(OPS, Method::PUT, "/v1/sessions", None).await.status, 405);
}
