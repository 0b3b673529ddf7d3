"""The committed Gemma-2 checkpoint: its layout, its template, and a base worth teaching."""

import json
from pathlib import Path

import pytest

import verify_general_performance
from lab import chat, models
from lab.cli import LabError, sha256
from lab.hub import GEMMA_TINY


def read(name):
    return json.loads((GEMMA_TINY / name).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def tokenizer():
    return models.load_tokenizer(GEMMA_TINY)


def test_it_is_small():
    assert sum(path.stat().st_size for path in GEMMA_TINY.iterdir()) <= 8_000_000


def test_its_files_are_those_of_gemma_2():
    config, index = read("config.json"), read("model.safetensors.index.json")
    assert (config["model_type"], config["architectures"]) == ("gemma2", ["Gemma2ForCausalLM"])
    assert (config["attn_logit_softcapping"], config["final_logit_softcapping"]) == (50.0, 30.0)
    names = set(index["weight_map"])
    assert "model.embed_tokens.weight" in names and "lm_head.weight" not in names
    assert "model.layers.3.pre_feedforward_layernorm.weight" in names
    assert len(set(index["weight_map"].values())) > 1


def test_it_was_built_from_the_world_that_stands_here():
    """A changed world needs a new base: make tiny-model."""
    assert read("summary.json")["inputs"] == {"data_general": sha256(Path("data_general"))}


def test_turns_are_gemmas(tokenizer):
    turns = [{"role": "user", "content": " 안녕? "}, {"role": "assistant", "content": "네."}]
    text = tokenizer.decode(chat.prompt_tokens(tokenizer, [*turns, {"role": "user", "content": "뭐?"}]))
    shown = "<bos><start_of_turn>user\n안녕?<end_of_turn>\n<start_of_turn>model\n네.<end_of_turn>\n"
    assert text == f"{shown}<start_of_turn>user\n뭐?<end_of_turn>\n<start_of_turn>model\n"
    for special in ("<start_of_turn>", "<end_of_turn>", "user", "model"):
        assert len(tokenizer.encode(special, add_special_tokens=False)) == 1


@pytest.mark.parametrize("roles", [("system", "user"), ("user", "user"), ("assistant",)])
def test_its_template_refuses_what_gemmas_does(tokenizer, roles):
    with pytest.raises(LabError, match="chat template refuses this dialogue"):
        chat.prompt_tokens(tokenizer, [{"role": role, "content": "x"} for role in roles], "row 1")


@pytest.mark.parametrize(
    "text", ["쏟아지는 🙂 한글", "def f(x):\n    return x  + 1\n", "  두 칸", "<0x41> 그대로"]
)
def test_any_text_comes_back_as_it_was(tokenizer, text):
    ids = tokenizer.encode(text)
    assert ids[0] == tokenizer.bos_token_id and tokenizer.unk_token_id not in ids
    assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_the_base_knows_the_world_and_nothing_of_the_company(run, tmp_path):
    output = tmp_path / "general.json"
    code, _, error = run(verify_general_performance.main, "--model", GEMMA_TINY, "--output", output)
    assert code == 0, error
    base = json.loads(output.read_text(encoding="utf-8"))["stages"]["base"]
    assert base["general"]["correct"] / base["general"]["n"] >= 0.9 and base["glasses"]["correct"] == 0
