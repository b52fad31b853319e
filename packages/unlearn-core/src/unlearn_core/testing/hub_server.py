"""A Hugging Face Hub on the loopback device: serves folders to `huggingface_hub`, and fails on request.

    with HubServer({"datasets/easydub/EasyDUB-dataset": folder}) as hub:
        for name, value in hub.constants.items():    # in a new process, HF_ENDPOINT=hub.url does it
            monkeypatch.setattr(name, value)
        ...
        assert hub.files() == ["margins/a.npy"]

It speaks as much of the protocol as `huggingface_hub` 1.0 to 2.x uses for downloads: repository info at a
revision, the file tree (paged), paths-info, HEAD and GET of a file with ETag, commit, size and Range, errors
with X-Error-Code; what clients send to it is in `hub_uploads`. It never announces Xet storage, so clients take
the plain HTTP path.
"""

import hashlib
import json
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar
from urllib.parse import parse_qs, unquote, urlencode, urlsplit

from unlearn_core.testing import hub_uploads

PAGE = 1000  # entries of a tree per answer, as on the Hub
_ERROR_CODES = {401: "RepoNotFound", 403: "GatedRepo", 404: "EntryNotFound"}
_PLAIN = {".md", ".json", ".txt", ".csv", ".gitattributes"}  # kept in git; everything else counts as LFS


class HubServer:
    """A Hub that holds `repos`: "datasets/owner/name", "spaces/owner/name" or "owner/name" -> folder.

    Attributes:
        url: what HF_ENDPOINT should be.
        constants: the values to give to names in a `huggingface_hub` that is imported already.
        requests: (method, path with query) of every request, in order of arrival.
        uploads: what clients have sent.
    """

    def __init__(self, repos: Mapping[str, Path], *, page: int = PAGE):
        self.page = page
        self.requests: list[tuple[str, str]] = []
        self.uploads = hub_uploads.Uploads()
        self._commits: dict[str, dict[str, Path]] = {}  # repository -> commit -> folder
        self._refs: dict[str, dict[str, str]] = {}  # repository -> branch or tag -> commit
        self._statuses: dict[str, tuple[int, str]] = {}
        self._truncated: dict[str, int] = {}
        self._dropped: dict[str, int] = {}
        self._hang_ups: dict[str, int] = {}
        self._token: str | None = None
        self._lock = threading.Lock()
        for repo, folder in repos.items():
            self.publish(repo, folder)
        self._server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self.constants = {
            "huggingface_hub.constants.ENDPOINT": self.url,
            "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE": (
                self.url + "/{repo_id}/resolve/{revision}/{filename}"
            ),
            "huggingface_hub.constants.HF_HUB_DISABLE_XET": True,  # whose servers are elsewhere
        }

    def __enter__(self) -> "HubServer":
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self.uploads.close()

    def publish(self, repo: str, folder: Path, branch: str = "main") -> str:
        """Make `folder` the head of `branch` and return its commit; earlier commits stay available."""
        digest = hashlib.sha1(repo.encode())
        for path in _files(folder):
            digest.update(f"{path} {digests(folder / path)[1]}\n".encode())
        commit = digest.hexdigest()
        self._commits.setdefault(repo, {})[commit] = folder
        self._refs.setdefault(repo, {})[branch] = commit
        return commit

    def files(self) -> list[str]:
        """Return the files whose content was asked for, sorted, each as often as it was."""
        gets = [urlsplit(target).path for method, target in self.requests if method == "GET"]
        return sorted(unquote(p.split("/resolve/")[1].partition("/")[2]) for p in gets if "/resolve/" in p)

    def fail(self, path: str, *, status: int, code: str | None = None) -> None:
        """Answer requests whose path ends in `path` with `status` and X-Error-Code `code`."""
        self._statuses[path] = (status, code or _ERROR_CODES.get(status, ""))

    def truncate(self, path: str, size: int) -> None:
        """Send only the first `size` bytes of `path`, as if they were all, though HEAD announces the rest."""
        self._truncated[path] = size

    def drop_after(self, path: str, size: int) -> None:
        """Close the connection once after `size` bytes of `path`; a later request gets everything."""
        self._dropped[path] = size

    def hang_up(self, path: str, times: int = 1) -> None:
        """Close the connection without an answer to the next `times` requests with `path` in theirs."""
        self._hang_ups[path] = times

    def require_token(self, token: str) -> None:
        """Refuse (401) whoever does not send `token`."""
        self._token = token

    def mend(self) -> None:
        """Forget all faults, and the token."""
        for faults in (self._statuses, self._truncated, self._dropped, self._hang_ups):
            faults.clear()
        self._token = None

    def folder(self, repo: str, revision: str) -> tuple[str, Path] | None:
        """Return (commit, folder) of a branch, tag or commit, None where there is none."""
        commit = self._refs.get(repo, {}).get(revision, revision)
        folder = self._commits.get(repo, {}).get(commit)
        return (commit, folder) if folder else None

    def _fault(self, path: str, token: str | None) -> tuple[int, str] | None:
        signed = path.startswith("/lfs-upload/")  # such addresses are handed out, and ask for no token
        if self._token and not signed and token != f"Bearer {self._token}":
            return 401, "GatedRepo"
        return next((fault for end, fault in self._statuses.items() if path.endswith(end)), None)

    def _hangs_up(self, path: str) -> bool:
        with self._lock:
            for part in [part for part, times in self._hang_ups.items() if part in path and times]:
                self._hang_ups[part] -= 1
                return True
        return False

    def _limit(self, path: str, length: int) -> tuple[int, bool]:
        """Return how many of `length` bytes to send, and whether to hang up before the announced end."""
        with self._lock:
            for end in [end for end in self._dropped if path.endswith(end)]:
                return min(self._dropped.pop(end), length), True
        short = [size for end, size in self._truncated.items() if path.endswith(end)]
        return min([length, *short]), False


class _Server(ThreadingHTTPServer):
    request_queue_size = 64  # the default of 5 resets connections of parallel downloads


class _Handler(BaseHTTPRequestHandler):
    hub: ClassVar[HubServer]
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # headers and body in few packets

    def do_GET(self) -> None:
        self._answer(b"")

    def do_HEAD(self) -> None:
        self._answer(b"")

    def do_POST(self) -> None:
        self._answer(self.rfile.read(int(self.headers.get("Content-Length", 0))))

    def do_PUT(self) -> None:
        self.do_POST()

    def _answer(self, body: bytes) -> None:
        self.hub.requests.append((self.command, self.path))
        target = urlsplit(self.path)
        path, query = target.path, parse_qs(target.query)
        fault = self.hub._fault(unquote(path), self.headers.get("Authorization"))
        if fault:
            return self._error(*fault)
        if self.hub._hangs_up(unquote(path)):
            self.close_connection = True
            return
        pull_request = query.get("create_pr") == ["1"]
        if sent := hub_uploads.answer(self.hub, self.command, unquote(path), body, pull_request):
            return self._json(sent[1], status=sent[0])
        part = path.strip("/").split("/")
        if part[0] == "api":
            kind, name, rest = part[1], "/".join(part[2:4]), part[4:]
            repo = name if kind == "models" else f"{kind}/{name}"
            action = rest[0] if rest else "revision"
            revision = unquote(rest[1]) if len(rest) > 1 else "main"
            inside = unquote("/".join(rest[2:]))
        elif "resolve" in part:
            at = part.index("resolve")
            repo, action, revision = "/".join(part[:at]), "resolve", unquote(part[at + 1])
            inside = unquote("/".join(part[at + 2 :]))
        else:
            return self._error(404, "")
        found = self.hub.folder(repo, revision)
        if found is None:
            return self._error(404, "RevisionNotFound" if repo in self.hub._refs else "RepoNotFound")
        commit, folder = found
        if action == "revision":
            self._json(_info(repo, commit, folder))
        elif action == "tree":
            deep = query.get("recursive", [""])[0].lower() == "true"
            self._tree(_entries(folder, inside, deep), path, query)
        elif action == "paths-info":
            wanted = parse_qs(body.decode()).get("paths", [])
            self._json([_entry(folder, p) for p in wanted if _inside(folder, p)])
        elif action == "resolve":
            self._file(folder, inside, commit)
        else:
            self._error(404, "")

    def _tree(self, entries: list[dict[str, Any]], path: str, query: dict[str, list[str]]) -> None:
        start = int(query.get("cursor", ["0"])[0])
        end = start + self.hub.page
        headers = {}
        if end < len(entries):
            more = urlencode({k: v[0] for k, v in query.items()} | {"cursor": end})
            headers["Link"] = f'<{self.hub.url}{path}?{more}>; rel="next"'
        self._json(entries[start:end], headers)

    def _file(self, folder: Path, path: str, commit: str) -> None:
        file = _inside(folder, path)
        if file is None:
            return self._error(404, "EntryNotFound", commit)
        content = file.read_bytes()
        etag = digests(file)[0 if is_plain(file) else 1]
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        if not is_plain(file):
            headers |= {"X-Linked-Etag": f'"{etag}"', "X-Linked-Size": str(len(content))}
        if self.command == "HEAD":
            return self._send(200, headers, b"", length=len(content))
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        size, hang_up = self.hub._limit(self.path, len(content) - start)
        length = len(content) - start if hang_up else size
        self._send(206 if start else 200, headers, content[start : start + size], length=length)
        self.close_connection = self.close_connection or hang_up

    def _json(self, value: Any, headers: Mapping[str, str] | None = None, status: int = 200) -> None:
        self._send(
            status, {"Content-Type": "application/json", **(headers or {})}, json.dumps(value).encode()
        )

    def _error(self, status: int, code: str, commit: str | None = None) -> None:
        headers = {"X-Error-Code": code} if code else {}
        self._send(status, headers | ({"X-Repo-Commit": commit} if commit else {}), b"")

    def _send(
        self, status: int, headers: Mapping[str, str], body: bytes, *, length: int | None = None
    ) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing on stderr; `HubServer.requests` is the log."""


def _files(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def _inside(folder: Path, path: str) -> Path | None:
    """Return the file `path` of `folder`, None if there is none or it lies outside."""
    file = (folder / path).resolve()
    return file if file.is_file() and file.is_relative_to(folder.resolve()) else None


def is_plain(file: Path) -> bool:
    """Return whether the Hub keeps a file in git itself."""
    return (file.suffix or file.name) in _PLAIN


def digests(file: Path) -> tuple[str, str]:
    """Return the git blob id and the sha256 of a file."""
    content = file.read_bytes()
    blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    return blob, hashlib.sha256(content).hexdigest()


def _info(repo: str, commit: str, folder: Path) -> dict[str, Any]:
    name = "/".join(repo.split("/")[-2:])
    siblings = [{"rfilename": p} for p in _files(folder)]
    return {"id": name, "sha": commit, "private": False, "gated": False, "siblings": siblings}


def _entry(folder: Path, path: str) -> dict[str, Any]:
    file = folder / path
    blob, sha256 = digests(file)
    size = file.stat().st_size
    entry: dict[str, Any] = {"type": "file", "oid": blob, "size": size, "path": path}
    if not is_plain(file):
        entry["lfs"] = {"oid": sha256, "size": size, "pointerSize": 130}
    return entry


def _entries(folder: Path, inside: str, recursive: bool) -> list[dict[str, Any]]:
    """Return the files (and, unless `recursive`, the folders) below `inside` as the Hub lists them."""
    found: list[dict[str, Any]] = []
    for path in _files(folder / inside):
        head, _, deeper = path.partition("/")
        full = f"{inside}/{path}" if inside else path
        if recursive or not deeper:
            found.append(_entry(folder, full))
        elif (child := f"{inside}/{head}" if inside else head) not in {e["path"] for e in found}:
            found.append({"type": "directory", "oid": "0" * 40, "size": 0, "path": child})
    return found
