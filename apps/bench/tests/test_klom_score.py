"""`bench klom score`: any two margin matrices, the numbers of `klom_bench`."""

import numpy as np
import pytest
import torch

from klom_bench.klom import VARIANTS, klom
from klom_bench.scoring import score


@pytest.fixture(scope="module")
def matrices():
    rng = np.random.default_rng(0)
    oracle, unlearned, held_out = rng.normal(8, 2, (3, 20, 30)).astype(np.float32)
    return {"oracle": oracle, "unlearned": unlearned + 1, "held_out": held_out}


@pytest.fixture
def files(matrices, tmp_path):
    """Return a function that writes the matrices as files of one kind and gives their paths."""

    def write(kind):
        paths = []
        for name, matrix in matrices.items():
            path = tmp_path / f"{name}{kind}"
            if kind == ".npy":
                np.save(path, matrix)
            elif kind == ".npz":
                np.savez_compressed(path, margins=matrix)
            else:
                torch.save(torch.from_numpy(matrix), path)
            paths.append(path)
        return paths

    return write


@pytest.mark.parametrize("kind", [".npy", ".npz", ".pt"])
def test_equals_the_package(matrices, files, json_of, kind):
    oracle, unlearned, _ = files(kind)
    document = json_of("klom", "score", oracle, unlearned)
    expected = score(matrices["oracle"], matrices["unlearned"])
    assert document["variant"] == "easydub" and document["score"] == expected.to_mapping()
    values = klom(matrices["oracle"], matrices["unlearned"])
    assert document["score"]["mean"] == pytest.approx(values.mean(), abs=1e-12)
    assert document["score"]["p95"] == pytest.approx(np.percentile(values, 95), abs=1e-12)
    assert any("use 80 or more" in warning for warning in document["warnings"])


@pytest.mark.parametrize("variant", VARIANTS)
def test_variants(matrices, files, json_of, variant):
    oracle, unlearned, _ = files(".npy")
    document = json_of("klom", "score", oracle, unlearned, "--variant", variant)
    assert document["variant"] == variant
    assert document["score"] == score(matrices["oracle"], matrices["unlearned"], variant).to_mapping()


def test_held_out_oracles_give_the_floor(matrices, files, json_of):
    oracle, unlearned, held_out = files(".npy")
    found = json_of("klom", "score", oracle, unlearned, "--held-out", held_out)["score"]
    assert found == score(**{k: matrices[k] for k in ("oracle", "unlearned", "held_out")}).to_mapping()
    assert found["floor_from"] == "held-out oracles"


def test_kinds_and_dtypes_mix(matrices, files, json_of, tmp_path):
    oracle, unlearned = files(".npz")[0], tmp_path / "bf16.pt"
    torch.save(torch.from_numpy(matrices["unlearned"]).bfloat16(), unlearned)
    found = json_of("klom", "score", oracle, unlearned)["score"]
    rounded = torch.from_numpy(matrices["unlearned"]).bfloat16().float()
    assert found == score(matrices["oracle"], rounded).to_mapping()


def test_table(files, bench):
    result = bench("klom", "score", *files(".npy")[:2])
    assert (result.code, result.err) == (0, "")
    assert "KLoM (easydub), 20 models, 30 samples, lower is better" in result.out
    assert "clipped margins: 0.00%" in result.out and "note: with 20 models" in result.out
    assert all(len(line) <= 80 for line in result.out.splitlines() if not line.startswith("note"))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf, 0.0, 1e30])
@pytest.mark.parametrize("rows", [slice(1), slice(None)])
def test_odd_margins_are_scored_or_refused_in_words(matrices, bench, tmp_path, variant, odd, rows):
    unlearned = matrices["unlearned"].copy()
    unlearned[rows] = odd
    for name, matrix in {"a": matrices["oracle"], "b": unlearned}.items():
        np.save(tmp_path / f"{name}.npy", matrix)
    for more in ([], ["--json"]):
        result = bench("klom", "score", tmp_path / "a.npy", tmp_path / "b.npy", "--variant", variant, *more)
        refused = variant == "robust" and not np.isfinite(odd)
        assert result.code == (2 if refused else 0), result
        assert (
            result.err.startswith("error: unlearned margin of model 0, sample 0 is")
            if refused
            else not result.err
        )
