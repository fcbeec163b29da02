pub(super) const MAX_SIGN_IN_BODY: usize = 65536;
#[derive(Debug)]
pub(super) struct FormFault;
impl FormFault {
    pub(super) fn status(&self) -> http::StatusCode {
        http::StatusCode::BAD_REQUEST
    }
    pub(super) fn detail(&self) -> &'static str {
        "x"
    }
}
pub(super) fn user_of(
    _k: Option<&http::HeaderValue>,
    _e: Option<&http::HeaderValue>,
    _q: Option<&str>,
    body: &[u8],
    field: &str,
) -> Result<Option<String>, FormFault> {
    Ok(form_urlencoded::parse(body).find(|(n, _)| n == field).map(|(_, v)| v.into_owned()))
}
