"""The picture: it is drawn for every run there can be, and shows what its labels say."""

import struct
import sys

import numpy as np
import pytest
from matplotlib.figure import Figure

from klom_bench.experiment import Experiment
from klom_bench.klom import klom
from klom_bench.methods.do_nothing import DoNothing
from klom_bench.methods.scrub import Scrub
from klom_bench.plot import plot_run
from unlearn_core.errors import MissingExtra

SHAPES = {"retain": (30, 40), "forget": (30, 10), "val": (30, 20)}


def margins(seed, shift=0.0):
    rng = np.random.default_rng(seed)
    return {k: rng.normal(5 + shift, 2, shape).astype(np.float32) for k, shape in SHAPES.items()}


@pytest.fixture
def chosen(quick_digits):
    return Experiment(dataset=quick_digits, method=Scrub(), method_name="scrub", n_models=30)


@pytest.fixture
def figures(monkeypatch):
    """Return the figures that are saved, as they are saved; at a low resolution, for speed."""
    seen, save = [], Figure.savefig

    def savefig(self, *arguments, **options):
        seen.append(self)
        return save(self, *arguments, **{**options, "dpi": 20})

    monkeypatch.setattr(Figure, "savefig", savefig)
    return seen


def panels(figure):
    axes = figure.get_axes()
    return axes[:-3], axes[-3:]


def test_the_picture_shows_the_run(chosen, tmp_path, figures):
    oracle = margins(0)
    candidates = {"do_nothing": margins(1, 3), "scrub": margins(2, 1), "oracle": margins(3)}
    plot_run(tmp_path / "new" / "klom.png", chosen, oracle, candidates)
    png = (tmp_path / "new" / "klom.png").read_bytes()
    assert png[:8] == b"\x89PNG\r\n\x1a\n" and struct.unpack(">II", png[16:24]) > (200, 100)

    above, below = panels(figures[0])
    scores = klom(oracle["forget"], candidates["do_nothing"]["forget"])
    worst = np.argsort(-scores)[:4]
    assert len(above) == 4
    for axis, sample in zip(above, worst, strict=True):
        title = axis.get_title()
        assert f"image {chosen.dataset.forget_indices(1)[sample]}" in title
        assert f"pretrain {scores[sample]:.2f}" in title
        assert f"scrub {klom(oracle['forget'], candidates['scrub']['forget'])[sample]:.2f}" in title
        assert (
            sum(p.get_height() for p in axis.patches) == 3 * 30
        )  # every model of three ensembles is counted
    assert [t.get_text() for t in above[0].get_legend().get_texts()] == ["pretrain", "scrub", "oracle"]

    for axis, split in zip(below, ("retain", "forget", "val"), strict=True):
        assert axis.get_title() == f"{split} ({SHAPES[split][1]} samples)"
        floor, *curves, _ = axis.get_lines()
        held_out = klom(oracle[split], candidates["oracle"][split])
        assert floor.get_xdata()[0] == pytest.approx(np.percentile(held_out, 95))
        for curve, (name, values) in zip(curves, candidates.items(), strict=True):
            label = {"do_nothing": "do nothing", "oracle": "held-out oracle"}.get(name, name)
            assert curve.get_label() == label
            np.testing.assert_allclose(curve.get_xdata(), np.sort(klom(oracle[split], values[split])))
            assert curve.get_ydata()[-1] == 1


def test_doing_nothing_alone_and_without_held_out_oracles(quick_digits, tmp_path, figures):
    chosen = Experiment(dataset=quick_digits, method=DoNothing(), method_name="do_nothing", n_models=30)
    plot_run(tmp_path / "klom.png", chosen, margins(0), {"do_nothing": margins(1)})
    above, below = panels(figures[0])
    assert [t.get_text() for t in above[0].get_legend().get_texts()] == ["pretrain", "oracle"]
    assert 0 < below[0].get_lines()[0].get_xdata()[0] < 12  # simulated


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("variant", "odd"),
    [("easydub", np.nan), ("easydub", np.inf), ("easydub", 5.0), ("data-unlearning-bench", np.nan)],
)
def test_odd_margins_do_not_stop_it(quick_digits, tmp_path, odd, variant, figures):
    chosen = Experiment(
        dataset=quick_digits, method=Scrub(), method_name="scrub", n_models=30, variant=variant
    )
    broken = {k: np.full_like(v, odd) for k, v in margins(1).items()}
    plot_run(tmp_path / "klom.png", chosen, margins(0), {"do_nothing": margins(2), "scrub": broken})
    plot_run(tmp_path / "klom.png", chosen, broken, {"do_nothing": margins(1), "scrub": broken})
    assert (tmp_path / "klom.png").stat().st_size > 1000


def test_few_forgotten_samples_and_a_floor_of_zero(chosen, tmp_path, figures):
    few = {k: {s: v[:, :2] for s, v in margins(i).items()} for i, k in enumerate(("do_nothing", "scrub"))}
    oracle = {s: v[:, :2] for s, v in margins(5).items()}
    plot_run(tmp_path / "klom.png", chosen, oracle, {**few, "oracle": oracle})  # held-out equal: KLoM 0
    above, below = panels(figures[0])
    assert len(above) == 2
    assert below[0].get_lines()[0].get_xdata()[0] == 0


def test_it_draws_the_same_bytes_twice(chosen, tmp_path):
    for name in ("a.png", "b.png"):
        plot_run(tmp_path / name, chosen, margins(0), {"do_nothing": margins(1), "scrub": margins(2)})
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_without_matplotlib_the_message_says_how_to_get_it(chosen, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtra, match=r'pip install "klom-bench\[plot\]"'):
        plot_run(tmp_path / "klom.png", chosen, margins(0), {"do_nothing": margins(1)})
