"""GitHub Enterprise with PyGithub for the REST API, and with git itself for smart HTTP."""

import os
import re
import urllib.error
import urllib.request

import github

from check import check, contains, folder, holds, lab, run, same


def git(where, *arguments, fails=False):
    who = ("-c", "user.name=Peer", "-c", "user.email=peer@example.com", "-c", "commit.gpgsign=false")
    return run("git", *who, *arguments, cwd=where, fails=fails)


def write(where, path, text):
    path = os.path.join(where, path)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def session():
    token, api = lab("TOWPATH_LAB_GITHUB_TOKEN"), lab("TOWPATH_LAB_GITHUB")
    hub = github.Github(base_url=api, auth=github.Auth.Token(token), retry=None, per_page=2)
    here = folder()
    work, clone = os.path.join(here, "work"), os.path.join(here, "clone")
    os.mkdir(work)
    remote = f"{lab('TOWPATH_LAB_GIT')}/acme/peers.git".replace("://", f"://x-access-token:{token}@")

    with check("PyGithub: user, organisation, rate limit; a wrong token is refused"):
        me = hub.get_user().login
        organisation = hub.get_organization("acme")
        holds(hub.get_rate_limit() is not None, "no rate limit")
        stranger = github.Github(base_url=api, auth=github.Auth.Token("wrong"), retry=None)
        try:
            stranger.get_user().login
            raise AssertionError("a wrong token was let in")
        except github.BadCredentialsException:
            pass

    with check("PyGithub: create a repository, and not twice"):
        repository = organisation.create_repo("peers", private=True, auto_init=False)
        same(repository.full_name, "acme/peers")
        try:
            organisation.create_repo("peers")
            raise AssertionError("a name was given twice")
        except github.GithubException as error:
            same(error.status, 422)
        try:
            hub.get_repo("acme/none")
            raise AssertionError("an unknown repository was found")
        except github.UnknownObjectException:
            pass

    with check("git push and clone over smart HTTP, a branch, a tag, a shallow clone"):
        git(work, "init", "-q", "-b", "main")
        write(work, "README.md", "hello\n")
        write(work, "src/a b.txt", "ü\n")
        git(work, "add", "-A")
        git(work, "commit", "-q", "-m", "Begin")
        git(work, "remote", "add", "origin", remote)
        git(work, "push", "-q", "origin", "main")
        write(work, "README.md", "hello again\n")
        git(work, "commit", "-q", "-a", "-m", "Go on")
        git(work, "tag", "v1")
        git(work, "push", "-q", "origin", "main", "v1")
        git(here, "clone", "-q", remote, clone)
        same(open(os.path.join(clone, "src/a b.txt"), encoding="utf-8").read(), "ü\n")
        git(here, "clone", "-q", "--depth", "1", remote, "shallow")
        same(git(os.path.join(here, "shallow"), "rev-list", "--count", "HEAD").strip(), "1")
        contains(git(work, "ls-remote", "origin"), "refs/tags/v1")

    with check("git is refused without a token, with a wrong one, and when it would lose a commit"):
        git(here, "clone", "-q", remote.replace(f"x-access-token:{token}@", ""), "no", fails=True)
        contains(git(here, "clone", "-q", remote.replace(token, "wrong"), "no", fails=True), "Authentication failed")
        git(clone, "reset", "-q", "--hard", "HEAD~1")
        write(clone, "other.txt", "other\n")
        git(clone, "add", "-A")
        git(clone, "commit", "-q", "-m", "Elsewhere")
        contains(git(clone, "push", "origin", "main", fails=True), "rejected")

    head = git(work, "rev-parse", "HEAD").strip()
    with check("PyGithub: branches, commits in pages, comparison"):
        same(repository.get_branch("main").commit.sha, head)
        same([commit.sha for commit in repository.get_commits()][0], head)
        first = git(work, "rev-parse", "HEAD~1").strip()
        same(repository.compare(first, head).status, "ahead")
        git(work, "commit", "-q", "--allow-empty", "-m", "Third")
        git(work, "push", "-q", "origin", "main")
        same(len(list(repository.get_commits())), 3)
        head = git(work, "rev-parse", "HEAD").strip()

    with check("PyGithub: contents: read, create, update by the file's sha, refuse a stale one, delete"):
        same(repository.get_contents("README.md").decoded_content, b"hello again\n")
        same(sorted(found.path for found in repository.get_contents("")), ["README.md", "src"])
        made = repository.create_file("conf/app.toml", "Add", "a = 1\n", branch="main")["content"]
        repository.update_file("conf/app.toml", "Change", "a = 2\n", made.sha, branch="main")
        try:
            repository.update_file("conf/app.toml", "Lose", "a = 3\n", made.sha, branch="main")
            raise AssertionError("a stale sha was accepted")
        except github.GithubException as error:
            same(error.status, 409)
        now = repository.get_contents("conf/app.toml", ref="main")
        same(now.decoded_content, b"a = 2\n")
        repository.delete_file("conf/app.toml", "Remove", now.sha, branch="main")
        git(work, "pull", "-q", "origin", "main")

    with check("PyGithub: git data: a blob, a tree, a commit and a branch without a working copy"):
        parent = repository.get_git_commit(repository.get_branch("main").commit.sha)
        blob = repository.create_git_blob("data\n", "utf-8")
        element = github.InputGitTreeElement("data.txt", "100644", "blob", sha=blob.sha)
        tree = repository.create_git_tree([element], base_tree=parent.tree)
        commit = repository.create_git_commit("Data", tree, [parent])
        ref = repository.create_git_ref("refs/heads/data", commit.sha)
        same(repository.get_contents("data.txt", ref="data").decoded_content, b"data\n")
        ref.delete()

    with check("PyGithub: pull request: open, files, review, refuse a second one, merge"):
        git(work, "checkout", "-q", "-b", "feature")
        write(work, "feature.txt", "new\n")
        git(work, "add", "-A")
        git(work, "commit", "-q", "-m", "Feature")
        git(work, "push", "-q", "origin", "feature")
        pull = repository.create_pull(base="main", head="feature", title="Feature", body="Please")
        same([file.filename for file in pull.get_files()], ["feature.txt"])
        same([commit.commit.message for commit in pull.get_commits()], ["Feature"])
        try:
            repository.create_pull(base="main", head="feature", title="Again", body="")
            raise AssertionError("the same pull request was opened twice")
        except github.GithubException as error:
            same(error.status, 422)
        try:
            pull.create_review(event="APPROVE", body="mine")
            raise AssertionError("an author approved their own pull request")
        except github.GithubException as error:
            same(error.status, 422)
        review = pull.create_review(event="COMMENT", body="Read it")
        same((review.state, review.user.login), ("COMMENTED", me))
        same(len(list(pull.get_reviews())), 1)
        try:
            pull.merge(sha="0" * 40)
            raise AssertionError("merged at another head")
        except github.GithubException as error:
            same(error.status, 409)
        holds(pull.merge(merge_method="squash", sha=pull.head.sha).merged, "not merged")
        same(repository.get_pull(pull.number).merged, True)
        same([found.number for found in repository.get_pulls(state="closed")], [pull.number])
        same(repository.get_contents("feature.txt").decoded_content, b"new\n")

    with check("PyGithub: statuses, and the combined one"):
        commit = repository.get_commit(head)
        commit.create_status("pending", context="peers/build", description="Going")
        commit.create_status("success", target_url="https://ci.example/1", context="peers/build", description="Done")
        same([status.state for status in commit.get_statuses()], ["success", "pending"])
        combined = commit.get_combined_status()
        same((combined.state, combined.total_count), ("success", 1))

    with check("PyGithub: check runs: create, complete with annotations, list"):
        run_of = repository.create_check_run("peers", head, status="in_progress")
        annotation = {
            "path": "README.md", "start_line": 1, "end_line": 1, "annotation_level": "warning", "message": "Look",
        }
        output = {"title": "Peers", "summary": "One thing", "annotations": [annotation]}
        run_of.edit(status="completed", conclusion="neutral", output=output)
        found = list(repository.get_commit(head).get_check_runs())
        same([(found.name, found.conclusion) for found in found], [("peers", "neutral")])
        same([found.message for found in found[0].get_annotations()], ["Look"])

    with check("PyGithub: hooks: create, list, deliveries, delete; the secret is not shown"):
        hook = repository.create_hook(
            "web", {"url": lab("ARGOCD_SERVER") + "/api/webhook", "content_type": "json", "secret": "hidden"}, ["push"]
        )
        same([found.id for found in repository.get_hooks()], [hook.id])
        holds("hidden" not in str(repository.get_hook(hook.id).raw_data), "the secret is shown")
        hook.delete()
        same(list(repository.get_hooks()), [])

    with check("plain HTTP: pages are linked, the version is named, what has not changed is not sent again"):
        request = urllib.request.Request(f"{api}/repos/acme/peers/commits?per_page=1")
        request.add_header("Authorization", f"Bearer {token}")
        with urllib.request.urlopen(request) as answer:
            holds(re.search(r'<[^>]+page=2[^>]*>; rel="next"', answer.headers["Link"]), answer.headers["Link"])
            holds(answer.headers["X-GitHub-Enterprise-Version"], "no version")
            tag = answer.headers["ETag"]
        request.add_header("If-None-Match", tag)
        try:
            urllib.request.urlopen(request)
            raise AssertionError("sent again")
        except urllib.error.HTTPError as error:
            same(error.code, 304)
