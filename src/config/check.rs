use super::{Config, Faults};
pub fn load(_p: &std::path::Path) -> Result<Config, Faults> {
    Err(Faults::new(vec![]))
}
pub fn check_text(_n: &str, _t: &str, _b: &std::path::Path) -> Result<Config, Faults> {
    Err(Faults::new(vec![]))
}
