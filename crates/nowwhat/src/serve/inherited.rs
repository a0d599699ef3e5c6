//! Sockets that systemd bound and passed on (`sd_listen_fds(3)`).
//!
//! systemd keeps them open, so that between the end of one process and the start of the next connections wait instead
//! of being refused. Only TCP sockets can be served; others are an error when they are asked for.

use super::Listener;
use crate::environment::Environment;
use listenfd::ListenFd;
use std::io;
use tokio::net::TcpListener;

/// The sockets passed to this process, each until it is taken.
#[derive(Debug, Default)]
pub struct Inherited {
    sockets: Vec<Passed>,
}

#[derive(Debug)]
struct Passed {
    /// None when the unit gives it no name of its own.
    name: Option<String>,
    socket: io::Result<std::net::TcpListener>,
}

impl Inherited {
    /// Takes all sockets meant for this process, once: a second call finds none. They are not passed on to child
    /// processes.
    ///
    /// It takes variables out of the environment, so it is to be called first thing in `main`, before there are other
    /// threads.
    pub fn of_process() -> Self {
        let environment = Environment::of_process();
        let names = environment.get("LISTEN_FDNAMES").unwrap_or_default().split(':');
        let mut passed = ListenFd::from_env();
        let sockets = (0..passed.len()).filter_map(|i| passed.take_tcp_listener(i).transpose());
        Self::from_passed(names.chain(std::iter::repeat("")).zip(sockets))
    }

    /// Names and sockets in the order in which they were passed.
    pub(super) fn from_passed<'a>(
        passed: impl IntoIterator<Item = (&'a str, io::Result<std::net::TcpListener>)>,
    ) -> Self {
        let passed = passed.into_iter().map(|(name, socket)| {
            let name = is_own_name(name).then(|| name.to_owned());
            Passed { name, socket }
        });
        Self { sockets: passed.collect() }
    }

    /// The socket with this name (`FileDescriptorName=`), or else the next one without a name of its own. None when
    /// there is no such socket left. To be called within the runtime that shall serve it.
    ///
    /// # Errors
    /// When the socket cannot be listened on, for example because it is not TCP.
    pub fn take(&mut self, name: &str) -> io::Result<Option<Listener>> {
        let named = self.sockets.iter().position(|s| s.name.as_deref() == Some(name));
        let Some(i) = named.or_else(|| self.sockets.iter().position(|s| s.name.is_none())) else { return Ok(None) };
        let unusable = |e: io::Error| {
            let text =
                format!("cannot listen on the socket passed for {name}: use ListenStream= with a TCP address: {e}");
            io::Error::new(e.kind(), text)
        };
        self.sockets.remove(i).socket.and_then(listener).map(Some).map_err(unusable)
    }

    /// The names of the sockets that nobody took, empty for one without a name: something in the unit is misspelt.
    pub fn untaken(&self) -> impl Iterator<Item = &str> {
        self.sockets.iter().map(|s| s.name.as_deref().unwrap_or_default())
    }
}

/// Without `FileDescriptorName=` a socket has its unit's name, or `unknown`.
fn is_own_name(name: &str) -> bool {
    !(name.is_empty() || name == "unknown" || name.ends_with(".socket"))
}

fn listener(socket: std::net::TcpListener) -> io::Result<Listener> {
    socket.set_nonblocking(true)?;
    Listener::of(TcpListener::from_std(socket)?)
}
