"""Towpath's registry client against docker-registry, alone and under the contract of its element; then skopeo and umoci on
what it pushed there."""

import hashlib
import json
import os
import stat

from check import check, contains, folder, holds, lab, run, same


def tree(root):
    """Everything under a folder: for each path what it is, whether it may be run, and its contents or its target."""
    found = {}
    for here, folders, files in os.walk(root):
        for name in folders + files:
            path = os.path.join(here, name)
            about = os.lstat(path)
            if stat.S_ISLNK(about.st_mode):
                entry = ("link", os.readlink(path))
            elif stat.S_ISDIR(about.st_mode):
                entry = ("folder",)
            else:
                with open(path, "rb") as file:
                    entry = ("file", bool(about.st_mode & 0o100), hashlib.sha256(file.read()).hexdigest())
            found[os.path.relpath(path, root)] = entry
    return found


def plant(root):
    """A folder with what an image may hold."""
    os.makedirs(f"{root}/bin/deep/deeper")
    os.makedirs(f"{root}/empty")
    for path, data in (
        ("bin/run", b"#!/bin/sh\n"), ("bin/deep/deeper/large", os.urandom(3 << 20)), ("nothing", b""),
        ("Grüße.txt", b"hello\n"), ("a b", b"x"), ("n" * 120, b"a long name"),
    ):
        with open(f"{root}/{path}", "wb") as file:
            file.write(data)
    os.chmod(f"{root}/bin/run", 0o755)
    os.symlink("bin/run", f"{root}/link")


def cargo_tests(test, **env):
    # Of the workspace, so that nothing is compiled anew that its own tests have.
    return run(
        "cargo", "test", "-q", "--workspace", "--test", test, "--", "--ignored", cwd=os.environ["PEERS_ROOT"],
        env={**os.environ, **env},
    )


def session():
    opened, closed = lab("TOWPATH_PEER_REGISTRY_OPEN"), lab("TOWPATH_PEER_REGISTRY_CLOSED")
    password = lab("TOWPATH_PEER_REGISTRY_PASSWORD")
    upstream = f"docker://{lab('TOWPATH_LAB_ECR_PUBLIC')}/docker/library/alpine:3.20"
    here = folder()
    planted = f"{here}/tree"
    plant(planted)

    with check("skopeo fills docker-registry from the lab"):
        run(
            "skopeo", "copy", "--all", "--src-tls-verify=false", "--dest-tls-verify=false", upstream,
            f"docker://{opened}/peers/base:1",
        )

    with check("towpath-ecr pushes, pulls, copies, goes on after cuts and reads through a cache on docker-registry"):
        said = cargo_tests("peers", PEERS_TREE=planted)
        contains(said, "test result: ok")
        contains(said, "0 ignored")

    with check("towpath-ecr holds the contract's clauses of the data plane on docker-registry"):
        said = cargo_tests("lab_ecr")
        contains(said, "test result: ok. 5 passed")

    with check("umoci unpacks what towpath-ecr assembled, file by file what went in, on its base"):
        layout = f"{here}/layout:1"
        run(
            "skopeo", "--override-arch", "arm64", "copy", "--src-tls-verify=false", f"docker://{opened}/towpath/tree:1",
            f"oci:{layout}",
        )
        run("umoci", "unpack", "--rootless", "--image", layout, f"{here}/bundle")
        wanted, found = tree(planted), tree(f"{here}/bundle/rootfs/srv/tree")
        same(sorted(found), sorted(wanted))
        for path, entry in wanted.items():
            same((path, found[path]), (path, entry))
        holds(len(wanted) > 10, wanted)
        with open(f"{here}/bundle/rootfs/etc/arch", encoding="utf-8") as file:
            same(file.read(), "aarch64\n")

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
