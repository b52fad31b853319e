"""What the loopback Hub does with what is sent to it: new repositories, files, commits, pull requests.

As much of the protocol as `huggingface_hub` 1.0 to 2.x uses without Xet: whoami, repository creation, checks of the
card, preupload, the LFS batch and its uploads, commits in NDJSON. A commit is a new folder, so that earlier ones stay.
"""

import base64
import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unlearn_core.testing.hub_server import HubServer

USER = "tester"
Answer = tuple[int, Any]
"""HTTP status, and what is sent as JSON."""


@dataclass
class Uploads:
    """The files that clients have sent, by sha256, and the folders of their commits."""

    blobs: dict[str, bytes] = field(default_factory=dict)
    created: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Repository -> what its creation asked for."""
    messages: list[str] = field(default_factory=list)
    """Of the commits, in order."""
    pull_requests: int = 0
    _folder: tempfile.TemporaryDirectory[str] = field(default_factory=tempfile.TemporaryDirectory)

    def new_folder(self) -> Path:
        """Return a new empty folder that lives as long as the server."""
        return Path(tempfile.mkdtemp(dir=self._folder.name))

    def close(self) -> None:
        """Delete all folders."""
        self._folder.cleanup()


def answer(hub: "HubServer", method: str, path: str, body: bytes, pull_request: bool) -> Answer | None:
    """Return the answer to a request that sends something, None if it is of another sort."""
    part = path.strip("/").split("/")
    if path == "/api/whoami-v2":
        return 200, {"type": "user", "name": USER, "orgs": []}
    if method == "PUT" and part[0] == "lfs-upload":
        if hashlib.sha256(body).hexdigest() != part[1]:
            return 400, {"error": "the content is not what was announced"}
        hub.uploads.blobs[part[1]] = body
        return 200, {}
    if method != "POST":
        return None
    if path == "/api/repos/create":
        return _create(hub, json.loads(body))
    if path == "/api/validate-yaml":
        front = json.loads(body)["content"].startswith("---\n")
        return 200, {
            "errors": [],
            "warnings": [] if front else [{"message": "empty or missing yaml metadata"}],
        }
    if path.endswith(".git/info/lfs/objects/batch"):
        objects = [_instructions(hub, one) for one in json.loads(body)["objects"]]
        return 200, {"transfer": "basic", "objects": objects}
    if len(part) == 6 and part[0] == "api" and part[4] in ("preupload", "commit"):
        repo = "/".join(part[2:4]) if part[1] == "models" else "/".join(part[1:4])
        found = hub.folder(repo, part[5])
        if found is None:
            return 404, {"error": "Repository not found"}
        act: Callable[..., Answer] = _preupload if part[4] == "preupload" else _commit
        return act(hub, repo, found[1], part[5], body, pull_request)
    return None


def _create(hub: "HubServer", asked: dict[str, Any]) -> Answer:
    kind = asked.get("type", "model")
    name = f"{asked.get('organization') or USER}/{asked['name']}"
    repo = name if kind == "model" else f"{kind}s/{name}"
    if hub.folder(repo, "main"):
        return 409, {"error": "You already created this repo", "url": f"{hub.url}/{repo}"}
    hub.uploads.created[repo] = asked
    hub.publish(repo, hub.uploads.new_folder())
    return 200, {"url": f"{hub.url}/{repo}", "name": name}


def _instructions(hub: "HubServer", one: dict[str, Any]) -> dict[str, Any]:
    """Return where to send a file, or nothing where it is here already."""
    known = one["oid"] in hub.uploads.blobs
    actions = {} if known else {"actions": {"upload": {"href": f"{hub.url}/lfs-upload/{one['oid']}"}}}
    return {"oid": one["oid"], "size": one["size"], **actions}


def _preupload(hub: "HubServer", repo: str, folder: Path, branch: str, body: bytes, _: bool) -> Answer:
    from unlearn_core.testing.hub_server import digests, is_plain

    files = []
    for one in json.loads(body)["files"]:
        path = Path(one["path"])
        plain = is_plain(path)
        known = folder / path
        oid = {"oid": digests(known)[0 if plain else 1]} if known.is_file() else {}
        mode = "regular" if plain else "lfs"
        files.append({"path": one["path"], "uploadMode": mode, "shouldIgnore": False, **oid})
    return 200, {"files": files}


def _commit(
    hub: "HubServer", repo: str, folder: Path, branch: str, body: bytes, pull_request: bool
) -> Answer:
    new = hub.uploads.new_folder()
    shutil.copytree(folder, new, dirs_exist_ok=True)
    for line in body.splitlines():
        item = json.loads(line)
        value = item["value"]
        if item["key"] == "header":
            hub.uploads.messages.append(value["summary"])
            continue
        target = (new / value["path"]).resolve()
        if not target.is_relative_to(new.resolve()):
            return 400, {"error": f"{value['path']} is no path of a file"}
        if item["key"] == "deletedFile":
            target.unlink()
            continue
        if item["key"] == "lfsFile" and value["oid"] not in hub.uploads.blobs:
            return 400, {"error": f"{value['path']} was not uploaded"}
        target.parent.mkdir(parents=True, exist_ok=True)
        whole = (
            hub.uploads.blobs[value["oid"]]
            if item["key"] == "lfsFile"
            else base64.b64decode(value["content"])
        )
        target.write_bytes(whole)
    if pull_request:
        hub.uploads.pull_requests += 1
        branch = f"refs/pr/{hub.uploads.pull_requests}"
    commit = hub.publish(repo, new, branch)
    url = f"{hub.url}/{repo}"
    request = f"{url}/discussions/{hub.uploads.pull_requests}" if pull_request else None
    return 200, {
        "success": True,
        "commitOid": commit,
        "commitUrl": f"{url}/commit/{commit}",
        "pullRequestUrl": request,
    }
