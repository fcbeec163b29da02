//! The control thread: serves the admin API and the probes on sockets that were bound at start, and keeps house.

use std::fs::Permissions;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use axum::serve::Listener;
use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::sync::Semaphore;

use super::gateway::{Alive, Inner, StartError};
use super::listener;
use crate::admin::{self, Admin, Peer, Turns};
use crate::config::{self, AdminListen, Config};
use crate::session::chosen::{Choice, Full, Holder};
use crate::session::layers::Layers;

/// Most connections of one of these listeners; further ones wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 256;

/// How long a client may take for a request's head; also how long an idle connection is kept.
const HEAD: Duration = Duration::from_secs(30);

/// The sockets of the admin API and the probes.
pub(super) struct AdminPort {
    api: Option<Api>,
    probes: Option<TcpListener>,
}

enum Api {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl AdminPort {
    pub(super) fn bind(settings: &config::Admin) -> Result<Self, StartError> {
        let api = match &settings.listen {
            None => None,
            Some(AdminListen::Tcp(address)) => Some(Api::Tcp(bind_tcp(*address)?)),
            Some(AdminListen::Unix(path)) => Some(Api::Unix(bind_unix(path)?)),
        };
        Ok(Self { api, probes: settings.probes.map(bind_tcp).transpose()? })
    }

    pub(super) fn admin_address(&self) -> Option<SocketAddr> {
        match &self.api {
            Some(Api::Tcp(listener)) => listener.local_addr().ok(),
            Some(Api::Unix(_)) | None => None,
        }
    }

    pub(super) fn probes_address(&self) -> Option<SocketAddr> {
        self.probes.as_ref().and_then(|listener| listener.local_addr().ok())
    }
}

fn bind_tcp(address: SocketAddr) -> Result<TcpListener, StartError> {
    let (_, mut sockets) = listener::bind(address, 1)?;
    sockets.pop().ok_or_else(|| StartError::System(std::io::ErrorKind::AddrNotAvailable.into()))
}

/// A socket that a process left behind is taken over; one that somebody listens on is not, and neither is a file of
/// another kind. For its owner and its group alone.
fn bind_unix(path: &Path) -> Result<UnixListener, StartError> {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
    if is_socket && std::os::unix::net::UnixStream::connect(path).is_err() {
        let _ = std::fs::remove_file(path);
    }
    let fail = |source| StartError::Socket { path: path.display().to_string(), source };
    let listener = UnixListener::bind(path).map_err(fail)?;
    std::fs::set_permissions(path, Permissions::from_mode(0o660)).map_err(fail)?;
    listener.set_nonblocking(true).map_err(fail)?;
    Ok(listener)
}

/// Starts the control thread.
pub(super) fn spawn(port: AdminPort, inner: Arc<Inner>) -> std::io::Result<JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("control".into()).spawn(move || {
        let _alive = Alive::new(&inner);
        runtime.block_on(async {
            let serving = serve(port, &inner);
            tokio::join!(serving, Arc::clone(&inner).housekeeping());
        });
    })
}

async fn serve(port: AdminPort, inner: &Arc<Inner>) {
    let shared = inner.shared();
    let admin = Admin {
        table: Arc::clone(&shared.table),
        clock: shared.clock.clone(),
        metrics: Arc::clone(&shared.metrics),
        gateway: Arc::new(Control(Arc::clone(inner))),
        turns: Turns::default(),
    };
    let api = async {
        let router = admin::router(admin.clone());
        match port.api {
            Some(Api::Tcp(listener)) => serve_tcp(listener, router, inner).await,
            Some(Api::Unix(listener)) => match tokio::net::UnixListener::from_std(listener) {
                Ok(listener) => until_left(inner, accept(listener, router, |_| None)).await,
                Err(error) => tracing::error!(%error, "the admin socket could not be taken over"),
            },
            None => {}
        }
    };
    let probes = async {
        if let Some(listener) = port.probes {
            serve_tcp(listener, admin::probes(admin.clone()), inner).await;
        }
    };
    tokio::join!(api, probes);
}

async fn serve_tcp(listener: TcpListener, router: Router, inner: &Arc<Inner>) {
    match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => {
            until_left(inner, accept(listener, router, |peer: &SocketAddr| Some(peer.ip()))).await;
        }
        Err(error) => tracing::error!(%error, "the admin listener could not be taken over"),
    }
}

/// Serves for ever, within bounds: whoever can reach the probes must not be able to use up what the data path needs.
async fn accept<L: Listener>(mut listener: L, router: Router, ip_of: impl Fn(&L::Addr) -> Option<IpAddr>) {
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    while let Ok(permit) = Arc::clone(&permits).acquire_owned().await {
        // Rests after errors such as "too many open files".
        let (stream, peer) = listener.accept().await;
        let router = router.clone().layer(Extension(Peer(ip_of(&peer))));
        // The task ends with its connection, which is idle for HEAD at most.
        tokio::spawn(async move {
            let _permit = permit;
            let serving = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD)
                .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
            if let Err(error) = serving.await {
                tracing::debug!(%error, "an admin connection ended early");
            }
        });
    }
}

/// Probes answer until the very end of a drain.
async fn until_left<T>(inner: &Arc<Inner>, serving: impl Future<Output = T>) {
    tokio::select! {
        _ = serving => {}
        () = inner.left() => {}
    }
}

/// What the admin API may ask of the gateway.
struct Control(Arc<Inner>);

impl admin::Gateway for Control {
    fn config(&self) -> Arc<Config> {
        self.0.config()
    }

    fn reload(&self) -> Result<Vec<&'static str>, String> {
        self.0.reload().map(|reloaded| reloaded.needs_restart).map_err(|faults| faults.to_string())
    }

    fn drain(&self) {
        self.0.begin_to_leave();
    }

    fn is_ready(&self) -> bool {
        self.0.is_ready()
    }

    fn knows_all(&self) -> bool {
        self.0.knows_all()
    }

    fn in_force(&self) -> Pin<Box<dyn Future<Output = bool> + Send + '_>> {
        Box::pin(self.0.in_force())
    }

    fn is_safe(&self) -> Pin<Box<dyn Future<Output = bool> + Send + '_>> {
        Box::pin(self.0.is_safe())
    }

    fn layers(&self) -> Layers {
        self.0.layers()
    }

    fn choose(&self, holder: &Holder, choice: Option<Choice>) -> Result<usize, Full> {
        self.0.choose(holder, choice)
    }

    fn foresee(&self, holder: &Holder, choice: Option<Choice>) -> Result<usize, Full> {
        self.0.foresee(holder, choice)
    }

    fn keeps(&self) -> bool {
        self.0.keeps()
    }

    fn metrics_text(&self) -> String {
        self.0.metrics_text()
    }
}
