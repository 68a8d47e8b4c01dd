//! What a release carries for a board: the image of its flash, its checksum, and a page that writes it from a browser.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use sha2::{Digest, Sha256};

/// Of the image, which is named by it.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The page with ESP Web Tools, which reads the manifest beside it.
const PAGE: &str = include_str!("../../../../firmware/esp32s3/web/index.html");
const MANIFEST: &str = "manifest.json";
/// Bytes of the board's flash.
const FLASH: usize = 16 << 20;

/// Write it all to a folder, in place of what is there.
pub fn write(image: &[u8], folder: &Path) -> Result<()> {
    ensure!(image.len() <= FLASH, "the image has {} bytes, the flash {FLASH}", image.len());
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let name = format!("llamita-{VERSION}-esp32s3.bin");
    let manifest = format!(
        "{:#}\n",
        json!({
            "name": "llamita",
            "version": VERSION,
            "new_install_prompt_erase": true,
            // There is no radio that could be set up.
            "new_install_improv_wait_time": 0,
            "builds": [{ "chipFamily": "ESP32-S3", "parts": [{ "path": name, "offset": 0 }] }],
        })
    );
    let mut sum = String::new();
    for byte in Sha256::digest(image) {
        write!(sum, "{byte:02x}")?;
    }
    // As `sha256sum --check` reads it.
    sum += &format!("  {name}\n");
    let files = [
        (&*name, image),
        ("SHA256SUMS", sum.as_bytes()),
        (MANIFEST, manifest.as_bytes()),
        ("index.html", PAGE.as_bytes()),
    ];
    for (name, bytes) in files {
        let path = folder.join(name);
        fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::ci::tools::root;

    #[test]
    fn the_page_finds_the_manifest_and_that_the_image() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = temporary.path().join("release");
        write(b"what was before", &folder).unwrap();
        fs::write(folder.join("llamita-0.0.0-esp32s3.bin"), "of a version before").unwrap();
        write(b"abc", &folder).unwrap();

        let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
        assert!(read("index.html").contains(&format!("manifest=\"{MANIFEST}\"")));
        let manifest: Value = serde_json::from_str(&read(MANIFEST)).unwrap();
        assert_eq!(manifest["version"], VERSION);
        let [build] = &manifest["builds"].as_array().unwrap()[..] else { panic!("{manifest}") };
        assert_eq!(build["chipFamily"], "ESP32-S3");
        let [part] = &build["parts"].as_array().unwrap()[..] else { panic!("{manifest}") };
        let image = part["path"].as_str().unwrap();
        assert!(image.contains(VERSION));
        assert_eq!((read(image).as_str(), &part["offset"]), ("abc", &0.into()));
        // FIPS 180-2, appendix B.1.
        let sum = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(read("SHA256SUMS"), format!("{sum}  {image}\n"));
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 4);
    }

    #[test]
    fn what_the_flash_has_no_room_for_is_refused() {
        let temporary = tempfile::tempdir().unwrap();
        assert!(write(&vec![0; FLASH + 1], temporary.path()).is_err());
    }

    #[test]
    fn the_console_tells_the_version_of_the_release() {
        for name in ["app", "esp32s3"] {
            let manifest = fs::read_to_string(root().join(format!("firmware/{name}/Cargo.toml"))).unwrap();
            assert!(manifest.contains(&format!("\nversion = \"{VERSION}\"\n")), "firmware/{name}");
        }
    }
}
