//! Copies between two registries beside `skopeo copy`: both programs run as children, from their start to their end,
//! against the same docker-registry, each into an empty one.

mod servers;

use crate::Result;
use crate::child::{Cost, measure};
use crate::report::{header, mebibytes, median, ratio, row, text};
use flate2::{Compression, write::GzEncoder};
use servers::{Proxy, Server};
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use towpath_core::ImageRef;
use towpath_ecr::oci::{
    Anonymous, Blob, BlobSource, CopyOptions, Manifest, OciClient, OciSettings, copy, media,
};

/// An image to copy.
struct Sample {
    name: &'static str,
    what: &'static str,
    layers: usize,
    /// Bytes of each layer.
    size: usize,
}

const LARGE: Sample = Sample {
    name: "large",
    what: "1 GiB in 4 layers",
    layers: 4,
    size: 256 << 20,
};
const MANY: Sample = Sample {
    name: "many",
    what: "1,000 layers of 100 KiB",
    layers: 1_000,
    size: 100 << 10,
};
const ONE: Sample = Sample {
    name: "one",
    what: "256 MiB in 1 layer, cut at half",
    layers: 1,
    size: 256 << 20,
};

/// One run of one program: what it cost, how many requests it sent, and how many bytes it sent through the proxy.
#[derive(Clone, Copy, Default)]
struct Run {
    cost: Cost,
    requests: usize,
    sent: u64,
}

#[derive(Clone, Copy)]
enum Tool {
    Towpath,
    Skopeo,
}

pub(crate) async fn compare(rounds: usize) -> Result<()> {
    let version = Command::new("skopeo").arg("--version").output();
    let version = version.map_err(|error| format!("skopeo is not installed: {error}"))?;
    let scratch = tempfile::tempdir()?;
    let mut source = Server::start(scratch.path()).await?;
    for sample in [&LARGE, &MANY, &ONE] {
        fill(&source, sample, scratch.path()).await?;
    }
    text(&format!(
        "Copies, median of {rounds}, beside {}; load {}\n",
        String::from_utf8_lossy(&version.stdout).trim(),
        std::fs::read_to_string("/proc/loadavg")?.trim(),
    ));
    header(["copy", "figure", "Towpath", "skopeo", "skopeo / Towpath"]);
    for sample in [&LARGE, &MANY] {
        let (mut cold, mut warm) = (Pairs::default(), Pairs::default());
        for _ in 0..rounds {
            for tool in [Tool::Towpath, Tool::Skopeo] {
                let mut target = Server::start(scratch.path()).await?;
                cold.add(
                    tool,
                    run(tool, sample, &mut source, &mut target, None, scratch.path()).await?,
                );
                warm.add(
                    tool,
                    run(tool, sample, &mut source, &mut target, None, scratch.path()).await?,
                );
            }
        }
        cold.report(sample.what, Some(sample.layers * sample.size));
        warm.report(&format!("{}, all there", sample.what), None);
    }
    let mut cut = Pairs::default();
    for _ in 0..rounds {
        for tool in [Tool::Towpath, Tool::Skopeo] {
            let mut target = Server::start(scratch.path()).await?;
            let proxy = Proxy::start(target.address, (ONE.size / 2) as u64).await?;
            cut.add(
                tool,
                run(tool, &ONE, &mut source, &mut target, Some(&proxy), scratch.path()).await?,
            );
        }
    }
    cut.report(ONE.what, None);
    text("");
    Ok(())
}

/// The runs of both programs.
#[derive(Default)]
struct Pairs {
    towpath: Vec<Run>,
    skopeo: Vec<Run>,
}

impl Pairs {
    fn add(&mut self, tool: Tool, run: Run) {
        match tool {
            Tool::Towpath => self.towpath.push(run),
            Tool::Skopeo => self.skopeo.push(run),
        }
    }

    fn report(&self, what: &str, bytes: Option<usize>) {
        let both = |figure: &dyn Fn(&Run) -> u64| {
            [&self.towpath, &self.skopeo].map(|runs| median(runs.iter().map(figure).collect::<Vec<u64>>()))
        };
        let times = |figure: &dyn Fn(&Cost) -> std::time::Duration| {
            [&self.towpath, &self.skopeo]
                .map(|runs| median(runs.iter().map(|run| figure(&run.cost)).collect::<Vec<_>>()))
        };
        let [ours, theirs] = times(&|cost| cost.wall);
        let seconds = |time: std::time::Duration| format!("{:.3} s", time.as_secs_f64());
        row([
            what,
            "time",
            &seconds(ours),
            &seconds(theirs),
            &ratio(theirs, ours),
        ]);
        if let Some(bytes) = bytes {
            #[expect(clippy::cast_precision_loss, reason = "sizes of images fit")]
            let speed = |time: std::time::Duration| {
                format!("{:.0} MiB/s", bytes as f64 / 1_048_576.0 / time.as_secs_f64())
            };
            row(["", "speed", &speed(ours), &speed(theirs), ""]);
        }
        let [ours, theirs] = times(&|cost| cost.processor);
        row(["", "processor time", &seconds(ours), &seconds(theirs), ""]);
        let [ours, theirs] = both(&|run| run.cost.peak_kib);
        row(["", "peak memory", &mebibytes(ours), &mebibytes(theirs), ""]);
        let [ours, theirs] = both(&|run| run.requests as u64);
        row(["", "requests", &ours.to_string(), &theirs.to_string(), ""]);
        let [ours, theirs] = both(&|run| run.sent / 1024);
        if ours > 0 {
            row(["", "bytes sent", &mebibytes(ours), &mebibytes(theirs), ""]);
        }
    }
}

/// Runs one program; again where it gave up, as its user would have to.
async fn run(
    tool: Tool,
    sample: &Sample,
    source: &mut Server,
    target: &mut Server,
    proxy: Option<&Proxy>,
    scratch: &Path,
) -> Result<Run> {
    source.requests()?;
    target.requests()?;
    let to = proxy.map_or(target.address, |proxy| proxy.address);
    let (from, to) = (address(source.address, sample), address(to, sample));
    let log = scratch.join("log");
    let mut whole = Run::default();
    for attempt in 1.. {
        let mut command = match tool {
            Tool::Towpath => {
                let mut command = Command::new(std::env::current_exe()?);
                command.arg("copy-image").arg(&from).arg(&to);
                command
            }
            Tool::Skopeo => {
                let mut command = Command::new("skopeo");
                command
                    .args(["--insecure-policy", "copy", "--quiet"])
                    .args(["--src-tls-verify=false", "--dest-tls-verify=false"])
                    .arg(format!("docker://{from}"))
                    .arg(format!("docker://{to}"));
                command
            }
        };
        let (succeeded, cost) = measure(&mut command, &log).await?;
        whole.cost.wall += cost.wall;
        whole.cost.processor += cost.processor;
        whole.cost.peak_kib = whole.cost.peak_kib.max(cost.peak_kib);
        if succeeded {
            break;
        }
        if attempt == 3 {
            return Err(format!("the copy does not work: {}", std::fs::read_to_string(&log)?).into());
        }
    }
    whole.requests = source.requests()? + target.requests()?;
    whole.sent = proxy.map_or(0, Proxy::sent);
    Ok(whole)
}

fn address(at: SocketAddr, sample: &Sample) -> String {
    format!("{at}/compare/{}:1", sample.name)
}

fn client() -> Result<OciClient> {
    Ok(OciClient::new(
        "the registry",
        Arc::new(Anonymous),
        OciSettings::default(),
    )?)
}

/// What the child does: one copy, without what refers to the image, which skopeo leaves behind too.
pub(crate) async fn copy_image(from: &str, to: &str) -> Result<()> {
    let (from, to): (ImageRef, ImageRef) = (from.parse()?, to.parse()?);
    let client = client()?;
    let tag = from.tag().cloned().ok_or("the image has no tag")?;
    let mut options = CopyOptions::default();
    options.referrers = false;
    copy(
        &client.repository(&from),
        &tag.into(),
        &client.repository(&to),
        to.tag(),
        &options,
    )
    .await?;
    Ok(())
}

/// Pushes a sample: layers are gzip, as skopeo would compress what is not, but stored without compressing.
async fn fill(server: &Server, sample: &Sample, scratch: &Path) -> Result<()> {
    let image: ImageRef = address(server.address, sample).parse()?;
    let client = client()?;
    let describe = |media_type: &str, blob: &Blob| serde_json::json!({ "mediaType": media_type, "digest": blob.digest, "size": blob.size });
    let mut layers = Vec::new();
    for number in 0..sample.layers {
        let blob = layer(number, sample.size)?;
        layers.push(describe("application/vnd.oci.image.layer.v1.tar+gzip", &blob));
        // By way of a file, so that one layer at a time is in memory.
        let file = scratch.join("layer");
        if let BlobSource::Bytes(bytes) = &blob.source {
            std::fs::write(&file, bytes)?;
        }
        let blob = Blob {
            source: BlobSource::File(file),
            ..blob
        };
        client.push_blob(&image, &blob).await?;
    }
    let config = serde_json::json!({ "os": "linux", "architecture": "amd64", "config": {}, "rootfs": { "type": "layers", "diff_ids": [] } });
    let config = Blob::from_bytes(config.to_string());
    client.push_blob(&image, &config).await?;
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": media::OCI_MANIFEST,
        "config": describe("application/vnd.oci.image.config.v1+json", &config), "layers": layers,
    });
    let manifest = Manifest::read(media::OCI_MANIFEST, manifest.to_string().into())?;
    let tag = image.tag().cloned().ok_or("the image has no tag")?;
    client.put_tag(&image, &tag, &manifest).await?;
    Ok(())
}

/// Bytes that differ from layer to layer and do not repeat.
fn layer(number: usize, size: usize) -> Result<Blob> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ (number as u64 + 1);
    let mut encoder = GzEncoder::new(Vec::with_capacity(size + size / 1000 + 64), Compression::none());
    for _ in 0..size / 8 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        encoder.write_all(&state.to_le_bytes())?;
    }
    Ok(Blob::from_bytes(encoder.finish()?))
}
