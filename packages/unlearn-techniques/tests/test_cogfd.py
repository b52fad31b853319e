"""CoGFD: its loss and its start, the graph it reads or drafts, what is trained, and the official numbers."""

import dataclasses
import json
import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from unlearn_core.concept import Concept
from unlearn_core.errors import InvalidInput
from unlearn_core.spec import build, settings_of
from unlearn_techniques import cogfd
from unlearn_techniques.cogfd import CoGFD, cogfd_loss
from unlearn_techniques.concept_graph import draft_graph, joined, read_graph, texts_of
from unlearn_techniques.conformance import check_technique
from unlearn_techniques.diffusion import drawn
from unlearn_techniques.diffusion.attention import cross_attentions
from unlearn_techniques.diffusion.model import StableDiffusion
from unlearn_techniques.diffusion.sampling import Sampler
from unlearn_techniques.diffusion.text_mask import added_to_logits, text_mask
from unlearn_techniques.diffusion.weights import with_weights

QUICK = {"iterations": 2, "lr": 1e-2, "images": 2, "sampling_steps": 2, "picture_templates": ("a {}",)}
GRAPH = {"dog and car": {"entailment": ["wolf in a car"], "dog": {"equivalence": ["wolf"]}, "car": {}}}


@pytest.fixture
def training(tiny, dog, monkeypatch):
    """Return a function that gives CoGFD's loss, the model it starts from, the names, and a record of texts and t."""
    seen = SimpleNamespace(texts=[], t=[])
    noised, begin = drawn.noised, StableDiffusion.trajectory

    def watched(model, x, eps, t):
        seen.t += t.tolist()
        return noised(model, x, eps, t)

    def trajectory(model, texts=None, **settings):
        seen.texts.append(texts)
        return begin(model, texts, **settings)

    def start(concepts=(dog,), **settings):
        caught = {}

        def finetune(model, names, loss, **rest):
            caught.update(start=model, names=names, loss=loss, **rest)

        monkeypatch.setattr(cogfd, "finetune", finetune)
        CoGFD(**{**QUICK, **settings}).apply(tiny, concepts, seed=0)
        monkeypatch.setattr(drawn, "noised", watched)
        monkeypatch.setattr(StableDiffusion, "trajectory", trajectory)
        return SimpleNamespace(**caught, seen=seen)

    return start


def gradients(training):
    """Return the loss of the model that training starts from, and its gradients."""
    unet = with_weights(
        training.start.unet, {n: training.start.unet.get_parameter(n).clone() for n in training.names}
    )
    weights = [unet.get_parameter(n).requires_grad_() for n in training.names]
    value = training.loss(dataclasses.replace(training.start, unet=unet), 0)
    return value, torch.autograd.grad(value, weights)


# ---- the loss and its start ------------------------------------------------------------------------------------


@given(seed=st.integers(0, 2**31), forgotten=st.integers(1, 4))
def test_the_loss(seed, forgotten):
    new, old = torch.randn(2, 5, 4, 3, 3, generator=torch.Generator().manual_seed(seed))
    l1 = functional.mse_loss(new[:forgotten], old[:forgotten]).item()
    l2 = functional.mse_loss(new[forgotten:], old[forgotten:]).item()
    assert cogfd_loss(new, old, forgotten).item() == pytest.approx(
        0.1 * math.exp(-l1) + math.exp(l2), rel=1e-5
    )
    swapped = cogfd_loss(new.flip(0), old.flip(0), 5 - forgotten).item()
    assert swapped == pytest.approx(0.1 * math.exp(-l2) + math.exp(l1), rel=1e-5)


def test_the_loss_of_the_official_lines():
    """Sirius11311/CoGFD-ICLR25, 923e9be, the lines from unlearn_select to final_loss, run once on these tensors."""
    new, old = torch.randn(2, 5, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    assert cogfd_loss(new, old, 2).item() == pytest.approx(9.198830604553223, rel=1e-6)


def test_half_precision_does_not_overflow():
    new, old = (
        torch.full((2, 1, 1, 1), 5.0, dtype=torch.float16),
        torch.zeros(2, 1, 1, 1, dtype=torch.float16),
    )
    assert cogfd_loss(new, old, 1).item() == pytest.approx(math.exp(25), rel=1e-5)  # float16 ends at e^11


def test_the_official_start_is_a_saddle(training):
    value, grads = gradients(training(start="decay"))
    assert value.item() == pytest.approx(1.1)
    assert all(not g.any() for g in grads)


def test_the_perturbed_start_has_a_gradient(tiny, training):
    found = training()
    value, grads = gradients(found)
    assert value.item() == pytest.approx(1.1, abs=1e-3)
    assert sum(g.abs().sum() for g in grads) > 0
    for name in found.names:
        weight, begun = (m.unet.get_parameter(name) for m in (tiny, found.start))
        if weight.ndim > 1:
            assert (begun - weight).std().item() == pytest.approx(1e-3 * weight.std().item(), rel=0.1)


def apart(model, edited, text):
    """Return l, the mean squared difference of what two models predict for a text."""
    x = torch.randn(4, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    t = torch.tensor([910, 940, 970, 990])
    with torch.no_grad():
        a, b = (m.noise(x, t, m.trajectory([text] * 4)) for m in (model, edited))
    return functional.mse_loss(a, b).item()


def test_the_combination_moves_and_what_is_kept_moves_less(tiny, dog):
    begun = CoGFD(**{**QUICK, "lr": 1e-9}).apply(tiny, [dog], seed=0)
    edited = CoGFD(**{**QUICK, "iterations": 40, "lr": 3e-3}).apply(tiny, [dog], seed=0)
    assert apart(tiny, edited, "dog") > 100 * apart(tiny, begun, "dog")
    assert apart(tiny, edited, "cat") < 0.5 * apart(tiny, edited, "dog")


def test_weight_decay_alone_leaves_the_saddle(tiny, dog):
    edited = CoGFD(start="decay", **{**QUICK, "iterations": 40}).apply(tiny, [dog], seed=0)
    assert apart(tiny, edited, "dog") > 0


def test_no_step_no_change(tiny, dog):
    edited = CoGFD(start="decay", **{**QUICK, "lr": 1e-30}).apply(tiny, [dog], seed=0)
    assert all(
        torch.equal(a, b) for a, b in zip(tiny.unet.parameters(), edited.unet.parameters(), strict=True)
    )


# ---- batches and pictures --------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [2, 3, 5, 20])
def test_every_batch_has_both_kinds(tiny, training, batch):
    graph = {"dog": {"cat": {"equivalence": ["wolf", "car", "art", "photo", "blue"]}}}
    found = training(graph=graph, batch=batch)
    texts = set()
    for i in range(60):
        assert torch.isfinite(found.loss(found.start, i))
        asked = found.seen.texts[-1]
        assert asked[0] == "dog"
        assert len(asked) == min(batch, 7)
        assert len(set(asked)) == len(asked)
        texts |= set(asked)
    assert texts == {"dog", "cat", "wolf", "car", "art", "photo", "blue"}


@pytest.mark.parametrize("ends", [(900, 1000), (990, 1000), (0, 10)])
def test_t_is_drawn_from_its_range(tiny, training, ends):
    found = training(t_start=ends[0], t_end=ends[1])
    for i in range(20):
        found.loss(found.start, i)
    assert ends[0] <= min(found.seen.t) <= ends[0] + (ends[1] - ends[0]) // 5
    assert ends[0] + (ends[1] - ends[0]) * 4 // 5 <= max(found.seen.t) < ends[1]


def test_fifty_steps_visit_the_default_range_and_not_the_official(tiny):
    grid = Sampler(steps=50).scheduler_for(tiny).timesteps.tolist()
    made = CoGFD(**CoGFD.presets["official"])
    assert [t for t in grid if CoGFD().t_start <= t < CoGFD().t_end] == [981, 961, 941, 921, 901]
    assert not [t for t in grid if made.t_start <= t < made.t_end]


def test_all_texts_share_the_pictures_of_the_combinations(tiny, monkeypatch):
    asked, calls = [], []
    draw = cogfd.drawn_latents
    monkeypatch.setattr(
        cogfd, "drawn_latents", lambda m, texts, s, **r: asked.append((texts, s)) or draw(m, texts, s, **r)
    )
    technique = CoGFD(graph={**GRAPH, "art": {"photo": {}}}, **QUICK)
    technique.apply(
        tiny,
        [Concept(name="dog_and_car"), Concept(name="art")],
        seed=0,
        progress=lambda *call: calls.append(call),
    )
    sampler = Sampler(steps=2, guidance_scale=9.0)
    assert asked == [(["a dog and car", "a dog and car", "a art", "a art"], sampler)]
    assert calls == [(4, 6), (5, 6), (6, 6)]


def test_templates_are_drawn_in_turn(tiny, training):
    found = training(templates=("{}", "a photo of a {}"))
    for i in range(10):
        found.loss(found.start, i)
    words = {"dog", "cat", "wolf"}
    assert {t for texts in found.seen.texts if texts for t in texts} == {
        *words,
        *(f"a photo of a {w}" for w in words),
    }


# ---- the mask of the official code -----------------------------------------------------------------------------


def test_the_official_mask_is_added_to_the_logits(tiny):
    """Against softmax(q k^T scale + mask) v; its authors' processors gave the whole UNet's noise to 8.3e-7 of ours."""
    attention = next(iter(cross_attentions(tiny.unet).values()))
    mask = text_mask(tiny, ["a dog", "a photo of a car"])
    assert mask.sum(1).tolist() == [4, 7]
    x, text = (
        torch.randn(2, 9, attention.to_q.in_features),
        torch.randn(2, mask.shape[1], attention.to_k.in_features),
    )
    with torch.no_grad():
        q, k, v = (
            layer(of).unflatten(-1, (attention.heads, -1)).transpose(1, 2)
            for layer, of in ((attention.to_q, x), (attention.to_k, text), (attention.to_v, text))
        )
        weights = (q @ k.transpose(-1, -2) * attention.scale + mask[:, None, None]).softmax(-1)
        expected = attention.to_out[0]((weights @ v).transpose(1, 2).flatten(2))
        with added_to_logits(tiny.unet, mask):
            found = attention(x, encoder_hidden_states=text)
        plain = attention(x, encoder_hidden_states=text)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
    assert (plain - expected).abs().max() > 1e-3


def test_the_mask_is_for_training_only(tiny, dog):
    edited = CoGFD(token_mask="official", **QUICK).apply(tiny, [dog], seed=0)
    assert edited.fingerprint != CoGFD(**QUICK).apply(tiny, [dog], seed=0).fingerprint
    for model in (tiny, edited):
        assert not any(m._forward_pre_hooks for m in model.unet.modules())


# ---- what is trained -------------------------------------------------------------------------------------------


def test_the_64_tensors_of_sd_v14():
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        unet = UNet2DConditionModel(cross_attention_dim=768, attention_head_dim=8, sample_size=64)
    names = CoGFD()._names(unet)
    assert len(names) == 64
    assert sum(unet.get_parameter(n).numel() for n in names) == 34_377_920  # 34.4M, facts sheet B, 6
    kinds = {n.partition(".attn2.")[2] for n in names}
    assert kinds == {"to_q.weight", "to_k.weight", "to_out.0.weight", "to_out.0.bias"}


@pytest.mark.parametrize("train", ["cross-attention", "full"])
def test_conformance(tiny, dog, train):
    if train == "full":
        names = [n for n, _ in tiny.unet.named_parameters()]
    else:
        names = [n for n, _ in tiny.unet.named_parameters() if ".attn2." in n and ".to_v." not in n]
    check_technique(CoGFD(train=train, **QUICK), tiny, dog, parameters=[f"unet.{n}" for n in names])


def test_another_seed_is_another_model(tiny, dog):
    one, other = (CoGFD(**QUICK).apply(tiny, [dog], seed=seed).fingerprint for seed in (0, 1))
    assert one != other


def test_several_concepts(tiny, dog, training):
    car = Concept(name="car", phrases=("blue car",), anchor="art", adjacent=("dog",))
    found = training(concepts=(dog, car))
    found.loss(found.start, 0)
    asked = found.seen.texts[-1]
    assert set(asked[:3]) == {"dog", "car", "blue car"}
    assert set(asked[3:]) == {"cat", "wolf", "art"}  # not the dog that the car is near to


@pytest.mark.parametrize(
    "bad",
    [
        {"iterations": 0},
        {"images": 0},
        {"sampling_steps": 0},
        {"batch": 1},
        {"lr": 0.0},
        {"t_start": -1},
        {"t_end": 1001},
        {"t_start": 1000},
        {"weight_decay": -1.0},
        {"erase_weight": -1.0},
        {"perturbation": 0.0},
        {"max_norm": 0.0},
        {"templates": ()},
        {"picture_templates": ("dog",)},
    ],
)
def test_settings_that_make_no_sense(bad):
    with pytest.raises(InvalidInput, match=next(iter(bad))):
        CoGFD(**bad)


def test_the_decay_that_is_needed():
    with pytest.raises(InvalidInput, match="start=decay needs weight_decay"):
        CoGFD(start="decay", weight_decay=0.0)


# ---- graphs ----------------------------------------------------------------------------------------------------

OFFICIAL_GRAPH = {
    "iteration_0": {"dog and car": {
        "Conjunction": ["dog", "car"],
        "entailment": ["wolf in a car", "dog and car"], "equivalence": ["a dog of a car"],
        "dog": {"entailment": ["wolf", "puppy"], "equivalence": ["hound"]},
        "car": {"entailment": ["bus"], "equivalence": ["automobile"]}}},
    "iteration_1": {"a dog of a car": {
        "Conjunction": ["dog", "car"], "entailment": ["wolf in a car"], "equivalence": ["dog driving"],
        "dog": {"entailment": ["wolf"], "equivalence": ["cur"]},
        "car": {"entailment": [], "equivalence": ["van"]}}},
}  # fmt: skip


def test_a_graph_of_the_official_form():
    """extract_concept_from_graph of the official code gave these, as sets, for this graph."""
    forgotten, kept = texts_of(read_graph(OFFICIAL_GRAPH))
    assert forgotten == ["dog and car", "wolf in a car", "a dog of a car", "dog driving"]
    assert kept == ["dog", "wolf", "puppy", "hound", "car", "bus", "automobile", "cur", "van"]


def test_a_name_with_underscores():
    """The official extractor looks up the replaced name, which is a KeyError."""
    assert texts_of(read_graph({"dog_and_car": {"dog": {}, "car": {}}})) == (["dog and car"], ["dog", "car"])


def test_the_same_combination_in_two_iterations():
    graph = {
        "iteration_0": {"dog": {"entailment": ["puppy"], "cat": {"equivalence": ["kitten"]}}},
        "iteration_1": {"dog": {"entailment": ["hound", "puppy"], "cat": {"equivalence": ["tabby"]}}},
    }
    assert texts_of(read_graph(graph)) == (["dog", "puppy", "hound"], ["cat", "kitten", "tabby"])


def test_a_file_is_its_content(tmp_path):
    path = tmp_path / "graph.json"
    path.write_text(json.dumps(GRAPH))
    technique = build(CoGFD, {"graph": str(path)})
    assert technique == CoGFD(graph=GRAPH)
    assert settings_of(technique)["graph"] == GRAPH
    path.write_text(json.dumps({"dog": {"cat": {}}}))
    assert build(CoGFD, {"graph": str(path)}) != technique
    assert build(CoGFD, settings_of(technique)) == technique


@pytest.mark.parametrize(
    ("graph", "hint"),
    [
        ({}, "an object of combinations"),
        ({"dog": []}, "'dog' is a name, and holds an object"),
        ({" ": {"cat": {}}}, "' ' is a name"),
        ({"dog": {"entailement": ["x"]}}, "did you mean 'entailment'"),
        ({"dog": {"entailment": "puppy"}}, "'entailment' is a list of texts, got 'puppy'"),
        ({"dog": {"entailment": [" "]}}, "list of texts"),
        ({"dog": {"cat": {"Conjunction": []}}}, "'dog', 'cat': unknown list 'Conjunction'"),
        ({"dog": {"cat": {"equivalence": [1]}}}, "list of texts"),
        ({"dog": {"entailment": {}}}, "a part called 'entailment'"),
        ({"dog": {"entailment": ["puppy"]}}, "names no part that is kept"),
        ({"dog": {"entailment": ["cat"], "cat": {}}}, "'cat' both among"),
        ({"nude child": {"child": {}}}, "sexual and mentions a minor"),
    ],
)
def test_graphs_that_cannot_be_meant(graph, hint):
    with pytest.raises(InvalidInput, match=hint):
        read_graph(graph)
    with pytest.raises(InvalidInput, match=hint):
        build(CoGFD, {"graph": graph})


@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["dog", "cat", "entailment", "iteration_0", ""]), inner, max_size=3
            )
        ),
    )
)
def test_any_json_is_a_graph_or_an_explained_error(value):
    try:
        graph = read_graph({"dog": value} if not isinstance(value, dict) else value)
    except InvalidInput:
        return
    forgotten, kept = texts_of(graph)
    assert forgotten
    assert kept
    assert not set(forgotten) & set(kept)
    assert read_graph(graph) == graph


def test_files_that_are_no_graph(tmp_path):
    with pytest.raises(InvalidInput, match="none.json' cannot be read"):
        build(CoGFD, {"graph": str(tmp_path / "none.json")})
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(InvalidInput, match="bad.json' cannot be read"):
        read_graph(tmp_path / "bad.json")
    (tmp_path / "list.json").write_text("[1]")
    with pytest.raises(InvalidInput, match=r"list.json' is an object of combinations"):
        read_graph(tmp_path / "list.json")


def test_a_graph_of_other_concepts(dog):
    with pytest.raises(InvalidInput, match="unknown combination 'dog'; did you mean 'dogs'"):
        CoGFD(graph={"dogs": {"cat": {}}}).check([dog])


def test_a_draft_of_a_single_concept():
    concept = Concept(name="dog", phrases=("puppy", "hound"), anchor="cat", adjacent=("cat", "wolf"))
    graph = draft_graph(concept)
    assert graph == {"dog": {
        "Conjunction": [], "entailment": ["puppy", "hound"], "equivalence": [],
        "cat": {"entailment": [], "equivalence": []}, "wolf": {"entailment": [], "equivalence": []}}}  # fmt: skip
    assert texts_of(graph) == (["dog", "puppy", "hound"], ["cat", "wolf"])
    assert read_graph(json.loads(json.dumps(graph))) == graph


@pytest.mark.parametrize(
    "name", ["alcohol and driving", "alcohol_and_driving", "alcohol + driving", "alcohol & driving"]
)
def test_a_draft_of_a_combination(name):
    concept = Concept(name=name, phrases=("a drunk driver",), adjacent=("a tea house",))
    graph = read_graph(draft_graph(concept))
    forgotten, kept = texts_of(graph)
    assert forgotten[1:] == ["a drunk driver"]
    assert kept == ["alcohol", "driving", "a tea house"]
    assert next(iter(graph.values()))["Conjunction"] == ["alcohol", "driving"]


def test_a_word_that_holds_and_is_no_combination():
    assert draft_graph(Concept(name="sandy land", anchor="sea"))["sandy land"]["Conjunction"] == []


def test_nothing_to_keep():
    with pytest.raises(InvalidInput, match="no adjacent concepts and no anchor"):
        CoGFD().check([Concept(name="nudity", kind="unsafe")])


def test_drafts_do_not_keep_what_another_forgets():
    drafts = [
        draft_graph(Concept(name="dog and car")),
        draft_graph(Concept(name="car", anchor="bus", adjacent=("dog and car",))),
    ]
    graph = read_graph(joined(drafts))
    assert texts_of(graph) == (["dog and car", "car"], ["dog", "bus"])
