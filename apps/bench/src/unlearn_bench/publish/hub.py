"""The Hub through `huggingface_hub`: one commit per push, a checked snapshot per pull, every failure in one sentence.

The token is the client's business (HF_TOKEN or `hf auth login`): it is no argument, so that it stands in no shell
history, and is struck out of every message.
"""

import contextlib
import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from unlearn_core import atomic
from unlearn_core.errors import InvalidInput, Unavailable, UnlearnError, one_of

KINDS = ("dataset", "model", "space")
SECRET = re.compile(r"\bhf_[A-Za-z0-9]{16,}")
"""What a token of the Hub looks like."""


@dataclass(frozen=True, kw_only=True)
class Pushed:
    """Where what was pushed can be seen."""

    url: str
    pull_request: str | None
    files: int


def push(
    repo: str, kind: str, files: Mapping[str, bytes | Path], message: str, *, create_pr: bool = False
) -> Pushed:
    """Send `files` (path in the repository -> content) in one commit, creating the repository if there is none.

    Files that are there already are not sent again, nor is what an interrupted push had sent.

    Raises:
        InvalidInput: a malformed id, or a file that holds a token.
        Unavailable: the Hub refuses it or cannot be reached.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    for name, content in files.items():
        _check_secrets(name, content)
    operations = [
        CommitOperationAdd(
            path_in_repo=name, path_or_fileobj=content if isinstance(content, bytes) else str(content)
        )
        for name, content in sorted(files.items())
    ]
    with _explained(repo, "push to"):
        api = HfApi()
        sdk = {"space_sdk": "static"} if kind == "space" else {}
        url = api.create_repo(repo, repo_type=kind, exist_ok=True, **sdk)
        done = api.create_commit(
            repo, operations, commit_message=message, repo_type=kind, create_pr=create_pr
        )
    return Pushed(url=str(url), pull_request=done.pr_url, files=len(operations))


def pull(repo: str, kind: str, out: Path, *, revision: str | None = None) -> tuple[list[str], str]:
    """Bring every file of a repository into the folder `out`; return their paths and the commit.

    What is there already is not fetched again.

    Raises:
        InvalidInput: a malformed id, or a file whose path leads out of `out`.
        Unavailable: no such repository, no access, no network, a folder that cannot be written.
    """
    from huggingface_hub import HfApi, snapshot_download

    if kind not in KINDS:
        raise InvalidInput(one_of("kind of repository", kind, KINDS))
    atomic.make_folder(out)
    with _explained(repo, "pull"):
        # The commit is fixed first: what is checked is what is fetched.
        info = HfApi().repo_info(repo, repo_type=kind, revision=revision)
        names = [sibling.rfilename for sibling in info.siblings or []]
        for name in names:
            check_inside(name, out, f"{repo}@{info.sha}")
        snapshot_download(repo, repo_type=kind, revision=info.sha, local_dir=out)
    return names, str(info.sha)


def check_inside(name: str, folder: Path, place: str) -> None:
    """Refuse the path of a file that leads out of `folder`.

    Raises:
        InvalidInput: it is absolute, climbs up, or goes through a link.
    """
    flavours = (PurePosixPath(name), PureWindowsPath(name))
    leaves = any(f.is_absolute() or f.drive or ".." in f.parts for f in flavours)
    if leaves or not (folder / name).resolve().is_relative_to(folder.resolve()):
        raise InvalidInput(
            f"{place}: the file {name!r} leads out of the folder {str(folder)!r}; nothing was fetched"
        )


def _check_secrets(name: str, content: bytes | Path) -> None:
    if isinstance(content, Path) and content.suffix not in (
        ".json",
        ".jsonl",
        ".md",
        ".html",
        ".csv",
        ".yaml",
    ):
        return
    data = content if isinstance(content, bytes) else content.read_bytes()
    text = data.decode(errors="replace")
    own = os.environ.get("HF_TOKEN")
    if SECRET.search(text) or (own and own in text):
        raise InvalidInput(
            f"{name!r} holds what looks like a token of the Hub; take it out before it is published"
        )


@contextlib.contextmanager
def _explained(repo: str, what: str) -> Iterator[None]:
    """Turn what the client raises into one sentence without a token in it."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError
    from huggingface_hub.utils import disable_progress_bars

    if not sys.stderr.isatty():
        disable_progress_bars()
    try:
        yield
    except UnlearnError:
        raise
    except HFValidationError as error:
        raise InvalidInput(f"--repo {repo!r}: {_first_line(error)}") from None
    except HfHubHTTPError as error:
        status = error.response.status_code
        why = {
            401: "the Hub does not accept the token, or there is none: `hf auth login`, or set HF_TOKEN",
            403: "the token may not do that: it needs the role write to push, and you access to the repository",
            404: "there is no such repository or revision, or the token may not see it",
        }.get(status, f"the Hub answers {status}: {_first_line(error)}")
        raise Unavailable(f"cannot {what} {repo!r}: {why}") from None
    except Exception as error:
        # Dropped connections, time-outs and refused ones are of a dozen types; all mean the same to the user.
        raise Unavailable(
            f"cannot {what} {repo!r}: the connection to the Hub failed ({type(error).__name__}: {_first_line(error)}); "
            "the same command goes on where it stopped"
        ) from None


def _first_line(error: Any) -> str:
    text = next(iter(str(error).strip().splitlines()), "")
    own = os.environ.get("HF_TOKEN")
    return SECRET.sub("***", text.replace(own, "***") if own else text)
