"""Layouts and archives on disk: skopeo reads what towpath-ecr wrote, and towpath-ecr what skopeo wrote."""

import gzip
import hashlib
import io
import json
import os
import pathlib
import tarfile

from check import check, contains, run, same

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"


def make_layout(root):
    """An image for two processors, as the specification has it; answers the digest of its index."""
    blobs = root / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def put(media_type, content, **more):
        digest = hashlib.sha256(content).hexdigest()
        (blobs / digest).write_bytes(content)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(content), **more}

    def layer(name, content):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
        return buffer.getvalue()

    manifests = []
    for processor in ("amd64", "arm64"):
        layers = [layer("base", b"the same" * 999), layer("app", processor.encode() * 999)]
        config = {
            "architecture": processor, "os": "linux", "config": {"Cmd": ["/app"]},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers]},
        }
        manifest = {
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": put("application/vnd.oci.image.config.v1+json", json.dumps(config).encode()),
            "layers": [
                put("application/vnd.oci.image.layer.v1.tar+gzip", gzip.compress(layer, mtime=0)) for layer in layers
            ],
        }
        platform = {"os": "linux", "architecture": processor}
        manifests.append(put(MANIFEST, json.dumps(manifest).encode(), platform=platform))
    index = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}).encode()
    named = put(INDEX, index, annotations={"org.opencontainers.image.ref.name": "1"})
    (root / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (root / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [named]}))
    return named["digest"]


def session():
    folder = pathlib.Path(os.environ["PEERS_SCRATCH"]) / "places"
    folder.mkdir()
    digest = make_layout(folder / "made")
    skopeo = ("skopeo", "--insecure-policy")
    amd64 = ("--override-os", "linux", "--override-arch", "amd64")

    with check("skopeo writes a layout and archives of both kinds"):
        run(*skopeo, "copy", "--all", "oci:made:1", "oci:theirs:1", cwd=folder)
        run(*skopeo, "copy", "--all", "oci:made:1", "oci-archive:theirs.tar:1", cwd=folder)
        run(*skopeo, *amd64, "copy", "oci:made:1", "docker-archive:theirs-docker.tar:shop/web:1", cwd=folder)

    with check("towpath-ecr copies from each of them, into each kind of place"):
        pairs = [
            ("oci", "theirs:1", "oci", "ours:1"),
            ("oci", "theirs:1", "docker-archive", "ours-docker.tar:shop/web:1"),
            ("oci-archive", "theirs.tar:1", "oci-archive", "ours.tar:1"),
            ("docker-archive", "theirs-docker.tar:shop/web:1", "oci", "from-docker:1"),
        ]
        lines = "\n".join(f"{a}:{folder}/{b} {c}:{folder}/{d}" for a, b, c, d in pairs)
        said = run(
            "cargo", "test", "-q", "--workspace", "--test", "disk", "--", "--ignored",
            cwd=os.environ["PEERS_ROOT"], env={**os.environ, "TOWPATH_PEER_COPIES": lines},
        )
        contains(said, "test result: ok. 1 passed")

    with check("skopeo reads what towpath-ecr wrote, with the digests unchanged"):
        for place in ("oci:ours:1", "oci-archive:ours.tar:1"):
            raw = run(*skopeo, "inspect", "--raw", place, cwd=folder)
            same(f"sha256:{hashlib.sha256(raw.encode()).hexdigest()}", digest)
            run(*skopeo, "copy", "--all", place, f"dir:{place.split(':')[1]}-unpacked", cwd=folder)

    with check("an image keeps its ID through Docker archives of either"):
        wanted = json.loads(run(*skopeo, *amd64, "inspect", "--config", "oci:made:1", cwd=folder))
        for place in ("docker-archive:ours-docker.tar:shop/web:1", "oci:from-docker:1"):
            same(json.loads(run(*skopeo, *amd64, "inspect", "--config", place, cwd=folder)), wanted)
            run(*skopeo, *amd64, "copy", place, f"dir:{place.split(':')[1]}-unpacked", cwd=folder)
