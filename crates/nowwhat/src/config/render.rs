//! Settings shown: the file of defaults, and what holds with its origins.

use super::loaded::Loaded;
use super::spec::{Spec, by_section};

/// The commented file of all defaults; every value is commented out, so that the file changes nothing.
/// Settings that several structs declare in one section stand together there, under what the first says of it.
///
/// # Panics
/// When a setting is declared twice.
pub fn default_file(specs: &[Spec], heading: &str) -> String {
    let mut text = String::new();
    comment(&mut text, heading);
    let mut section = "";
    for spec in by_section(specs) {
        if spec.section != section {
            section = spec.section;
            text.push('\n');
            comment(&mut text, spec.section_doc);
            text += &format!("[{section}]\n");
        }
        text.push('\n');
        comment(&mut text, spec.doc);
        if let Some(range) = spec.range {
            comment(&mut text, &format!("From {} to {}.", range.min, range.max));
        }
        if spec.secret {
            comment(&mut text, &format!("Better in a file of its own: {}_file = \"/path\".", spec.key));
        }
        if spec.reloadable {
            comment(&mut text, "Reloaded on SIGHUP.");
        }
        text += &format!("# {} = {}\n", spec.key, spec.toml(spec.default));
    }
    text
}

fn comment(text: &mut String, doc: &str) {
    for line in doc.trim().lines() {
        *text += &format!("# {}\n", line.trim());
    }
}

impl Loaded {
    /// Every value with its origin, as TOML; secrets are masked.
    pub fn show(&self) -> String {
        let mut text = format!("# environment: {}\n", self.env);
        let mut section = "";
        for spec in by_section(&self.specs) {
            if spec.section != section {
                section = spec.section;
                text += &format!("\n[{section}]\n");
            }
            let given = self.given(&spec.name());
            let value =
                if given.secret && !given.text.is_empty() { "\"***\"".to_owned() } else { spec.toml(&given.text) };
            text += &format!("{:<36} # {}\n", format!("{} = {value}", spec.key), given.origin);
        }
        text
    }
}
