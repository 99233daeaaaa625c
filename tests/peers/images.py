"""skopeo (containers/image) and buildah against ECR's /v2/, the upstreams and the pull-through cache."""

import hashlib
import json
import os

from check import aws, check, contains, folder, holds, lab, run, same

REGISTRY = lab("TOWPATH_LAB_REGISTRY")
TLS = "--tls-verify=false"


def skopeo(*arguments, fails=False, env=None):
    return run("skopeo", *arguments, fails=fails, env=env)


def digest_of(*arguments):
    return "sha256:" + hashlib.sha256(skopeo("inspect", TLS, "--raw", *arguments).encode()).hexdigest()


def session():
    password = run("aws", "ecr", "get-login-password").strip()
    credentials = f"AWS:{password}"
    source_credentials, to_credentials = ("--src-creds", credentials), ("--dest-creds", credentials)
    for name in ("app", "copy", "mirror/app", "built"):
        aws("ecr", "create-repository", "--repository-name", f"peers/{name}")

    public = f"docker://{lab('TOWPATH_LAB_ECR_PUBLIC')}/docker/library/alpine:3.20"
    quay = f"docker://{lab('TOWPATH_LAB_QUAY')}/towpath/ca-certificates:2026"
    app = f"docker://{REGISTRY}/peers/app"
    here = folder()

    with check("skopeo inspect of both upstreams, by token"):
        for image in (public, quay):
            index = json.loads(skopeo("inspect", TLS, "--raw", image))
            same(len(index["manifests"]), 2)
            holds(json.loads(skopeo("inspect", TLS, image))["Layers"], "the image has no layers")

    with check("skopeo login, wrong password, no password"):
        refused = skopeo("inspect", TLS, "--creds", "AWS:wrong", f"{app}:none", fails=True)
        contains(refused.lower(), "unauthorized")
        contains(skopeo("inspect", TLS, f"{app}:none", fails=True).lower(), "unauthorized")
        run("skopeo", "login", TLS, "--authfile", f"{here}/auth.json", "-u", "AWS", "--password-stdin", REGISTRY, stdin=password)
        refused = run(
            "skopeo", "login", TLS, "--authfile", f"{here}/no.json", "-u", "AWS", "-p", "wrong", REGISTRY, fails=True
        )
        contains(refused, "invalid username/password")

    with check("skopeo copy --all into the registry and between repositories keeps the digest"):
        skopeo("copy", "--all", "--src-tls-verify=false", "--dest-tls-verify=false", *to_credentials, public, f"{app}:one")
        same(digest_of("--creds", credentials, f"{app}:one"), digest_of(public))
        skopeo(
            "copy", "--all", "--src-tls-verify=false", "--dest-tls-verify=false", *source_credentials, *to_credentials,
            f"{app}:one", f"docker://{REGISTRY}/peers/copy:one",
        )
        same(digest_of("--creds", credentials, f"docker://{REGISTRY}/peers/copy:one"), digest_of(public))

    with check("skopeo copy of one platform, out to a folder and back in from an OCI layout"):
        skopeo("copy", "--src-tls-verify=false", *source_credentials, f"{app}:one", f"dir:{here}/dir")
        manifest = open(f"{here}/dir/manifest.json", "rb").read()
        skopeo("copy", "--dest-tls-verify=false", *to_credentials, f"dir:{here}/dir", f"{app}:single")
        same(digest_of("--creds", credentials, f"{app}:single"), "sha256:" + hashlib.sha256(manifest).hexdigest())
        skopeo("copy", "--src-tls-verify=false", *source_credentials, f"{app}:single", f"oci:{here}/oci:x")
        skopeo("copy", "--dest-tls-verify=false", *to_credentials, "--format", "v2s2", f"oci:{here}/oci:x", f"{app}:docker")
        about = json.loads(skopeo("inspect", TLS, "--raw", "--creds", credentials, f"{app}:docker"))
        same(about["mediaType"], "application/vnd.docker.distribution.manifest.v2+json")

    with check("skopeo list-tags, inspect --config, and an unknown tag"):
        tags = json.loads(skopeo("list-tags", TLS, "--creds", credentials, app))["Tags"]
        same(sorted(tags), ["docker", "one", "single"])
        config = json.loads(skopeo("inspect", TLS, "--config", "--creds", credentials, f"{app}:one"))
        same(config["os"], "linux")
        contains(skopeo("inspect", TLS, "--creds", credentials, f"{app}:nope", fails=True), "manifest unknown")
        missing = f"docker://{REGISTRY}/peers/missing:x"
        contains(skopeo("inspect", TLS, "--creds", credentials, missing, fails=True), "name unknown")

    with check("an image needs a repository that exists"):
        skopeo(
            "copy", "--src-tls-verify=false", "--dest-tls-verify=false", *to_credentials, public,
            f"docker://{REGISTRY}/peers/never:x", fails=True,
        )

    with check("skopeo delete"):
        skopeo("delete", TLS, "--creds", credentials, f"docker://{REGISTRY}/peers/copy:one")
        contains(
            skopeo("inspect", TLS, "--creds", credentials, f"docker://{REGISTRY}/peers/copy:one", fails=True),
            "manifest unknown",
        )

    with check("skopeo sync mirrors every tag of a repository"):
        skopeo(
            "sync", "--all", "--src", "docker", "--dest", "docker", "--src-tls-verify=false", "--dest-tls-verify=false",
            *source_credentials, *to_credentials, f"{REGISTRY}/peers/app", f"{REGISTRY}/peers/mirror",
        )
        mirror = f"docker://{REGISTRY}/peers/mirror/app"
        same(sorted(json.loads(skopeo("list-tags", TLS, "--creds", credentials, mirror))["Tags"]), ["docker", "one", "single"])
        same(digest_of("--creds", credentials, f"{mirror}:one"), digest_of(public))

    with check("skopeo is told that a tag is immutable"):
        locked = ("--repository-name", "peers/app", "--image-tag-mutability")
        aws("ecr", "put-image-tag-mutability", *locked, "IMMUTABLE")
        refused = skopeo(
            "copy", "--src-tls-verify=false", "--dest-tls-verify=false", *to_credentials, quay, f"{app}:one", fails=True
        )
        contains(refused.lower(), "immutable")
        aws("ecr", "put-image-tag-mutability", *locked, "MUTABLE")

    with check("pull-through cache rules for what follows"):
        for prefix, url in (("gallery", "public.ecr.aws"), ("quay", "quay.io")):
            rule = ("--ecr-repository-prefix", prefix, "--upstream-registry-url", url)
            aws("ecr", "create-pull-through-cache-rule", *rule)

    for prefix, path, upstream in (
        ("gallery", "docker/library/alpine:3.20", public),
        ("quay", "towpath/ca-certificates:2026", quay),
    ):
        with check(f"skopeo copy --all pulls {path} through the cache, digest unchanged"):
            cached = f"docker://{REGISTRY}/{prefix}/{path}"
            skopeo("copy", "--all", "--src-tls-verify=false", *source_credentials, cached, f"dir:{here}/{prefix}")
            same(digest_of("--creds", credentials, cached), digest_of(upstream))
            kept = aws("ecr", "describe-images", "--repository-name", f"{prefix}/{path.split(':')[0]}")["imageDetails"]
            holds(digest_of(upstream) in [found["imageDigest"] for found in kept], kept)

    buildah_session(here, credentials)


def buildah_session(here, credentials):
    """buildah with a store of its own, chrooted: it needs no daemon, no namespaces and no configuration."""
    with open(f"{here}/policy.json", "w", encoding="utf-8") as file:
        json.dump({"default": [{"type": "insecureAcceptAnything"}]}, file)
    store = ("--root", f"{here}/store", "--runroot", f"{here}/run", "--storage-driver", "vfs")
    policy = ("--signature-policy", f"{here}/policy.json")
    remote = (*policy, TLS, "--creds", credentials)
    target = f"docker://{REGISTRY}/peers/built"
    env = {**os.environ, "BUILDAH_ISOLATION": "chroot"}

    def buildah(*arguments, fails=False):
        return run("buildah", *store, *arguments, fails=fails, env=env).strip()

    def inspect(tag, *more):
        return json.loads(skopeo("inspect", TLS, "--creds", credentials, *more, f"{target}:{tag}"))

    with open(f"{here}/hello", "w", encoding="utf-8") as file:
        file.write("hello\n")

    with check("buildah builds from nothing and pushes"):
        container = buildah("from", "scratch")
        buildah("copy", container, f"{here}/hello", "/hello")
        buildah("config", "--label", "team=shop", container)
        buildah("commit", *policy, container, "built")
        buildah("push", *remote, "--digestfile", f"{here}/digest", "built", f"{target}:1")
        about = inspect("1")
        same((about["Labels"]["team"], len(about["Layers"])), ("shop", 1))
        with open(f"{here}/digest", encoding="utf-8") as file:
            same(about["Digest"], file.read())

    with check("buildah pulls it, builds on it, and pushes Docker's format"):
        buildah("rmi", "--all", "--force")
        container = buildah("from", *remote, f"{target}:1")
        with open(os.path.join(buildah("mount", container), "hello"), encoding="utf-8") as file:
            same(file.read(), "hello\n")
        buildah("umount", container)
        buildah("copy", container, f"{here}/policy.json", "/etc/policy.json")
        buildah("commit", *policy, "--format", "docker", container, "second")
        buildah("push", *remote, "second", f"{target}:docker")
        about = inspect("docker", "--raw")
        same(about["mediaType"], "application/vnd.docker.distribution.manifest.v2+json")
        same(about["layers"][0]["digest"], inspect("1", "--raw")["layers"][0]["digest"])

    with check("buildah pushes a manifest list of two platforms"):
        buildah("manifest", "create", "multi")
        for architecture in ("amd64", "arm64"):
            container = buildah("from", "--arch", architecture, "scratch")
            buildah("copy", container, f"{here}/hello", f"/{architecture}")
            buildah("config", "--arch", architecture, container)
            buildah("commit", *policy, container, architecture)
            buildah("manifest", "add", "multi", architecture)
        buildah("manifest", "push", "--all", *remote, "multi", f"{target}:multi")
        index = inspect("multi", "--raw")
        same([entry["platform"]["architecture"] for entry in index["manifests"]], ["amd64", "arm64"])
        for architecture in ("amd64", "arm64"):
            about = json.loads(
                skopeo("--override-arch", architecture, "inspect", TLS, "--creds", credentials, f"{target}:multi")
            )
            same(about["Architecture"], architecture)

    with check("buildah is refused with a wrong password and without a repository"):
        wrong = (*policy, TLS, "--creds", "AWS:wrong")
        contains(buildah("push", *wrong, "second", f"{target}:no", fails=True).lower(), "unauthorized")
        none = f"docker://{REGISTRY}/peers/never-made:1"
        contains(buildah("push", *remote, "second", none, fails=True), "name unknown")
