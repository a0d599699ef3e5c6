//! Lists what lies below `templates/`, so that the program carries it: paths, texts and whether a file can be run.

use std::fmt::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

fn main() -> std::io::Result<()> {
    // A file that is added changes its folder.
    println!("cargo::rerun-if-changed=templates");
    println!("cargo::rerun-if-changed=build.rs");
    let mut list = String::from("&[\n");
    for set in ["deploy", "service"] {
        let root = Path::new("templates").join(set);
        let mut files = Vec::new();
        collect(&root, &mut files)?;
        files.sort();
        for file in files {
            let is_executable = file.metadata()?.permissions().mode() & 0o111 != 0;
            let path = file.strip_prefix(&root).expect("below it").display();
            let file = file.display();
            let _ = writeln!(
                list,
                "Template {{ set: {set:?}, path: \"{path}\", text: include_str!(concat!(env!(\"CARGO_MANIFEST_DIR\"), \"/{file}\")), \
                 is_executable: {is_executable} }},"
            );
        }
    }
    list += "]";
    let out = std::env::var_os("OUT_DIR").expect("cargo sets it");
    std::fs::write(Path::new(&out).join("templates.rs"), list)
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}
