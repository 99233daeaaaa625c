"""CodeArtifact with the AWS CLI: every operation that the lab serves; then real cargo publish and build through it."""

import hashlib
import os
import re

import boto3

from check import aws, check, contains, folder, holds, lab, run, same, source

OURS = ("--domain", "acme", "--repository", "libraries")


def session():
    called = set()

    def ca(operation, *arguments, fails=False):
        called.add(operation)
        return aws("codeartifact", operation, *arguments, fails=fails)

    here = folder()
    new = ("--domain", "peers")

    with check("aws codeartifact domains: create, describe, list, and their errors"):
        same(ca("create-domain", *new)["domain"]["status"], "Active")
        contains(ca("create-domain", *new, fails=True), "ConflictException")
        same(ca("describe-domain", *new)["domain"]["name"], "peers")
        holds({"acme", "peers"} <= {found["name"] for found in ca("list-domains")["domains"]}, "a domain is missing")
        contains(ca("describe-domain", "--domain", "nobody", fails=True), "ResourceNotFoundException")

    with check("aws codeartifact repositories: create, describe, update, list, endpoint"):
        ca("create-repository", *new, "--repository", "base")
        ca("create-repository", *new, "--repository", "team", "--upstreams", "repositoryName=base", "--description", "first")
        same(ca("describe-repository", *new, "--repository", "team")["repository"]["upstreams"], [{"repositoryName": "base"}])
        updated = ca("update-repository", *new, "--repository", "team", "--description", "second")["repository"]
        same(updated["description"], "second")
        same({found["name"] for found in ca("list-repositories-in-domain", *new)["repositories"]}, {"base", "team"})
        holds(len(ca("list-repositories")["repositories"]) >= 3, "repositories of other domains are missing")
        endpoint = ca("get-repository-endpoint", *new, "--repository", "team", "--format", "cargo")["repositoryEndpoint"]
        contains(endpoint, "/cargo/team/")
        missing = ca("describe-repository", *new, "--repository", "none", fails=True)
        contains(missing, "ResourceNotFoundException")

    with check("aws codeartifact external connections: associate, refuse a second, disassociate"):
        to = (*new, "--repository", "base", "--external-connection", "public:crates-io")
        connected = ca("associate-external-connection", *to)["repository"]["externalConnections"]
        same(connected[0]["externalConnectionName"], "public:crates-io")
        contains(ca("associate-external-connection", *to, fails=True), "Exception")
        same(ca("disassociate-external-connection", *to)["repository"]["externalConnections"], [])

    def publish(version, content, *more, fails=False):
        path = os.path.join(here, "asset")
        with open(path, "wb") as file:
            file.write(content)
        return ca(
            "publish-package-version", *new, "--repository", "team", "--format", "generic", "--namespace", "tools",
            "--package", "kit", "--package-version", version, "--asset-content", path, "--asset-name", "kit.bin",
            "--asset-sha256", hashlib.sha256(content).hexdigest(), *more, fails=fails,
        )

    kit = (*new, "--repository", "team", "--format", "generic", "--namespace", "tools", "--package", "kit")

    with check("aws codeartifact publish-package-version, finished and unfinished, and a wrong hash"):
        same(publish("1.0.0", b"first")["status"], "Published")
        same(publish("1.1.0", b"second", "--unfinished")["status"], "Unfinished")
        contains(publish("1.0.0", b"other", fails=True), "ConflictException")
        wrong = os.path.join(here, "asset")
        refused = ca(
            "publish-package-version", *kit, "--package-version", "2.0.0", "--asset-content", wrong,
            "--asset-name", "kit.bin", "--asset-sha256", "0" * 64, fails=True,
        )
        contains(refused, "Exception")

    with check("aws codeartifact packages: list, describe, origin configuration"):
        listed = ca("list-packages", *new, "--repository", "team")["packages"]
        same([(found["format"], found["namespace"], found["package"]) for found in listed], [("generic", "tools", "kit")])
        same(ca("describe-package", *kit)["package"]["name"], "kit")
        set_to = ca("put-package-origin-configuration", *kit, "--restrictions", "publish=ALLOW,upstream=BLOCK")
        same(set_to["originConfiguration"]["restrictions"], {"publish": "ALLOW", "upstream": "BLOCK"})

    with check("aws codeartifact versions: list, describe, assets, dependencies, the asset's bytes"):
        listed = ca("list-package-versions", *kit)["versions"]
        same({found["version"]: found["status"] for found in listed}, {"1.0.0": "Published", "1.1.0": "Unfinished"})
        one = (*kit, "--package-version", "1.0.0")
        same(ca("describe-package-version", *one)["packageVersion"]["status"], "Published")
        asset = ca("list-package-version-assets", *one)["assets"][0]
        same((asset["name"], asset["size"]), ("kit.bin", 5))
        same(asset["hashes"]["SHA-256"], hashlib.sha256(b"first").hexdigest())
        fetched = os.path.join(here, "fetched")
        ca("get-package-version-asset", *one, "--asset", "kit.bin", fetched)
        same(open(fetched, "rb").read(), b"first")
        same(ca("list-package-version-dependencies", *one).get("dependencies", []), [])
        gone = ca("describe-package-version", *kit, "--package-version", "9.9.9", fails=True)
        contains(gone, "ResourceNotFoundException")

    with check("boto3 pages through list_package_versions and raises typed errors"):
        client = boto3.client("codeartifact")
        about = {"domain": "peers", "repository": "team", "format": "generic", "namespace": "tools", "package": "kit"}
        pages = client.get_paginator("list_package_versions").paginate(**about, PaginationConfig={"PageSize": 1})
        same([len(page["versions"]) for page in pages if page["versions"]], [1, 1])
        try:
            client.describe_package(**{**about, "package": "none"})
            raise AssertionError("an unknown package was described")
        except client.exceptions.ResourceNotFoundException:
            pass

    with check("aws codeartifact on several versions: copy, update status, dispose, delete"):
        ca("create-repository", *new, "--repository", "release")
        source_of = [part for part in kit if part not in ("--repository", "team")]
        copied = ca(
            "copy-package-versions", *source_of, "--source-repository", "team", "--destination-repository", "release",
            "--versions", "1.0.0", "8.8.8",
        )
        same(list(copied["successfulVersions"]), ["1.0.0"])
        same(copied["failedVersions"]["8.8.8"]["errorCode"], "NOT_FOUND")
        moved = ca("update-package-versions-status", *kit, "--versions", "1.0.0", "--target-status", "Archived")
        same(moved["successfulVersions"]["1.0.0"]["status"], "Archived")
        same(list(ca("dispose-package-versions", *kit, "--versions", "1.0.0")["successfulVersions"]), ["1.0.0"])
        same(list(ca("delete-package-versions", *kit, "--versions", "1.1.0")["successfulVersions"]), ["1.1.0"])

    with check("aws codeartifact delete-package, delete-repository, delete-domain"):
        ca("delete-package", *kit)
        contains(ca("describe-package", *kit, fails=True), "ResourceNotFoundException")
        for repository in ("team", "release", "base"):
            ca("delete-repository", *new, "--repository", repository)
        ca("delete-domain", *new)
        contains(ca("describe-domain", *new, fails=True), "ResourceNotFoundException")

    with check("aws codeartifact get-authorization-token, and a wrong secret key"):
        token = ca("get-authorization-token", "--domain", "acme")["authorizationToken"]
        holds(len(token) > 20, "the token is short")
        wrong = {**os.environ, "AWS_SECRET_ACCESS_KEY": "wrong"}
        contains(run("aws", "codeartifact", "list-domains", fails=True, env=wrong), "signature")

    cargo_session(ca, token)

    with check("every CodeArtifact operation of the lab was called"):
        text = source("crates/towpath-lab/src/codeartifact/api/mod.rs")
        served = set(re.findall(r'\(\s*"(GET|PUT|POST|DELETE)", "(/v1/[\w/-]+)"\) =>', text))
        served.add(("GET", "/v1/package/version/asset"))
        holds(len(served) > 20, f"only {len(served)} operations were found in the source")
        model = boto3.client("codeartifact").meta.service_model
        names = {}
        for name in model.operation_names:
            http = model.operation_model(name).http
            names[http["method"], http["requestUri"]] = re.sub(r"(?<!^)(?=[A-Z])", "-", name).lower()
        same(sorted(names[route] for route in served if names[route] not in called), [])


def cargo_session(ca, token):
    """cargo publish, cargo build of what depends on it, cargo yank: with an empty Cargo home that knows the lab only."""
    endpoint = ca("get-repository-endpoint", *OURS, "--format", "cargo")["repositoryEndpoint"]
    home, work = folder(), folder()
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("CARGO", "RUSTC", "RUSTFLAGS"))}
    kept = {name: value for name, value in kept.items() if not name.lower().endswith("_proxy")}
    env = {**kept, "CARGO_HOME": home, "CARGO_REGISTRIES_LAB_TOKEN": token, "CARGO_TERM_COLOR": "never"}

    def write(path, text):
        path = os.path.join(work, path)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)

    def cargo(where, *arguments, fails=False, env=env):
        return run("cargo", *arguments, cwd=os.path.join(work, where), env=env, fails=fails)

    with open(os.path.join(home, "config.toml"), "w", encoding="utf-8") as file:
        file.write(
            f'[registries.lab]\nindex = "sparse+{endpoint}"\n[source.crates-io]\nreplace-with = "lab"\n'
            '[registry]\nglobal-credential-providers = ["cargo:token"]\n'
        )
    about = 'edition = "2021"\nlicense = "MIT"\ndescription = "A library"\n'
    write(
        "library/Cargo.toml",
        f'[package]\nname = "peers-library"\nversion = "0.1.0"\n{about}[dependencies]\ntowpath-greeting = "1"\n',
    )
    write("library/src/lib.rs", 'pub fn hello() -> String { towpath_greeting::greet("peers") }\n')
    write(
        "program/Cargo.toml",
        f'[package]\nname = "program"\nversion = "0.1.0"\n{about}[dependencies]\n'
        'peers-library = { version = "0.1", registry = "lab" }\n',
    )
    write("program/src/main.rs", 'fn main() { println!("{}", peers_library::hello()); }\n')
    version = (*OURS, "--format", "cargo", "--package", "peers-library", "--package-version", "0.1.0")

    with check("cargo publish, verified by a build, and byte for byte what cargo packed"):
        cargo("library", "publish", "--allow-dirty", "--registry", "lab")
        packed = os.path.join(work, "library/target/package/peers-library-0.1.0.crate")
        cargo("library", "package", "--allow-dirty", "--no-verify")
        wanted = hashlib.sha256(open(packed, "rb").read()).hexdigest()
        same(ca("list-package-version-assets", *version)["assets"][0]["hashes"]["SHA-256"], wanted)
        dependencies = ca("list-package-version-dependencies", *version)["dependencies"]
        same([found["package"] for found in dependencies], ["towpath-greeting"])
        again = cargo("library", "publish", "--allow-dirty", "--no-verify", "--registry", "lab", fails=True)
        contains(again, "already exists")

    with check("cargo builds and runs a program that depends on it, one crate from outside included"):
        contains(cargo("program", "run", "-q"), "Hello, peers!")
        greeting = (*OURS, "--format", "cargo", "--package", "towpath-greeting")
        listed = ca("list-package-versions", *greeting)["versions"]
        same(listed[0]["origin"]["originType"], "EXTERNAL")

    with check("cargo yank and --undo"):
        cargo("library", "yank", "--registry", "lab", "peers-library@0.1.0")
        same(ca("describe-package-version", *version)["packageVersion"]["status"], "Unlisted")
        cargo("library", "yank", "--undo", "--registry", "lab", "peers-library@0.1.0")
        same(ca("describe-package-version", *version)["packageVersion"]["status"], "Published")

    with check("cargo with a wrong token is told that the token was rejected"):
        write("stranger/Cargo.toml", read(os.path.join(work, "program/Cargo.toml")))
        write("stranger/src/main.rs", "fn main() {}\n")
        wrong = {**env, "CARGO_REGISTRIES_LAB_TOKEN": "wrong"}
        contains(cargo("stranger", "fetch", fails=True, env=wrong), "token rejected")


def read(path):
    with open(path, encoding="utf-8") as file:
        return file.read()
