//! A small client of the admin API, for the commands that talk to a running gateway.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use zeroize::Zeroizing;

use super::FAILED;

/// A gateway that does not answer in this time is told to be silent.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Far more than a page of 1000 sessions takes.
const MAX_ANSWER: usize = 16 << 20;
const TOKEN_VARIABLE: &str = "TENURE_TOKEN";

/// Where the gateway is, and who asks. The token comes from the variable TENURE_TOKEN, or from a file.
#[derive(clap::Args)]
pub(super) struct Remote {
    /// The gateway's admin listener: http://HOST:PORT, or unix:PATH
    #[arg(long, value_name = "URL", env = "TENURE_ADMIN", default_value = "http://127.0.0.1:9901")]
    admin: Admin,
    /// A file that holds the token, instead of the variable TENURE_TOKEN
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

#[derive(Clone)]
enum Admin {
    Tcp(String),
    Unix(PathBuf),
}

impl std::str::FromStr for Admin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:").filter(|path| !path.is_empty()) {
            return Ok(Self::Unix(path.into()));
        }
        let authority = text.strip_prefix("http://").map(|rest| rest.trim_end_matches('/'));
        let authority = authority.and_then(|authority| authority.parse::<http::uri::Authority>().ok());
        let known =
            authority.filter(|authority| authority.port().is_some() && !authority.as_str().contains('@'));
        known.map(|authority| Self::Tcp(authority.to_string())).ok_or_else(|| {
            "write http://127.0.0.1:9901, or unix:/run/tenure.sock; the listener itself speaks no TLS"
                .to_owned()
        })
    }
}

impl std::fmt::Display for Admin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(authority) => write!(f, "http://{authority}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Why a command did not get what it asked for.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failed {
    #[error("cannot read the token from {path}: {source}")]
    TokenFile { path: String, source: io::Error },
    #[error("the token holds characters that no token has")]
    Token,
    #[error("no gateway at {at}: {why}; is it running, and does --admin name its [admin] listener?")]
    Unreachable { at: String, why: String },
    #[error("{at} does not answer as a gateway does: {why}")]
    Strange { at: String, why: String },
    #[error("the gateway says {status}: {detail}")]
    Refused { status: StatusCode, detail: String },
    #[error("{0}")]
    Output(#[from] io::Error),
}

/// Tells of a failure; the exit code of the command.
pub(super) fn outcome(done: Result<u8, Failed>, err: &mut impl Write) -> io::Result<u8> {
    match done {
        Ok(code) => Ok(code),
        // A reader that has gone away wants no words.
        Err(Failed::Output(_)) => Ok(FAILED),
        Err(error) => {
            writeln!(err, "{error}")?;
            Ok(FAILED)
        }
    }
}

/// One connection to a running gateway at a time.
pub(super) struct Client {
    admin: Admin,
    token: Option<Zeroizing<String>>,
    runtime: tokio::runtime::Runtime,
}

impl Client {
    pub(super) fn new(remote: &Remote) -> Result<Self, Failed> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { admin: remote.admin.clone(), token: token(remote.token_file.as_ref())?, runtime })
    }

    /// `GET path?parameters`; parameters without a value are left out.
    pub(super) fn get(&self, path: &str, parameters: &[(&str, Option<&str>)]) -> Result<Value, Failed> {
        self.ask(Method::GET, &target(path, parameters), None)
    }

    /// `PUT`, in the same way.
    pub(super) fn put(
        &self,
        path: &str,
        parameters: &[(&str, Option<&str>)],
        document: &Value,
    ) -> Result<Value, Failed> {
        self.ask(Method::PUT, &target(path, parameters), Some(document))
    }

    pub(super) fn post(&self, path: &str, document: Option<&Value>) -> Result<Value, Failed> {
        self.ask(Method::POST, path, document)
    }

    pub(super) fn delete(&self, path: &str, parameters: &[(&str, Option<&str>)]) -> Result<Value, Failed> {
        self.ask(Method::DELETE, &target(path, parameters), None)
    }

    fn ask(&self, method: Method, target: &str, document: Option<&Value>) -> Result<Value, Failed> {
        let mut request = Request::builder().method(method).uri(target).header(ACCEPT, "application/json");
        request = request.header(
            HOST,
            match &self.admin {
                Admin::Tcp(authority) => authority.as_str(),
                Admin::Unix(_) => "localhost",
            },
        );
        if let Some(token) = &self.token {
            let bearer = Zeroizing::new(format!("Bearer {}", **token));
            let mut value = HeaderValue::from_str(&bearer).map_err(|_| Failed::Token)?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        let body = document.map(|document| Full::new(Bytes::from(document.to_string())));
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let request = request.body(body.unwrap_or_default()).map_err(|error| self.strange(&error))?;
        let exchange = async { tokio::time::timeout(TIMEOUT, self.exchange(request)).await };
        let silent = |_| self.strange(&"it is silent");
        let (status, answer) = self.runtime.block_on(exchange).map_err(silent)??;
        self.read(status, &answer)
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<(StatusCode, Bytes), Failed> {
        match &self.admin {
            Admin::Tcp(authority) => {
                let stream = TcpStream::connect(authority).await.map_err(|error| self.unreachable(&error))?;
                self.send(stream, request).await
            }
            Admin::Unix(path) => {
                let stream = UnixStream::connect(path).await.map_err(|error| self.unreachable(&error))?;
                self.send(stream, request).await
            }
        }
    }

    async fn send(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        request: Request<Full<Bytes>>,
    ) -> Result<(StatusCode, Bytes), Failed> {
        let shaken = http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = shaken.map_err(|error| self.strange(&error))?;
        // Ends with the runtime, after the answer.
        tokio::spawn(connection);
        let response = sender.send_request(request).await.map_err(|error| self.strange(&error))?;
        let status = response.status();
        let answer = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
        Ok((status, answer.map_err(|error| self.strange(&error))?.to_bytes()))
    }

    /// The document of an answer; what is no JSON is a text.
    fn read(&self, status: StatusCode, answer: &[u8]) -> Result<Value, Failed> {
        let document = match serde_json::from_slice(answer) {
            Ok(document) => document,
            Err(_) if answer.is_empty() => Value::Null,
            Err(_) => Value::String(String::from_utf8_lossy(answer).trim().to_owned()),
        };
        if status.is_success() {
            return Ok(document);
        }
        let detail = ["detail", "title"].into_iter().find_map(|member| document[member].as_str());
        let missing = (status == StatusCode::UNAUTHORIZED && self.token.is_none())
            .then_some("it wants a token: set TENURE_TOKEN, or name a file with --token-file");
        match missing.or(detail) {
            Some(detail) => Err(Failed::Refused { status, detail: detail.to_owned() }),
            None => Err(self.strange(&format_args!("status {status}"))),
        }
    }

    pub(super) fn strange(&self, why: &impl ToString) -> Failed {
        Failed::Strange { at: self.admin.to_string(), why: why.to_string() }
    }

    fn unreachable(&self, why: &io::Error) -> Failed {
        Failed::Unreachable { at: self.admin.to_string(), why: why.to_string() }
    }
}

fn target(path: &str, parameters: &[(&str, Option<&str>)]) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(parameters.iter().filter_map(|(name, value)| Some((*name, (*value)?))));
    let query = query.finish();
    if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") }
}

/// A name as one segment of a path.
pub(super) fn segment(name: &str) -> String {
    percent_encoding::utf8_percent_encode(name, percent_encoding::NON_ALPHANUMERIC).to_string()
}

fn token(file: Option<&PathBuf>) -> Result<Option<Zeroizing<String>>, Failed> {
    let text = match file {
        Some(path) => {
            let fail = |source| Failed::TokenFile { path: path.display().to_string(), source };
            Some(Zeroizing::new(std::fs::read_to_string(path).map_err(fail)?))
        }
        None => std::env::var(TOKEN_VARIABLE).ok().map(Zeroizing::new),
    };
    Ok(text.map(|text| Zeroizing::new(text.trim().to_owned())).filter(|token| !token.is_empty()))
}
