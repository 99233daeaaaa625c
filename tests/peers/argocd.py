"""Argo CD's REST API with curl and with Python's own HTTP client: the session, an application, and the stream."""

import json
import os
import time
import urllib.error
import urllib.request

from check import check, contains, folder, holds, lab, run, same
from github_session import git, write

SERVER = lab("ARGOCD_SERVER").rstrip("/")
TOKEN = lab("ARGOCD_AUTH_TOKEN")


def ask(method, path, body=None, token=TOKEN, content_type="application/json"):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(SERVER + path, data=data, method=method)
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    if content_type and method != "GET":
        request.add_header("Content-Type", content_type)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.loads(answer.read() or b"null")
    except urllib.error.HTTPError as error:
        text = error.read().decode()
        return error.code, json.loads(text) if text.startswith("{") else text


def session():
    token = lab("TOWPATH_LAB_GITHUB_TOKEN")
    here = folder()
    base = lab("TOWPATH_LAB_GIT")

    with check("curl: version without a login, and who the caller is"):
        contains(run("curl", "-sS", "--fail", f"{SERVER}/api/version"), '"Version"')
        info = json.loads(run("curl", "-sS", "--fail", "-H", f"Authorization: Bearer {TOKEN}", f"{SERVER}/api/v1/session/userinfo"))
        same(info["loggedIn"], True)
        same(ask("GET", "/api/v1/session/userinfo", token=None)[1].get("loggedIn", False), False)

    with check("a wrong password and a wrong token are 401"):
        same(ask("POST", "/api/v1/session", {"username": "admin", "password": "wrong"}, token=None)[0], 401)
        same(ask("GET", "/api/v1/applications", token="a.b.c")[0], 401)
        same(ask("GET", "/api/v1/applications", token=None)[0], 401)

    with check("curl: what is not declared as JSON is 415, whatever it is"):
        # This is how `curl -d` declares it.
        said = run("curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "-d", "{}", f"{SERVER}/api/v1/session")
        same(said, "415")
        same(ask("POST", "/api/v1/applications", {}, content_type="application/json; charset=utf-8")[0], 415)

    with check("an unknown application is 403, as the API hides what is not there"):
        status, body = ask("GET", "/api/v1/applications/none")
        same((status, body["code"]), (403, 7))
        contains(ask("GET", "/api/v1/nothing")[1], "Not Found")

    with check("an application is created, synced to the commit and healthy"):
        same(ask_github("POST", "/orgs/acme/repos", {"name": "peers-deploy", "private": True}, token)[0], 201)
        git(here, "init", "-q", "-b", "main")
        write(here, "web/config.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: web}\ndata: {a: '1'}\n")
        git(here, "add", "-A")
        git(here, "commit", "-q", "-m", "Deploy")
        remote = f"{base}/acme/peers-deploy.git"
        git(here, "push", "-q", remote.replace("://", f"://x-access-token:{token}@"), "main")
        commit = git(here, "rev-parse", "HEAD").strip()
        app = {
            "apiVersion": "argoproj.io/v1alpha1", "kind": "Application", "metadata": {"name": "peers"},
            "spec": {
                "project": "default", "source": {"repoURL": remote, "path": "web", "targetRevision": "main"},
                "destination": {"server": "https://kubernetes.default.svc", "namespace": "peers"},
                "syncPolicy": {"syncOptions": ["CreateNamespace=true"]},
            },
        }
        status, body = ask("POST", "/api/v1/applications", app)
        same(status, 200)
        names = [found["metadata"]["name"] for found in ask("GET", "/api/v1/applications")[1]["items"]]
        holds("peers" in names, names)
        status, body = ask("POST", "/api/v1/applications/peers/sync", {"revision": commit})
        holds(status == 200, body)
        for _ in range(300):
            now = ask("GET", "/api/v1/applications/peers")[1]["status"]
            if now["sync"]["status"] == "Synced" and now["health"]["status"] == "Healthy":
                break
            time.sleep(0.1)
        same((now["sync"]["status"], now["sync"]["revision"], now["health"]["status"]), ("Synced", commit, "Healthy"))
        same(now["operationState"]["phase"], "Succeeded")

    with check("the tree and the live object say what the cluster has"):
        tree = ask("GET", "/api/v1/applications/peers/resource-tree")[1]
        holds(any(node["kind"] == "ConfigMap" and node["name"] == "web" for node in tree["nodes"]), tree)
        query = "namespace=peers&resourceName=web&version=v1&kind=ConfigMap&group="
        live = json.loads(ask("GET", f"/api/v1/applications/peers/resource?{query}")[1]["manifest"])
        same(live["data"], {"a": "1"})

    with check("the stream tells of the application in both of its forms"):
        for accept in ("application/json", "text/event-stream"):
            request = urllib.request.Request(f"{SERVER}/api/v1/stream/applications?name=peers")
            request.add_header("Authorization", f"Bearer {TOKEN}")
            request.add_header("Accept", accept)
            with urllib.request.urlopen(request, timeout=30) as answer:
                line = b""
                while not line.strip() or line.startswith(b":"):
                    line = answer.readline()
                if accept == "text/event-stream":
                    same(answer.headers["Content-Type"].split(";")[0], "text/event-stream")
                    holds(line.startswith(b"data:"), line)
                    line = line[len(b"data:"):]
                event = json.loads(line)["result"]
                same((event["type"], event["application"]["metadata"]["name"]), ("ADDED", "peers"))

    with check("a second application of that name is refused, and the first can be deleted"):
        other = json.loads(json.dumps(app))
        other["spec"]["source"]["path"] = "elsewhere"
        holds(ask("POST", "/api/v1/applications", other)[0] >= 400, "the name was given twice")
        same(ask("DELETE", "/api/v1/applications/peers?cascade=true", {})[0], 200)
        for _ in range(300):
            if ask("GET", "/api/v1/applications/peers")[0] == 403:
                break
            time.sleep(0.1)
        same(ask("GET", "/api/v1/applications/peers")[0], 403)


def ask_github(method, path, body, token):
    request = urllib.request.Request(lab("TOWPATH_LAB_GITHUB") + path, data=json.dumps(body).encode(), method=method)
    request.add_header("Authorization", f"Bearer {token}")
    request.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(request, timeout=30) as answer:
        return answer.status, json.loads(answer.read())
