"""VQA models and the sentence encoder of transformers: real classes, tiny, with random weights."""

import importlib.util
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from unlearn_core import spec
from unlearn_core.errors import InvalidInput, MissingExtra, Unavailable
from unlearn_metrics.detectors.vqa import VqaDetector
from unlearn_metrics.questions import VQA
from unlearn_metrics.sentences.sbert import Sbert
from unlearn_metrics.tifa import Tifa
from unlearn_metrics.vqa.blip import TransformersVQA
from unlearn_metrics.vqa.chat import ChatVQA

transformers = pytest.importorskip("transformers")

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]")
TEXT = "is there a dog cat in this image ? what color the sky yes no red blue"
WORDS = [*SPECIAL, *dict.fromkeys(TEXT.split())]
QUESTIONS = ["is there a dog in this image ?", "what color is the sky ?", "is this a cat ?"]
BERT = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}


def tokenizer(folder):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    return transformers.BertTokenizerFast(str(folder / "vocab.txt"), model_max_length=32)


@pytest.fixture(scope="module")
def blip(tmp_path_factory):
    folder = tmp_path_factory.mktemp("blip")
    ids = {"bos_token_id": 5, "eos_token_id": 3, "sep_token_id": 3, "pad_token_id": 0}
    config = transformers.BlipConfig(
        text_config={
            **BERT,
            "vocab_size": len(WORDS),
            "encoder_hidden_size": 16,
            "max_position_embeddings": 32,
            **ids,
        },
        vision_config={**BERT, "image_size": 32, "patch_size": 8},
        projection_dim=8,
    )
    with torch.random.fork_rng():
        torch.manual_seed(1)
        transformers.BlipForQuestionAnswering(config).save_pretrained(folder)
    images = transformers.BlipImageProcessor(size={"height": 32, "width": 32})
    transformers.BlipProcessor(images, tokenizer(folder)).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def vilt(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vilt")
    config = transformers.ViltConfig(
        **BERT, vocab_size=len(WORDS), image_size=32, patch_size=8, max_position_embeddings=32,
        id2label={0: "yes", 1: "no", 2: "red", 3: "2"}, label2id={"yes": 0, "no": 1, "red": 2, "2": 3},
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(1)
        transformers.ViltForQuestionAnswering(config).save_pretrained(folder)
    images = transformers.ViltImageProcessor(size={"shortest_edge": 32}, size_divisor=8)
    transformers.ViltProcessor(images, tokenizer(folder)).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def llava(tmp_path_factory):
    from tokenizers import Tokenizer, models, pre_tokenizers

    folder = tmp_path_factory.mktemp("llava")
    words = [
        "<pad>",
        "<s>",
        "</s>",
        "<unk>",
        "<image>",
        "USER:",
        "ASSISTANT:",
        *WORDS[6:],
        "Answer",
        "one",
        "or",
        "two",
    ]
    raw = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>",
        additional_special_tokens=["<image>"],
    )  # fmt: skip
    vision = transformers.CLIPVisionConfig(**BERT, image_size=32, patch_size=8, projection_dim=8)
    text = transformers.LlamaConfig(
        **BERT,
        vocab_size=len(words),
        max_position_embeddings=128,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    config = transformers.LlavaConfig(vision_config=vision, text_config=text, image_token_index=4)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformers.LlavaForConditionalGeneration(config).save_pretrained(folder)
    template = (
        "{% for m in messages %}USER: {% for c in m['content'] %}{% if c['type'] == 'image' %}<image> "
        "{% else %}{{ c['text'] }} {% endif %}{% endfor %}{% endfor %}ASSISTANT:"
    )
    images = transformers.CLIPImageProcessor(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    )
    transformers.LlavaProcessor(
        images, fast, patch_size=8, vision_feature_select_strategy="default", chat_template=template,
        num_additional_image_tokens=1,
    ).save_pretrained(folder)  # fmt: skip
    return str(folder)


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bert")
    config = transformers.BertConfig(**BERT, vocab_size=len(WORDS), max_position_embeddings=32)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformers.BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    tokenizer(folder).save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("kind", ["blip", "vilt", "llava"])
def test_a_batch_is_what_its_questions_are_alone(kind, request, pictures):
    folder = request.getfixturevalue(kind)
    make = ChatVQA if kind == "llava" else TransformersVQA
    images, questions = list(pictures(3)), [QUESTIONS, QUESTIONS[:1], []]
    vqa = make(model=folder, device="cpu", batch=3)
    found = vqa.answer(images, questions)
    assert isinstance(vqa, VQA) and [len(each) for each in found] == [3, 1, 0]
    alone = make(model=folder, device="cpu", batch=1)
    assert alone.answer(images, questions) == found
    assert vqa.answer([], []) == []
    assert vqa.revision == alone.revision and vqa.revision.split()[0] == {"llava": "chat"}.get(kind, kind)


def test_vilt_is_transformers_own(vilt, pictures):
    net = transformers.ViltForQuestionAnswering.from_pretrained(vilt).eval()
    processor = transformers.ViltProcessor.from_pretrained(vilt)
    images, expected = pictures(6), []
    for image in images:
        with torch.no_grad():
            logits = net(**processor(Image.fromarray(image), QUESTIONS[0], return_tensors="pt")).logits
        expected.append([net.config.id2label[int(logits.argmax())]])
    assert TransformersVQA(model=vilt, device="cpu").answer(images, [QUESTIONS[:1]] * 6) == expected


def test_blip_is_transformers_own(blip, pictures):
    net = transformers.BlipForQuestionAnswering.from_pretrained(blip).eval()
    processor = transformers.BlipProcessor.from_pretrained(blip)
    inputs = processor(Image.fromarray(pictures(1)[0]), QUESTIONS[1], return_tensors="pt")
    with torch.no_grad():
        found = net.generate(**inputs, max_new_tokens=10)
    expected = processor.decode(found[0], skip_special_tokens=True).strip()
    assert TransformersVQA(model=blip, device="cpu").answer(pictures(1), [QUESTIONS[1:2]]) == [
        [expected or None]
    ]


def test_sbert_is_the_masked_mean(bert):
    net = transformers.BertModel.from_pretrained(bert, add_pooling_layer=False).eval()
    tokens = transformers.BertTokenizerFast.from_pretrained(bert)
    expected = []
    for text in ["yes", *QUESTIONS]:
        with torch.no_grad():
            states = net(**tokens(text, return_tensors="pt")).last_hidden_state[0].numpy()
        expected.append(states.mean(0) / np.linalg.norm(states.mean(0)))
    found = Sbert(model=bert, device="cpu", batch=2).embed(["yes", *QUESTIONS])
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert Sbert(model=bert, device="cpu").embed([]).shape == (0, 16)
    assert Sbert(model=bert, device="cpu").revision.startswith("sbert ")


def test_tifa_through_the_real_models(blip, bert, sample_set, pictures, tmp_path):
    """Against BLIP and BERT of transformers asked by hand: each answer, and the choice nearest to it."""
    choices, images, texts = ["red", "blue"], pictures(3), ["a dog", "a cat", "the sky"]
    rows = [
        {"id": str(i), "caption": text, "question": question, "choices": choices, "answer": "red",
         "element_type": "color"}
        for i, text in enumerate(texts) for question in QUESTIONS
    ]  # fmt: skip
    path = tmp_path / "questions.json"
    path.write_text(json.dumps(rows))
    net = transformers.BlipForQuestionAnswering.from_pretrained(blip).eval()
    processor = transformers.BlipProcessor.from_pretrained(blip)
    encoder = Sbert(model=bert, device="cpu")  # which is transformers' own by the test above
    expected = []
    for image in images:
        right = []
        for question in QUESTIONS:
            inputs = processor(Image.fromarray(image), question, return_tensors="pt")
            with torch.no_grad():
                said = processor.decode(
                    net.generate(**inputs, max_new_tokens=10)[0], skip_special_tokens=True
                )
            if said.strip():
                near = encoder.embed([said.strip(), *choices])
                right.append(float(said.strip() == "red" or near[0] @ near[1] > near[0] @ near[2]))
        expected.append(np.mean(right))
    settings = {"questions": str(path), "vqa_settings": {"model": blip, "device": "cpu"}}
    metric = Tifa(**settings, sentences_settings={"model": bert, "device": "cpu"})
    samples = sample_set(images, texts, group="tifa")
    score = metric.measure(samples)
    assert list(score.per_sample.values()) == pytest.approx(expected)
    assert score == metric.measure(samples)  # whose answers are found on disk
    assert score.interval and 0 <= score.parts["blank"] <= 1 and score.parts["snapped"] > 0


@pytest.mark.parametrize(("word", "expected"), [("yes", 1.0), ("no", 0.0), ("2", None)])
def test_a_yes_no_question_to_a_real_model(vilt, pictures, tmp_path, word, expected):
    """The fixture's network gives one of its words to every picture; here it is called `word`."""
    shutil.copytree(vilt, tmp_path / "vilt")
    path = tmp_path / "vilt" / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "id2label": dict.fromkeys(config["id2label"], word)}))
    settings = {"model": str(tmp_path / "vilt"), "device": "cpu"}
    detector = VqaDetector(concept="a dog", question="is there {} in this image ?", vqa_settings=settings)
    assert detector.presence(pictures(4)) == [expected] * 4


def test_models_that_cannot_be_taken(blip, bert, tmp_path, pictures):
    with pytest.raises(Unavailable, match="nowhere.*give the path of its folder"):
        TransformersVQA(model=str(tmp_path / "nowhere")).answer(pictures(1), [QUESTIONS[:1]])
    with pytest.raises(InvalidInput, match="of the type 'bert', which is none of blip, vilt"):
        TransformersVQA(model=bert).answer(pictures(1), [QUESTIONS[:1]])
    with pytest.raises((Unavailable, InvalidInput)):
        ChatVQA(model=bert).answer(pictures(1), [QUESTIONS[:1]])


def test_weights_that_are_missing_are_an_error(blip, tmp_path, pictures):
    """transformers would draw them at random and warn."""
    import shutil

    from safetensors.torch import load_file, save_file

    folder = tmp_path / "half"
    shutil.copytree(blip, folder)
    state = load_file(folder / "model.safetensors")
    kept = {name: tensor for name, tensor in state.items() if "text_encoder" not in name}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InvalidInput, match="no trained VQA model: it lacks"):
        TransformersVQA(model=str(folder), device="cpu").answer(pictures(1), [QUESTIONS[:1]])


@pytest.mark.parametrize("cls", [TransformersVQA, ChatVQA, Sbert])
def test_settings_and_the_extra(cls, monkeypatch):
    needed = {"model": "owner/name"}
    with pytest.raises(InvalidInput, match="at least one"):
        spec.build(cls, {**needed, "batch": 0})
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "transformers" else find(name)
    )
    with pytest.raises(MissingExtra, match=r"pip install 'unlearn-metrics\[transformers\]'"):
        spec.build(cls, needed)


def test_an_instruction_has_a_place_for_the_question():
    with pytest.raises(InvalidInput, match="one {} where the question goes"):
        ChatVQA(model="x", instruction="Answer!")


def test_the_fixtures_hold_no_network(blip):
    from pathlib import Path

    assert json.loads((Path(blip) / "config.json").read_text())["model_type"] == "blip"
