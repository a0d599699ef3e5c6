//! Takes the two files of Swagger UI that the page at `/docs` uses out of its archive, compressed as they are served.

use flate2::{Compression, write::GzEncoder};
use std::error::Error;
use std::fs::File;
use std::io::{self, Cursor};
use std::path::PathBuf;
use utoipa_swagger_ui_vendored::SWAGGER_UI_VENDORED;
use zip::ZipArchive;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    let folder = PathBuf::from(std::env::var("OUT_DIR")?);
    let mut archive = ZipArchive::new(Cursor::new(SWAGGER_UI_VENDORED))?;
    for name in ["swagger-ui.css", "swagger-ui-bundle.js"] {
        // Its first folder has the version in its name.
        let path = archive.file_names().flatten().find(|path| path.ends_with(&format!("/dist/{name}")));
        let path = path.ok_or_else(|| format!("the archive of Swagger UI has no {name}"))?.into_owned();
        let mut packed = GzEncoder::new(File::create(folder.join(format!("{name}.gz")))?, Compression::best());
        io::copy(&mut archive.by_name(&path)?, &mut packed)?;
        packed.finish()?;
    }
    Ok(())
}
