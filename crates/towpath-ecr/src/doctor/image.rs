//! What a pull of an image needs that the registry has: the image, out of the archive, its layers, and permissions.

use super::{Checked, Doctor, Outcome};
use crate::client::image_id;
use crate::error::failed;
use crate::oci::Manifest;
use crate::oci::copy::digest_of;
use aws_sdk_ecr::types::{ImageStatus, LayerAvailability};
use std::collections::{BTreeMap, BTreeSet};
use towpath_core::{Digest, ImageRef};
use towpath_elements::{Error, ErrorKind, Result};

/// The most layers that one call may ask for.
const A_CALL: usize = 100;
/// The largest layer that is read to see that one can be, in bytes.
const MOST_BYTES: u64 = 4 << 20;

impl Doctor<'_> {
    /// Whether the API has the image; `None` where that cannot be found out.
    pub(super) async fn image_state(&mut self) -> Option<bool> {
        let image = self.image.clone();
        let call = self
            .ecr
            .api
            .describe_images()
            .set_registry_id(self.registry_id())
            .repository_name(image.repository().as_str())
            .image_ids(image_id(&image));
        let described = match call.send().await {
            Ok(output) => output.image_details.unwrap_or_default().into_iter().next(),
            Err(error) => {
                let failed = failed("describe", &image, error);
                match failed.code.as_str() {
                    "ImageNotFoundException" | "RepositoryNotFoundException" => None,
                    _ => {
                        self.add_failure(Checked::Image, "ecr:DescribeImages", &failed.error);
                        return None;
                    }
                }
            }
        };
        let Some(described) = described else {
            let reference = image.reference();
            self.add(
                Checked::Image,
                Outcome::Missing,
                format!("{} has no image {reference}", image.repository()),
            )
            .advise("push it, or check the tag or digest");
            return Some(false);
        };
        let digest = described.image_digest().unwrap_or_default();
        self.add(Checked::Image, Outcome::Ok, format!("it is {digest}"));
        match described.image_status() {
            None | Some(ImageStatus::Active) => {}
            Some(ImageStatus::Activating) => {
                self.add(
                    Checked::Archive,
                    Outcome::Missing,
                    "the image is on its way out of the archive",
                )
                .advise("wait until its status is ACTIVE");
            }
            Some(status) => {
                self.add(
                    Checked::Archive,
                    Outcome::Missing,
                    format!("the image is {status}: it cannot be pulled"),
                )
                .advise("restore it with UpdateImageStorageClass to STANDARD, and wait until it is ACTIVE");
            }
        }
        Some(true)
    }

    /// Reads the manifest as a pull does, and looks for what it names.
    pub(super) async fn pull(&mut self, known: Option<bool>) {
        let image = self.image.clone();
        let manifest = match self.ecr.oci.manifest(&image).await {
            Ok(Some(manifest)) => manifest,
            Ok(None) if known == Some(true) => {
                self.add(
                    Checked::Pull,
                    Outcome::Denied,
                    "/v2/ answers 404 to an image that the API has",
                )
                .advise("allow ecr:BatchGetImage for whoever pulls, in the policy of the repository too");
                return;
            }
            Ok(None) => {
                self.add(Checked::Pull, Outcome::Missing, "/v2/ answers 404").advise(
                    "check the name; without permission to describe the image this cannot be told from a missing \
                     permission, such as ecr:BatchGetImage",
                );
                return;
            }
            Err(error) => return self.refused(Checked::Pull, "ecr:BatchGetImage", &error),
        };
        self.add(Checked::Pull, Outcome::Ok, "the manifest can be read");
        let Some(manifests) = self.with_children(&image, manifest).await else {
            return;
        };
        let mut layers = BTreeMap::new();
        for blob in manifests.iter().flat_map(Manifest::blobs) {
            match digest_of(blob) {
                Ok(digest) => layers.insert(digest, blob.size()),
                Err(error) => return self.refused(Checked::Layers, "ecr:BatchGetImage", &error),
            };
        }
        let smallest = layers.iter().min_by_key(|(_, size)| **size);
        let smallest = smallest.map(|(digest, size)| (digest.clone(), *size));
        self.layers(layers.into_keys().collect()).await;
        if let Some((digest, size)) = smallest.filter(|(_, size)| *size <= MOST_BYTES) {
            match self.ecr.oci.small_blob(&image, &digest, size, MOST_BYTES).await {
                Ok(_) => {
                    self.add(Checked::Download, Outcome::Ok, "a layer can be read");
                }
                Err(error) => self.refused(Checked::Download, "ecr:GetDownloadUrlForLayer", &error),
            }
        }
    }

    /// A manifest and all below it; `None` where one is not there, which is noted.
    async fn with_children(&mut self, image: &ImageRef, top: Manifest) -> Option<Vec<Manifest>> {
        let mut all = vec![top];
        let mut next = 0;
        let mut seen = BTreeSet::new();
        while let Some(manifest) = all.get(next) {
            let children: Result<Vec<Digest>> = manifest.children().iter().map(digest_of).collect();
            next += 1;
            let children = match children {
                Ok(children) => children,
                Err(error) => {
                    self.refused(Checked::Pull, "ecr:BatchGetImage", &error);
                    return None;
                }
            };
            for child in children {
                if !seen.insert(child.clone()) {
                    continue;
                }
                match self.ecr.oci.manifest(&image.at(child.clone())).await {
                    Ok(Some(manifest)) => all.push(manifest),
                    Ok(None) => {
                        self.add(
                            Checked::Image,
                            Outcome::Missing,
                            format!("its part {child} is not there"),
                        )
                        .advise("push the image again, with all its platforms");
                        return None;
                    }
                    Err(error) => {
                        self.refused(Checked::Pull, "ecr:BatchGetImage", &error);
                        return None;
                    }
                }
            }
        }
        Some(all)
    }

    async fn layers(&mut self, layers: Vec<Digest>) {
        let mut absent = Vec::new();
        for some in layers.chunks(A_CALL) {
            let call = self
                .ecr
                .api
                .batch_check_layer_availability()
                .set_registry_id(self.registry_id())
                .repository_name(self.image.repository().as_str())
                .set_layer_digests(Some(some.iter().map(ToString::to_string).collect()));
            let output = match call.send().await {
                Ok(output) => output,
                Err(error) => {
                    let error = failed("look for the layers of", &self.image, error).error;
                    return self.add_failure(Checked::Layers, "ecr:BatchCheckLayerAvailability", &error);
                }
            };
            for layer in output.layers() {
                if let Some(word) = layer.layer_availability()
                    && *word != LayerAvailability::Available
                {
                    absent.push(format!("{} is {word}", layer.layer_digest().unwrap_or_default()));
                }
            }
            for failure in output.failures() {
                let (digest, reason) = (failure.layer_digest(), failure.failure_reason());
                absent.push(format!(
                    "{}: {}",
                    digest.unwrap_or_default(),
                    reason.unwrap_or_default()
                ));
            }
        }
        match absent.is_empty() {
            true => {
                self.add(
                    Checked::Layers,
                    Outcome::Ok,
                    format!("all {} are there", layers.len()),
                );
            }
            false => {
                self.add(Checked::Layers, Outcome::Missing, absent.join("; "))
                    .advise("push the image again, or restore it from the archive");
            }
        }
    }

    /// Notes what `/v2/` refused.
    fn refused(&mut self, checked: Checked, action: &str, error: &Error) {
        match error.kind() {
            ErrorKind::Unauthenticated => {
                self.add(
                    Checked::Credentials,
                    Outcome::Denied,
                    format!("/v2/ refuses the token: {}", error.detail()),
                )
                .advise("get a new token, and check the clock: a token lasts twelve hours");
            }
            ErrorKind::NotFound => {
                self.add(checked, Outcome::Denied, error.detail())
                    .advise(format!("allow {action} for whoever pulls"));
            }
            _ => self.add_failure(checked, action, error),
        }
    }
}
