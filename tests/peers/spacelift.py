"""Spacelift's GraphQL API with curl and with Python's own HTTP client: the key, the viewer, the schema, a run."""

import json
import time
import urllib.request

from argocd import ask_github
from check import check, contains, folder, holds, lab, run, same
from github_session import git, write

URL = lab("SPACELIFT_API_KEY_ENDPOINT").rstrip("/") + "/graphql"
LOGIN = "mutation($id: ID!, $secret: String!) { apiKeyUser(id: $id, secret: $secret) { jwt validUntil } }"


def ask(query, variables=None, token=None):
    data = json.dumps({"query": query, "variables": variables or {}}).encode()
    request = urllib.request.Request(URL, data=data, headers={"Content-Type": "application/json"})
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    with urllib.request.urlopen(request, timeout=30) as answer:
        same(answer.status, 200)
        return json.loads(answer.read())


def session():
    key = {"id": lab("SPACELIFT_API_KEY_ID"), "secret": lab("SPACELIFT_API_KEY_SECRET")}
    here = folder()

    with check("apiKeyUser trades the key for a token, and refuses a wrong secret"):
        user = ask(LOGIN, key)["data"]["apiKeyUser"]
        token = user["jwt"]
        holds(user["validUntil"] > time.time(), user)
        wrong = ask(LOGIN, {**key, "secret": "wrong"})
        holds(wrong.get("errors") or wrong["data"]["apiKeyUser"] is None, wrong)

    with check("curl: viewer, with the token and without"):
        body = json.dumps({"query": "{ viewer { id name } }"})
        send = ("curl", "-sS", "--fail", "-H", "Content-Type: application/json", "-d", body, URL)
        holds(json.loads(run(*send, "-H", f"Authorization: Bearer {token}"))["data"]["viewer"]["id"], "no viewer")
        nobody = json.loads(run(*send))
        holds(nobody.get("errors") or nobody["data"]["viewer"] is None, nobody)

    with check("introspection describes the operations that are used"):
        schema = ask("{ __schema { queryType { fields { name } } mutationType { fields { name } } } }", token=token)
        fields = schema["data"]["__schema"]
        holds("stack" in [field["name"] for field in fields["queryType"]["fields"]], fields)
        holds("runConfirm" in [field["name"] for field in fields["mutationType"]["fields"]], fields)

    with check("what the schema does not know is a validation error, and no data"):
        wrong = ask("{ viewer { shoeSize } }", token=token)
        holds("data" not in wrong or wrong["data"] is None, wrong)
        holds(any("shoeSize" in error["message"] for error in wrong["errors"]), wrong)
        wrong = ask("query($id: ID!) { stack(id: $id) { id } }", token=token)
        holds(wrong["errors"], wrong)
        holds(ask("{ viewer {", token=token)["errors"], "broken syntax was accepted")
        unknown = ask('{ stack(id: "none") { id } }', token=token)
        same(unknown["data"]["stack"], None)

    with check("without a token there are no stacks, only an error or nothing"):
        nobody = ask("{ stacks { id } }")
        holds(nobody.get("errors") or not nobody["data"]["stacks"], nobody)

    with check("a push makes a run, whose plan waits to be confirmed, and is applied"):
        git_token = lab("TOWPATH_LAB_GITHUB_TOKEN")
        same(ask_github("POST", "/orgs/acme/repos", {"name": "infra", "private": True}, git_token)[0], 201)
        git(here, "init", "-q", "-b", "main")
        for stack in ("shared-services", "apps"):
            write(here, f"{stack}/main.tf", 'resource "terraform_data" "x" {\n  input = "1"\n}\n')
        git(here, "add", "-A")
        git(here, "commit", "-q", "-m", "Infrastructure")
        remote = f"{lab('TOWPATH_LAB_GIT')}/acme/infra.git".replace("://", f"://x-access-token:{git_token}@")
        git(here, "push", "-q", remote, "main")
        commit = git(here, "rev-parse", "HEAD").strip()
        runs = '{ stack(id: "shared-services") { runs { id state type commit { hash } delta { addCount } } } }'

        def until(state):
            found = None
            for _ in range(300):
                found = [r for r in ask(runs, token=token)["data"]["stack"]["runs"] if r["commit"]["hash"] == commit]
                if found and found[0]["state"] == state:
                    return found[0]
                time.sleep(0.1)
            raise AssertionError(f"never {state}: {found}")

        planned = until("UNCONFIRMED")
        same((planned["type"], planned["delta"]["addCount"]), ("TRACKED", 1))
        confirm = "mutation($stack: ID!, $run: ID!) { runConfirm(stack: $stack, run: $run) { id state } }"
        which = {"stack": "shared-services", "run": planned["id"]}
        same(ask(confirm, which, token)["data"]["runConfirm"]["id"], planned["id"])
        until("FINISHED")
        again = ask(confirm, which, token)
        holds(again.get("errors"), again)
