//! The control thread: serves the admin API and probes on sockets bound at start, and keeps house.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;

use super::gateway::Inner;
use super::listener::BindError;
use crate::config::Admin;

/// The sockets of the admin API and the probes.
pub(super) struct AdminPort {}

impl AdminPort {
    pub(super) fn bind(_admin: &Admin) -> Result<Self, BindError> {
        Ok(Self {})
    }
    pub(super) fn admin_address(&self) -> Option<SocketAddr> {
        None
    }
    pub(super) fn probes_address(&self) -> Option<SocketAddr> {
        None
    }
}

/// Starts the control thread.
pub(super) fn serve_admin(_port: AdminPort, inner: Arc<Inner>) -> std::io::Result<JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("control".into()).spawn(move || runtime.block_on(inner.housekeeping()))
}
