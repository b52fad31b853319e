"""Pictures of scores: what each request did to every concept, and the five components beside the unmodified model."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from genmu_eval.table import AXES
from unlearn_core import atomic

# Okabe and Ito's palette: told apart with every kind of colour vision, and in print by lightness.
OWN, IDENTITY = "#0072B2", "#999999"
PAGE, BARS = 12.7, 1.7
"""Width of a figure in a report, and of the bars beside a matrix, in inches."""
MOST_LARGE = 6
"""Concepts up to which a matrix has large cells."""
SHORT = 10
"""Letters of a name that fits below a large cell."""
LABELS = {"fgt": "forgotten", "ret": "retained", "adj": "adjacent", "ind": "indirect", "adv": "adversarial"}


def heat_map(path: Path, runs: Sequence[Mapping[str, Any]], title: str) -> None:
    """Draw step x concept into the PNG `path`, a panel for each order, with ERR after each request.

    As many panels stand in a line as a page takes without shrinking them.

    Args:
        path: of the picture.
        runs: what `continual.Continual.document` returns, for each order.
        title: what stands above.
    """
    from matplotlib.figure import Figure

    n = len(runs[0]["order"])
    cell = 0.7 if n <= MOST_LARGE else 0.5
    beside = max(1, min(len(runs), int((PAGE - 1.2) / (cell * n + BARS))))
    lines = -(-len(runs) // beside)
    size = (max(9.0, 1.2 + beside * (cell * n + BARS)), 1.5 + lines * (1.1 + max(0.32, cell * 0.6) * (n + 1)))
    figure = Figure(figsize=size, dpi=100, layout="constrained")
    figure.suptitle(title, fontsize=11)
    axes = figure.subplots(lines, 2 * beside, width_ratios=[cell * n, BARS - 0.5] * beside, squeeze=False)
    panels = axes.reshape(-1, 2)
    for number, (run, (left, right)) in enumerate(zip(runs, panels, strict=False)):
        shown = _matrix(left, run, number)
        _errs(right, run)
    for spare in panels[len(runs) :].flat:
        spare.set_visible(False)
    figure.colorbar(
        shown, ax=list(axes.flat), location="bottom", shrink=0.4, aspect=40, pad=0.3 / size[1],
        label="share of direct-prompt pictures that show the concept; a frame marks its request",
    )  # fmt: skip
    _save(figure, path)


def _matrix(axis: Any, run: Mapping[str, Any], number: int) -> Any:
    from matplotlib.patches import Rectangle

    order, rows = run["order"], run["detection"]
    if run["base"] is not None:
        rows = [run["base"], *rows]
    first, few = len(rows) - len(order), len(order) <= MOST_LARGE
    shown = axis.imshow(rows, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for y, row in enumerate(rows):
        for x, value in enumerate(row):
            axis.text(x, y, f"{value:.2f}", ha="center", va="center", fontsize=9 if few else 7.5,
                      color="white" if value > 0.55 else "black")  # fmt: skip
    for x in range(len(order)):
        frame = Rectangle((x - 0.48, x + first - 0.48), 0.96, 0.96, fill=False, lw=2.2, ec="#D55E00")
        axis.add_patch(frame)
    short = few and max(map(len, order)) <= SHORT
    slanted = {} if short else {"rotation": 35, "ha": "right", "rotation_mode": "anchor"}
    axis.set_xticks(range(len(order)), order, fontsize=9, **slanted)
    labels = ["unmodified"] * first + [f"{t}. {c}" for t, c in enumerate(order, 1)]
    axis.set_yticks(range(len(rows)), labels, fontsize=9)
    axis.set_title("submitted order" if not number else f"order {number + 1}", fontsize=9)
    axis.tick_params(length=0)
    return shown


def _errs(axis: Any, run: Mapping[str, Any]) -> None:
    first = 0 if run["base"] is None else 1
    for t, step in enumerate(run["steps"]):
        pooled = step["err_pooled"]
        margins = [[max(0.0, pooled["value"] - pooled["low"])], [max(0.0, pooled["high"] - pooled["value"])]]
        axis.barh(t + first, pooled["value"], color=OWN, height=0.55, xerr=margins,
                  error_kw={"lw": 1, "capsize": 2})  # fmt: skip
        axis.text(1.06, t + first, f"{pooled['value']:.2f}", va="center", fontsize=9)
    axis.set_ylim(len(run["steps"]) + first - 0.5, -0.5)
    axis.set_xlim(0, 1)
    axis.set_yticks([])
    axis.set_xticks([0, 0.5, 1], ["0", ".5", "1"], fontsize=8)
    axis.set_title("ERR", fontsize=9)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)


def components(path: Path, scores: Mapping[str, Mapping[str, Any]], title: str) -> None:
    """Draw the five components and both statistics as bars with 95 % intervals into the PNG `path`.

    Args:
        path: of the picture.
        scores: name -> what `err.Err.document` returns; the first stands out.
        title: what stands above.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.2, 3.6), dpi=110, layout="constrained")
    axis = figure.subplots()
    width = 0.8 / len(scores)
    greys = [IDENTITY, "#CCCCCC", "#E69F00", "#009E73", "#CC79A7"]
    for i, (name, score) in enumerate(scores.items()):
        found = [*(score["components"][a] for a in AXES), score["err_pooled"], score["err_macro"]]
        values = [f["value"] for f in found]
        margins = [[max(0.0, f["value"] - f["low"]) for f in found],
                   [max(0.0, f["high"] - f["value"]) for f in found]]  # fmt: skip
        places = [x + (x > 4) * 0.4 + (i - (len(scores) - 1) / 2) * width for x in range(len(found))]
        color = OWN if not i else greys[(i - 1) % len(greys)]
        axis.bar(places, values, width * 0.94, color=color, label=name, yerr=margins,
                 error_kw={"lw": 1, "capsize": 2})  # fmt: skip
        for x, value, score in zip(places, values, found, strict=True):
            axis.text(x, score["high"] + 0.02, f"{value:.2f}", ha="center", va="bottom", fontsize=8)
    labels = [*(f"{LABELS[a]}\n({a})" for a in AXES), "ERR\npooled", "ERR\nmacro"]
    axis.set_xticks([x + (x > 4) * 0.4 for x in range(7)], labels, fontsize=9)
    axis.set_ylim(0, 1.1)
    axis.set_yticks([0, 0.2, 0.4, 0.6, 0.8, 1])
    axis.set_ylabel("success rate, 95 % interval", fontsize=9)
    axis.set_title(title, fontsize=11)
    axis.legend(fontsize=8, frameon=False, loc="upper center", ncols=len(scores), bbox_to_anchor=(0.5, -0.16))
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    _save(figure, path)


def _save(figure: Any, path: Path) -> None:
    data = io.BytesIO()
    figure.savefig(data, format="png", bbox_inches="tight", pad_inches=0.1, metadata={"Software": None})
    with atomic.replacing(path) as file:
        file.write(data.getvalue())
