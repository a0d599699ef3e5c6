//! The collector's own `deploy/` is what the templates give, which serve every service.

use std::path::Path;
use std::process::Command;
use tests::program;

#[test]
fn what_the_collector_is_deployed_with_is_what_the_templates_give() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let nowwhat = program().with_file_name("nowwhat");
    let output = Command::new(&nowwhat).args(["deploy", "--check"]).current_dir(root).output().expect("it runs");
    assert!(output.status.success(), "run `make generated`: {}", String::from_utf8_lossy(&output.stderr));
}
