pub struct Verifier;
pub struct Claims {
    pub user: String,
    pub tenant: Option<String>,
    pub roles: Vec<String>,
}
pub struct JwtFault;
impl JwtFault {
    pub fn label(&self) -> &'static str {
        "x"
    }
}
impl Verifier {
    pub fn verify(&self, _t: &str, _n: crate::session::Moment) -> Result<Claims, JwtFault> {
        Err(JwtFault)
    }
}
