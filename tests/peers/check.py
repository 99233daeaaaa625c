"""What every session uses: named checks that go on after a failure, programs, and the lab's addresses."""

import contextlib
import json
import os
import subprocess
import tempfile
import traceback

passed = 0
failed = []


@contextlib.contextmanager
def check(name):
    """One check: prints a line, and lets the next one run whatever happened."""
    global passed
    try:
        yield
    except Exception as error:
        failed.append(name)
        where = traceback.extract_tb(error.__traceback__)[-1]
        print(f"FAIL  {name}\n      {where.name}, line {where.lineno}: {type(error).__name__}: {error}", flush=True)
    else:
        passed += 1
        print(f"ok    {name}", flush=True)


def same(found, wanted):
    if found != wanted:
        raise AssertionError(f"found {found!r}, wanted {wanted!r}")


def holds(condition, about):
    if not condition:
        raise AssertionError(about)


def contains(text, part):
    holds(part in text, f"{part!r} is not in {text!r}")


def run(*command, fails=False, cwd=None, env=None, stdin=None):
    """Runs a program to its end; answers its output, or what it complained where it should fail."""
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=env, input=stdin, timeout=180)
    if (done.returncode != 0) != fails:
        # Some say what went wrong here, some there, and test programs in both.
        said = "\n".join(part for part in (done.stdout, done.stderr) if part)
        raise AssertionError(f"{' '.join(command[:4])} … ended with {done.returncode}: {said}")
    return done.stderr if fails else done.stdout


def aws(service, operation, *arguments, fails=False):
    """One call with the AWS CLI; answers what it printed as JSON, or its complaint."""
    said = run("aws", service, operation, "--output", "json", *arguments, fails=fails)
    if fails:
        return said
    return json.loads(said) if said.strip() else {}


def lab(key):
    return os.environ[key]


def folder():
    return tempfile.mkdtemp(prefix="session-", dir=os.environ["PEERS_SCRATCH"])


def source(path):
    with open(os.path.join(os.environ["PEERS_ROOT"], path), encoding="utf-8") as file:
        return file.read()
