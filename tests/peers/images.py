"""skopeo (containers/image) against ECR's /v2/, the upstreams and the pull-through cache; then the rest of ECR with the
AWS CLI, so that every operation that the lab serves is called once by a client that somebody else wrote."""

import base64
import hashlib
import json
import os
import re

import boto3

from check import aws, check, contains, folder, holds, lab, run, same, source

REGISTRY = lab("TOWPATH_LAB_REGISTRY")
TLS = "--tls-verify=false"


def skopeo(*arguments, fails=False, env=None):
    return run("skopeo", *arguments, fails=fails, env=env)


def digest_of(*arguments):
    return "sha256:" + hashlib.sha256(skopeo("inspect", TLS, "--raw", *arguments).encode()).hexdigest()


def session():
    called = set()

    def ecr(operation, *arguments, fails=False):
        called.add("".join(word.capitalize() for word in operation.split("-")))
        return aws("ecr", operation, *arguments, fails=fails)

    with check("aws ecr get-authorization-token, get-login-password"):
        data = ecr("get-authorization-token")["authorizationData"][0]
        user, password = base64.b64decode(data["authorizationToken"]).decode().split(":", 1)
        same(user, "AWS")
        contains(data["proxyEndpoint"], REGISTRY)
        login = run("aws", "ecr", "get-login-password").strip()
        holds(len(login) > 20, "the password is short")
    credentials = f"AWS:{password}"
    source_credentials, to_credentials = ("--src-creds", credentials), ("--dest-creds", credentials)

    with check("aws ecr create-repository, describe-repositories, and the errors of both"):
        created = ecr("create-repository", "--repository-name", "peers/app", "--image-tag-mutability", "MUTABLE")
        uri = created["repository"]["repositoryUri"]
        same(uri, f"{REGISTRY}/peers/app")
        contains(ecr("create-repository", "--repository-name", "peers/app", fails=True), "RepositoryAlreadyExistsException")
        names = [found["repositoryName"] for found in ecr("describe-repositories")["repositories"]]
        holds("peers/app" in names, names)
        contains(
            ecr("describe-repositories", "--repository-names", "peers/none", fails=True), "RepositoryNotFoundException"
        )
        contains(ecr("create-repository", "--repository-name", "Bad_", fails=True), "InvalidParameterException")

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
        run("aws", "ecr", "create-repository", "--repository-name", "peers/copy")
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

    with check("aws ecr describe-images, list-images, batch-get-image"):
        details = ecr("describe-images", "--repository-name", "peers/app")["imageDetails"]
        index = next(found for found in details if "one" in found.get("imageTags", []))
        same(index["imageDigest"], digest_of(public))
        listed = ecr("list-images", "--repository-name", "peers/app", "--filter", "tagStatus=TAGGED")["imageIds"]
        same(sorted(found["imageTag"] for found in listed), ["docker", "one", "single"])
        got = ecr("batch-get-image", "--repository-name", "peers/app", "--image-ids", "imageTag=one", "imageTag=none")
        same(got["images"][0]["imageManifest"], skopeo("inspect", TLS, "--raw", public))
        same(got["failures"][0]["failureCode"], "ImageNotFound")

    with check("boto3 pages through list_images and raises typed errors"):
        client = boto3.client("ecr")
        pages = client.get_paginator("list_images").paginate(
            repositoryName="peers/app", PaginationConfig={"PageSize": 1}
        )
        found = [page["imageIds"] for page in pages]
        holds(len(found) > 2 and all(len(page) <= 1 for page in found), found)
        try:
            client.describe_images(repositoryName="peers/app", imageIds=[{"imageTag": "none"}])
            raise AssertionError("an unknown tag was described")
        except client.exceptions.ImageNotFoundException:
            pass

    with check("aws ecr batch-check-layer-availability"):
        layers = json.loads(manifest)["layers"]
        answer = ecr(
            "batch-check-layer-availability", "--repository-name", "peers/app",
            "--layer-digests", layers[0]["digest"], "sha256:" + "0" * 64,
        )
        same(answer["layers"][0]["layerAvailability"], "AVAILABLE")
        holds(len(answer["layers"]) + len(answer["failures"]) == 2, answer)

    with check("aws ecr put-image under a second tag, and put-image-tag-mutability"):
        text = got["images"][0]["imageManifest"]
        with open(f"{here}/manifest.json", "w", encoding="utf-8", newline="") as file:
            file.write(text)
        put = ("put-image", "--repository-name", "peers/app", "--image-manifest", f"file://{here}/manifest.json")
        same(ecr(*put, "--image-tag", "two")["image"]["imageId"]["imageDigest"], digest_of(public))
        contains(ecr(*put, "--image-tag", "two", fails=True), "ImageAlreadyExistsException")
        locked = ecr("put-image-tag-mutability", "--repository-name", "peers/app", "--image-tag-mutability", "IMMUTABLE")
        same(locked["imageTagMutability"], "IMMUTABLE")
        contains(ecr(*put, "--image-tag", "single", fails=True), "ImageTagAlreadyExistsException")
        refused = skopeo(
            "copy", "--src-tls-verify=false", "--dest-tls-verify=false", *to_credentials, quay, f"{app}:one", fails=True
        )
        contains(refused.lower(), "immutable")
        ecr("put-image-tag-mutability", "--repository-name", "peers/app", "--image-tag-mutability", "MUTABLE")

    with check("aws ecr start-image-scan, wait image-scan-complete, describe-image-scan-findings"):
        # Without rules a push starts no scan; with them it would have used up the image's one scan of the day.
        ecr("put-registry-scanning-configuration", "--scan-type", "BASIC", "--rules", "[]")
        skopeo("copy", "--src-tls-verify=false", "--dest-tls-verify=false", *to_credentials, quay, f"{app}:scan")
        image = ("--repository-name", "peers/app", "--image-id", "imageTag=scan")
        contains(ecr("describe-image-scan-findings", *image, fails=True), "ScanNotFoundException")
        holds(ecr("start-image-scan", *image)["imageScanStatus"]["status"], "no status")
        contains(ecr("start-image-scan", *image, fails=True), "LimitExceededException")
        run("aws", "ecr", "wait", "image-scan-complete", *image)
        answer = ecr("describe-image-scan-findings", *image)
        same(answer["imageScanStatus"]["status"], "COMPLETE")
        holds("findings" in answer["imageScanFindings"], answer)
        nothing = ("--repository-name", "peers/app", "--image-id", "imageTag=nope")
        contains(ecr("describe-image-scan-findings", *nothing, fails=True), "ImageNotFoundException")

    with check("aws ecr scanning configuration of the repository and of the registry, account settings"):
        on = ecr(
            "put-image-scanning-configuration", "--repository-name", "peers/app",
            "--image-scanning-configuration", "scanOnPush=true",
        )
        same(on["imageScanningConfiguration"]["scanOnPush"], True)
        rules = '[{"scanFrequency":"SCAN_ON_PUSH","repositoryFilters":[{"filter":"peers/*","filterType":"WILDCARD"}]}]'
        ecr("put-registry-scanning-configuration", "--scan-type", "BASIC", "--rules", rules)
        kept = ecr("get-registry-scanning-configuration")["scanningConfiguration"]
        same(kept["rules"][0]["repositoryFilters"][0]["filter"], "peers/*")
        asked = ecr("batch-get-repository-scanning-configuration", "--repository-names", "peers/app", "peers/none")
        same(asked["scanningConfigurations"][0]["scanOnPush"], True)
        same(len(asked["failures"]), 1)
        same(ecr("put-account-setting", "--name", "BASIC_SCAN_TYPE_VERSION", "--value", "AWS_NATIVE")["value"], "AWS_NATIVE")
        same(ecr("get-account-setting", "--name", "BASIC_SCAN_TYPE_VERSION")["value"], "AWS_NATIVE")
        holds(ecr("describe-registry")["registryId"].isdigit(), "the registry has no number")

    with check("aws ecr pull-through cache rules: create, describe, validate, update, refuse"):
        rule = ("--ecr-repository-prefix", "gallery")
        ecr("create-pull-through-cache-rule", *rule, "--upstream-registry-url", "public.ecr.aws")
        ecr("create-pull-through-cache-rule", "--ecr-repository-prefix", "quay", "--upstream-registry-url", "quay.io")
        again = ecr("create-pull-through-cache-rule", *rule, "--upstream-registry-url", "public.ecr.aws", fails=True)
        contains(again, "PullThroughCacheRuleAlreadyExistsException")
        unknown = ("--ecr-repository-prefix", "other", "--upstream-registry-url", "registry.example.com")
        contains(ecr("create-pull-through-cache-rule", *unknown, fails=True), "UnsupportedUpstreamRegistryException")
        kept = ecr("describe-pull-through-cache-rules")["pullThroughCacheRules"]
        same(sorted(found["upstreamRegistryUrl"] for found in kept), ["public.ecr.aws", "quay.io"])
        same(ecr("validate-pull-through-cache-rule", *rule)["isValid"], True)
        secret = f"arn:aws:secretsmanager:{lab('AWS_REGION')}:123456789012:secret:ecr-pullthroughcache/lab-abcdef"
        updated = ecr("update-pull-through-cache-rule", "--ecr-repository-prefix", "quay", "--credential-arn", secret)
        same(updated["credentialArn"], secret)
        ecr("delete-pull-through-cache-rule", "--ecr-repository-prefix", "quay")
        ecr("create-pull-through-cache-rule", "--ecr-repository-prefix", "quay", "--upstream-registry-url", "quay.io")

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

    with check("aws ecr batch-delete-image, delete-repository with and without --force"):
        gone = ecr("batch-delete-image", "--repository-name", "peers/app", "--image-ids", "imageTag=docker", "imageTag=none")
        same(gone["imageIds"][0]["imageTag"], "docker")
        same(len(gone["failures"]), 1)
        kept = ecr("delete-repository", "--repository-name", "peers/app", fails=True)
        contains(kept, "RepositoryNotEmptyException")
        ecr("delete-repository", "--repository-name", "peers/app", "--force")
        contains(skopeo("list-tags", TLS, "--creds", credentials, app, fails=True), "404")

    with check("aws ecr with a wrong secret key is refused"):
        wrong = {**os.environ, "AWS_SECRET_ACCESS_KEY": "wrong"}
        refused = run("aws", "ecr", "describe-registry", fails=True, env=wrong)
        holds("InvalidSignatureException" in refused or "SignatureDoesNotMatch" in refused, refused)
        wrong = {**os.environ, "AWS_ACCESS_KEY_ID": "AKIAWRONG"}
        contains(run("aws", "ecr", "describe-registry", fails=True, env=wrong), "UnrecognizedClientException")

    with check("every ECR operation of the lab was called"):
        served = set(re.findall(r'^        "([A-Z]\w+)" =>', source("crates/towpath-lab/src/ecr/api/mod.rs"), re.M))
        holds(len(served) > 20, f"only {len(served)} operations were found in the source")
        same(sorted(served - called), [])
