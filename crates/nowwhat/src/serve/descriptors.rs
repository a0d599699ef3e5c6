//! How many descriptors the process may have open: each connection takes one.
//!
//! The soft limit is often 1024 for the sake of programs that use `select(2)`; this is none, and takes what the hard
//! limit gives. Processes that it starts have the higher limit as well.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// For everything but the public connections: those of the admin listener, those that are turned away, and the files and
/// calls of the service.
const RESERVED: u64 = 256;

/// Raises the soft limit to the hard one. Warns when this many connections do not fit into it.
pub(crate) fn make_room_for(connections_max: usize) {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // Refused only where the hard limit is beyond the kernel's own; then what is there stays.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let needed = connections_max as u64 + RESERVED;
    if limit < needed {
        tracing::warn!(
            descriptors_max = limit,
            connections_max,
            "too few file descriptors for http.connections_max: set LimitNOFILE={needed} in the unit, or lower the setting"
        );
    }
}
