//! Takes the two files of Swagger UI that the page at `/docs` uses out of its archive, and those of the web page from `src/page`, compressed as
//! they are served.

use flate2::{Compression, write::GzEncoder};
use std::error::Error;
use std::fs::{self, File};
use std::io::{self, Cursor, Read};
use std::path::{Path, PathBuf};
use utoipa_swagger_ui_vendored::SWAGGER_UI_VENDORED;
use zip::ZipArchive;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    let folder = PathBuf::from(std::env::var("OUT_DIR")?);
    pack_page(&folder)?;
    let mut archive = ZipArchive::new(Cursor::new(SWAGGER_UI_VENDORED))?;
    for name in ["swagger-ui.css", "swagger-ui-bundle.js"] {
        // Its first folder has the version in its name.
        let path = archive.file_names().flatten().find(|path| path.ends_with(&format!("/dist/{name}")));
        let path = path.ok_or_else(|| format!("the archive of Swagger UI has no {name}"))?.into_owned();
        pack(archive.by_name(&path)?, &folder.join(format!("{name}.gz")))?;
    }
    Ok(())
}

/// Packs all files of the web page but its HTML, and lists them as an expression in `page.rs`.
fn pack_page(folder: &Path) -> Result<(), Box<dyn Error>> {
    fs::create_dir_all(folder.join("page"))?;
    let mut files = Vec::new();
    for place in ["src/page", "src/page/vendor"] {
        println!("cargo::rerun-if-changed={place}");
        let entries = fs::read_dir(place)?.collect::<Result<Vec<_>, _>>()?;
        files.extend(entries.into_iter().map(|entry| entry.path()));
    }
    files.retain(|path| path.extension().is_some_and(|kind| ["js", "css", "svg"].iter().any(|known| kind == *known)));
    files.sort();
    let mut list = String::from("&[\n");
    for path in files {
        let name =
            path.file_name().and_then(|name| name.to_str()).ok_or("the name of a file of the page is no UTF-8")?;
        pack(File::open(&path)?, &folder.join("page").join(format!("{name}.gz")))?;
        list += &format!("    ({name:?}, include_bytes!(concat!(env!(\"OUT_DIR\"), \"/page/{name}.gz\"))),\n");
    }
    fs::write(folder.join("page.rs"), list + "]\n")?;
    Ok(())
}

fn pack(mut from: impl Read, to: &Path) -> io::Result<()> {
    let mut packed = GzEncoder::new(File::create(to)?, Compression::best());
    io::copy(&mut from, &mut packed)?;
    packed.finish()?;
    Ok(())
}
