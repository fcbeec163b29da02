//! Tenure: a session enforcement gateway (architecture prose follows with the skeleton).
pub mod clock;
pub mod demo;
pub mod pages;
pub mod session;
pub mod store;
