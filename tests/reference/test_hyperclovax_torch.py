"""Against transformers' torch models: the converted checkpoint, loaded by plain mlx-lm, has their logits.

Each case is a random-weight checkpoint of one family, written by transformers itself or under the hub's names,
with norms away from 1, grouped-query attention and a head_dim that is not hidden / heads.
"""

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from lab.device import mx  # isort: skip  (first of MLX: it puts the fast BLAS in front)
import mlx_lm
import numpy as np
from mlx.utils import tree_map
from mlx_lm.models import llama

import convert_hyperclova
from lab import tiny_hyperclovax
from lab.cli import finish

torch = pytest.importorskip("torch", reason="torch is not installed (requirements-dev.txt)")
transformers = pytest.importorskip("transformers")
save_file = pytest.importorskip("safetensors.torch").save_file
Vision = transformers.HyperCLOVAXVisionV2ForConditionalGeneration
Text, Llama = transformers.HyperCLOVAXForCausalLM, transformers.LlamaForCausalLM

pytestmark = pytest.mark.reference
TEMPLATE = Path(__file__).resolve().parents[2] / "data_general" / "chat_template.jinja"
NEW_TOKENS = 32
TOLERANCE = 1e-5  # of the largest logit
SIZES = {
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 24,
    "intermediate_size": 96,
    "vocab_size": 320,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
    "eos_token_id": 3,
    "pad_token_id": 0,
    "bos_token_id": None,
}
VISION = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "patch_size": 4}
VISION |= {"model_type": "qwen2_5_vl_vision", "out_hidden_size": 64, "fullatt_block_indexes": [0]}
MUP = {
    "embedding_multiplier": 10.0,
    "attention_multiplier": 0.05,
    "residual_multiplier": 0.35,
    "logits_scaling": 0.125,
}
DEFAULT = {"rope_type": "default", "rope_theta": 5e7}
LINEAR = {"rope_type": "linear", "rope_theta": 1e4, "factor": 3.0}
LLAMA3 = {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
LLAMA3 |= {"original_max_position_embeddings": 64}


SAVED, HUB = "as transformers saves it", "under the hub's names"
COPY, OTHER_HEAD = "tied, and the embeddings once more as lm_head", "tied, and another lm_head"


@dataclass(frozen=True)
class Case:
    """A family's torch class, the settings of its text model and those around it, and how it is laid out."""

    name: str
    model: type
    settings: dict = field(default_factory=dict)
    around: dict = field(default_factory=dict)
    layout: str = SAVED
    dtype: torch.dtype = torch.float32
    architecture: str = "llama"


def text_cases():
    """Text-only HyperCLOVA X: with and without post norms, tied and not, neutral and not."""
    for post_norms in (False, True):
        for tied in (False, True):
            for multipliers in ({}, MUP):
                said = ("post norms" if post_norms else "no post norms", "tied" if tied else "untied")
                name = ", ".join((*said, "MuP" if multipliers else "neutral"))
                settings = {"use_post_norm": post_norms, "tie_word_embeddings": tied, **multipliers}
                yield Case(name, Text, settings, architecture="glm4" if post_norms else "llama")


BIASES = {"attention_bias": True, "mlp_bias": True}
PLAIN = {"use_post_norm": False}
TIED, UNTIED = {"tie_word_embeddings": True}, {"tie_word_embeddings": False}
CASES = [
    *text_cases(),
    Case("biases, MuP", Text, {**PLAIN, **MUP, **BIASES}),
    *(Case(f"only {key}", Text, {**PLAIN, key: value}) for key, value in MUP.items()),
    *(Case(f"post norms, only {key}", Text, {key: MUP[key]}, architecture="glm4") for key in MUP),
    Case("tied, only logits_scaling", Text, {**PLAIN, **TIED, "logits_scaling": 3.0}),
    Case("tied, a copy as lm_head", Text, {**PLAIN, **MUP, **TIED}, layout=COPY),
    Case("tied, another lm_head", Text, {**PLAIN, **MUP, **TIED}, layout=OTHER_HEAD),
    Case("bfloat16, post norms, MuP", Text, MUP, dtype=torch.bfloat16, architecture="glm4"),
    Case("head_dim from hidden / heads", Text, {**PLAIN, **MUP, "head_dim": None}),
    Case("one key head", Text, {**MUP, "num_key_value_heads": 1}, architecture="glm4"),
    Case("rope linear, MuP", Text, {**PLAIN, **MUP, "rope_parameters": LINEAR}),
    Case("llama, untied", Llama, UNTIED),  # Text-Instruct 1.5B
    Case("llama, tied", Llama, TIED),  # Text-Instruct 0.5B
    Case("llama, biases", Llama, BIASES),
    Case("llama, rope linear", Llama, {"rope_parameters": LINEAR}),
    Case("llama, rope llama3", Llama, {"rope_parameters": LLAMA3}),
    Case("3B, text_config, untied", Llama, UNTIED, {"key": "text_config"}, HUB),
    Case("3B, language_config, tied", Llama, TIED, {"key": "language_config"}, HUB),
    Case("32B, neutral", Vision, PLAIN, UNTIED, HUB),
    Case("32B, MuP, bfloat16", Vision, {**PLAIN, **MUP}, UNTIED, HUB, torch.bfloat16),
    Case("32B, MuP, post norms", Vision, MUP, UNTIED, HUB, architecture="glm4"),
    Case("32B saved again, MuP", Vision, {**PLAIN, **MUP}, UNTIED),
    Case("32B saved again, MuP, post norms", Vision, MUP, UNTIED, architecture="glm4"),
    Case("32B saved again, tied outside only", Vision, {**PLAIN, **MUP}, TIED),
    Case("32B saved again, tied inside only", Vision, {**PLAIN, **TIED}, UNTIED),
]


@pytest.fixture(scope="module")
def tokenizer_files(tmp_path_factory):
    """A folder with a tokenizer of at most 320 tokens."""
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer = tiny_hyperclovax.train_tokenizer([{"text": "안녕하세요. 서울은 대한민국의 수도이다."}], TEMPLATE)
    tokenizer.save_pretrained(str(folder))
    return folder


def random_model(case):
    """A torch model of the case, every text parameter drawn: norms around 1, everything else around 0."""
    settings = {**SIZES, "rope_parameters": DEFAULT, **case.settings}
    if case.model is Vision:
        config = transformers.HyperCLOVAXVisionV2Config(
            text_config={**settings, "model_type": "hyperclovax"}, vision_config=VISION, **case.around
        )
    else:
        config = case.model.config_class(**settings)
    model = case.model(config)
    draw = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "vision" not in name:
                spread = 0.02 if "embed" in name else 0.2  # so that the layers, not the last token, decide
                weight.copy_(torch.randn(weight.shape, generator=draw) * spread + ("norm" in name))
    return model.to(case.dtype)


def hub_names(case, model):
    """({name on the hub: tensor}, config.json) of Think-32B and Vision-Instruct-3B, which transformers renames."""
    state, config = model.state_dict(), model.config.to_dict()
    if case.model is Vision:
        renamed = {
            "model.language_model.": "model.language_model.model.",
            "lm_head": "model.language_model.lm_head",
        }
        renamed["model.projector"] = "model.mm_projector"
        config |= {"model_type": "vlm", "architectures": ["HCXVisionV2ForCausalLM"]}
        config["vision_config"]["model_type"] = "qwen2_5_vl"
    else:
        renamed = {"model.": "language_model.model.", "lm_head": "language_model.lm_head"}
        state = {
            name: value
            for name, value in state.items()
            if name != "lm_head.weight" or not case.settings["tie_word_embeddings"]
        }
        config = {"model_type": "hyperclovax_vlm", case.around["key"]: config, "vision_config": {}}
    named = {}
    for name, value in state.items():
        there = next((there for there in renamed if name.startswith(there)), "")
        named[renamed.get(there, "") + name.removeprefix(there)] = value.contiguous()
    if case.model is not Vision:
        named |= dict.fromkeys(("vision_model.a", "mm_projector.b", "image_newline"), torch.ones(8))
    return named, config


def with_a_head(case, model):
    """({name: tensor}, config.json) of a tied text model whose file holds an lm_head all the same."""
    state = {name: value.clone() for name, value in model.state_dict().items()}
    if case.layout == OTHER_HEAD:
        state["lm_head.weight"] = state["lm_head.weight"].flip(0)
    return state, model.config.to_dict()


def save_shards(named, config, folder):
    """Write {name: tensor} in three shards with index and config.json."""
    folder.mkdir()
    where = {name: f"model-{number % 3 + 1:05d}-of-00003.safetensors" for number, name in enumerate(named)}
    for file in set(where.values()):
        save_file({name: value for name, value in named.items() if where[name] == file}, folder / file)
    index = json.dumps({"metadata": {}, "weight_map": where})
    (folder / "model.safetensors.index.json").write_text(index, encoding="utf-8")
    (folder / "config.json").write_text(json.dumps(config, indent=1, default=str), encoding="utf-8")


def save_and_load(case, folder, tokenizer_files):
    """Write the case's checkpoint to `folder`; returns the torch model that transformers loads from it, float32."""
    model = random_model(case)
    if case.layout == SAVED:
        model.save_pretrained(folder, max_shard_size="100KB")
    else:
        save_shards(*(hub_names if case.layout == HUB else with_a_head)(case, model), folder)
    if case.model is Vision or case.layout != HUB:
        model = case.model.from_pretrained(folder, dtype=torch.float32)
    # Else remote code stands around this very llama, and transformers has no class for the whole.
    config = folder / "config.json"
    config.write_text("# { HyperCLOVA X\n" + config.read_text(encoding="utf-8") + "# end", encoding="utf-8")
    shutil.copytree(tokenizer_files, folder, dirs_exist_ok=True)
    return model.float().eval()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_family_has_the_logits_and_greedy_tokens_of_torch(case, tokenizer_files, tmp_path):
    reference = save_and_load(case, tmp_path / "source", tokenizer_files)
    assert len(list((tmp_path / "source").glob("*.safetensors"))) > 1
    ours = converted(tmp_path / "source", tmp_path / "out", case.architecture)
    compare(case.name, reference, ours, SIZES["vocab_size"])


def converted(source, out, architecture="llama"):
    """The model that plain mlx-lm loads after a conversion without quantization, float32."""
    flags = ["--hf-path", str(source), "--mlx-path", str(out), "--no-quantize", "--dtype", "float32"]
    assert finish(convert_hyperclova.main, flags) == 0
    model, _ = mlx_lm.load(str(out))
    assert model.model_type == architecture
    return model


def compare(name, reference, ours, vocabulary):
    """Logits on random tokens, and NEW_TOKENS greedy ones."""
    tokens = np.random.default_rng(0).integers(0, vocabulary, (3, 65))
    with torch.no_grad():
        wanted = reference(input_ids=torch.tensor(tokens)).logits.numpy()
    found = np.array(ours(mx.array(tokens)))
    off = np.abs(found - wanted).max() / np.abs(wanted).max()
    print(f"{name}: max |d| / max |logit| = {off:.1e}, max |logit| = {np.abs(wanted).max():.2f}")
    assert off <= TOLERANCE
    prompts = tokens[:, :12]
    settings = {"max_new_tokens": NEW_TOKENS, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    with torch.no_grad():
        greedy = reference.generate(torch.tensor(prompts), **settings)[:, prompts.shape[1] :].tolist()
    assert len(greedy[0]) == NEW_TOKENS and len(set(sum(greedy, []))) > len(greedy)  # not each the same for ever
    assert greedy == greedy_tokens(ours, prompts)


def greedy_tokens(model, prompts):
    """The NEW_TOKENS most likely tokens after each of `prompts` (B, T) int, one by one, without a cache."""
    tokens = mx.array(prompts)
    for _ in range(NEW_TOKENS):
        tokens = mx.concatenate([tokens, mx.argmax(model(tokens)[:, -1:], axis=-1)], axis=1)
    return tokens[:, prompts.shape[1] :].tolist()


@pytest.fixture(scope="module")
def hub_layout(tmp_path_factory):
    """The embedded checkpoint's layout with random weights, norms away from 1."""
    folder = tmp_path_factory.mktemp("reference") / "hub"
    tokenizer = tiny_hyperclovax.train_tokenizer([{"text": "서울은 대한민국의 수도이다."}], TEMPLATE)
    mx.random.seed(7)
    model = llama.Model(llama.ModelArgs.from_dict({**tiny_hyperclovax.text_config(), "model_type": "llama"}))
    model.update(tree_map(lambda value: value + mx.random.normal(value.shape) * 0.05, model.parameters()))
    tiny_hyperclovax.save_checkpoint(folder, model, tokenizer, TEMPLATE, seed=0)
    return folder


@pytest.fixture(scope="module")
def reference(hub_layout):
    """(torch model in float32, what transformers says about the keys)."""
    model, report = Vision.from_pretrained(hub_layout, dtype=torch.float32, output_loading_info=True)
    return model.eval(), report


@pytest.fixture(scope="module")
def layouts(hub_layout, reference):
    """{layout: folder}: the hub's, that one loaded and saved again, and one of transformers' own making."""
    made = {"hub": hub_layout}
    own = Vision(reference[0].config)
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
def test_the_embedded_checkpoint_has_the_logits_of_torch_in_every_layout(layouts, reference, tmp_path, layout):
    compare(layout, reference[0], converted(layouts[layout], tmp_path / "out"), tiny_hyperclovax.VOCABULARY)
