//! The kernel that a livepatch is built for: where its source, configuration, image and modules are.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::thread;

use manifests::{KernelRelease, Sha256};

use super::apt::Apt;
use super::cache::{Cache, CacheError};
use super::deb::{self, UnpackError};
use super::debian::{Release, UnknownKernel};
use super::digest::{self, DigestError};
use super::kbuild::Owner;
use super::packages::{KernelPackages, Package, PackageError};
use super::progress::Progress;
use super::root::{BuildRoot, RootError, Tools};
use super::tree::{Compiler, SourceOrigin, TreeError, TreeInputs};
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
    /// The compiler's command, if it has another name here than in the configuration.
    pub compiler: Option<String>,
    /// A directory with the system that the compiler and all other programs are taken from; this machine's own if
    /// not given.
    pub root: Option<PathBuf>,
}

/// Why a kernel's parts are not to be had.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The kernel is none of a Debian release.
    #[error(transparent)]
    Release(#[from] UnknownKernel),
    /// The packages could not be found or fetched.
    #[error(transparent)]
    Package(#[from] PackageError),
    /// There is no build root.
    #[error(transparent)]
    Root(#[from] RootError),
    /// The image says that another compiler made it.
    #[error("{} was made by another compiler than the configuration's and the one here, which is `{compiler}`: {banner}", path.display())]
    OtherCompiler {
        /// The image.
        path: PathBuf,
        /// The compiler here.
        compiler: String,
        /// What the image says of itself.
        banner: String,
    },
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
        let (reference, config, root, image, modules) = thread::scope(|scope| {
            let unpacking = scope.spawn(|| source.obtain(cache, progress));
            let rest = || {
                let headers = unpacked(cache, "headers", &packages.headers, progress)?;
                let headers = headers.join(format!("usr/src/linux-headers-{release}"));
                let config = read_config(&headers.join(".config"))?;
                let root = build_root(cache, release, &config, progress)?;
                let image = unpacked(cache, "images", &packages.image, progress)?;
                let modules =
                    packages.modules.as_ref().map(|package| unpacked(cache, "images", package, progress));
                Ok::<_, KernelError>((headers, config, root, image, modules.transpose()?))
            };
            let rest = rest();
            match unpacking.join() {
                Ok(unpacked) => unpacked.map(drop).map_err(Box::new)?,
                Err(panic) => std::panic::resume_unwind(panic),
            }
            rest
        })?;
        let modules = modules.unwrap_or_else(|| image.clone()).join("lib/modules").join(release.as_str());
        let in_boot = image.join(format!("boot/vmlinuz-{release}"));
        let path = match in_boot.is_file() {
            true => in_boot,
            false => image.join(format!("lib/modules/{release}/vmlinuz")),
        };
        let made_by = [
            Some(&packages.source),
            Some(&packages.headers),
            Some(&packages.image),
            packages.modules.as_ref(),
        ];
        let materials = made_by.into_iter().flatten().map(Package::material).chain(root.materials());
        Ok(Self {
            config,
            materials: materials.collect(),
            tree: TreeInputs {
                release: release.clone(),
                source,
                // The one in /boot lacks the settings about keys, by which `.config` would change again.
                config: reference.join(".config"),
                reference: Some(reference.clone()),
                compiler: None,
                tools: Tools::within(&root)?,
                root: Some(root.directory().to_owned()),
            },
            image: OnceLock::new(),
            image_file: ImageFile { cache: cache.clone(), path, digest: packages.image.sha256 },
            symvers: Some(reference.join("Module.symvers")),
            modules: Some(modules),
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
        let root = match &files.root {
            Some(root) => Some(BuildRoot::at(cache, absolute(root)?)),
            None => None,
        };
        let tools = root.as_ref().map_or_else(|| Ok(Tools::of_this_machine()), Tools::within)?;
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
                compiler: files.compiler.clone(),
                tools,
                root: root.map(|root| root.directory().to_owned()),
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

    /// Fails if the image says that another compiler made it.
    pub(super) fn made_by(&self, compiler: &Compiler) -> Result<(), KernelError> {
        let banner = self.image()?.banner();
        match compiler.made(banner) {
            true => Ok(()),
            false => Err(KernelError::OtherCompiler {
                path: self.image_file.path.clone(),
                compiler: compiler.version.clone(),
                banner: banner.trim().to_owned(),
            }),
        }
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
        Material::of_package(&self.path.file_name().unwrap_or_default().to_string_lossy(), self.sha256)
    }
}

impl Material {
    /// A package by the name of its file, `NAME_VERSION_ARCH.deb`.
    fn of_package(file: &str, sha256: Sha256) -> Self {
        let mut parts = file.trim_end_matches(".deb").split('_');
        let mut part = || parts.next().unwrap_or("any");
        let (name, version, arch) = (part(), part(), part());
        // https://github.com/package-url/purl-spec, type `deb`
        Self { uri: format!("pkg:deb/debian/{name}@{version}?arch={arch}"), sha256 }
    }
}

impl BuildRoot {
    /// The packages whose programs decide what code comes out.
    fn materials(&self) -> impl Iterator<Item = Material> {
        let decide = |file: &str| ["gcc-", "cpp-", "binutils"].iter().any(|start| file.starts_with(start));
        let packages = self.packages.iter().filter(move |package| decide(&package.file));
        packages.map(|package| Material::of_package(&package.file, package.sha256))
    }
}

/// The compiler that built a kernel, from the packages of the kernel's own release.
fn build_root(
    cache: &Cache,
    release: &KernelRelease,
    config: &Config,
    progress: &dyn Progress,
) -> Result<BuildRoot, KernelError> {
    let command = Compiler::command(config, release).map_err(Box::new)?;
    // `x86_64-linux-gnu-gcc-14` is of the package gcc-14.
    let package =
        command.rsplit_once("-gcc-").map_or(command.clone(), |(_, version)| format!("gcc-{version}"));
    let apt = Apt::of(cache, Release::of_kernel(release)?, progress);
    let version = config.get("CONFIG_CC_VERSION_TEXT").unwrap_or_default();
    Ok(BuildRoot::of_release(cache, &apt, &package, version, progress)?)
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
