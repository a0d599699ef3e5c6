//! What loading promises.

use super::*;
use crate::config::{ByteSize, Secret, Url};

crate::settings! {
    /// For these tests.
    struct Settings {
        /// The oven.
        oven: Oven {
            /// How hot.
            celsius: u32 = "220", range "50".."300", reload;
            /// How large.
            volume_bytes: ByteSize = "1KiB", range "1".."1MiB";
            /// Its key.
            key: Option<Secret> = "";
        }
        /// The shop.
        shop: Shop {
            /// Where.
            folder: String = "shop";
            /// The cash box.
            cash: String = "${shop.folder}/cash";
            /// On which days of the month.
            days: Vec<u16> = "1,15", reload;
            /// Where its customers are kept.
            customers: Url = "postgres://127.0.0.1/shop";
        }
    }
}

fn environment(pairs: &[(&str, &str)]) -> Environment {
    pairs.iter().copied().collect()
}

fn problems(sources: &Sources, pairs: &[(&str, &str)]) -> Vec<String> {
    load(&Settings::specs(), sources, &environment(pairs)).expect_err("it has problems").0
}

#[test]
fn later_sources_win_and_origins_are_kept() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("bakery.toml");
    std::fs::write(&file, "[oven]\ncelsius = 100\nvolume_bytes = \"2KiB\"\n\n[shop]\nfolder = \"a\"\n")
        .expect("written");
    std::fs::write(dir.path().join("bakery.qa.toml"), "[oven]\ncelsius = 110\n").expect("written");
    let mut sources = Sources::of("bakery");
    sources.config = Some(file.clone());
    sources.env = Some("qa".into());
    sources.flags = vec![("shop.folder", "b".into(), "--folder")];
    sources.reserved = &["URL"];
    let env =
        environment(&[("BAKERY_OVEN__VOLUME_BYTES", "3000"), ("BAKERY_URL", "x"), ("BAKERY_PORT", "tcp://10.0.0.1")]);
    let loaded = load(&Settings::specs(), &sources, &env).expect("valid");
    let settings = Settings::from_loaded(&loaded);
    assert_eq!((settings.oven.celsius, settings.oven.volume_bytes), (110, ByteSize(3000)));
    assert_eq!((settings.shop.folder.as_str(), settings.shop.cash.as_str()), ("b", "b/cash"));
    assert_eq!(loaded.given("oven.celsius").origin, Origin::File(dir.path().join("bakery.qa.toml"), 2));
    assert_eq!(loaded.given("oven.volume_bytes").origin, Origin::Variable("BAKERY_OVEN__VOLUME_BYTES".into()));
    assert_eq!(loaded.given("shop.folder").origin, Origin::Flag("--folder"));
    assert_eq!(loaded.ignored, ["BAKERY_PORT"]);
}

#[test]
fn all_problems_come_at_once_with_key_value_range_and_origin() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("bakery.toml");
    std::fs::write(&file, "[oven]\ncelsius = 1000\n\n[shop]\nfoldr = \"a\"\n").expect("written");
    let mut sources = Sources::of("bakery");
    sources.config = Some(file.clone());
    let found = problems(&sources, &[("BAKERY_OVEN__VOLUME_BYTES", "big"), ("BAKERY_SHOP__CASH", "${shop.nothing}")]);
    let file = file.display();
    assert_eq!(
        found,
        [
            format!("unknown key shop.foldr ({file} line 5); did you mean shop.folder?"),
            format!("oven.celsius = \"1000\": allowed are 50 to 300 ({file} line 2)"),
            "oven.volume_bytes = \"big\": expected a number of bytes such as 65536 or 64KiB (environment BAKERY_OVEN__VOLUME_BYTES)"
                .to_owned(),
            "shop.cash: ${shop.nothing} is no setting (environment BAKERY_SHOP__CASH)".to_owned(),
        ]
    );
}

#[test]
fn a_file_that_is_no_toml_or_is_missing_is_named_with_its_line() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("bakery.toml");
    let mut sources = Sources::of("bakery");
    sources.config = Some(file.clone());
    assert!(problems(&sources, &[])[0].starts_with(&file.display().to_string()));
    std::fs::write(&file, "[oven]\ncelsius = = 3\n").expect("written");
    assert!(problems(&sources, &[])[0].contains("bakery.toml line 2: "), "{:?}", problems(&sources, &[]));
    std::fs::write(&file, "celsius = 3\n").expect("written");
    assert!(problems(&sources, &[])[0].contains("celsius stands in no section"));
}

#[test]
fn lists_come_from_toml_and_with_commas_and_an_address_is_masked_whole() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("bakery.toml");
    std::fs::write(&file, "[shop]\ndays = [2, 16]\n").expect("written");
    let mut sources = Sources::of("bakery");
    sources.config = Some(file.clone());
    let url = ("BAKERY_SHOP__CUSTOMERS", "postgres://me:hidden@db/shop");
    let loaded = load(&Settings::specs(), &sources, &environment(&[url])).expect("valid");
    let settings = Settings::from_loaded(&loaded);
    assert_eq!(settings.shop.days, [2, 16]);
    assert_eq!(settings.shop.customers.scheme(), "postgres");
    let shown = loaded.show() + &format!("{settings:?}");
    assert!(shown.contains("\"2,16\"") && !shown.contains("hidden"), "{shown}");
    let loaded = load(&Settings::specs(), &sources, &environment(&[("BAKERY_SHOP__DAYS", "3, 4,5")])).expect("valid");
    assert_eq!(Settings::from_loaded(&loaded).shop.days, [3, 4, 5]);
    std::fs::write(&file, "[shop]\ndays = [[1], 2]\ncustomers = \"db\"\n").expect("written");
    let found = problems(&sources, &[]).join("\n");
    assert!(found.contains("line 2: shop.days is neither"), "{found}");
    let found = problems(&sources, &[("BAKERY_SHOP__DAYS", "1,two")]).join("\n");
    assert!(found.contains("a list with commas"), "{found}");
}

#[test]
fn a_secret_comes_from_a_file_and_is_never_shown() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("key");
    std::fs::write(&file, "hidden\n").expect("written");
    let env = environment(&[("BAKERY_OVEN__KEY_FILE", file.to_str().expect("a path"))]);
    let loaded = load(&Settings::specs(), &Sources::of("bakery"), &env).expect("valid");
    assert_eq!(Settings::from_loaded(&loaded).oven.key.expect("given").reveal(), "hidden");
    assert!(!loaded.show().contains("hidden"), "{}", loaded.show());
    let missing = problems(&Sources::of("bakery"), &[("BAKERY_OVEN__KEY_FILE", "/nowhere")]);
    assert!(missing[0].starts_with("oven.key: cannot read /nowhere"), "{missing:?}");
}

#[test]
fn the_file_of_defaults_is_valid_and_changes_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("bakery.toml");
    let text = crate::config::default_file(&Settings::specs(), "The bakery.");
    let uncommented: String = text
        .lines()
        .map(|l| {
            format!("{}\n", l.strip_prefix("# ").filter(|l| l.contains(" = ") && !l.contains("file")).unwrap_or(l))
        })
        .collect();
    for text in [text, uncommented] {
        std::fs::write(&file, text).expect("written");
        let mut sources = Sources::of("bakery");
        sources.config = Some(file.clone());
        let loaded = load(&Settings::specs(), &sources, &Environment::default()).expect("valid");
        assert_eq!(Settings::from_loaded(&loaded).oven.celsius, 220);
    }
}

#[test]
fn only_reserved_variables_are_not_told_as_ignored() {
    let env = environment(&[("BAKERY_URL", "x"), ("BAKERY_ENV", "qa"), ("BAKERY_TOKEN", "x")]);
    let ignored = |reserved| {
        let sources = Sources { reserved, ..Sources::of("bakery") };
        load(&Settings::specs(), &sources, &env).expect("valid").ignored
    };
    assert_eq!(ignored(&[]), ["BAKERY_TOKEN", "BAKERY_URL"]);
    assert_eq!(ignored(&["URL"]), ["BAKERY_TOKEN"]);
}

#[test]
fn a_second_reading_tells_what_changed_and_what_needs_a_new_start() {
    let loaded =
        |pairs: &[(&str, &str)]| load(&Settings::specs(), &Sources::of("bakery"), &environment(pairs)).expect("valid");
    let before = loaded(&[("BAKERY_SHOP__FOLDER", "a")]);
    let after =
        loaded(&[("BAKERY_OVEN__CELSIUS", "100"), ("BAKERY_SHOP__DAYS", "2"), ("BAKERY_OVEN__VOLUME_BYTES", "2KiB")]);
    let names = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
    assert_eq!(
        before.changes(&after),
        Changes {
            reloadable: names(&["oven.celsius", "shop.days"]),
            // The cash box lies in the folder.
            at_start: names(&["oven.volume_bytes", "shop.folder", "shop.cash"]),
        }
    );
    // Said now, but the same as before.
    assert_eq!(
        before.changes(&loaded(&[("BAKERY_SHOP__FOLDER", "a"), ("BAKERY_OVEN__CELSIUS", "220")])),
        Changes::default()
    );
}

mod foundation {
    crate::settings! {
        /// What every shop has.
        pub(super) struct Foundation {
            /// The shop and its rooms.
            shop: Shop {
                /// From when.
                opens_hour: u16 = "8", range "0".."23";
            }
            /// The door.
            door: Door {
                /// How wide.
                width: u16 = "1";
            }
        }
    }
}
use foundation::Foundation;

#[test]
fn two_declarations_are_loaded_together_and_shown_by_section() {
    let specs = [Foundation::specs(), Settings::specs()].concat();
    let loaded =
        load(&specs, &Sources::of("bakery"), &environment(&[("BAKERY_SHOP__OPENS_HOUR", "7")])).expect("valid");
    let (foundation, settings) = (Foundation::from_loaded(&loaded), Settings::from_loaded(&loaded));
    assert_eq!((foundation.shop.opens_hour, foundation.door.width), (7, 1));
    assert_eq!((settings.shop.folder.as_str(), settings.oven.celsius), ("shop", 220));
    for text in [crate::config::default_file(&specs, "The bakery."), loaded.show()] {
        let heads: Vec<&str> = text.lines().filter(|l| l.starts_with('[')).collect();
        assert_eq!(heads, ["[shop]", "[door]", "[oven]"], "{text}");
        let (shop, _) = text.split_once("[door]").expect("a door");
        assert!(shop.contains("opens_hour = ") && shop.contains("folder = "), "{text}");
    }
    let text = crate::config::default_file(&specs, "The bakery.");
    assert!(text.contains("# The shop and its rooms.\n[shop]") && !text.contains("# The shop.\n"), "{text}");
}

#[test]
fn the_file_of_defaults_tells_which_settings_are_reloaded() {
    let text = crate::config::default_file(&Settings::specs(), "The bakery.");
    assert!(text.contains("# How hot.\n# From 50 to 300.\n# Reloaded on SIGHUP.\n# celsius = 220\n"), "{text}");
    assert_eq!(text.matches("SIGHUP").count(), 2, "{text}");
}

#[test]
#[should_panic(expected = "oven.celsius is declared twice")]
fn a_setting_that_is_declared_twice_stops_the_program() {
    let specs = [Settings::specs(), Settings::specs()].concat();
    drop(load(&specs, &Sources::of("bakery"), &Environment::default()));
}

#[test]
fn a_service_can_have_its_own_default_for_a_setting_of_its_foundation() {
    let specs = crate::config::with_default(Foundation::specs(), "shop.opens_hour", "6");
    let loaded = load(&specs, &Sources::of("bakery"), &Environment::default()).expect("valid");
    assert_eq!(Foundation::from_loaded(&loaded).shop.opens_hour, 6);
    assert_eq!(loaded.given("shop.opens_hour").origin, Origin::Default);
    assert!(crate::config::default_file(&specs, "").contains("# opens_hour = 6\n"));
}

#[test]
#[should_panic(expected = "the default \"24\" of shop.opens_hour: allowed are 0 to 23")]
fn a_default_of_its_own_must_be_allowed() {
    drop(crate::config::with_default(Foundation::specs(), "shop.opens_hour", "24"));
}

#[test]
#[should_panic(expected = "shop.closes_hour is not declared")]
fn a_default_of_its_own_must_be_for_a_declared_setting() {
    drop(crate::config::with_default(Foundation::specs(), "shop.closes_hour", "20"));
}
