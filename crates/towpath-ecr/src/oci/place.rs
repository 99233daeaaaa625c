//! One way to name a place for an image, whatever it is: `containers-transports(5)`, as `skopeo` and `buildah` write it.

use super::copy::digest_of;
use super::source::{ImageSource, Reference};
use super::{
    Copied, CopyOptions, DockerArchive, DockerArchiveWriter, Layout, OciArchive, OciArchiveWriter, OciClient,
    copy,
};
use oci_spec::image::Descriptor;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use towpath_core::{ImageRef, Tag};
use towpath_elements::{Error, ErrorKind, Result};

const SERVICE: &str = "Towpath";
/// How many names of images an error lists.
const MOST_NAMES: usize = 10;

/// Where an image is, or is to be.
///
/// Written as `docker://NAME[:TAG][@DIGEST]`, `oci:PATH[:NAME]`, `oci-archive:PATH[:NAME]` or
/// `docker-archive:PATH[:NAME[:TAG]]`. As with other tools, a path ends at its first colon.
///
/// ```
/// use towpath_ecr::oci::ImagePlace;
/// let place: ImagePlace = "oci:build/images:1.4".parse()?;
/// assert!(matches!(&place, ImagePlace::Layout { name: Some(name), .. } if name == "1.4"));
/// assert_eq!(place.to_string(), "oci:build/images:1.4");
/// # Ok::<(), towpath_ecr::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ImagePlace {
    /// A registry.
    Registry(ImageRef),
    /// An OCI layout.
    Layout {
        /// The folder.
        path: PathBuf,
        /// The name of the image in it, mostly a tag.
        name: Option<String>,
    },
    /// A tar archive of an OCI layout.
    OciArchive {
        /// The file.
        path: PathBuf,
        /// The name of the image in it, mostly a tag.
        name: Option<String>,
    },
    /// What `docker save` writes.
    DockerArchive {
        /// The file.
        path: PathBuf,
        /// The full name of the image in it.
        name: Option<ImageRef>,
    },
}

impl FromStr for ImagePlace {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let refuse = |detail: &str| {
            Error::new(ErrorKind::Invalid, SERVICE, "read", format!("{text:?}"))
                .because(format!("as a place of an image: {detail}"))
        };
        if let Some(image) = text.strip_prefix("docker://") {
            return Ok(Self::Registry(image.parse()?));
        }
        let (transport, rest) = text.split_once(':').unwrap_or((text, ""));
        let (path, name) = match rest.split_once(':') {
            Some((path, name)) => (path, Some(name)),
            None => (rest, None),
        };
        let (path, named) = (PathBuf::from(path), name.map(str::to_owned));
        let place = match transport {
            "oci" => Self::Layout { path, name: named },
            "oci-archive" => Self::OciArchive { path, name: named },
            "docker-archive" => Self::DockerArchive {
                path,
                name: name.map(str::parse).transpose()?,
            },
            _ => {
                return Err(
                    refuse("it begins with none of the transports that are known").advise(
                        "write docker://NAME, oci:PATH:TAG, oci-archive:PATH:TAG or docker-archive:PATH:NAME",
                    ),
                );
            }
        };
        if rest.is_empty() || rest.starts_with(':') {
            return Err(refuse("the path is empty"));
        }
        if name == Some("") {
            return Err(refuse("there is nothing behind the last colon"));
        }
        Ok(place)
    }
}

impl fmt::Display for ImagePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (transport, path) = match self {
            Self::Registry(image) => return write!(f, "docker://{image}"),
            Self::Layout { path, .. } => ("oci", path),
            Self::OciArchive { path, .. } => ("oci-archive", path),
            Self::DockerArchive { path, .. } => ("docker-archive", path),
        };
        write!(f, "{transport}:{}", path.display())?;
        match self {
            Self::Layout { name: Some(name), .. } | Self::OciArchive { name: Some(name), .. } => {
                write!(f, ":{name}")
            }
            Self::DockerArchive { name: Some(name), .. } => write!(f, ":{name}"),
            _ => Ok(()),
        }
    }
}

impl ImagePlace {
    /// The place to read from, and the image in it. Registries are reached by `client`, with its credentials.
    ///
    /// Without a name, an archive or layout must hold one image alone.
    ///
    /// # Errors
    /// *Not found* where there is no such place or image, *conflict* where several images are meant, and those of
    /// [`Layout::open`], [`OciArchive::open`] and [`DockerArchive::open`].
    pub async fn open(&self, client: &OciClient) -> Result<(Box<dyn ImageSource>, Reference)> {
        match self {
            Self::Registry(image) => Ok((Box::new(client.repository(image)), reference(image)?)),
            Self::Layout { path, name } => {
                let layout = Layout::open(path).await?;
                let found = match name {
                    Some(name) => layout.resolve(name).await?,
                    None => self.only(layout.entries().await?)?,
                };
                let reference = self.found(found, || layout.references()).await?;
                Ok((Box::new(layout), reference))
            }
            Self::OciArchive { path, name } => {
                let archive = OciArchive::open(path).await?;
                let found = match name {
                    Some(name) => archive.resolve(name).await?,
                    None => self.only(archive.entries().await?)?,
                };
                let reference = self.found(found, || archive.references()).await?;
                Ok((Box::new(archive), reference))
            }
            Self::DockerArchive { path, name } => {
                let archive = DockerArchive::open(path).await?;
                let digest = archive.resolve(name.as_ref())?;
                Ok((Box::new(archive), digest.into()))
            }
        }
    }

    /// Copies the image of this place to another one. An archive is written anew and replaced whole; a layout is made
    /// where there is none.
    ///
    /// Both places are reached by `client`: from one account's registry to another's, use [`copy()`](super::copy()) with
    /// the [`repository`](OciClient::repository) of each account's client.
    ///
    /// A Docker archive takes one platform and no referrers. Its target needs a name, and a layout's name must be a tag.
    ///
    /// # Errors
    /// *Invalid* where the target has no usable name; those of [`open`](Self::open) and [`copy()`](super::copy()).
    pub async fn copy_to(&self, target: &Self, client: &OciClient, options: &CopyOptions) -> Result<Copied> {
        let (source, reference) = self.open(client).await?;
        let source = source.as_ref();
        match target {
            Self::Registry(image) => {
                if image.digest().is_some() {
                    return Err(target
                        .refuse(ErrorKind::Invalid)
                        .because("a target has no digest: it follows from the image"));
                }
                copy(
                    source,
                    &reference,
                    &client.repository(image),
                    image.tag(),
                    options,
                )
                .await
            }
            Self::Layout { path, name } => {
                let tag = tag(name.as_deref())?;
                let layout = Layout::create(path).await?;
                copy(source, &reference, &layout, tag.as_ref(), options).await
            }
            Self::OciArchive { path, name } => {
                let tag = tag(name.as_deref())?;
                let archive = OciArchiveWriter::create(path).await?;
                let copied = copy(source, &reference, &archive, tag.as_ref(), options).await?;
                archive.finish().await?;
                Ok(copied)
            }
            Self::DockerArchive { path, name } => {
                let name = name
                    .as_ref()
                    .filter(|name| name.digest().is_none())
                    .ok_or_else(|| {
                        target
                            .refuse(ErrorKind::Invalid)
                            .because("it has no name that an image could have there")
                            .advise("write docker-archive:PATH:NAME:TAG")
                    })?;
                let tag = tag(Some(name.reference()))?;
                let archive = DockerArchiveWriter::create(path, name).await?;
                let copied = copy(source, &reference, &archive, tag.as_ref(), options).await?;
                archive.finish().await?;
                Ok(copied)
            }
        }
    }

    fn only(&self, entries: Vec<Descriptor>) -> Result<Option<Descriptor>> {
        match entries.len() {
            0 | 1 => Ok(entries.into_iter().next()),
            several => Err(self
                .refuse(ErrorKind::Conflict)
                .because(format!("there are {several} images in it"))
                .advise("name one behind the path")),
        }
    }

    /// The image that was found; else an error that names those that are there.
    async fn found<F>(&self, found: Option<Descriptor>, named: impl FnOnce() -> F) -> Result<Reference>
    where
        F: Future<Output = Result<Vec<(String, Descriptor)>>>,
    {
        if let Some(descriptor) = found {
            return Ok(digest_of(&descriptor)?.into());
        }
        let named = named().await?.into_iter();
        let names: Vec<String> = named.map(|(name, _)| format!("{name:?}")).collect();
        let error = self.refuse(ErrorKind::NotFound);
        Err(match names.len() {
            0 => error.because("there is no such image in it, and none that has a name"),
            several => error.because(format!(
                "there is no such image in it; there {} {}{}",
                if several == 1 { "is" } else { "are" },
                names[..several.min(MOST_NAMES)].join(", "),
                if several > MOST_NAMES { ", …" } else { "" }
            )),
        })
    }

    fn refuse(&self, kind: ErrorKind) -> Error {
        Error::new(kind, SERVICE, "use the place", self)
    }
}

fn reference(image: &ImageRef) -> Result<Reference> {
    match image.digest() {
        Some(digest) => Ok(digest.clone().into()),
        None => Ok(image.reference().parse::<Tag>()?.into()),
    }
}

fn tag(name: Option<&str>) -> Result<Option<Tag>> {
    Ok(name.map(str::parse).transpose()?)
}
