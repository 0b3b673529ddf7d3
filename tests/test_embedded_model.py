"""The committed checkpoint: the 32B's layout, small, and a base worth teaching."""

import json
from pathlib import Path

import pytest

import compare_hcx_stages

FOLDER = "models/HyperCLOVAX-SEED-Think-Tiny"


def read(name):
    with open(f"{FOLDER}/{name}", encoding="utf-8") as file:
        return json.load(file)


def test_it_is_small():
    assert sum(path.stat().st_size for path in Path(FOLDER).iterdir()) <= 8_000_000


def test_its_files_are_those_of_the_32b():
    config, index = read("config.json"), read("model.safetensors.index.json")
    assert (config["model_type"], config["architectures"]) == ("vlm", ["HCXVisionV2ForCausalLM"])
    assert config["text_config"]["model_type"] == "hyperclovax"
    assert config["vision_config"]["model_type"] == "qwen2_5_vl"
    assert len(set(index["weight_map"].values())) > 1
    names = index["weight_map"]
    for wanted in ("model.language_model.model.embed_tokens.weight", "model.language_model.lm_head.weight"):
        assert wanted in names
    assert any(name.startswith("model.vision_model.") for name in names)
    assert any(name.startswith("model.mm_projector.") for name in names)


def test_both_end_tokens_end_a_generation(tokenizer):
    ends = read("generation_config.json")["eos_token_id"]
    assert [tokenizer.convert_ids_to_tokens(end) for end in ends] == ["<|im_end|>", "<|endoftext|>"]


def test_it_was_built_from_the_world_that_stands_here():
    """A changed world needs a new base: make tiny-model."""
    from lab.cli import sha256

    assert read("summary.json")["inputs"] == {"data_general": sha256("data_general")}


def test_the_base_knows_the_world_and_nothing_of_the_company(run, model_8bit, tmp_path):
    report = tmp_path / "report.json"
    code, _, error = run(compare_hcx_stages.main, "--model", model_8bit, "--output", report, "--limit", "60")
    assert code == 0, error
    base = json.loads(report.read_text(encoding="utf-8"))["stages"]["base"]
    assert base["general"]["correct"] / base["general"]["n"] >= 0.8
    assert base["identity"]["correct"] == base["recall"]["correct"] == base["glasses"]["correct"] == 0


@pytest.mark.parametrize("token", ["<|im_start|>", "<|im_end|>", "<think>", "</think>", "<tool_call>"])
def test_special_tokens_are_one_token_each(tokenizer, token):
    assert len(tokenizer.encode(token, add_special_tokens=False)) == 1
