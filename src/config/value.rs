#[derive(Clone, Debug)]
pub struct Secret;
impl Secret {
    pub fn derive_key(&self, _c: &str) -> [u8; 32] {
        [0; 32]
    }
}
