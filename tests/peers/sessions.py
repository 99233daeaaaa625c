"""Runs the sessions, all or those that are named, and counts."""

import sys
import time

import argocd
import check
import ecr
import github_session
import images
import packages
import places
import registry
import spacelift

SESSIONS = {
    "images": images,
    "ecr": ecr,
    "packages": packages,
    "github": github_session,
    "argocd": argocd,
    "spacelift": spacelift,
    "registry": registry,
    "places": places,
}

wanted = sys.argv[1:] or list(SESSIONS)
unknown = [name for name in wanted if name not in SESSIONS]
if unknown:
    sys.exit(f"tests/peers/run: there is no session {unknown[0]!r}; there are {', '.join(SESSIONS)}")
for name in wanted:
    began = time.monotonic()
    with check.check(f"the session '{name}' ran to its end"):
        SESSIONS[name].session()
    print(f"      {name}: {time.monotonic() - began:.0f} s", flush=True)
print(f"{check.passed} passed, {len(check.failed)} failed")
sys.exit(1 if check.failed else 0)
