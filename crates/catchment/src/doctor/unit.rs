//! What systemd says of the unit that runs the collector, where there is one.

use crate::data_dir::OF_PACKAGE;
use std::path::Path;
use std::process::Command;

/// The unit of the package.
const UNIT: &str = "catchment.service";

/// What the unit lets the collector have; none where it is not limited.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) descriptors: Option<u64>,
    pub(super) memory_bytes: Option<u64>,
}

/// The limits of the unit, when there is one and this is its folder.
pub(super) fn over(dir: &Path) -> Option<Limits> {
    if dir != Path::new(OF_PACKAGE) {
        return None;
    }
    let properties = "--property=LoadState,LimitNOFILE,MemoryMax";
    let asked = Command::new("systemctl").args(["show", UNIT, properties]).output().ok()?;
    limits(&String::from_utf8_lossy(&asked.stdout))
}

fn limits(told: &str) -> Option<Limits> {
    let value = |name: &str| told.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    // What has no limit is told as `infinity`.
    let number = |name: &str| value(name).and_then(|text| text.parse().ok());
    let limits = Limits { descriptors: number("LimitNOFILE"), memory_bytes: number("MemoryMax") };
    (value("LoadState") == Some("loaded")).then_some(limits)
}

/// Whether a unit is active.
pub(super) fn is_active(unit: &str) -> bool {
    let asked = Command::new("systemctl").args(["is-active", "--quiet", unit]).status();
    asked.is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_those_of_a_unit_that_is_there() {
        let told = "LimitNOFILE=65536\nMemoryMax=1610612736\nLoadState=loaded\n";
        let limited = Limits { descriptors: Some(65536), memory_bytes: Some(1536 << 20) };
        assert_eq!(limits(told), Some(limited));
        assert_eq!(limits("LimitNOFILE=524288\nMemoryMax=infinity\nLoadState=not-found\n"), None);
        let endless = limits("LimitNOFILE=infinity\nMemoryMax=infinity\nLoadState=loaded\n");
        assert_eq!(endless, Some(Limits::default()));
        assert_eq!(limits(""), None);
    }
}
