//! Tells systemd how the service is (`sd_notify(3)`), for units of `Type=notify-reload` with `WatchdogSec=`.
//!
//! Without systemd, everything here does nothing. The protocol is spoken to the address given, and not through
//! `sd_notify::notify`, which looks the address up by itself and knows no abstract sockets.

use crate::environment::Environment;
use crate::problem::error_chain;
use sd_notify::NotifyState;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// The way to systemd, if it started this process.
#[derive(Clone, Debug, Default)]
pub struct Systemd {
    /// A path, or a name in the abstract namespace after `@`.
    address: Option<String>,
    watchdog_interval: Option<Duration>,
}

impl Systemd {
    /// As the environment of this process says.
    pub fn of_process() -> Self {
        Self::from_environment(&Environment::of_process(), std::process::id())
    }

    fn from_environment(environment: &Environment, pid: u32) -> Self {
        let address = environment.get("NOTIFY_SOCKET").map(str::to_owned);
        let ours = environment.get("WATCHDOG_PID").is_none_or(|given| given.parse() == Ok(pid));
        let microseconds = environment.get("WATCHDOG_USEC").and_then(|t| t.parse::<u64>().ok());
        let watchdog = microseconds.filter(|t| ours && *t > 0).map(Duration::from_micros);
        let watchdog_interval = watchdog.filter(|_| address.is_some()).map(|t| t / 2);
        Self { address, watchdog_interval }
    }

    /// The service is ready: after the start, and after each reload, done or failed. `status` is shown by `systemctl
    /// status`.
    pub fn ready(&self, status: &str) {
        self.tell(&[NotifyState::Ready, NotifyState::Status(&one_line(status))]);
    }

    /// The start goes on: `status` is shown by `systemctl status`. When the time that the unit gives a start is over, systemd waits for another
    /// such word, up to `patience` after each.
    pub fn starting(&self, status: &str, patience: Duration) {
        let microseconds = u32::try_from(patience.as_micros()).unwrap_or(u32::MAX);
        self.tell(&[NotifyState::Status(&one_line(status)), NotifyState::ExtendTimeoutUsec(microseconds)]);
    }

    /// A reload begins; [`Systemd::ready`] ends it.
    pub fn reloading(&self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.tell(&[NotifyState::Reloading, now]),
            Err(error) => {
                tracing::warn!(error = error_chain(&error), "systemd not told of the reload: the clock cannot be read");
            }
        }
    }

    /// The service begins to stop.
    pub fn stopping(&self) {
        self.tell(&[NotifyState::Stopping]);
    }

    /// What `systemctl status` shows, in one line.
    pub fn status(&self, status: &str) {
        self.tell(&[NotifyState::Status(&one_line(status))]);
    }

    /// How often to call [`Systemd::watchdog`]: half of `WatchdogSec=`, after which systemd takes the service for hung
    /// and aborts it. None when it does not watch.
    pub fn watchdog_interval(&self) -> Option<Duration> {
        self.watchdog_interval
    }

    /// A sign of life. It tells as much as the place it is given from: a whole [`Service`](crate::Service) gives it from
    /// its main task, from ready to its end, so that it shows that this task and the runtime's timer go on, and nothing
    /// of the service's own tasks, its checks of health or what it stands on.
    pub fn watchdog(&self) {
        self.tell(&[NotifyState::Watchdog]);
    }

    fn tell(&self, states: &[NotifyState<'_>]) {
        let Some(address) = &self.address else { return };
        let text: String = states.iter().map(|state| format!("{state}\n")).collect();
        if let Err(error) = send(address, &text) {
            tracing::warn!(error = error_chain(&error), address, "systemd not told");
        }
    }
}

fn send(address: &str, text: &str) -> io::Result<()> {
    let address = match address.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(address)?,
    };
    UnixDatagram::unbound()?.send_to_addr(text.as_bytes(), &address).map(drop)
}

/// A second line would be another message to systemd.
fn one_line(status: &str) -> String {
    status.replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As systemd would listen: at a path, or in the abstract namespace.
    fn listening(address: &str) -> UnixDatagram {
        let socket = match address.strip_prefix('@') {
            Some(name) => UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(name).expect("a name")),
            None => UnixDatagram::bind(address),
        };
        let socket = socket.expect("the address is free");
        socket.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
        socket
    }

    fn heard(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 1024];
        let length = socket.recv(&mut buffer).expect("a message");
        String::from_utf8(buffer[..length].to_vec()).expect("text")
    }

    fn told_at(address: &str) -> Systemd {
        Systemd::from_environment(&Environment::from_iter([("NOTIFY_SOCKET", address)]), 1)
    }

    #[test]
    fn systemd_hears_of_start_reload_watchdog_and_stop() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("notify").display().to_string();
        let abstract_name = format!("@nowwhat-test-{}", uuid::Uuid::now_v7());
        for address in [path, abstract_name] {
            let (socket, systemd) = (listening(&address), told_at(&address));
            systemd.starting("reads 40 %", Duration::from_secs(90));
            assert_eq!(heard(&socket), "STATUS=reads 40 %\nEXTEND_TIMEOUT_USEC=90000000\n");
            systemd.ready("serves 2 listeners\nSTOPPING=1");
            assert_eq!(heard(&socket), "READY=1\nSTATUS=serves 2 listeners STOPPING=1\n");
            systemd.reloading();
            let reload = heard(&socket);
            let time = reload.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").and_then(|t| t.strip_suffix('\n'));
            assert!(time.is_some_and(|t| t.parse::<u64>().is_ok_and(|t| t > 0)), "{reload}");
            systemd.status("drains");
            assert_eq!(heard(&socket), "STATUS=drains\n");
            systemd.watchdog();
            assert_eq!(heard(&socket), "WATCHDOG=1\n");
            systemd.stopping();
            assert_eq!(heard(&socket), "STOPPING=1\n");
        }
    }

    #[test]
    fn without_systemd_nothing_is_told_and_nothing_fails() {
        let systemd = Systemd::from_environment(&Environment::default(), 1);
        systemd.ready("well");
        systemd.watchdog();
        assert_eq!(systemd.watchdog_interval(), None);
        // A systemd that is gone is no reason to stop.
        told_at("/nowhere/notify").stopping();
    }

    #[test]
    fn the_watchdog_is_fed_twice_in_its_time_by_the_process_it_is_meant_for() {
        let interval = |more: &[(&str, &str)]| {
            let given = [("NOTIFY_SOCKET", "/run/notify"), ("WATCHDOG_USEC", "30000000")];
            Systemd::from_environment(&given.iter().chain(more).copied().collect(), 7).watchdog_interval()
        };
        assert_eq!(interval(&[]), Some(Duration::from_secs(15)));
        assert_eq!(interval(&[("WATCHDOG_PID", "7")]), Some(Duration::from_secs(15)));
        assert_eq!(interval(&[("WATCHDOG_PID", "8")]), None, "meant for another process");
        assert_eq!(interval(&[("WATCHDOG_USEC", "0")]), None);
        assert_eq!(interval(&[("NOTIFY_SOCKET", "")]), None, "nobody to tell");
    }
}
