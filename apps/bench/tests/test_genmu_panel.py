"""Several judges of the same pictures, and the correction for a judge's errors."""

import io
import shlex

import pytest
from PIL import Image

from genmu_eval.judges import FixedJudge, picture_key
from genmu_eval.prompts import Draw, Question
from genmu_eval.table import Judgement
from unlearn_bench.genmu import panel, worlds
from unlearn_bench.genmu.judging import judged
from unlearn_bench.report import reproduce
from unlearn_core.errors import InvalidInput
from unlearn_core.prompts import Prompt
from unlearn_core.record import RunRecord
from unlearn_core.samples import SampleSet

COLORS = [(40 * i, 90, 200) for i in range(4)]


class Fixed(worlds.Pocket):
    """A world whose judge says of the pictures in turn what it is told to say."""

    def __init__(self, *says):
        object.__setattr__(self, "says", says)

    def judge(self, asks, against):
        import numpy as np

        keys = [picture_key(np.full((8, 8, 3), color, np.uint8)) for color in COLORS]
        return FixedJudge(known=dict(zip(keys, self.says, strict=True)))


@pytest.fixture
def pictures(tmp_path):
    samples, draws = SampleSet(tmp_path / "images"), []
    for i, color in enumerate(COLORS):
        data = io.BytesIO()
        Image.new("RGB", (8, 8), color).save(data, "PNG")
        row = Prompt(id=f"p{i}", text=f"a dog {i}", seed=i, group="target", concept="dog", origin="test")
        samples.add(row, data.getvalue())
        question = Question(concept="dog", axis="fgt", asks="dog", text=row.text, source="test")
        draws.append(Draw(prompt=row, question=question))
    return draws, samples


def test_the_majority_decides_and_a_draw_is_not_shown(pictures):
    a, b, c = Fixed(1.0, 1.0, 0.0, None), Fixed(1.0, 0.0, 0.0, 1.0), Fixed(0.0, 1.0, 0.0, 0.9)
    votes = {}
    seen = judged(panel.Panel(world=a, members={"a": a, "b": b}), *pictures, votes=votes)
    assert list(seen.values()) == [True, False, False, True]
    assert votes == {"a": [True, True, False, None], "b": [True, False, False, True]}
    seen = judged(panel.Panel(world=a, members={"a": a, "b": b, "c": c}), *pictures)
    assert list(seen.values()) == [True, True, False, True]
    assert list(judged(b, *pictures).values()) == [True, False, False, True]
    with pytest.raises(
        InvalidInput, match="no answer about 'dog' in 1 pictures, first 'p3': the judge could"
    ):
        judged(panel.Panel(world=a, members={"a": a, "d": Fixed(1.0, 1.0, 0.0, None)}), *pictures)


def test_agreement():
    a, b, c = (
        [True, True, False, False, True],
        [True, False, False, True, True],
        [True, None, False, True, False],
    )
    found = panel.agreement({"a": a, "b": b, "c": c})
    assert found["judges"] == ["a", "b", "c"] and found["n"] == 5 and found["draws"] == 1
    # Cohen by hand: 3 of 5 alike, both say yes to 3 of 5
    assert found["cohen_kappa"][0] == {"judges": ["a", "b"], "kappa": pytest.approx((0.6 - 0.52) / 0.48)}
    # Fleiss by hand on the four pictures that all answered: yes votes 3, 0, 2, 2 of 3
    within, p = (1 + 1 + 1 / 3 + 1 / 3) / 4, 7 / 12
    chance = p * p + (1 - p) ** 2
    assert found["fleiss_kappa"] == pytest.approx((within - chance) / (1 - chance))
    assert found["unanimous"] == 0.5 and found["shares"]["c"] == 0.5
    assert panel.agreement({"a": a}) is None
    apart = panel.agreement({"a": [True, None], "b": [None, True]})
    assert apart["fleiss_kappa"] is None and apart["cohen_kappa"][0]["kappa"] is None
    assert panel.silences({"a": a, "b": b}) == [] == panel.silences({"c": c})
    (note,) = panel.silences({"a": a, "c": c})
    assert note == "the judge c gave no answer in 1 of 5 cases, which the others decided"


def rows(present):
    return [
        Judgement(concept="dog", axis=axis, image=str(i), present=i < n)
        for axis, n in present.items()
        for i in range(20)
    ]


def test_correction_is_rogan_and_gladens(tmp_path):
    table = rows({"fgt": 6, "ret": 14, "adj": 18, "ind": 4, "adv": 8})
    calibration = panel.calibration_of("45/50", "0.9", None)
    found = panel.corrections(table, calibration)
    values = {axis: score["value"] for axis, score in found["components"].items()}
    # (p + Sp - 1) / (Se + Sp - 1), by hand, with Se = Sp = 0.9
    expected = {"fgt": 1 - 0.25, "ret": 0.75, "adj": 1.0, "ind": 1 - 0.125, "adv": 1 - 0.375}
    assert values == pytest.approx(expected)
    assert found["err_pooled"]["value"] == pytest.approx(5 / sum(1 / value for value in expected.values()))
    for score in (found["err_pooled"], *found["components"].values()):
        assert 0 <= score["low"] <= score["value"] <= score["high"] <= 1
    wider = panel.corrections(table, panel.calibration_of("9/10", "9/10", None))["components"]["fgt"]
    assert wider["low"] < found["components"]["fgt"]["low"], "few labelled pictures leave more doubt"
    labelled = tmp_path / "labelled.csv"
    lines = ["1,1"] * 9 + ["1,0"] + ["0,0"] * 9 + ["0,1"]
    labelled.write_text("truth,present\n" + "\n".join(lines) + "\n")
    assert panel.calibration_of(None, None, labelled) == panel.calibration_of("9/10", "9/10", None)
    assert panel.calibration_of(None, None, None) is None


def test_judges_by_name():
    found = panel.judged_world("pocket", None, ["pocket, clip", "llava"], {"clip.model": "tiny"})
    assert found.judged_by["name"] == "pocket+clip+llava"
    assert [one["name"] for one in found.judged_by["panel"]] == ["pocket", "clip", "llava"]
    assert found.members["clip"].judge_settings == {"model": "tiny"} and found.members["clip"].remembered
    assert panel.judged_world("pocket", None, ["pocket"], {}) == worlds.Pocket()
    llava = panel.judged_world("some/model", None, ["llava"], {}).judge("dog", ())
    assert llava.vqa == "chat" and llava.vqa_settings["model"] == "llava-hf/llava-1.5-7b-hf"


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        (("--judge", "clip,llava"), "its own judge alone"),
        (("--judge", "pocket,clip", "--judge-set", "model=x"), "JUDGE.NAME=VALUE"),
        (("--sensitivity", "0.9"), "both --sensitivity and --specificity"),
        (("--sensitivity", "high", "--specificity", "1"), "such as 46/50, got 'high'"),
        (("--sensitivity", "0.4", "--specificity", "0.5"), "no better than chance"),
        (("--sensitivity", "0/0", "--specificity", "0.5"), "pictures > 0"),
        (("--calibration", "nowhere.csv"), "nowhere.csv"),
    ],
)
def test_bad_input(options, hint, error):
    assert hint in error("genmu", "run", "--technique", "none", *options)


def test_a_run_with_two_judges(json_of, bench, monkeypatch, tmp_path):
    monkeypatch.setattr(worlds.Open, "judge", lambda *_: FixedJudge(otherwise=1.0))
    monkeypatch.setattr(worlds.Open, "remembered", False)
    for name in ("components", "heat_map"):
        monkeypatch.setattr(f"unlearn_bench.genmu.figures.{name}", lambda path, *_: path.write_bytes(b""))
    command = ("genmu", "run", "--technique", "none", "--strategy", "multi", "--concepts", "dog", "--limit", 1,
               "--steps", 2, "--judge", "pocket,clip", "--sensitivity", "18/20", "--specificity", "19/20")  # fmt: skip
    ran = json_of(*command)
    assert ran["panel"]["judges"] == ["pocket", "clip"] and ran["panel"]["n"] == 10
    assert ran["panel"]["shares"]["clip"] == 1 and -1 <= ran["panel"]["fleiss_kappa"] <= 1
    assert ran["corrected"]["sensitivity"] == 0.9 and set(ran["corrected"]["components"]) == set(
        ran["components"]
    )
    again = json_of(*shlex.split(reproduce.row(RunRecord.read(tmp_path / ran["record"]))["command"])[1:])
    assert again["reused"] and again["run_id"] == ran["run_id"], "the report's command is that of the run"
    out = bench(*command).out
    assert "Fleiss' kappa" in out and "corrected for a judge of sensitivity 0.900" in out
    (tmp_path / "labelled.csv").write_text(
        "truth,present\n" + "1,1\n" * 18 + "1,0\n" * 2 + "0,0\n" * 19 + "0,1\n"
    )
    anew = json_of("genmu", "evaluate", "--submission", tmp_path / ran["submission"], "--judge", "pocket",
                   "--judge", "clip", "--calibration", "labelled.csv")  # fmt: skip
    assert anew["panel"] == ran["panel"] and anew["corrected"] == ran["corrected"]
