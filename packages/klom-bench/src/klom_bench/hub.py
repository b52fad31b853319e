"""Fetch exactly the files that are needed from a data set on the Hugging Face Hub.

`huggingface_hub` does the transport: it keeps whole files only (an interrupted transfer resumes or starts
again), checks their size, and respects HF_ENDPOINT, HF_HUB_OFFLINE, HF_TOKEN and HF_HUB_CACHE. Here are one
commit for a whole run, many files at a time, and one message per failure.
"""

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from urllib.parse import quote

from unlearn_core.atomic import write_text
from unlearn_core.errors import Unavailable

WORKERS = 8  # huggingface_hub's own default; the Hub limits anonymous clients to some 10 requests a second
ATTEMPTS = 3  # to get a file whose transfer breaks off
TIMEOUT = 15.0  # seconds to find out whether there is a connection at all
INSTEAD = "give a local copy with --data-dir, or use --dataset digits"

Progress = Callable[[int, int], None]


def resolve(repo: str, revision: str, notes: Path) -> str:
    """Return the commit that `revision` of the data set `repo` stands for now: one request.

    The answer is written below the folder `notes`, where it serves when there is no connection.

    Raises:
        Unavailable: no connection and never resolved before, no such revision, or no access.
    """
    if _COMMIT.fullmatch(revision):
        return revision
    from huggingface_hub import HfApi

    try:
        commit = HfApi().dataset_info(repo, revision=revision, expand=["sha"], timeout=TIMEOUT).sha
        assert commit is not None
    except Exception as error:  # the transport's exceptions differ between versions (requests, httpx, httpx2)
        known = resolved_before(repo, revision, notes)
        if known and _unreachable(error):
            return known
        raise Unavailable(_message(error, repo, f"revision {revision!r}")) from error
    if commit != resolved_before(repo, revision, notes):
        write_text(_note(repo, revision, notes), commit)
    return commit


def resolved_before(repo: str, revision: str, notes: Path) -> str | None:
    """Return the last known commit of `revision`, without the network; None if it was never resolved."""
    if _COMMIT.fullmatch(revision):
        return revision
    ref = snapshot(repo, "").parent / "refs" / revision  # written by other users of huggingface_hub
    for path in (_note(repo, revision, notes), ref):
        if path.is_file() and _COMMIT.fullmatch(commit := path.read_text().strip()):
            return commit
    return None


def snapshot(repo: str, commit: str) -> Path:
    """Return the folder in which huggingface_hub keeps the files of `commit`; it need not exist."""
    from huggingface_hub import constants

    name = f"datasets--{repo.replace('/', '--')}"
    return Path(constants.HF_HUB_CACHE).expanduser() / name / "snapshots" / commit


def download(
    repo: str,
    commit: str,
    paths: Sequence[str],
    *,
    progress: Progress | None = None,
    skip_absent: bool = False,
) -> list[Path]:
    """Return local files with the content of `paths` at `commit`, in their order; fetch what is not there.

    Args:
        repo: owner/name of a data set.
        commit: 40 hexadecimal digits.
        paths: files inside the repository.
        progress: called with (files done, files to fetch), not at all when nothing has to be fetched.
        skip_absent: leave out files that the repository does not have.

    Raises:
        Unavailable: a file could not be fetched; those that were stay and are not fetched again.
    """
    folder = snapshot(repo, commit)
    absent = [p for p in paths if not (folder / p).is_file()]
    if absent:
        _fetch(repo, commit, absent, progress, skip_absent)
    return [folder / p for p in paths if not skip_absent or (folder / p).is_file()]


def _fetch(repo: str, commit: str, paths: list[str], progress: Progress | None, skip_absent: bool) -> None:
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    with _quiet(), ThreadPoolExecutor(WORKERS) as pool:
        tasks = {pool.submit(_fetch_one, repo, commit, path): path for path in paths}
        try:
            for done, task in enumerate(as_completed(tasks), 1):
                try:
                    task.result()
                except Exception as error:
                    # "Local entry not found" means no connection, yet derives from "entry not found".
                    local = isinstance(error, LocalEntryNotFoundError)
                    if local or not (skip_absent and isinstance(error, EntryNotFoundError)):
                        raise Unavailable(_message(error, repo, f"{tasks[task]} at {commit[:8]}")) from error
                if progress:
                    progress(done, len(paths))
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _fetch_one(repo: str, commit: str, path: str) -> None:
    from huggingface_hub import hf_hub_download

    for attempt in range(1, ATTEMPTS + 1):
        try:
            hf_hub_download(repo, path, repo_type="dataset", revision=commit)
            return
        except Exception as error:
            # When a connection breaks, clients before 2.0 keep the part they got but do not go on with it.
            if attempt == ATTEMPTS or not _unreachable(error):
                raise


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Switch off huggingface_hub's progress bar per file: hundreds of small files, and we report progress."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    names = ["huggingface_hub.http_get", "huggingface_hub.xet_get"]
    names = [name for name in names if not are_progress_bars_disabled(name)]
    for name in names:
        disable_progress_bars(name)
    try:
        yield
    finally:
        for name in names:
            enable_progress_bars(name)


def _message(error: BaseException, repo: str, what: str) -> str:
    """Return one sentence on why `what` (a file, a revision) of `repo` could not be had, and what to do."""
    from huggingface_hub import constants, errors

    wanted = f"{what} of the data set {repo}"
    if isinstance(error, errors.LocalEntryNotFoundError) and error.__cause__:
        return _message(error.__cause__, repo, what)  # the wrapper knows only that there was some trouble
    if isinstance(error, errors.OfflineModeIsEnabled):
        return f"{wanted} is not downloaded and HF_HUB_OFFLINE is set; unset it, {INSTEAD}"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"no such revision: {wanted}; give a branch, tag or commit that it has"
    if isinstance(error, errors.EntryNotFoundError):
        return f"the data set {repo} has no file {what}"
    if isinstance(error, errors.HfHubHTTPError):
        status = error.response.status_code
        if status in (401, 403) or isinstance(error, errors.RepositoryNotFoundError):
            return (
                f"{constants.ENDPOINT} refuses {wanted} ({status}); if it is private or gated, accept its "
                f"terms at {constants.ENDPOINT}/datasets/{repo} and set HF_TOKEN to a token that may read it"
            )
        return f"{constants.ENDPOINT} answered {status} for {wanted}; try again later, {INSTEAD}"
    if _unreachable(error):
        return f"no connection to {constants.ENDPOINT} for {wanted} ({type(error).__name__}); {INSTEAD}"
    if "Consistency check failed" in str(error):
        return f"{wanted} arrived truncated and was thrown away; run the command again"
    return f"cannot download {wanted}: {type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


def _unreachable(error: BaseException) -> bool:
    """Tell whether `error` means that no working server answered, offline mode included."""
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    if isinstance(error, LocalEntryNotFoundError):
        return False  # the client has tried again and again, and gave up
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code >= 500
    transport = {cls.__module__.partition(".")[0] for cls in type(error).__mro__}
    return isinstance(error, ConnectionError | TimeoutError) or bool(
        transport & {"httpx", "httpx2", "requests", "urllib3"}
    )


def _note(repo: str, revision: str, notes: Path) -> Path:
    return notes / repo.replace("/", "--") / quote(revision, safe="")


_COMMIT = re.compile("[0-9a-f]{40}")
