"""Writes the configurations of the two registries: ports, folders, and a password for one of them."""

import pathlib
import secrets
import socket
import sys

import bcrypt

scratch = pathlib.Path(sys.argv[1])
password = secrets.token_urlsafe(24)
(scratch / "closed.password").write_text(password)
hashed = bcrypt.hashpw(password.encode(), bcrypt.gensalt(rounds=5)).decode()
(scratch / "htpasswd").write_text(f"peer:{hashed}\n")

taken = []
for name in ("open", "closed"):
    probe = socket.socket()
    probe.bind(("127.0.0.1", 0))
    taken.append(probe)
    address = f"127.0.0.1:{probe.getsockname()[1]}"
    (scratch / name).mkdir()
    config = f"""version: 0.1
log: {{level: warn}}
storage:
  filesystem: {{rootdirectory: {scratch / name}}}
  delete: {{enabled: true}}
http: {{addr: "{address}"}}
"""
    if name == "closed":
        config += f"auth:\n  htpasswd: {{realm: peers, path: {scratch / 'htpasswd'}}}\n"
    (scratch / f"{name}.yml").write_text(config)
    (scratch / f"{name}.address").write_text(address)
for probe in taken:
    probe.close()
