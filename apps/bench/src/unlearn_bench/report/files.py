"""What lies beside a record: pictures and plots, looked for in one folder and nowhere else."""

from pathlib import Path

from unlearn_bench.leaderboard.records import Run
from unlearn_core.errors import InvalidInput
from unlearn_core.samples import SampleSet


def root_of(folder: Path) -> Path:
    """Return the folder that holds all files of the runs below `folder`: the pictures of one run lie beside it."""
    return folder.parent if (folder / "record.json").is_file() else folder


def file_of(run: Run, role: str, root: Path) -> Path | None:
    """Return the path that a record gives to `role`, None where it names none.

    Raises:
        InvalidInput: it leads out of `root`.
    """
    name = run.record.files.get(role)
    if name is None:
        return None
    path = (run.path.parent / name).resolve()
    if not path.is_relative_to(root.resolve()):
        raise InvalidInput(f"{str(run.path)!r}: its {role}, {name!r}, leads out of {str(root)!r}")
    return path


def samples_of(run: Run, role: str, root: Path) -> SampleSet | None:
    """Return the pictures in the folder that a record gives to `role`, None where there are none.

    Raises:
        InvalidInput: the folder lies outside `root`, or is no set of samples.
    """
    folder = file_of(run, role, root)
    if folder is None or not folder.is_dir():
        return None
    samples = SampleSet(folder)
    return samples if len(samples) else None
