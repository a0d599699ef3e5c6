//! A service from its settings to its end: what `main` calls.
//!
//! The boot is a list: configuration, logs, listeners, admin listener, the service's own start, public listener, ready. Stopping goes the
//! same way back: not ready, the drain, public listener, the service's own steps in reverse order, admin listener, logs. Every step has a
//! deadline; a second signal quits at once. A start that fails, or is asked to stop, runs the steps that were said until then.

mod boot;
mod prepare;
mod progress;
mod reload;
mod running;
mod stopping;

pub use boot::Boot;
pub(crate) use prepare::{Output, prepare};
pub use progress::Progress;
pub(crate) use running::{Ask, serve};

use crate::config::{Loaded, Problems, Sources, Spec, Turn, default_file, find, with_default};
use crate::environment::Environment;
use crate::serve::Inherited;
use crate::settings::Foundation;
use crate::systemd::Systemd;
use crate::version::Version;
use axum::Router;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// What a start or a stop may fail with.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Checks settings together; a sentence for each problem.
type Check = fn(&Loaded) -> Vec<String>;

/// A service: what it is called, what it can be told.
#[derive(Clone, Debug)]
pub struct Service {
    pub(crate) version: Version,
    specs: Vec<Spec>,
    checks: Vec<Check>,
    reserved: &'static [&'static str],
    quiet: &'static [&'static str],
}

/// Why a service ended.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The configuration has problems.
    #[error("the configuration has problems:\n{0}")]
    Configuration(#[from] Problems),
    /// It could not start, or had to stop.
    #[error("{}", crate::error_chain(.0.as_ref()))]
    Failed(#[from] BoxError),
}

impl Service {
    /// A service with settings of its own beside those of [`Foundation`].
    pub fn new(version: Version, settings: Vec<Spec>) -> Self {
        let specs = Foundation::specs().into_iter().chain(settings).collect();
        Self { version, specs, checks: Vec::new(), reserved: &[], quiet: &[] }
    }

    /// Another default for a setting, `http.listen` for example.
    ///
    /// # Panics
    /// When there is no such setting, or it cannot have this value.
    pub fn default_of(mut self, name: &str, default: &'static str) -> Self {
        self.specs = with_default(self.specs, name, default);
        self
    }

    /// A setting that could be reloaded, and is not by this service.
    ///
    /// # Panics
    /// When there is no such setting.
    pub fn read_at_start(mut self, name: &str) -> Self {
        let spec = self.specs.iter_mut().find(|spec| spec.name() == name);
        spec.unwrap_or_else(|| panic!("{name} is not declared")).reloadable = false;
        self
    }

    /// Checks that no single key shows.
    pub fn check(mut self, check: Check) -> Self {
        self.checks.push(check);
        self
    }

    /// Variables `<NAME>_<WORD>` that are no settings and mean something else.
    pub fn reserved(self, reserved: &'static [&'static str]) -> Self {
        Self { reserved, ..self }
    }

    /// Modules that log warnings only, unless the level names them: chatty libraries.
    pub fn quiet(self, quiet: &'static [&'static str]) -> Self {
        Self { quiet, ..self }
    }

    /// The sources of its settings, no flag given.
    pub fn sources(&self) -> Sources {
        Sources { reserved: self.reserved, ..Sources::of(self.version.name) }
    }

    /// Every setting.
    pub fn specs(&self) -> &[Spec] {
        &self.specs
    }

    /// The commented file of all defaults.
    pub fn default_file(&self, heading: &str) -> String {
        default_file(&self.specs, heading)
    }

    /// Reads its settings and the files of certificates that they name. In the environment `dev` the file `.env` counts as well, where the
    /// environment says nothing.
    ///
    /// # Errors
    /// [`Problems`]: all of them. Checks of several settings together see the default of one that is flawed; where it has none of its type,
    /// those that were added by [`Service::check`] are left out.
    pub fn load(&self, sources: &Sources, environment: &Environment) -> Result<Loaded, Problems> {
        self.read(sources, environment, Turn::First)
    }

    /// What [`Service::load`] does at the first time. At others settings are not checked together: to show them takes no files of
    /// certificates, and a service that runs checks what will be in force.
    pub(crate) fn read(&self, sources: &Sources, environment: &Environment, turn: Turn) -> Result<Loaded, Problems> {
        let is_dev = sources.environment_name(environment).is_some_and(|(name, _)| name == "dev");
        let with_file = is_dev.then(|| environment.clone().with_file(Path::new(".env")));
        let mut found = find(&self.specs, sources, with_file.as_ref().unwrap_or(environment), turn);
        match turn {
            Turn::First => {}
            Turn::Again => return found.put_aside().result(),
            Turn::Shown => return found.result(),
        }
        if found.has(&Foundation::specs()) {
            found.add(Foundation::from_loaded(&found.loaded).problems(&found.loaded, turn));
        }
        if found.has(&self.specs) {
            found.add(self.own_problems(&found.loaded));
        }
        found.result()
    }

    /// What settings together have wrong, for a start or for a reload. Blocks while it reads files.
    pub(super) fn problems(&self, loaded: &Loaded, turn: Turn) -> Vec<String> {
        [Foundation::from_loaded(loaded).problems(loaded, turn), self.own_problems(loaded)].concat()
    }

    fn own_problems(&self, loaded: &Loaded) -> Vec<String> {
        self.checks.iter().flat_map(|check| check(loaded)).collect()
    }

    /// Runs until it is asked to stop, or has to. `start` opens what the service stands on and returns its routes. To be called first
    /// in `main`, before other threads.
    ///
    /// # Errors
    /// [`ServiceError`].
    pub fn run(
        &self,
        sources: Sources,
        environment: Environment,
        start: impl AsyncFnOnce(&mut Boot) -> Result<Router, BoxError>,
    ) -> Result<(), ServiceError> {
        let inherited = Inherited::of_process();
        let loaded = self.load(&sources, &environment)?;
        let output = Output::of_process(&loaded, &environment)?;
        let prepared = prepare(self, loaded, output).map_err(ServiceError::Failed)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().thread_name("worker").enable_all().build();
        let runtime = runtime.map_err(|e| BoxError::from(format!("cannot start threads: {e}")))?;
        let service = self.clone();
        let reload = Arc::new(move || service.read(&sources, &environment, Turn::Again));
        let done = runtime.block_on(Box::pin(async {
            let asks = running::signals()?;
            serve(prepared.boot(inherited, Systemd::of_process()), asks, reload, start).await
        }));
        if let Err(error) = &done {
            tracing::error!(error = crate::error_chain(error.as_ref()), "stopped");
        }
        runtime.shutdown_timeout(Duration::from_secs(1));
        prepared.end();
        Ok(done?)
    }
}
