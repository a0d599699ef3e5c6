//! The rules of the house, read from the sources themselves.

use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use syn::visit::Visit;

const FUNCTION_LINES_MAX: usize = 70;
const FILE_LINES_MAX: usize = 500;
const PARAMETERS_MAX: usize = 5;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_path_buf()
}

fn files(folder: &Path, ending: &str, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        if path.is_dir() && !["target", "data", ".git"].contains(&name.as_str()) {
            files(&path, ending, found);
        } else if name.ends_with(ending) {
            found.push(path);
        }
    }
}

fn sources() -> Vec<PathBuf> {
    let mut found = Vec::new();
    for folder in ["crates", "examples", "fuzz", "tests", "benches"] {
        files(&root().join(folder), ".rs", &mut found);
    }
    found
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root()).expect("in the workspace").display().to_string()
}

fn assert_none(flaws: &[String]) {
    assert!(flaws.is_empty(), "\n{}", flaws.join("\n"));
}

/// Who may name whom, as `docs/ARCHITECTURE.md` says.
#[test]
fn dependencies_go_one_way() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline", "--locked"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    let ours: BTreeSet<&str> = packages.iter().filter_map(|p| p["name"].as_str()).collect();
    let allowed = |name: &str| -> &[&str] {
        match name {
            "catchment" => &["server", "engine", "query", "registry", "rejected", "nowwhat", "lake", "wal"],
            "server" => &["engine", "query", "registry", "rejected", "event", "nowwhat"],
            "query" => &["lake", "event", "rejected"],
            "engine" => &["wal", "lake", "event"],
            "lake" => &["event"],
            "testkit" => &["wal"],
            "notes" => &["nowwhat"],
            _ => &[],
        }
    };
    let only = [
        ("datafusion", "query"),
        ("deltalake-core", "lake"),
        ("tracing-subscriber", "nowwhat"),
        ("toml_edit", "nowwhat"),
        ("minijinja", "nowwhat-cli"),
    ];
    let mut flaws = Vec::new();
    for package in packages {
        let name = package["name"].as_str().expect("a name");
        for dependency in package["dependencies"].as_array().expect("dependencies") {
            let other = dependency["name"].as_str().expect("a name");
            if dependency["kind"].is_null() && ours.contains(other) && !allowed(name).contains(&other) {
                flaws.push(format!("{name} may not name {other}"));
            }
            flaws.extend(
                only.iter()
                    .filter(|(d, who)| *d == other && *who != name)
                    .map(|_| format!("{name} may not name {other}")),
            );
        }
    }
    assert_none(&flaws);
}

#[test]
fn only_nowwhat_reads_the_environment() {
    let mut flaws = Vec::new();
    for path in sources() {
        let name = shown(&path);
        // Build scripts are told by cargo what they need in their environment.
        let allowed = name == "crates/nowwhat/src/environment.rs" || name.ends_with("/build.rs");
        if allowed || name.starts_with("tests/") || name.contains("/tests/") {
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("a source");
        for (n, line) in text.lines().enumerate() {
            if ["env::var(", "env::var_os(", "env::vars(", "env::vars_os("].iter().any(|call| line.contains(call)) {
                flaws.push(format!("{name}:{}: the environment is read by nowwhat alone", n + 1));
            }
        }
    }
    assert_none(&flaws);
}

/// Collects what is too large in one file.
struct Sizes {
    file: String,
    flaws: Vec<String>,
    /// Inside of what implements a trait, which says what its methods take.
    of_trait: usize,
}

impl Sizes {
    fn function(&mut self, signature: &syn::Signature, span: proc_macro2::Span) {
        let lines = span.end().line - span.start().line + 1;
        let (file, name) = (&self.file, &signature.ident);
        if lines > FUNCTION_LINES_MAX {
            self.flaws.push(format!("{file}: {name} has {lines} lines, more than {FUNCTION_LINES_MAX}"));
        }
        if self.of_trait > 0 {
            return;
        }
        let parameters = signature.inputs.iter().filter(|input| matches!(input, syn::FnArg::Typed(_))).count();
        if parameters > PARAMETERS_MAX {
            self.flaws.push(format!("{file}: {name} has {parameters} parameters, more than {PARAMETERS_MAX}"));
        }
        let is_bool = |input: &syn::FnArg| matches!(input, syn::FnArg::Typed(p) if matches!(&*p.ty, syn::Type::Path(t) if t.path.is_ident("bool")));
        if signature.inputs.iter().any(is_bool) {
            self.flaws.push(format!("{file}: {name} has a bool parameter: give it a name with an enum"));
        }
    }
}

impl<'ast> Visit<'ast> for Sizes {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        use syn::spanned::Spanned;
        self.function(&item.sig, item.span());
        syn::visit::visit_item_fn(self, item);
    }
    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        let is_of_trait = usize::from(item.trait_.is_some());
        self.of_trait += is_of_trait;
        syn::visit::visit_item_impl(self, item);
        self.of_trait -= is_of_trait;
    }
    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        use syn::spanned::Spanned;
        self.function(&item.sig, item.span());
        syn::visit::visit_impl_item_fn(self, item);
    }
}

#[test]
fn functions_and_files_fit_a_head() {
    let mut flaws = Vec::new();
    for path in sources() {
        let text = std::fs::read_to_string(&path).expect("a source");
        let name = shown(&path);
        if !text.starts_with("//!") {
            flaws.push(format!("{name}: a file begins with //! and says what it is"));
        }
        let own = text.lines().take_while(|line| !line.starts_with("#[cfg(test)]")).count();
        if own > FILE_LINES_MAX {
            flaws.push(format!("{name}: {own} lines without tests, more than {FILE_LINES_MAX}"));
        }
        let stem = path.file_stem().expect("a name").to_string_lossy();
        if ["util", "utils", "common", "helpers", "manager", "v2"].contains(&stem.as_ref()) {
            flaws.push(format!("{name}: a file is named for what is in it"));
        }
        let mut sizes = Sizes { file: name.clone(), flaws: Vec::new(), of_trait: 0 };
        sizes.visit_file(&syn::parse_file(&text).unwrap_or_else(|e| panic!("{name}: {e}")));
        flaws.extend(sizes.flaws);
    }
    assert_none(&flaws);
}

#[test]
fn links_in_the_documents_lead_somewhere() {
    let mut documents = Vec::new();
    files(&root(), ".md", &mut documents);
    let mut flaws = Vec::new();
    for path in documents {
        let text = std::fs::read_to_string(&path).expect("a document");
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = link.split('#').next().unwrap_or_default();
            let outside = target.is_empty() || target.contains("://");
            if !outside && !path.parent().expect("a folder").join(target).exists() {
                flaws.push(format!("{}: {link} leads nowhere", shown(&path)));
            }
        }
    }
    assert_none(&flaws);
}

/// What has the form `path.rs::test` between backticks on pages that answer a list, part by part.
#[test]
fn every_test_that_the_documents_name_exists() {
    for (page, parts_min) in [("docs/TWELVE-FACTOR.md", 12), ("docs/NOW-WHAT.md", 8), ("docs/DURABILITY.md", 7)] {
        assert_tests_exist(page, parts_min);
    }
}

fn assert_tests_exist(page: &str, parts_min: usize) {
    let page = std::fs::read_to_string(root().join(page)).expect("the page");
    let named: Vec<(&str, &str)> = page.split('`').filter_map(|code| code.split_once(".rs::")).collect();
    let parts = page.lines().filter(|line| line.starts_with("## ")).count();
    assert!(parts >= parts_min && named.len() >= parts, "{parts} parts with {} tests", named.len());
    let exists = |(file, test): &(&str, &str)| {
        let text = std::fs::read_to_string(root().join(format!("{file}.rs"))).unwrap_or_default();
        let tests = text.split("#[test]").skip(1).chain(text.split("#[tokio::test").skip(1));
        tests.filter_map(|after| after.split_once("fn ")).any(|(_, after)| after.starts_with(&format!("{test}()")))
    };
    let missing = named.iter().filter(|named| !exists(named));
    assert_none(&missing.map(|(file, test)| format!("{file}.rs has no test {test}")).collect::<Vec<_>>());
}

#[test]
fn every_document_stands_in_the_index() {
    let index = std::fs::read_to_string(root().join("docs/README.md")).expect("the index");
    let mut documents = Vec::new();
    files(&root().join("docs"), ".md", &mut documents);
    let folder = root().join("docs");
    let missing = documents.iter().map(|d| d.strip_prefix(&folder).expect("in docs").display().to_string());
    let missing: Vec<String> = missing.filter(|d| d != "README.md" && !index.contains(&format!("({d})"))).collect();
    assert_none(&missing);
}

/// `make broken` takes half an hour: that its patches still fit is told here.
#[test]
fn every_broken_build_can_be_made() {
    let mut patches = Vec::new();
    files(&root().join("tests/broken"), ".patch", &mut patches);
    assert!(patches.len() > 8, "{patches:?}");
    let is_stale = |patch: &&PathBuf| {
        let applied = Command::new("git").args(["apply", "--check"]).arg(patch).current_dir(root()).output();
        !applied.expect("git runs").status.success()
    };
    assert_none(&patches.iter().filter(is_stale).map(|patch| format!("{} is stale", shown(patch))).collect::<Vec<_>>());
}
