"""Towpath's registry client against docker-registry, and skopeo against what it pushed there."""

import hashlib
import json
import os

from check import check, contains, lab, run, same


def session():
    opened, closed = lab("TOWPATH_PEER_REGISTRY_OPEN"), lab("TOWPATH_PEER_REGISTRY_CLOSED")
    password = lab("TOWPATH_PEER_REGISTRY_PASSWORD")
    upstream = f"docker://{lab('TOWPATH_LAB_ECR_PUBLIC')}/docker/library/alpine:3.20"

    with check("skopeo fills docker-registry from the lab"):
        run(
            "skopeo", "copy", "--all", "--src-tls-verify=false", "--dest-tls-verify=false", upstream,
            f"docker://{opened}/peers/base:1",
        )

    with check("towpath-ecr pushes to, pulls from and copies between two docker-registries"):
        said = run(
            "cargo", "test", "-q", "-p", "towpath-ecr", "--test", "peers", "--", "--ignored", cwd=os.environ["PEERS_ROOT"]
        )
        contains(said, "test result: ok")
        contains(said, "0 ignored")

    with check("skopeo reads what towpath-ecr pushed and copied"):
        for image, credentials in (
            (f"{opened}/towpath/app:1", ()),
            (f"{closed}/towpath/app:1", ("--creds", f"peer:{password}")),
        ):
            about = json.loads(run("skopeo", "inspect", "--tls-verify=false", *credentials, f"docker://{image}"))
            same(len(about["Layers"]), 2)
        raw = run("skopeo", "inspect", "--tls-verify=false", "--raw", upstream)
        copied = run(
            "skopeo", "inspect", "--tls-verify=false", "--raw", "--creds", f"peer:{password}",
            f"docker://{closed}/peers/base:1",
        )
        same(hashlib.sha256(copied.encode()).hexdigest(), hashlib.sha256(raw.encode()).hexdigest())
