"""Against transformers' torch model: it loads what lab.pretraining writes, and ours has its logits."""

import json
import shutil
from pathlib import Path

import pytest

from lab.device import mx  # isort: skip  (first of MLX: it puts the fast BLAS in front)
import mlx_lm
import numpy as np
from mlx.utils import tree_map
from mlx_lm.models import llama

import convert_hyperclova
from lab import pretraining
from lab.cli import finish

torch = pytest.importorskip("torch", reason="torch is not installed (requirements-dev.txt)")
transformers = pytest.importorskip("transformers")
Reference = transformers.HyperCLOVAXVisionV2ForConditionalGeneration

pytestmark = pytest.mark.reference
TEMPLATE = Path(__file__).resolve().parents[2] / "data_general" / "chat_template.jinja"
NEW_TOKENS = 24


@pytest.fixture(scope="module")
def hub_layout(tmp_path_factory):
    """The embedded checkpoint's layout with random weights, norms away from 1."""
    folder = tmp_path_factory.mktemp("reference") / "hub"
    tokenizer = pretraining.train_tokenizer([{"text": "서울은 대한민국의 수도이다."}], TEMPLATE)
    mx.random.seed(7)
    model = llama.Model(llama.ModelArgs.from_dict({**pretraining.text_config(), "model_type": "llama"}))
    model.update(tree_map(lambda value: value + mx.random.normal(value.shape) * 0.05, model.parameters()))
    pretraining.save_checkpoint(folder, model, tokenizer, TEMPLATE, seed=0)
    return folder


@pytest.fixture(scope="module")
def reference(hub_layout):
    """(torch model in float32, what transformers says about the keys)."""
    model, report = Reference.from_pretrained(hub_layout, dtype=torch.float32, output_loading_info=True)
    return model.eval(), report


@pytest.fixture(scope="module")
def layouts(hub_layout, reference):
    """{layout: folder}: the hub's, that one loaded and saved again, and one of transformers' own making."""
    made = {"hub": hub_layout}
    own = Reference(reference[0].config)
    own.load_state_dict(reference[0].state_dict())
    for layout, model in (("loaded and saved", reference[0]), ("transformers", own)):
        made[layout] = hub_layout.parent / layout
        model.save_pretrained(made[layout], max_shard_size="3MB")
        for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
            shutil.copyfile(hub_layout / name, made[layout] / name)
    return made


def test_transformers_finds_every_key_but_the_projectors_name(reference):
    _, report = reference
    assert set(report["missing_keys"]) == {"model.projector.weight", "model.projector.bias"}
    assert set(report["unexpected_keys"]) == {"model.mm_projector.weight", "model.mm_projector.bias"}
    assert not report["mismatched_keys"]


@pytest.mark.parametrize(
    ("layout", "norm", "projector"),
    [
        ("hub", "model.language_model.model.norm.weight", "model.mm_projector.weight"),
        ("loaded and saved", "model.language_model.model.norm.weight", "model.projector.weight"),
        ("transformers", "model.language_model.norm.weight", "model.vision_projector.weight"),
    ],
)
def test_the_layouts_differ_as_the_key_maps_say(layouts, layout, norm, projector):
    index = layouts[layout] / "model.safetensors.index.json"
    names = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
    assert {norm, projector, "model.language_model.lm_head.weight"} <= set(names)


@pytest.mark.parametrize("layout", ["hub", "loaded and saved", "transformers"])
def test_logits_and_greedy_tokens_are_those_of_torch(layouts, reference, tmp_path, layout):
    out = str(tmp_path / "out")
    flags = ["--hf-path", str(layouts[layout]), "--mlx-path", out, "--no-quantize", "--dtype", "float32"]
    assert finish(convert_hyperclova.main, flags) == 0
    ours, _ = mlx_lm.load(out)
    tokens = np.random.default_rng(0).integers(0, pretraining.VOCABULARY, (3, 65))
    with torch.no_grad():
        wanted = reference[0](input_ids=torch.tensor(tokens)).logits.numpy()
    found = np.array(ours(mx.array(tokens)))
    off = np.abs(found - wanted).max() / np.abs(wanted).max()
    print(f"{layout}: max |d| / max |logit| = {off:.1e}, max |logit| = {np.abs(wanted).max():.2f}")
    assert off <= 1e-5
    prompt = tokens[:1, :12]
    settings = {"max_new_tokens": NEW_TOKENS, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    with torch.no_grad():
        greedy = reference[0].generate(torch.tensor(prompt), **settings)[0, prompt.shape[1] :].tolist()
    assert len(greedy) == NEW_TOKENS and len(set(greedy)) > 1
    assert greedy == greedy_tokens(ours, prompt)


def greedy_tokens(model, prompt):
    """The NEW_TOKENS most likely tokens after `prompt` (1, T) int, one by one, without a cache."""
    tokens = prompt.tolist()[0]
    for _ in range(NEW_TOKENS):
        tokens.append(int(mx.argmax(model(mx.array([tokens]))[0, -1])))
    return tokens[prompt.shape[1] :]
