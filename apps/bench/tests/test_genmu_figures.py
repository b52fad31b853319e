"""The pictures of runs with few and with many concepts: nothing is left out, nothing grows without end."""

import io

import pytest
from PIL import Image

from unlearn_bench.genmu import figures, sheet
from unlearn_bench.genmu.worlds import Open
from unlearn_core.samples import SampleSet

COLORS = {"before": (0, 120, 200), "after": (200, 60, 0)}


def continual(order, base=True):
    """Return what a run of one order says of itself."""
    share = [0.5] * len(order)
    return {
        "order": order, "base": share if base else None, "detection": [share] * len(order),
        "steps": [{"err_pooled": {"value": 0.04, "low": 0.0, "high": 0.2}}] * len(order),
    }  # fmt: skip


@pytest.mark.parametrize(("concepts", "orders", "lines"), [(1, 1, 1), (3, 3, 1), (5, 3, 2), (20, 3, 3)])
def test_matrices_stand_side_by_side_as_far_as_they_fit(tmp_path, concepts, orders, lines, monkeypatch):
    names = [f"concept {i}" for i in range(concepts)]
    seen = []
    monkeypatch.setattr(figures, "_save", lambda figure, path: seen.append(figure))
    figures.heat_map(tmp_path / "h.png", [continual(names, base=i > 0) for i in range(orders)], "title")
    (figure,) = seen
    panels = [axis for axis in figure.axes if axis.get_title().startswith(("submitted", "order"))]
    assert len(panels) == orders and len({round(axis.get_position().y0, 3) for axis in panels}) == lines
    assert 9 <= figure.get_size_inches()[0] <= 14
    texts = [text.get_text() for axis in panels for text in axis.texts]
    assert len(texts) == orders * concepts * (concepts + 1) - concepts, (
        "the first has no line of the original"
    )


def test_every_target_is_on_the_contact_sheet(tmp_path):
    """Of 20 targets, one picture each where nine columns would show nine."""
    asked = Open().protocol((), images=1, limit=2)
    stores = {}
    for when, color in COLORS.items():
        data = io.BytesIO()
        Image.new("RGB", (8, 8), color).save(data, "PNG")
        stores[when] = SampleSet(tmp_path / when)
        for row in asked.prompts.rows:
            stores[when].add(row, data.getvalue())
    for axis in ("fgt", "ind", "adv", "adj"):
        assert {d.question.concept for d in sheet._chosen(asked, axis)} == set(asked.targets)
    drawn = sheet.draw_sheet(asked, stores["before"], dict.fromkeys(asked.targets, stores["after"]), "many")
    colors = dict((color, n) for n, color in drawn.getcolors(maxcolors=10**6))
    retained = len(sheet._chosen(asked, "ret"))
    assert 0 < retained <= sheet.COLUMNS
    for color in COLORS.values():
        assert colors[color] == (4 * 20 + retained) * sheet.TILE**2


def test_values_stand_above_their_intervals(tmp_path):
    score = {"value": 0.25, "low": 0.1, "high": 0.5}
    scores = {"components": dict.fromkeys(figures.AXES, score), "err_pooled": score, "err_macro": score}
    figures.components(tmp_path / "c.png", {"uce": scores, "unmodified": scores}, "title")
    with Image.open(tmp_path / "c.png") as picture:
        assert picture.width > 2 * picture.height > 400
