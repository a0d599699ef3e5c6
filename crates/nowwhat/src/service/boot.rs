//! What a service has in hand while it starts.

use super::{BoxError, Progress};
use crate::client::{CallLimits, Client};
use crate::config::Loaded;
use crate::dependency::{Dependency, DependencyMetrics};
use crate::health::Health;
use crate::metrics::{Registry, SharedRegistry};
use crate::request::{Finished, Watcher};
use crate::serve::Tls;
use crate::settings::Foundation;
use axum::Router;
use futures::FutureExt;
use futures::future::{self, BoxFuture};
use std::fmt;
use std::net::SocketAddr;
use std::sync::PoisonError;
use std::time::Duration;
use tokio::task::JoinHandle;

/// A step of stopping.
pub(super) struct Step {
    pub(super) name: &'static str,
    pub(super) run: BoxFuture<'static, Result<(), BoxError>>,
}

/// Takes new settings over.
pub(super) type Reloader = Box<dyn Fn(Loaded) -> BoxFuture<'static, Result<(), BoxError>> + Send + Sync>;

/// Puts something around all routes.
pub(super) type Around = Box<dyn FnOnce(Router) -> Router + Send>;

/// What a service has in hand while it starts: its settings, and the places where it says what it needs.
pub struct Boot {
    /// The settings with their origins.
    pub loaded: Loaded,
    /// What every service can be told.
    pub foundation: Foundation,
    /// Health, to which checks are added.
    pub health: Health,
    /// The address of the public listener. It serves when the start is done; what comes earlier waits.
    pub address: SocketAddr,
    /// The address of the admin listener, which serves already.
    pub admin_address: SocketAddr,
    /// What the public listener serves over TLS, if it does; after a reload the newer certificate.
    pub tls: Option<Tls>,
    pub(super) progress: Progress,
    pub(super) registry: SharedRegistry,
    pub(super) calls: DependencyMetrics,
    pub(super) steps: Vec<Step>,
    pub(super) reloaders: Vec<Reloader>,
    pub(super) endings: Vec<BoxFuture<'static, String>>,
    pub(super) greeting: Option<String>,
    pub(super) around: Vec<Around>,
    pub(super) watchers: Vec<Watcher>,
}

impl fmt::Debug for Boot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Boot")
            .field("address", &self.address)
            .field("foundation", &self.foundation)
            .finish_non_exhaustive()
    }
}

impl Boot {
    /// Where a start that takes its time tells how far it is.
    pub fn progress(&self) -> Progress {
        self.progress.clone()
    }

    /// Adds metrics: `boot.metrics(ShopMetrics::register)`.
    pub fn metrics<T>(&self, register: impl FnOnce(&mut Registry) -> T) -> T {
        register(&mut self.registry.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// All metrics, to be read: by a service that shows its own numbers.
    pub fn registry(&self) -> SharedRegistry {
        self.registry.clone()
    }

    /// A client for calls to another service, which is `dependency` in metrics. Calls made for a request carry its id.
    pub fn client(&self, dependency: &'static str, limits: CallLimits) -> Client {
        Client::new(dependency, limits, &self.calls)
    }

    /// Something else that the service stands on, called `name` in metrics; each call of it may take `timeout`.
    pub fn dependency(&self, name: &'static str, timeout: Duration) -> Dependency {
        Dependency::new(name, timeout, &self.calls)
    }

    /// A step of stopping, run when no request comes any more; the one said last is run first. It may take `stop.grace_seconds`.
    pub fn on_stop(&mut self, name: &'static str, step: impl Future<Output = Result<(), BoxError>> + Send + 'static) {
        self.steps.push(Step { name, run: step.boxed() });
    }

    /// A task that runs until the service stops: then it is cancelled and waited for, as a step of stopping. One that ends earlier is an
    /// error in the log. One that panics is that too, and the service stops in order and fails, as with [`Boot::ends_when`].
    pub fn task(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let task: JoinHandle<()> = crate::spawn(task);
        let cancel = task.abort_handle();
        // Watched from now on, also while the start goes on.
        let watching = crate::spawn(failure(name, task, self.health.clone()));
        let failed = watching.map(|failed| failed.unwrap_or_default()).boxed().shared();
        let ending = failed.clone();
        self.ends_when(async move {
            match ending.await {
                Some(reason) => reason,
                None => future::pending().await,
            }
        });
        self.on_stop(name, async move {
            cancel.abort();
            failed.await.map_or(Ok(()), |reason| Err(reason.into()))
        });
    }

    /// Takes changed settings over, at SIGHUP; only those declared with `reload` differ from the ones before.
    pub fn on_reload<F>(&mut self, reload: impl Fn(Loaded) -> F + Send + Sync + 'static)
    where
        F: Future<Output = Result<(), BoxError>> + Send + 'static,
    {
        self.reloaders.push(Box::new(move |loaded| reload(loaded).boxed()));
    }

    /// The service stops in order, and fails with the reason, when this future ends.
    pub fn ends_when(&mut self, reason: impl Future<Output = String> + Send + 'static) {
        self.endings.push(reason.boxed());
    }

    /// Puts something around all that answers a request of the public listener, time limits and panics included; what is said last is outermost.
    /// To be used for what every answer needs, such as the headers of CORS: what it answers by itself has no id, no line and no metrics.
    pub fn around(&mut self, around: impl FnOnce(Router) -> Router + Send + 'static) {
        self.around.push(Box::new(around));
    }

    /// Is told of each request of the public listener that ended, what its line in the log tells and what handlers
    /// [noted](crate::request::note) of it. It runs on the thread that ended the request, so it must neither wait nor panic.
    pub fn on_request(&mut self, watch: impl Fn(&Finished<'_>) + Send + Sync + 'static) {
        self.watchers.push(Watcher::new(watch));
    }

    /// What a person sees on standard output once the service is ready.
    pub fn greeting(&mut self, text: String) {
        self.greeting = Some(text);
    }
}

/// Waits for the end of a task and says in the log when it comes too early; why the service cannot go on, when the task panicked.
async fn failure(name: &'static str, task: JoinHandle<()>, health: Health) -> Option<String> {
    match task.await {
        // Others are stopped before it, and it may end with them.
        Ok(()) if health.is_stopping() => None,
        Ok(()) => {
            tracing::error!(task = name, "a task ended before the service stops");
            None
        }
        Err(error) if error.is_cancelled() => None,
        Err(error) => {
            tracing::error!(task = name, error = error.to_string(), "a task panicked");
            Some(format!("the task {name} panicked"))
        }
    }
}
