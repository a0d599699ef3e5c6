//! A sensor's id, made from its name.

/// The longest id.
pub(crate) const ID_BYTES_MAX: usize = 128;
/// How the ids begin of what the collector itself sends events as: no sensor is registered with one.
pub const OWN_IDS: &str = "catchment.";
/// The longest name.
const NAME_BYTES_MAX: usize = 256;

/// Why a name gives no id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the name {0:?} cannot be used: a name has 1 to 256 bytes, and at least one of its characters is a letter a to z or a digit"
)]
pub struct BadName(pub String);

/// The id of a sensor of this name: lower case, everything outside `[a-z0-9._-]` becomes `-`, at most 128 characters.
///
/// # Errors
/// [`BadName`] when nothing readable is left.
pub fn sensor_id_from(name: &str) -> Result<String, BadName> {
    let bad = || BadName(name.chars().take(64).collect());
    if name.len() > NAME_BYTES_MAX {
        return Err(bad());
    }
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '-');
    let mut id = String::new();
    for c in name.trim().chars().map(|c| c.to_ascii_lowercase()) {
        match allowed(c) {
            true => id.push(c),
            false if !id.ends_with('-') => id.push('-'),
            false => {}
        }
    }
    id.truncate(ID_BYTES_MAX);
    let id = id.trim_matches('-');
    if id.bytes().any(|b| b.is_ascii_alphanumeric()) { Ok(id.to_owned()) } else { Err(bad()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ids_are_readable() {
        assert_eq!(sensor_id_from("Weather Station 7 (Roof)").as_deref(), Ok("weather-station-7-roof"));
        assert_eq!(sensor_id_from("eui-70b3d5.00_1").as_deref(), Ok("eui-70b3d5.00_1"));
        for bad in ["", "  ", "---", "ä", &"x".repeat(257)] {
            assert!(sensor_id_from(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn every_id_fits_the_pattern_and_is_its_own_id(name in ".{0,300}") {
            if let Ok(id) = sensor_id_from(&name) {
                prop_assert!((1..=ID_BYTES_MAX).contains(&id.len()));
                prop_assert!(id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b)));
                prop_assert_eq!(sensor_id_from(&id), Ok(id));
            }
        }
    }
}
