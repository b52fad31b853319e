"""Published prompt sets in tables written here, with harmless texts; the guard is tested with bare words."""

import csv
import dataclasses

import pytest

from unlearn_core.errors import InvalidInput, Unavailable
from unlearn_core.prompts import Prompt, PromptSet
from unlearn_core.testing.hub_server import HubServer
from unlearn_metrics.errors import NotApplicable
from unlearn_metrics.prompt_sets import SETS, load_attack_prompts

MMA = ["target_prompt", "adv_prompt", "sanitized_adv_prompt", "success_against_sanitization_defense"]


@pytest.fixture
def table(tmp_path):
    def write(columns, *rows, name="prompts.csv"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([columns, *rows])
        return path

    return write


def test_ring_a_bell_in_its_own_columns(table):
    path = table(["prompt", "case_number", "evaluation_seed"], ("x y z", 7, 11), ("x y z", 7, 12))
    found = load_attack_prompts("ring_a_bell", path, concept="nudity")
    assert [(p.id, p.text, p.seed) for p in found] == [
        ("ring_a_bell-0000", "x y z", 11),
        ("ring_a_bell-0001", "x y z", 12),
    ]
    assert {(p.group, p.concept, p.guidance) for p in found} == {("ring_a_bell", "nudity", None)}


def test_the_sentences_of_rece_that_safree_calls_ring_a_bell(table):
    path = table(["sensitive prompt", "normal prompt"], ("a statue", "a house"))
    assert [p.text for p in load_attack_prompts("ring_a_bell", path)] == ["a statue"]


def test_mma_diffusion_in_its_own_columns(table):
    path = table(MMA, ("a statue", "st atue qq", "qq rr", "True"), ("a bench", "ben ch", "b", "False"))
    found = load_attack_prompts("mma_diffusion", path)
    assert [p.text for p in found] == ["st atue qq", "ben ch"]
    assert found.rows[0].seed != found.rows[1].seed  # derived: the file states none
    other = load_attack_prompts("mma_diffusion", path, column="sanitized_adv_prompt")
    assert [p.text for p in other] == ["qq rr", "b"]


def test_p4d_and_unlearndiffatk_have_i2ps_columns(table):
    path = table(
        ["case_number", "prompt", "evaluation_seed", "evaluation_guidance"],
        (3, "xx", 5, 7.5),
        (9, "yy", 6, 9),
    )
    for name in ("p4d", "unlearndiffatk"):
        found = load_attack_prompts(name, path)
        assert [(p.seed, p.guidance, p.group) for p in found] == [(5, 7.5, name), (6, 9.0, name)]
    theirs = table(["prompt", "sd_seed", "sd_guidance_scale"], ("xx", 5, 7.5), name="i2p.csv")
    assert load_attack_prompts("p4d", theirs).rows[0].guidance == 7.5


def test_a_table_of_an_attack_of_ours_keeps_ids_and_origins(tmp_path):
    row = Prompt(
        id="p4d-x", text="xx", seed=3, group="p4d", concept="dog", origin="p4d adaptive of target-dog-000"
    )
    path = tmp_path / "out.csv"
    PromptSet(name="p4d", rows=(row,)).save(path)
    assert load_attack_prompts("p4d", path).rows == (row,)
    assert load_attack_prompts("p4d", path, concept="cat").rows == (dataclasses.replace(row, concept="cat"),)


@pytest.mark.parametrize(
    ("name", "columns", "row", "concept", "dropped"),
    [
        ("ring_a_bell", ["prompt"], ["nsfw, teen"], "violence", 1),  # by its words
        ("ring_a_bell", ["prompt"], ["qq teen"], "nudity", 1),  # by what it aims at
        ("ring_a_bell", ["prompt"], ["qq teen"], None, 1),  # nobody says that it does not
        ("ring_a_bell", ["prompt"], ["qq teen"], "violence", 0),
        ("mma_diffusion", MMA, ["teen", "qq rr", "", ""], "nudity", 1),  # by its target alone
        ("mma_diffusion", MMA, ["an adult", "qq rr", "", ""], "nudity", 0),
        ("p4d", ["prompt", "categories"], ["qq teen", "violence, sexual"], "violence", 1),
        ("p4d", ["prompt", "nudity_percentage"], ["qq teen", "0.5"], "violence", 1),
        ("p4d", ["prompt", "nudity_percentage"], ["qq teen", "0.0"], "violence", 0),
        ("p4d", ["prompt"], ["  "], "violence", 1),
    ],
)
def test_the_guard_stands_in_front(table, name, columns, row, concept, dropped):
    harmless = ["a statue"] * len(columns)
    harmless[columns.index("nudity_percentage") if "nudity_percentage" in columns else 0] = (
        "0" if "nudity_percentage" in columns else "a statue"
    )
    found = load_attack_prompts(name, table(columns, row, harmless), concept=concept)
    assert (len(found), found.dropped) == (2 - dropped, dropped)


def test_nothing_left_is_an_error(table):
    path = table(["prompt"], ["nsfw teen"])
    with pytest.raises(InvalidInput, match="no row that fits; 1 were left out"):
        load_attack_prompts("p4d", path, concept="nudity")


def test_a_table_without_the_column(table):
    path = table(["text_of_it", "seed"], ("a", 1))
    with pytest.raises(
        InvalidInput, match=r"line 2: .*'adv_prompt' or 'prompt' or 'text'; columns found: 'text_of_it'"
    ):
        load_attack_prompts("mma_diffusion", path)
    with pytest.raises(InvalidInput, match="column 'nope'"):
        load_attack_prompts("mma_diffusion", path, column="nope")


def test_a_limit_is_of_the_rows_that_are_left(table):
    path = table(["prompt"], ["nsfw teen"], ["a"], ["b"], ["c"])
    assert [p.text for p in load_attack_prompts("p4d", path, limit=2)] == ["a", "b"]
    with pytest.raises(InvalidInput, match="at least 1"):
        load_attack_prompts("p4d", path, limit=0)


def test_unknown_attacks_and_files():
    with pytest.raises(InvalidInput, match="did you mean 'ring_a_bell'"):
        load_attack_prompts("ring_a_bel")
    with pytest.raises(Unavailable, match="no/such/prompts.csv"):
        load_attack_prompts("p4d", "no/such/prompts.csv")


@pytest.mark.parametrize("concept", ["dog", "van gogh", "violence"])
def test_the_published_ones_are_for_nudity(concept):
    for name in ("ring_a_bell", "mma_diffusion", "p4d"):
        with pytest.raises(NotApplicable, match=f"not applicable: .* are for nudity, not for '{concept}'"):
            load_attack_prompts(name, concept=concept)


def test_unlearndiffatk_has_none_on_the_hub():
    with pytest.raises(NotApplicable, match="github.com/OPTML-Group/Diffusion-MU-Attack"):
        load_attack_prompts("unlearndiffatk")


def test_a_gated_set_needs_a_token(table, tmp_path, monkeypatch):
    path = table(["prompt", "evaluation_seed"], ("xx", 5), name="repo/train.csv")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    source = SETS["ring_a_bell"].source
    with HubServer({f"datasets/{source}": path.parent}) as server:
        for name, value in server.constants.items():
            monkeypatch.setattr(name, value)
        server.require_token("secret")
        with pytest.raises(Unavailable) as error:
            load_attack_prompts("ring_a_bell")
        for part in (
            "accept its conditions",
            f"huggingface.co/datasets/{source} (licence: MIT; gated)",
            "HF_TOKEN=",
        ):
            assert part in str(error.value)
        monkeypatch.setenv("HF_TOKEN", "secret")
        found = load_attack_prompts("ring_a_bell")
    assert [(p.text, p.seed, p.concept, p.origin) for p in found] == [("xx", 5, "nudity", source)]
    assert len(found.revision) == 40
