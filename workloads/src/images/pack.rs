//! An archive of one image and nothing else, as an engine reads it.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Seek as _, Write};

use serde_json::json;

use crate::images::archive::{Blob, ImageArchive};
use crate::images::error::ImageArchiveError;
use crate::images::unpacked::Part;

/// On a disk, unlike `/tmp`, by the file system hierarchy standard.
const SPACE: &str = "/var/tmp";

/// What an engine reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// An OCI image layout. The engine keeps the manifest, and with it its digest.
    Oci,
    /// What `docker save` writes (docker's image specification, version 1.2), with the same blobs.
    Docker,
}

impl ImageArchive {
    /// Writes the image alone to a file without a name, at its start.
    ///
    /// # Errors
    /// [`ImageArchiveError::Io`], for example on a full disk.
    pub fn pack(&self, form: Form) -> Result<File, ImageArchiveError> {
        let failed = ImageArchiveError::io("write the image to /var/tmp");
        let mut file = tempfile::tempfile_in(SPACE).map_err(&failed)?;
        self.write(form, &mut file).map_err(&failed)?;
        file.rewind().map_err(&failed)?;
        Ok(file)
    }

    pub(super) fn write(&self, form: Form, to: &mut dyn Write) -> std::io::Result<()> {
        let mut archive = tar::Builder::new(to);
        let name = |blob: &Blob| format!("blobs/sha256/{}", blob.digest.sha256());
        let mut blobs = vec![self.configuration];
        match form {
            Form::Oci => {
                let manifest = json!({
                    "mediaType": self.media_type,
                    "digest": self.manifest.digest,
                    "size": self.manifest.size,
                });
                let index = json!({ "schemaVersion": 2, "manifests": [manifest] });
                put(&mut archive, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
                put(&mut archive, "index.json", index.to_string().as_bytes())?;
                blobs.push(self.manifest);
            }
            Form::Docker => {
                let layers: Vec<String> = self.layers.iter().map(|layer| name(&layer.blob)).collect();
                let image =
                    json!([{ "Config": name(&self.configuration), "RepoTags": null, "Layers": layers }]);
                put(&mut archive, "manifest.json", image.to_string().as_bytes())?;
            }
        }
        blobs.extend(self.layers.iter().map(|layer| layer.blob));
        let mut written = BTreeSet::new();
        for blob in blobs.into_iter().filter(|blob| written.insert(blob.digest)) {
            append(&mut archive, &name(&blob), blob.size, Part::of(&self.file, blob))?;
        }
        archive.finish()
    }
}

fn put(archive: &mut tar::Builder<&mut dyn Write>, name: &str, bytes: &[u8]) -> std::io::Result<()> {
    append(archive, name, bytes.len() as u64, bytes)
}

fn append(
    archive: &mut tar::Builder<&mut dyn Write>,
    name: &str,
    size: u64,
    content: impl Read,
) -> std::io::Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_size(size);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    archive.append_data(&mut header, name, content)
}
