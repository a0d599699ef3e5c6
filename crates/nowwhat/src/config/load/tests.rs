//! What loading promises.

use super::*;
use crate::config::{ByteSize, Changes, Secret, Url};
use std::time::{Duration, Instant};

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

fn names(ignored: &[Ignored]) -> Vec<String> {
    ignored.iter().map(|variable| variable.name.clone()).collect()
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
    assert_eq!(names(&loaded.ignored), ["BAKERY_PORT"]);
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
    std::fs::write(&file, "[shop]\ndays = [\"\"]\n").expect("written");
    let found = problems(&sources, &[]).join("\n");
    assert!(found.contains("line 2: shop.days is neither") && found.contains("its element 1 is empty"), "{found}");
    std::fs::write(&file, "[shop]\ndays = [[1], 2]\ncustomers = \"db\"\n").expect("written");
    let found = problems(&sources, &[]).join("\n");
    assert!(found.contains("line 2: shop.days is neither"), "{found}");
    let found = problems(&sources, &[("BAKERY_SHOP__DAYS", "1,two")]).join("\n");
    assert!(found.contains("a list with commas"), "{found}");
    assert!(found.contains("; element 2, \"two\", is not a whole number (environment BAKERY_SHOP__DAYS)"), "{found}");
    assert!(found.contains("line 2: shop.days is neither") && found.contains("see its element 1"), "{found}");
    std::fs::write(&file, "[shop]\ndays = [\"1,2\", 3]\n").expect("written");
    let found = problems(&sources, &[]).join("\n");
    assert!(found.contains("its element 1 has a comma"), "{found}");
}

#[test]
fn a_secret_comes_from_a_file_and_is_never_shown() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("key");
    std::fs::write(&file, "hidden\n").expect("written");
    let env = environment(&[("BAKERY_OVEN__KEY_FILE", file.to_str().expect("a path"))]);
    let loaded = load(&Settings::specs(), &Sources::of("bakery"), &env).expect("valid");
    assert_eq!(Settings::from_loaded(&loaded).oven.key.expect("given").reveal(), "hidden");
    assert!(!format!("{loaded:?}").contains("hidden"), "{loaded:?}");
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
        names(&load(&Settings::specs(), &sources, &env).expect("valid").ignored)
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

/// Sources with a file.
fn file_with(dir: &tempfile::TempDir, text: &str) -> Sources {
    let file = dir.path().join("bakery.toml");
    std::fs::write(&file, text).expect("written");
    Sources { config: Some(file), ..Sources::of("bakery") }
}

#[test]
fn what_is_wrong_in_one_place_hides_nothing_elsewhere() {
    let dir = tempfile::tempdir().expect("a folder");
    let sources = file_with(&dir, "loose = 1\n[oven]\ncelsius = 1\n[shop]\ndays = [1, []]\n");
    std::fs::write(dir.path().join("bakery.prod.toml"), "[oven\n").expect("written");
    let found = problems(&sources, &[("BAKERY_SHOP__CUSTOMERS", ""), ("BAKERY_OVEN__KEY_FILE", "/nowhere")]);
    let expected = [
        "line 1: loose stands in no section",
        "line 5: shop.days is neither",
        "bakery.prod.toml line 1: ",
        "oven.key: cannot read /nowhere",
        "oven.celsius = \"1\": allowed are",
        "shop.customers = ***: expected an address",
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (problem, part) in found.iter().zip(expected) {
        assert!(problem.contains(part), "{part} in {found:#?}");
    }
}

#[test]
fn a_literal_dollar_and_brace_can_be_written_and_what_a_secrets_file_holds_is_taken_as_it_is() {
    let dir = tempfile::tempdir().expect("a folder");
    let key = dir.path().join("key");
    std::fs::write(&key, "pa$${ss${word}\n").expect("written");
    let pairs = [
        ("BAKERY_OVEN__KEY_FILE", key.to_str().expect("a path")),
        ("BAKERY_SHOP__FOLDER", "$${HOME}"),
        ("BAKERY_SHOP__CUSTOMERS", "${oven.key}"),
    ];
    let found = problems(&Sources::of("bakery"), &pairs).join("\n");
    assert!(found.starts_with("shop.customers = ***: expected") && !found.contains("pa$"), "{found}");
    let loaded = load(&Settings::specs(), &Sources::of("bakery"), &environment(&pairs[..2])).expect("valid");
    let settings = Settings::from_loaded(&loaded);
    assert_eq!((settings.shop.folder.as_str(), settings.shop.cash.as_str()), ("${HOME}", "${HOME}/cash"));
    assert_eq!(settings.oven.key.expect("given").reveal(), "pa$${ss${word}");
}

#[test]
fn a_flaw_in_a_secret_tells_nothing_of_it() {
    for secret in ["hid${den}", "hidden${", "${shop.cash}hidden", "hid${den.hidden"] {
        let found = problems(&Sources::of("bakery"), &[("BAKERY_OVEN__KEY", secret)]).join("\n");
        assert!(found.starts_with("oven.key: a `${` in it") && found.contains("BAKERY_OVEN__KEY"), "{found}");
        assert!(!found.contains("den") && !found.contains("cash"), "{found}");
    }
    let days = [("BAKERY_OVEN__KEY", "hidden"), ("BAKERY_SHOP__DAYS", "1,${oven.key}")];
    let found = problems(&Sources::of("bakery"), &days).join("\n");
    assert!(found.contains("; element 2 is not a whole number") && !found.contains("hidden"), "{found}");
}

#[test]
fn a_variable_with_one_underscore_is_ignored_and_told_with_what_was_meant() {
    let given = [("BAKERY_OVEN_CELSIUS", "100"), ("BAKERY_OVEN_KEY_FILE", "/x"), ("BAKERY_PORT", "tcp://10.0.0.1")];
    let env = environment(&given);
    let loaded = load(&Settings::specs(), &Sources::of("bakery"), &env).expect("valid");
    let told: Vec<_> = loaded.ignored.iter().map(|i| (i.name.as_str(), i.meant.as_deref())).collect();
    let celsius = ("BAKERY_OVEN_CELSIUS", Some("BAKERY_OVEN__CELSIUS"));
    assert_eq!(told, [celsius, ("BAKERY_OVEN_KEY_FILE", Some("BAKERY_OVEN__KEY_FILE")), ("BAKERY_PORT", None)]);
}

#[test]
fn an_environment_has_one_of_four_names() {
    for (name, meant) in
        [("Prod", "prod"), ("production", "prod"), ("development", "dev"), ("stagin", "staging"), ("QA", "qa")]
    {
        let found = problems(&Sources::of("bakery"), &[("BAKERY_ENV", name)]);
        let hint = format!(" is none of dev, qa, staging, prod (environment BAKERY_ENV); did you mean {meant}?");
        assert_eq!(found, [format!("the environment's name {name:?}{hint}")]);
    }
    let sources = Sources { env: Some("../x".to_owned()), ..Sources::of("bakery") };
    assert_eq!(
        problems(&sources, &[]),
        ["the environment's name \"../x\" is none of dev, qa, staging, prod (flag --env)"]
    );
}

#[test]
fn within_one_source_a_setting_is_given_once_and_a_later_source_wins() {
    let dir = tempfile::tempdir().expect("a folder");
    let key = dir.path().join("key");
    std::fs::write(&key, "of the file").expect("written");
    let key = key.to_str().expect("a path");
    let both = format!("[oven]\nkey = \"hidden\"\nkey_file = \"{key}\"\n");
    let sources = file_with(&dir, &both);
    let file = sources.config.clone().expect("given");
    let expected = format!("oven.key is given twice: give it once ({0} line 2, {0} line 3)", file.display());
    assert_eq!(problems(&sources, &[]), [expected]);
    let variables = [("BAKERY_OVEN__KEY", "hidden"), ("BAKERY_OVEN__KEY_FILE", key)];
    assert_eq!(
        problems(&Sources::of("bakery"), &variables),
        ["oven.key is given twice: give it once (environment BAKERY_OVEN__KEY, environment BAKERY_OVEN__KEY_FILE)"]
    );
    let sources = file_with(&dir, "[oven]\nkey = \"hidden\"\n");
    let loaded = load(&Settings::specs(), &sources, &environment(&variables[1..])).expect("valid");
    assert_eq!(Settings::from_loaded(&loaded).oven.key.expect("given").reveal(), "of the file");
}

#[test]
fn many_unknown_keys_take_no_time_and_are_counted() {
    let dir = tempfile::tempdir().expect("a folder");
    let keys: String = (0..80_000).map(|n| format!("k{n} = 1\n")).collect();
    let sources = file_with(&dir, &format!("[oven]\n{keys}celsius = 1\n"));
    let began = Instant::now();
    let found = problems(&sources, &[]);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!((found.len(), found[20].as_str()), (22, "79980 further unknown keys"));
    assert!(found[21].contains("line 80002"), "{}", found[21]);
    let sources = file_with(&dir, &format!("{keys}[oven]\n"));
    let found = problems(&sources, &[]);
    assert!(found.len() == 21 && found[20].ends_with("79980 further such lines"), "{:?}", found.last());
}

#[test]
fn files_that_never_end_or_would_wait_are_refused_by_name_and_a_pipe_is_read_once() {
    let of = |path: &str| Sources { config: Some(PathBuf::from(path)), ..Sources::of("bakery") };
    let found = problems(&of("/dev/zero"), &[("BAKERY_OVEN__KEY_FILE", "/dev/zero")]);
    assert!(found[0].starts_with("/dev/zero: it is larger than 1048576 bytes"), "{found:?}");
    assert!(found[1].starts_with("oven.key: cannot read /dev/zero: it is no regular file"), "{found:?}");
    load(&Settings::specs(), &of("/dev/null"), &Environment::default()).expect("empty");

    let dir = tempfile::tempdir().expect("a folder");
    let pipe = dir.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().expect("mkfifo runs").success());
    let sources = of(pipe.to_str().expect("a path"));
    let again = find(&Settings::specs(), &sources, &Environment::default(), Turn::Again).result();
    let again = again.expect_err("nobody writes").to_string();
    assert!(again.contains("a pipe, which can be read at the start only"), "{again}");
    let writer = std::thread::spawn(move || std::fs::write(&pipe, "[oven]\ncelsius = 100\n"));
    let loaded = load(&Settings::specs(), &sources, &Environment::default()).expect("valid");
    writer.join().expect("no panic").expect("written");
    assert_eq!(Settings::from_loaded(&loaded).oven.celsius, 100);
}

#[test]
fn an_empty_file_of_a_secret_is_a_problem() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("oven.key");
    std::fs::write(&file, " \n").expect("written");
    let (path, folder) = (file.to_str().expect("a path"), dir.path().to_str().expect("a path"));
    for pair in [("BAKERY_OVEN__KEY_FILE", path), ("CREDENTIALS_DIRECTORY", folder)] {
        let found = problems(&Sources::of("bakery"), &[pair]);
        let expected = format!("oven.key: {path} is empty: write the secret into it (");
        assert!(found.len() == 1 && found[0].starts_with(&expected), "{found:?}");
    }
}

#[test]
fn a_number_with_a_fraction_is_no_whole_number_whatever_the_fraction() {
    let dir = tempfile::tempdir().expect("a folder");
    for number in ["100.0", "100.5", "1e2"] {
        let found = problems(&file_with(&dir, &format!("[oven]\ncelsius = {number}\n")), &[]);
        assert!(found.len() == 1 && found[0].contains("expected a whole number"), "{number}: {found:?}");
    }
    let sources = file_with(&dir, "[shop]\nfolder = 1.0\n");
    let loaded = load(&Settings::specs(), &sources, &Environment::default()).expect("valid");
    assert_eq!(Settings::from_loaded(&loaded).shop.folder, "1.0");
}

#[test]
fn a_variable_without_a_section_or_a_key_says_so() {
    let found = problems(&Sources::of("bakery"), &[("BAKERY_OVEN__", "x"), ("BAKERY___KEY", "x")]);
    let hint = "is missing; a setting is written BAKERY_SECTION__KEY";
    assert_eq!(
        found,
        [
            format!("environment BAKERY_OVEN__: the key after `__` {hint}"),
            format!("environment BAKERY___KEY: the section before `__` {hint}"),
        ]
    );
}

#[test]
fn an_address_made_of_a_secret_is_shown_nowhere() {
    let pairs = [("BAKERY_OVEN__KEY", "hidden"), ("BAKERY_SHOP__CUSTOMERS", "postgres://${oven.key}/x")];
    let loaded = load(&Settings::specs(), &Sources::of("bakery"), &environment(&pairs)).expect("valid");
    let customers = Settings::from_loaded(&loaded).shop.customers;
    assert_eq!((customers.reveal().as_str(), format!("{customers:?}").as_str()), ("postgres://hidden/x", "***"));
    assert!(loaded.show().contains("customers = \"***\" "), "{}", loaded.show());
    assert_eq!(loaded.given("shop.customers").origin, Origin::Variable("BAKERY_SHOP__CUSTOMERS".into()));
}
