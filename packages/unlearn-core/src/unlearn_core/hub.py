"""Tables of Hugging Face data sets, written ``owner/name[@revision][:file]``."""

import re
from pathlib import Path

from unlearn_core.errors import InvalidInput, Unavailable
from unlearn_core.tables import SUFFIXES, only_table, optional

_ID = re.compile(r"(?P<repo>[A-Za-z0-9][\w.-]*/[\w.-]+?)(?:@(?P<revision>[^:@]+))?(?::(?P<file>.+))?")


def is_hub_id(source: str) -> bool:
    """Return whether `source` is written like a data set of the Hub and not like the path of a table."""
    match = _ID.fullmatch(source)
    return match is not None and (match["file"] is not None or not source.lower().endswith(SUFFIXES))


def fetch(source: str) -> tuple[Path, str]:
    """Return the local copy of the table `source` and the commit it belongs to, downloading it if need be.

    With no file named, the data set must hold exactly one table. A file that was fetched before is found
    without a network.

    Raises:
        MissingExtra: huggingface_hub is not installed.
        Unavailable: no such data set, revision or file, no access, no network.
        InvalidInput: several tables and none named.
    """
    match = _ID.fullmatch(source)
    if match is None:
        raise InvalidInput(f"{source!r} is no Hub data set; write owner/name, owner/name@revision or …:file")
    hub = optional("huggingface_hub", "hub")
    repo, revision, file = match["repo"], match["revision"], match["file"]
    try:
        if file is None:
            file = only_table(repo, hub.HfApi().list_repo_files(repo, revision=revision, repo_type="dataset"))
        path = Path(hub.hf_hub_download(repo, file, repo_type="dataset", revision=revision))
    except InvalidInput:
        raise
    except Exception as error:
        # The client raises a dozen unrelated types (HTTP, offline, gated, …); none is a defect of ours.
        reason = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
        raise Unavailable(f"cannot fetch {source!r} from the Hugging Face Hub: {reason}") from error
    commit = re.search(r"/snapshots/([0-9a-f]{40})/", path.as_posix())
    return path, commit[1] if commit else revision or ""
