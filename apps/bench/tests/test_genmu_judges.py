"""The judges themselves: LLaVA's own class through a whole run, and a panel of four real detectors."""

import json

import pytest
import torch

import pocket_sd
from genmu_eval.table import PRESERVED, read_table
from unlearn_techniques.testing import tiny_sd

transformers = pytest.importorskip("transformers")

WORDS = [
    "<pad>",
    "<s>",
    "</s>",
    "<unk>",
    "<image>",
    "USER:",
    "ASSISTANT:",
    "Is",
    "there",
    "Golf",
    "Ball",
    "in",
    "this",
    "picture?",
    "Answer",
    "yes",
    "or",
    "no.",
    "no",
]
WIDE = 32


@pytest.fixture(scope="module")
def llava(tmp_path_factory):
    """A LLaVA whose weights are set by hand: it says yes where the question holds "Golf", else no.

    Words are unit vectors, attention is the mean over all that came before, pictures are zero; so the last hidden state
    is the last word and the mean of all words, from which the head reads.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers

    folder = tmp_path_factory.mktemp("llava")
    raw = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words = transformers.PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>",
        additional_special_tokens=["<image>"],
    )  # fmt: skip
    sizes = {"hidden_size": WIDE, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    config = transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(**sizes, image_size=32, patch_size=8, projection_dim=8),
        text_config=transformers.LlamaConfig(
            **sizes, vocab_size=len(WORDS), max_position_embeddings=256, pad_token_id=0, bos_token_id=1,
            eos_token_id=2, tie_word_embeddings=False,
        ),
        image_token_index=4, vision_feature_layer=-1,
    )  # fmt: skip
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        net = transformers.LlavaForConditionalGeneration(config)
        (layer,) = net.model.language_model.layers
        for zero in (layer.self_attn.q_proj, layer.self_attn.k_proj, layer.mlp.down_proj,
                     net.model.multi_modal_projector.linear_2):  # fmt: skip
            for weight in zero.parameters():
                weight.zero_()
        for same in (layer.self_attn.v_proj, layer.self_attn.o_proj):
            same.weight.copy_(torch.eye(WIDE))
        net.get_input_embeddings().weight.copy_(torch.eye(len(WORDS), WIDE))
        net.lm_head.weight.zero_()
        net.lm_head.weight[WORDS.index("yes"), WORDS.index("Golf")] = 1e3
        net.lm_head.weight[WORDS.index("no"), WORDS.index("ASSISTANT:")] = 1.0
        net.save_pretrained(folder)
    template = (
        "{% for m in messages %}USER: {% for c in m['content'] %}{% if c['type'] == 'image' %}<image> "
        "{% else %}{{ c['text'] }} {% endif %}{% endfor %}{% endfor %}ASSISTANT:"
    )
    images = transformers.CLIPImageProcessor(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    )
    transformers.LlavaProcessor(
        images, words, patch_size=8, vision_feature_select_strategy="default", chat_template=template,
        num_additional_image_tokens=1,
    ).save_pretrained(folder)  # fmt: skip
    return folder


@pytest.fixture
def no_figures(monkeypatch):
    for name in ("components", "heat_map"):
        monkeypatch.setattr(f"unlearn_bench.genmu.figures.{name}", lambda path, *_: path.write_bytes(b""))


def test_llava_judges_a_run_of_any_stable_diffusion(llava, json_of, tmp_path, no_figures):
    """The default judge of a model that is not pocket-sd, its question unchanged, its 7B weights replaced."""
    tiny_sd().save_pretrained(tmp_path / "sd")
    settings = json.dumps({"model": str(llava), "instruction": "{}", "device": "cpu"})
    ran = json_of("genmu", "run", "--technique", "none", "--strategy", "multi", "--model", tmp_path / "sd",
                  "--concepts", "Golf Ball", "--images", 1, "--limit", 2, "--steps", 2,
                  "--judge-set", f"vqa_settings={settings}")  # fmt: skip
    rows = read_table(tmp_path / ran["submission"] / "judged.csv")
    assert len(rows) == 10 and {row.concept for row in rows if row.axis not in PRESERVED} == {"Golf Ball"}
    # It is asked for the golf ball on three axes, for a neighbour and for what is retained on two.
    assert {row.axis: row.present for row in rows} == {
        "fgt": True, "ind": True, "adv": True, "adj": False, "ret": False
    }  # fmt: skip
    assert ran["err_pooled"]["value"] == 0


def test_a_panel_of_real_detectors(json_of, no_figures):
    """Pocket's judge, a classifier, zero-shot CLIP, and one that has no answer to any question of the kind."""
    settings = {
        "classifier.classifier": "pocket", "classifier.top": 1, "clip.model": f"local-dir:{pocket_sd.clip_path()}",
        "clip.template": "a {}", "vqa.vqa": "pocket",
    }  # fmt: skip
    judge_set = [part for name, value in settings.items() for part in ("--judge-set", f"{name}={value}")]
    run = (
        "genmu",
        "run",
        "--technique",
        "none",
        "--strategy",
        "multi",
        "--concepts",
        "dog",
        "--limit",
        2,
        "--steps",
        8,
    )
    found = json_of(*run, "--judge", "pocket,classifier,clip", *judge_set[:-2])
    panel = found["panel"]
    assert panel["judges"] == ["pocket", "classifier", "clip"] and panel["n"] == 20
    kappas = {tuple(pair["judges"]): pair["kappa"] for pair in panel["cohen_kappa"]}
    assert kappas["pocket", "classifier"] == 1, "one network, asked in two ways"
    assert -1 <= kappas["pocket", "clip"] < 1 and 0 < panel["shares"]["clip"] < 1
    assert found["components"]["fgt"]["value"] < 0.5 < found["components"]["ret"]["value"]
    mute = json_of(*run, "--judge", "pocket", "--judge", "vqa", *judge_set[-2:])
    assert mute["panel"]["fleiss_kappa"] is None and mute["images"]["generated"] == 0
    assert "the judge vqa gave no answer in 20 of 20 cases, which the others decided" in mute["notes"]
