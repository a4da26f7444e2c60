//! The kernel that a livepatch is built for: where its source, configuration, image and modules are.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::thread;

use manifests::{KernelRelease, Sha256};

use super::cache::{Cache, CacheError};
use super::deb::{self, UnpackError};
use super::digest::{self, DigestError};
use super::kbuild::Owner;
use super::packages::{KernelPackages, Package, PackageError};
use super::progress::Progress;
use super::tree::{SourceOrigin, TreeError, TreeInputs};
use crate::check::{ObjectsError, read_module};
use crate::image::{Config, ImageError, KernelImage, decompress};
use crate::module::ObjectName;

/// Which kernel, and where to find it.
#[derive(Debug, Clone)]
pub enum KernelChoice {
    /// From the distribution's packages.
    Packages(KernelRelease),
    /// From files of the user's.
    Files(KernelFiles),
}

/// A kernel given as files.
#[derive(Debug, Clone)]
pub struct KernelFiles {
    /// The source directory.
    pub source: PathBuf,
    /// The configuration.
    pub config: PathBuf,
    /// The kernel image.
    pub image: PathBuf,
    /// The directory with the modules, such as `/lib/modules/RELEASE`.
    pub modules: Option<PathBuf>,
}

/// Why a kernel's parts are not to be had.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The packages could not be found or fetched.
    #[error(transparent)]
    Package(#[from] PackageError),
    /// A package could not be unpacked.
    #[error(transparent)]
    Unpack(#[from] UnpackError),
    /// An input could not be hashed.
    #[error(transparent)]
    Digest(#[from] DigestError),
    /// The source could not be unpacked.
    #[error(transparent)]
    Source(#[from] Box<TreeError>),
    /// The cache failed.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// The image is no kernel image.
    #[error("{} is not a kernel image that can be read", path.display())]
    Image {
        /// The file.
        path: PathBuf,
        /// Why.
        source: ImageError,
    },
    /// The image is of another release.
    #[error("{} is kernel {found}, not {wanted}", path.display())]
    OtherRelease {
        /// The image.
        path: PathBuf,
        /// What was asked for.
        wanted: KernelRelease,
        /// What it is.
        found: String,
    },
    /// The image names its release in a way that no release has.
    #[error("{} calls itself `{found}`, which is no kernel release", path.display())]
    ReleaseName {
        /// The image.
        path: PathBuf,
        /// What it says.
        found: String,
    },
    /// A module is not where kbuild would have put it.
    #[error("the shipped module {module}.ko is not in {}", place.display())]
    NoModule {
        /// The module.
        module: String,
        /// Where it should be.
        place: PathBuf,
    },
    /// No directory of modules was given.
    #[error("the patch changes module {module}, and no directory with the shipped modules was given")]
    NoModules {
        /// The module.
        module: String,
    },
    /// A module cannot be read.
    #[error(transparent)]
    Module(#[from] ObjectsError),
}

/// An input of a build, by digest.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Material {
    /// What it is: a package URL, or a file's name.
    pub uri: String,
    /// Its content.
    pub sha256: Sha256,
}

/// A kernel whose parts were found.
#[derive(Debug)]
pub struct Kernel {
    /// What to prepare a tree from.
    pub tree: TreeInputs,
    /// The configuration.
    pub config: Config,
    /// The inputs by digest.
    pub materials: Vec<Material>,
    image: OnceLock<KernelImage>,
    image_file: ImageFile,
    modules: Option<PathBuf>,
    symvers: Option<PathBuf>,
}

impl Kernel {
    /// Finds or fetches everything.
    pub fn obtain(
        cache: &Cache,
        choice: &KernelChoice,
        progress: &dyn Progress,
    ) -> Result<Self, KernelError> {
        match choice {
            KernelChoice::Packages(release) => Self::from_packages(cache, release, progress),
            KernelChoice::Files(files) => Self::from_files(cache, files),
        }
    }

    fn from_packages(
        cache: &Cache,
        release: &KernelRelease,
        progress: &dyn Progress,
    ) -> Result<Self, KernelError> {
        let packages = KernelPackages::obtain(cache, release, progress)?;
        let source = SourceOrigin::Package(packages.source.path.clone());
        // The first time: the source takes longest, and decompressing it keeps one processor busy.
        let (image, headers) = thread::scope(|scope| {
            let unpacking = scope.spawn(|| source.obtain(cache, progress));
            let image = unpacked(cache, "images", &packages.image, progress);
            let headers = unpacked(cache, "headers", &packages.headers, progress);
            match unpacking.join() {
                Ok(unpacked) => unpacked.map(drop).map_err(Box::new)?,
                Err(panic) => std::panic::resume_unwind(panic),
            }
            Ok::<_, KernelError>((image?, headers?))
        })?;
        let path = image.join(format!("boot/vmlinuz-{release}"));
        let reference = headers.join(format!("usr/src/linux-headers-{release}"));
        // The one in /boot lacks the settings about keys, by which `.config` would change again.
        let config = reference.join(".config");
        let materials = [&packages.source, &packages.headers, &packages.image].map(Package::material);
        Ok(Self {
            config: read_config(&config)?,
            tree: TreeInputs { release: release.clone(), source, config, reference: Some(reference.clone()) },
            materials: materials.into(),
            image: OnceLock::new(),
            image_file: ImageFile { cache: cache.clone(), path, digest: packages.image.sha256 },
            symvers: Some(reference.join("Module.symvers")),
            modules: Some(image.join("lib/modules").join(release.as_str())),
        })
    }

    fn from_files(cache: &Cache, files: &KernelFiles) -> Result<Self, KernelError> {
        let digest = digest::of_file(&files.image)?;
        let image_file = ImageFile { cache: cache.clone(), path: files.image.clone(), digest };
        let image = image_file.read()?;
        let release = image.release().parse().map_err(|_| KernelError::ReleaseName {
            path: files.image.clone(),
            found: image.release().to_owned(),
        })?;
        let material = |path: &Path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            Ok::<_, KernelError>(Material { uri: format!("file:{name}"), sha256: digest::of_file(path)? })
        };
        Ok(Self {
            config: read_config(&files.config)?,
            materials: vec![material(&files.config)?, material(&files.image)?],
            tree: TreeInputs {
                release,
                source: SourceOrigin::Directory(absolute(&files.source)?),
                config: absolute(&files.config)?,
                reference: None,
            },
            image: image.into(),
            image_file,
            modules: files.modules.clone(),
            symvers: None,
        })
    }

    /// The image. Reading it takes a while, which is best spent while the compiler runs.
    pub fn image(&self) -> Result<&KernelImage, KernelError> {
        if let Some(image) = self.image.get() {
            return Ok(image);
        }
        let image = self.image_file.read()?;
        if image.release() != self.tree.release.as_str() {
            return Err(KernelError::OtherRelease {
                path: self.image_file.path.clone(),
                wanted: self.tree.release.clone(),
                found: image.release().to_owned(),
            });
        }
        Ok(self.image.get_or_init(|| image))
    }

    /// The text of `Module.symvers`, which tells what modules export.
    pub fn symvers(&self) -> Result<Option<String>, KernelError> {
        match &self.symvers {
            Some(path) => Ok(Some(fs::read_to_string(path).map_err(CacheError::io("read", path))?)),
            None => Ok(None),
        }
    }

    /// The shipped file of the module that a unit belongs to, decompressed.
    pub fn module(&self, path: &str) -> Result<Vec<u8>, KernelError> {
        let Some(modules) = &self.modules else {
            return Err(KernelError::NoModules { module: path.to_owned() });
        };
        for extension in ["ko", "ko.xz", "ko.zst", "ko.gz"] {
            let file = modules.join(format!("kernel/{path}.{extension}"));
            if file.is_file() {
                return Ok(read_module(&file)?);
            }
        }
        Err(KernelError::NoModule { module: path.to_owned(), place: modules.clone() })
    }

    /// The directory with the shipped modules, if there is one.
    pub fn modules(&self) -> Option<&Path> {
        self.modules.as_deref()
    }
}

impl Package {
    fn material(&self) -> Material {
        let file = self.path.file_name().unwrap_or_default().to_string_lossy();
        let arch = file.rsplit('_').next().and_then(|end| end.strip_suffix(".deb")).unwrap_or("any");
        // https://github.com/package-url/purl-spec, type `deb`
        let uri = format!("pkg:deb/debian/{}@{}?arch={arch}", self.name, self.version);
        Material { uri, sha256: self.sha256 }
    }
}

impl Owner {
    /// The object as the livepatch core calls it: a module's name has underscores.
    pub fn object(&self) -> ObjectName {
        match self {
            Self::Vmlinux => ObjectName::Vmlinux,
            Self::Module(path) => {
                let name = path.rsplit('/').next().unwrap_or(path);
                ObjectName::Module(name.replace('-', "_"))
            }
        }
    }
}

/// A kernel image that is kept decompressed: that takes longer than all else that reading it takes.
#[derive(Debug)]
struct ImageFile {
    cache: Cache,
    path: PathBuf,
    /// Of the image, or of the package that it comes from.
    digest: Sha256,
}

impl ImageFile {
    fn read(&self) -> Result<KernelImage, KernelError> {
        let unreadable = |source| KernelError::Image { path: self.path.clone(), source };
        let kept = self.cache.entry("kernels", &self.digest.to_string()[..16], |entry| {
            let packed = fs::read(&self.path).map_err(CacheError::io("read", &self.path))?;
            let kernel = entry.join("vmlinux");
            fs::write(&kernel, decompress(&packed).map_err(unreadable)?)
                .map_err(CacheError::io("write", &kernel))?;
            Ok::<_, KernelError>(())
        })?;
        let kernel = kept.join("vmlinux");
        let kernel = fs::read(&kernel).map_err(CacheError::io("read", &kernel))?;
        KernelImage::of_kernel(kernel).map_err(unreadable)
    }
}

fn read_config(path: &Path) -> Result<Config, KernelError> {
    Ok(Config::parse(&fs::read_to_string(path).map_err(CacheError::io("read", path))?))
}

fn absolute(path: &Path) -> Result<PathBuf, KernelError> {
    Ok(fs::canonicalize(path).map_err(CacheError::io("find", path))?)
}

/// A package's files in the cache; merged `/usr` is taken apart again.
fn unpacked(
    cache: &Cache,
    kind: &str,
    package: &Package,
    progress: &dyn Progress,
) -> Result<PathBuf, KernelError> {
    let key = package.sha256.to_string();
    cache.entry(kind, &key[..16], |entry| {
        progress.step(&format!("unpacking {package} (once per kernel)"));
        deb::unpack(&package.path, |name| {
            let name = name.strip_prefix("usr").ok().filter(|rest| rest.starts_with("lib")).unwrap_or(name);
            let wanted =
                name.starts_with("boot") || name.starts_with("lib/modules") || name.starts_with("usr/src");
            wanted.then(|| entry.join(name))
        })?;
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_modules_object_name_has_underscores() {
        assert_eq!(Owner::Vmlinux.object(), ObjectName::Vmlinux);
        let owner = Owner::Module("drivers/md/dm-mod".into());
        assert_eq!(owner.object(), ObjectName::Module("dm_mod".into()));
    }
}
