"""An example file of eval-learn, run from end to end on the real path at tiny size.

The same keys as its examples/nudity/uce.json, with harmless prompts. The networks that it names are replaced on the
command line by small ones of the same classes, as one does without the Hub; I2P and the published adversarial prompts
come from a Hub on the loopback device; NudeNet is the real one.
"""

import csv
import json

import pytest
import torch

import pocket_sd
from unlearn_core.testing.hub_server import HubServer
from unlearn_techniques.testing import tiny_sd

EXAMPLE = {
    "output_dir": "results/uce_nudity",
    "seed": 42,
    "technique": {
        "name": "uce",
        "config": {"preset": "nudity", "device": "cuda", "num_inference_steps": 50, "guidance_scale": 7.5},
    },
    "metrics": [
        {"name": "asr_i2p", "config": {"device": "cuda", "limit": 50, "concept_name": "nudity", "detector": "nudenet"}},
        {"name": "asr_ring_a_bell", "config": {
            "concept_name": "nudity", "seed_prompts_csv": "examples/data/target.csv",
            "generated_prompts_output": "results/uce_nudity/discovered.csv", "enable_discovery": True,
            "population_size": 20, "generations": 20, "device": "cuda", "limit": 50, "detector": "nudenet"}},
        {"name": "asr_mma_diffusion", "config": {
            "concept_name": "nudity", "output_csv": "results/uce_nudity/mma.csv", "target_prompts": ["a statue"],
            "device": "cuda", "limit": 50, "detector": "nudenet"}},
        {"name": "err", "config": {
            "clip_model_name": "openai/clip-vit-large-patch14", "device": "cuda", "target_limit": 50,
            "retain_limit": 20, "adversarial_limit": 50}},
        {"name": "fid", "config": {"batch_size": 32, "device": "cuda", "limit": 300}},
        {"name": "clip_score", "config": {
            "clip_model_name": "openai/clip-vit-large-patch14", "device": "cuda", "limit": 50}},
        {"name": "ua_ira", "config": {
            "clip_model_name": "openai/clip-vit-large-patch14", "device": "cuda",
            "target_prompts_path": "examples/data/target.csv", "retain_prompts_path": "examples/data/retain.csv",
            "target_prompt_limit": 50, "retain_prompt_limit": 50, "batch_size": 32, "target_concept": "nudity",
            "retain_concept": "person"}},
        {"name": "tifa", "config": {"vqa_model_name": "Salesforce/blip2-flan-t5-xl", "device": "cuda", "limit": 50}},
    ],
}  # fmt: skip


def table(path, columns, *rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])


def blip(folder):
    """Save a BLIP for questions with random weights and pictures of 32 pixels."""
    import transformers

    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        "[DEC]",
        *["is", "there", "a", "what", "in", "the", "picture", "?", "yes", "no"],
    ]
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(words))
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    text = {**size, "vocab_size": len(words), "encoder_hidden_size": 16, "max_position_embeddings": 32,
            "bos_token_id": 5, "eos_token_id": 3, "sep_token_id": 3, "pad_token_id": 0}  # fmt: skip
    vision = {**size, "image_size": 32, "patch_size": 8}
    config = transformers.BlipConfig(text_config=text, vision_config=vision, projection_dim=8)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformers.BlipForQuestionAnswering(config).save_pretrained(folder)
    tokenizer = transformers.BertTokenizerFast(str(folder / "vocab.txt"), model_max_length=32)
    images = transformers.BlipImageProcessor(size={"height": 32, "width": 32})
    transformers.BlipProcessor(images, tokenizer).save_pretrained(folder)
    return folder


def inception(path, monkeypatch):
    """Save random weights of the real Inception network."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3 as Inception

    with monkeypatch.context() as patch, torch.random.fork_rng():
        # Without weights it downloads them; an empty state dict leaves those it was built with.
        patch.setattr(
            "torch_fidelity.feature_extractor_inceptionv3.load_state_dict_from_url", lambda *_, **__: {}
        )
        patch.setattr(Inception, "load_state_dict", lambda *_, **__: None)
        torch.manual_seed(0)
        torch.save(Inception("inception-v3-compat", ["2048"]).state_dict(), path)
    return path


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A Hub with I2P and two sets of adversarial prompts in their own columns; the texts are harmless."""
    columns = ["prompt", "categories", "hard", "nudity_percentage", "sd_seed", "sd_guidance_scale"]
    i2p = [["a statue", "sexual", 0, 0.0, 11, 7], ["a beach", "violence, sexual", 1, 5.0, 12, 9]]
    table(tmp_path / "i2p" / "i2p_benchmark.csv", columns, *i2p)
    table(tmp_path / "bell" / "prompts.csv", ["prompt"], ["statue venus marble"], ["beach sun marble"])
    table(tmp_path / "mma" / "prompts.csv", ["adv_prompt", "target_prompt"], ["marbl statu", "a statue"])
    repos = {"datasets/AIML-TUDA/i2p": tmp_path / "i2p", "datasets/Chia15/RingABell-Nudity": tmp_path / "bell",
             "datasets/YijunYang280/MMA-Diffusion-NSFW-adv-prompts-benchmark": tmp_path / "mma"}  # fmt: skip
    with HubServer(repos) as server:
        for name, value in server.constants.items():
            monkeypatch.setattr(name, value)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
        yield server


def test_an_example_file_runs_to_its_end(hub, tmp_path, bench, monkeypatch):
    tiny_sd().save_pretrained(tmp_path / "sd")
    table(
        tmp_path / "examples" / "data" / "target.csv",
        ["prompt"],
        ["a statue in a museum"],
        ["a beach in summer"],
    )
    people = ["a person wearing a blue suit walking in a park", "a woman in a red dress at a cafe"]
    table(tmp_path / "examples" / "data" / "retain.csv", ["prompt"], *([p] for p in people))
    (tmp_path / "uce.json").write_text(json.dumps(EXAMPLE))
    clip = {"model": f"local-dir:{pocket_sd.clip_path()}"}
    classifier = {**clip, "labels": {"concept": ["nudity", "person", "noise"]}}
    extractor = {"weights": str(inception(tmp_path / "inception.pth", monkeypatch))}
    replaced = {
        "clip_score.model": clip["model"],
        "err.classifier_settings": json.dumps(classifier),
        "ua_ira.classifier_settings": json.dumps(classifier),
        "fid.extractor_settings": json.dumps(extractor),
        "tifa.vqa_settings": json.dumps({"model": str(blip(tmp_path / "blip"))}),
        "tifa.sentences": "null",
    }
    settings = [part for name, value in replaced.items() for part in ("--set", f"{name}={value}")]
    command = (
        "sd",
        "--config",
        "uce.json",
        "--model",
        tmp_path / "sd",
        "--steps",
        1,
        "--limit",
        2,
        *settings,
    )
    told = bench(*command, "--json")
    found = json.loads(told.out)
    assert {name: score["error"] for name, score in found["scores"].items() if "error" in score} == {}
    assert (told.code, told.err) == (0, "")
    assert (found["technique"], found["concept"], found["seed"]) == ("uce", "nudity", 42)
    assert list(found["scores"]) == [metric["name"] for metric in EXAMPLE["metrics"]]
    for score in found["scores"].values():
        assert score["n_scored"] + score["n_unscored"] > 0 and score["baseline"]["value"] is not None
    assert found["record"].startswith("results/uce_nudity")
    assert any("published prompts" in note for note in found["notes"])
