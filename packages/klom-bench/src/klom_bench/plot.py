"""The picture of a run: margins of a few forgotten images, and the KLoM of every sample."""

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from klom_bench.klom import klom
from klom_bench.scoring import simulated_floor, summary
from unlearn_core import atomic
from unlearn_core.errors import MissingExtra

if TYPE_CHECKING:
    from klom_bench.experiment import Experiment, Margins

# Okabe and Ito's palette: told apart with every kind of colour vision, and in print by lightness.
_COLOURS = {"do_nothing": "#999999", "method": "#0072B2", "oracle": "#E69F00"}
_POINTS = 4


def plot_run(
    path: Path, experiment: "Experiment", oracle: "Margins", candidates: "dict[str, Margins]"
) -> None:
    """Draw the run into the PNG `path`.

    Above, for the forgotten images that doing nothing scores worst on, the margins of the pretrain models,
    the unlearned models and the oracles; below, the distribution of KLoM over samples per split.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure  # the object interface: no display, no global state
    except ImportError:
        raise MissingExtra('pictures need matplotlib: pip install "klom-bench[plot]"') from None

    variant, method = experiment.variant, experiment.method_name
    scores = {
        (name, split): klom(oracle[split], margins[split], variant)
        for name, margins in candidates.items()
        for split in ("retain", "forget", "val")
    }
    labels = {"do_nothing": "do nothing", "oracle": "held-out oracle"}
    colours = {name: _COLOURS.get(name, _COLOURS["method"]) for name in candidates}

    figure = Figure(figsize=(11, 6.2), dpi=110, layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=[1, 1.15])
    worst = np.argsort(-np.nan_to_num(scores["do_nothing", "forget"]))[:_POINTS]
    index = experiment.dataset.forget_indices(experiment.forget_set)
    above.suptitle("Margins of forgotten images: do the unlearned models look like the oracles?", fontsize=11)
    shown = {"do_nothing": "pretrain"} | ({} if method == "do_nothing" else {method: method})
    for axis, sample in zip(np.atleast_1d(above.subplots(1, len(worst))), worst, strict=True):
        series = {label: (candidates[n]["forget"][:, sample], colours[n]) for n, label in shown.items()}
        series["oracle"] = (oracle["forget"][:, sample], _COLOURS["oracle"])
        finite = np.concatenate([v[np.isfinite(v)] for v, _ in series.values()])
        edges = np.linspace(*np.clip(np.percentile(finite, [0, 100]), -100, 100), 31)
        for label, (values, colour) in series.items():
            axis.hist(
                np.clip(values[~np.isnan(values)], -100, 100), edges, alpha=0.55, color=colour, label=label
            )
        axis.set_title(
            "\n".join(
                [
                    f"image {index[sample]}",
                    *(f"{label} {scores[n, 'forget'][sample]:.2f}" for n, label in shown.items()),
                ]
            ),
            fontsize=8,
        )
        axis.set_xlabel("margin", fontsize=8)
        axis.tick_params(labelsize=8)
    above.axes[0].set_ylabel("models", fontsize=8)
    above.axes[0].legend(fontsize=8, frameon=False)

    below.suptitle(
        f"KLoM ({variant}) over samples; dotted: floor (P95), what a perfect method scores", fontsize=11
    )
    for axis, split in zip(below.subplots(1, 3, sharey=True), ("retain", "forget", "val"), strict=True):
        if "oracle" in candidates:
            floor = summary(scores["oracle", split])[1]
        else:
            floor = simulated_floor(*oracle[split].shape, variant)[1]
        axis.axvline(floor, color="black", linestyle=":", linewidth=1)
        for name in candidates:
            values = np.sort(scores[name, split][~np.isnan(scores[name, split])])
            share = np.arange(1, len(values) + 1) / max(len(values), 1)
            axis.step(
                values, share, where="post", color=colours[name], label=labels.get(name, name), linewidth=1.8
            )
        axis.axhline(0.95, color="black", linewidth=0.5, alpha=0.4)
        axis.set_title(f"{split} ({oracle[split].shape[1]:,} samples)", fontsize=9)
        axis.set_xlabel("KLoM", fontsize=8)
        axis.set_xlim(-0.2, 12)
        axis.tick_params(labelsize=8)
    below.axes[0].set_ylabel("share of samples at most", fontsize=8)
    below.axes[1].legend(fontsize=8, frameon=False, loc="lower right")

    image = io.BytesIO()
    figure.savefig(image, format="png", metadata={"Software": None})
    with atomic.replacing(path) as file:
        file.write(image.getvalue())
