import hashlib
import json
import os
import shutil
import struct
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import SimpleNamespace

import pytest

from lab.device import mx  # isort: skip  (first: it puts the fast BLAS in front)
import mlx_lm
from mlx.utils import tree_flatten
from mlx_lm.models import llama

import convert_hyperclova
from lab import building, checkpoints, conversion, hyperclovax, pretraining
from lab.cli import CheckFailed, finish

ROOT = Path(__file__).resolve().parent.parent
TEXT = {  # inputs of o_proj and down_proj are 96: no multiple of 64, so those two stay as they are
    "model_type": "hyperclovax",
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 24,
    "intermediate_size": 96,
    "vocab_size": 320,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "rope_theta": 5e7,
    "attention_multiplier": 24**-0.5,
    "residual_multiplier": 1.0,
    "use_post_norm": False,
    "tie_word_embeddings": False,
    "eos_token_id": 3,
    "pad_token_id": 0,
    "bos_token_id": None,
}
VISION = ("model.vision_model.blocks.0.norm1.weight", "model.mm_projector.weight", "model.mm_projector.bias")
RESAVED = (
    "model.vision_tower.blocks.0.norm1.weight",
    "model.vision_projector.weight",
    "model.projector.bias",
)


def text_tensors(**changes):
    """Random tensors of TEXT under llama's own names, as mlx-lm's llama has them, bfloat16."""
    arguments = llama.ModelArgs.from_dict({**TEXT, "model_type": "llama", **changes})
    draw = iter(range(1000))
    return {
        name: (mx.random.normal(value.shape, key=mx.random.key(next(draw))) * 0.2 + (value.ndim == 1)).astype(
            mx.bfloat16
        )
        for name, value in sorted(tree_flatten(llama.Model(arguments).parameters()))
    }


def save(folder, tensors, config, comments=""):
    """Write a checkpoint in two shards, with the tokenizer's files beside it already."""
    names = sorted(tensors)
    halves = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, part in halves.items():
        mx.save_safetensors(str(folder / file), {name: tensors[name] for name in part}, {"format": "pt"})
    where = {name: file for file, part in halves.items() for name in part}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}), encoding="utf-8")
    (folder / "config.json").write_text(comments + json.dumps(config, indent=1), encoding="utf-8")


@pytest.fixture(scope="session")
def tokenizer_files(tmp_path_factory):
    """A folder with a tokenizer of at most 320 tokens, HyperCLOVA X's special tokens and chat template."""
    folder = tmp_path_factory.mktemp("tokenizer")
    template = ROOT / "data_general" / "chat_template.jinja"
    tokenizer = pretraining.train_tokenizer([{"text": "안녕하세요. 서울은 대한민국의 수도이다."}], template)
    assert len(tokenizer) <= TEXT["vocab_size"]
    tokenizer.save_pretrained(str(folder))
    shutil.copyfile(template, folder / "chat_template.jinja")
    (folder / "generation_config.json").write_text('{"eos_token_id": [3, 5]}', encoding="utf-8")
    return folder


@pytest.fixture
def make(tmp_path, tokenizer_files):
    """A function that writes a checkpoint in one of three layouts; keywords change its text config."""

    def build(layout="hub", tensors=None, **changes):
        folder = tmp_path / "source"
        shutil.copytree(tokenizer_files, folder)
        tensors = text_tensors() if tensors is None else tensors
        text = {**TEXT, **changes}
        vision, small = (VISION, RESAVED)[layout == "transformers"], mx.ones((8,), dtype=mx.bfloat16)
        if layout == "text-only":
            save(folder, tensors, text)
            return folder
        if layout == "hub":
            named = {f"model.language_model.{name}": value for name, value in tensors.items()}
            config = {"model_type": "vlm", "text_config": text, "eos_token_id": 3}
            comments = "# HyperCLOVA X {\n"
        else:
            named = {
                f"model.language_model.{name.removeprefix('model.')}": value for name, value in tensors.items()
            }
            rope = {"rope_theta": text.pop("rope_theta"), "rope_type": "default"}
            config = {"model_type": "hyperclovax_vision_v2", "text_config": {**text, "rope_parameters": rope}}
            comments = ""
        save(folder, {**named, **dict.fromkeys(vision, small)}, config, comments)
        return folder

    return build


def convert(source, *flags):
    """(exit code, target folder) of the command."""
    target = source.parent / "target"
    return finish(convert_hyperclova.main, ["--hf-path", str(source), "--mlx-path", str(target), *flags]), target


def refused(capsys, source, *flags):
    """The one error line of a command that must leave nothing behind."""
    code, target = convert(source, *flags)
    error = capsys.readouterr().err
    assert code == 1 and error.startswith("error: ") and error.count("\n") == 1
    assert not target.exists()
    return error


def load_all(folder):
    """{name: array} of all safetensors files in a folder."""
    return {
        name: value for file in sorted(folder.glob("*.safetensors")) for name, value in mx.load(str(file)).items()
    }


def same(left, right):
    """Whether two {name: array} are equal to the bit."""
    return left.keys() == right.keys() and all(
        left[name].dtype == right[name].dtype
        and mx.array_equal(left[name].view(mx.uint8), right[name].view(mx.uint8))
        for name in left
    )


def edit_json(path, **changes):
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**content, **changes}), encoding="utf-8")


@pytest.fixture(scope="session")
def by_mlx_lm(tmp_path_factory, tokenizer_files):
    """What mlx_lm.convert makes of the same text model, {(bits, group size): folder}."""
    folder = tmp_path_factory.mktemp("mlx-lm")
    shutil.copytree(tokenizer_files, folder / "llama")
    save(folder / "llama", text_tensors(), {**TEXT, "model_type": "llama"})
    made = {}
    for bits, group in ((8, 64), (4, 32)):
        made[bits, group] = folder / f"{bits}-{group}"
        settings = {"quantize": True, "q_bits": bits, "q_group_size": group}
        mlx_lm.convert(str(folder / "llama"), str(made[bits, group]), **settings)
    return made


@pytest.mark.parametrize("layout", ["hub", "transformers", "text-only"])
def test_8_bit_is_what_mlx_lm_makes_to_the_bit(make, by_mlx_lm, layout):
    code, target = convert(make(layout), "-q")
    theirs = load_all(by_mlx_lm[8, 64])
    assert code == 0 and same(load_all(target), theirs)
    assert "model.embed_tokens.scales" in theirs and "lm_head.scales" in theirs
    assert "model.layers.0.self_attn.o_proj.scales" not in theirs  # 96 inputs
    ours, reference = (json.loads((f / "config.json").read_text()) for f in (target, by_mlx_lm[8, 64]))
    for key in ("quantization", "quantization_config", "rope_theta", "head_dim", "tie_word_embeddings"):
        assert ours[key] == reference[key]


def test_4_bit_in_groups_of_32_is_what_mlx_lm_makes_to_the_bit(make, by_mlx_lm):
    code, target = convert(make(), "--q-bits", "4", "--q-group-size", "32")
    assert code == 0 and same(load_all(target), load_all(by_mlx_lm[4, 32]))


def test_unquantized_weights_are_the_source_to_the_bit(make):
    code, target = convert(make(), "--no-quantize")
    assert code == 0 and same(load_all(target), text_tensors())
    config = json.loads((target / "config.json").read_text())
    assert "quantization" not in config and config["torch_dtype"] == "bfloat16"


def test_dtype_is_that_of_weights_and_scales(make):
    source = make()
    _, target = convert(source, "--no-quantize", "--dtype", "float32")
    assert same(load_all(target), {name: value.astype(mx.float32) for name, value in text_tensors().items()})
    _, target = convert(source, "--dtype", "float16", "--force")
    kinds = {name.rpartition(".")[2]: value.dtype for name, value in load_all(target).items() if "embed" in name}
    assert kinds == {"weight": mx.uint32, "scales": mx.float16, "biases": mx.float16}


def test_plain_mlx_lm_loads_and_the_rest_travels_along(make, tokenizer_files):
    source = make()
    code, target = convert(source)
    model, tokenizer, config = mlx_lm.load(str(target), return_config=True)
    assert code == 0 and isinstance(model, llama.Model) and config["eos_token_id"] == [3, 5]
    for path in tokenizer_files.iterdir():
        assert (target / path.name).read_bytes() == path.read_bytes()
    assert tokenizer.apply_chat_template([{"role": "user", "content": "안녕"}], tokenize=False).startswith(
        "<|im_start|>"
    )
    config = json.loads((target / "config.json").read_text())
    assert config["model_type"] == "llama" and config["tie_word_embeddings"] is False
    assert (config["eos_token_id"], config["pad_token_id"], "bos_token_id" in config) == (3, 0, False)


def test_summary_and_report(make, capsys):
    source = make()
    code, target = convert(source, "--output", str(source.parent / "copy.json"))
    out = capsys.readouterr().out
    summary = json.loads((target / "summary.json").read_text(encoding="utf-8"))
    assert code == 0 and (source.parent / "copy.json").read_bytes() == (target / "summary.json").read_bytes()
    assert (summary["architecture"], summary["tensors"], summary["dropped"]) == ("llama", 21, 3)
    assert summary["source_bytes"] == sum(value.nbytes for value in text_tensors().values())
    assert summary["output_bytes"] == sum(value.nbytes for value in load_all(target).values())
    assert summary["bits_per_weight"] == pytest.approx(summary["output_bytes"] * 16 / summary["source_bytes"])
    assert len(summary["inputs"][str(source)]) == 64 and summary["hashed"] == "the whole folder"
    assert "21 text tensors taken, 3 left out (2 of the projector, 1 of the vision tower)" in out
    assert out.count("device: ") == 1 and "bits per weight" in out


def test_a_large_source_is_hashed_by_its_headers(make, monkeypatch):
    monkeypatch.setattr(convert_hyperclova, "HASHED_WHOLE", 100)
    source = make()
    _, target = convert(source)
    summary = json.loads((target / "summary.json").read_text())
    assert sorted(Path(name).name for name in summary["inputs"]) == [
        "config.json",
        "model.safetensors.index.json",
    ]
    assert len(summary["shard_headers"]) == 2 and "not the values" in summary["hashed"]


def test_the_embedded_layout_converts(tmp_path, tokenizer_files):
    """Exactly what lab.pretraining writes, and so what the repository ships."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tokenizer_files)
    model = llama.Model(llama.ModelArgs.from_dict({**pretraining.text_config(), "model_type": "llama"}))
    template = ROOT / "data_general" / "chat_template.jinja"
    pretraining.save_checkpoint(tmp_path / "source", model, tokenizer, template, seed=0)
    code, target = convert(tmp_path / "source", "--no-quantize")
    wanted = {name: value.astype(mx.bfloat16) for name, value in tree_flatten(model.parameters())}
    assert code == 0 and same(load_all(target), wanted)


def test_several_output_shards(make, tmp_path):
    args = convert_hyperclova.parse_args([])
    plan = convert_hyperclova.make_plan(make(), args)
    out = tmp_path / "out"
    out.mkdir()
    shards = building.plan_shards([made for _, made in plan.steps], limit=20_000)
    building.write_checkpoint(out, shards, conversion.stream(plan, args), plan.parameters)
    sizes = [file.stat().st_size for file in out.glob("model-*-of-*.safetensors")]
    assert len(sizes) == len(shards) > 2
    assert mx.load(str(next(out.glob("*.safetensors"))), return_metadata=True)[1] == {"format": "mlx"}
    assert conversion.check_samples(out, plan, args) == 8


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attention_multiplier": 0.5}, "attention_multiplier is 0.5 (neutral: 0.204124"),
        ({"embedding_multiplier": 10.0}, "embedding_multiplier is 10.0 (neutral: 1.0)"),
        ({"residual_multiplier": 0.25}, "residual_multiplier is 0.25 (neutral: 1.0)"),
        ({"logits_scaling": 0.125}, "logits_scaling is 0.125 (neutral: 1.0)"),
        ({"logits_scaling": "1"}, "logits_scaling is '1'"),
        ({"use_post_norm": True}, "use_post_norm is true, but there is no post_norm1 or post_norm2 tensor"),
        ({"rope_scaling": {"type": "yarn", "factor": 4}}, "rope_type is 'yarn' (neutral: 'default')"),
        ({"rope_parameters": {"rope_theta": 1e4}}, "rope_theta is both 10000.0 and 50000000.0"),
        ({"rope_theta": None}, "rope_theta is missing"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "layer_types holds sliding_attention"),
        ({"rms_norm_eps": None}, "rms_norm_eps is None"),
        ({"hidden_size": "64"}, "hidden_size is '64', not a size"),
        ({"num_hidden_layers": 0}, "num_hidden_layers is 0, not a size"),
        ({"num_key_value_heads": 3}, "num_key_value_heads 3 does not divide 4 heads"),
        ({"model_type": "qwen3"}, "model_type 'vlm' with a text_config of 'qwen3' is not converted"),
        ({"quantization_config": {"bits": 4}}, "quantized already"),
    ],
)
def test_what_llama_cannot_express_is_refused_by_name(make, capsys, changes, message):
    source = make(**changes)
    error = refused(capsys, source)
    assert f"{source / 'config.json'}: " in error and message in error


def test_every_fault_of_the_config_is_in_the_one_line(make, capsys):
    error = refused(capsys, make(embedding_multiplier=2.0, logits_scaling=3.0, hidden_act="relu"))
    assert all(
        part in error for part in ("embedding_multiplier is 2.0", "logits_scaling is 3.0", "hidden_act is 'relu'")
    )


def test_neutral_settings_may_be_missing_or_null(make):
    code, _ = convert(make(attention_multiplier=None, residual_multiplier=None, head_dim=24, use_post_norm=None))
    assert code == 0


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (True, "is True and there are post norms"),
        (None, "is None and there"),
        (False, "use_post_norm is false, but there are post_norm1"),
    ],
)
def test_post_norms(make, capsys, said, message):
    tensors = {**text_tensors(), "model.layers.0.post_norm1.weight": mx.ones((64,))}
    assert message in refused(capsys, make(tensors=tensors, use_post_norm=said))


def test_every_tensor_that_does_not_fit_is_listed(make, capsys):
    tensors = text_tensors()
    del tensors["lm_head.weight"], tensors["model.layers.1.mlp.up_proj.weight"]
    tensors["model.norm.weight"] = mx.ones((65,), dtype=mx.bfloat16)
    tensors["model.layers.0.input_layernorm.weight"] = mx.ones((64,), dtype=mx.int32)
    tensors["model.layers.2.input_layernorm.weight"] = mx.ones((64,), dtype=mx.bfloat16)
    error = refused(capsys, make(tensors=tensors))
    for part in (
        "missing lm_head.weight",
        "missing model.layers.1.mlp.up_proj.weight",
        "model.language_model.model.norm.weight has shape (65,), wanted is (64,)",
        "model.language_model.model.layers.0.input_layernorm.weight holds I32",
        "unexpected model.language_model.model.layers.2.input_layernorm.weight",
    ):
        assert part in error
    assert error.count(";") == 5


def test_two_layouts_in_one_checkpoint(make, capsys):
    source = make()
    extra = {"model.language_model.norm.weight": mx.ones((64,), dtype=mx.bfloat16)}
    save(source, {**load_all(source), **extra}, {"model_type": "vlm", "text_config": TEXT})
    assert "is there twice" in refused(capsys, source)


def test_tied_embeddings_and_biases(make):
    changes = {"tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True}
    code, target = convert(make(tensors=text_tensors(**changes), **changes))
    model, _ = mlx_lm.load(str(target))
    assert code == 0 and "lm_head" not in model and "bias" in model.layers[0].mlp.up_proj


def test_comments_go_and_strings_stay():
    text = '{ # one\n "a#b": "# \\" # no comment", # "two"\n# three\n "c": 1}# four'
    stripped = hyperclovax.without_comments(text)
    assert json.loads(stripped) == {"a#b": '# " # no comment', "c": 1}
    assert stripped.count("\n") == text.count("\n")


def test_a_malformed_config_is_named_by_line(make, capsys):
    source = make()
    (source / "config.json").write_text('{\n# comment\n"a": }', encoding="utf-8")
    assert f"{source / 'config.json'}:3: not valid JSON" in refused(capsys, source)


def test_a_folder_without_config(make, capsys):
    source = make()
    (source / "config.json").unlink()
    assert f"{source / 'config.json'}: no such file" in refused(capsys, source)


def test_damaged_sources_are_refused_before_any_work(make, capsys):
    source = make()
    shard = source / "model-00002-of-00002.safetensors"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1])
    assert f"{shard}: truncated" in refused(capsys, source)
    shard.unlink()
    assert f"{source / 'model.safetensors.index.json'}: names files that are not there: {shard.name}" in refused(
        capsys, source
    )
    shard.write_bytes(whole)
    (source / "tokenizer.json").write_text("version https://git-lfs.github.com/spec/v1\n")
    assert "tokenizer.json: a git-lfs pointer" in refused(capsys, source)
    (source / "tokenizer.json").unlink()
    assert "no tokenizer.json" in refused(capsys, source)
    assert not (source.parent / "target.partial").exists()


def test_a_value_that_is_not_finite(make, capsys):
    tensors = text_tensors()
    tensors["model.norm.weight"] = mx.array([float("nan")] * 64, dtype=mx.bfloat16)
    error = refused(capsys, make(tensors=tensors))
    assert ".safetensors: model.language_model.model.norm.weight has values that are not finite" in error


def test_a_result_that_computes_nonsense_fails_the_check(make, capsys):
    tensors = {name: mx.full(value.shape, 6e4, dtype=mx.float16) for name, value in text_tensors().items()}
    code, target = convert(make(tensors=tensors), "--no-quantize")
    assert code == 3 and not target.exists()
    assert "computes values that are not finite" in capsys.readouterr().err


def test_a_tokenizer_that_mlx_lm_cannot_load_fails_the_check(make, capsys):
    source = make()
    (source / "tokenizer.json").write_text("{}", encoding="utf-8")
    code, target = convert(source)
    assert code == 3 and not target.exists() and "mlx-lm cannot load the result" in capsys.readouterr().err


@pytest.mark.parametrize(
    "flags", [[], ["--q-bits", "2", "--q-group-size", "32"], ["--no-quantize"], ["--dtype", "float16"]]
)
def test_the_comparison_finds_a_changed_byte(make, flags):
    source = make()
    _, target = convert(source, *flags)
    args = convert_hyperclova.parse_args(flags)
    plan = convert_hyperclova.make_plan(source, args)
    assert conversion.check_samples(target, plan, args) == conversion.SAMPLES
    path = target / "model.safetensors"
    data = bytearray(path.read_bytes())
    start = 8 + struct.unpack("<Q", data[:8])[0]
    data[start + 1 :: 64] = bytes(byte ^ 0x5A for byte in data[start + 1 :: 64])
    path.write_bytes(data)
    with pytest.raises(CheckFailed, match="is not what"):
        conversion.check_samples(target, plan, args)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_the_bound_holds_for_the_quantizer_and_is_tight(dtype, bits):
    weight = (mx.random.normal((512, 256), key=mx.random.key(bits)) * 0.02).astype(getattr(mx, dtype))
    code = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}[dtype]
    values, bound = conversion.dequantize(*mx.quantize(weight, 64, bits), 64, bits, code)
    off = mx.abs(values - weight.astype(mx.float32))
    assert mx.all(off <= bound).item()
    assert mx.mean(off / bound).item() > 0.2  # 0.5 where only rounding to the nearest code counts


def test_a_finished_target_is_not_overwritten_without_force(make, capsys):
    source = make()
    convert(source)
    before = (source.parent / "target" / "summary.json").read_bytes()
    code, target = convert(source, "--q-bits", "4")
    assert code == 1 and f"error: {target}: exists; --force overwrites it" in capsys.readouterr().err
    assert (target / "summary.json").read_bytes() == before
    code, _ = convert(source, "--q-bits", "4", "--force")
    assert code == 0 and json.loads((target / "config.json").read_text())["quantization"]["bits"] == 4
    assert sorted(path.name for path in source.parent.iterdir()) == ["source", "target"]


def test_a_failed_force_leaves_the_old_result(make):
    source = make()
    _, target = convert(source)
    before = load_all(target)
    (source / "tokenizer.json").write_text("{}", encoding="utf-8")
    assert convert(source, "--q-bits", "4", "--force")[0] == 3
    assert same(load_all(target), before) and (target / "summary.json").exists()


def test_an_unfinished_run_is_started_over(make):
    source = make()
    partial = source.parent / "target.partial"
    partial.mkdir()
    (partial / "model-00001-of-00009.safetensors").write_bytes(b"half")
    code, target = convert(source)
    assert code == 0 and not partial.exists() and not list(target.glob("*-of-*"))


def test_the_disk_is_checked_before(make, capsys):
    """A checkpoint of 13 TB that takes no room: its shards are holes."""
    if shutil.disk_usage(ROOT).free > 6e12:
        pytest.skip("this disk has room for it")
    rows = 3 << 34
    source = make(vocab_size=rows)
    for name in checkpoints.read_checkpoint(source).values():
        if name.shape == (320, 64):
            grow(name.shard, name.name, rows)
    error = refused(capsys, source)
    assert " GB of disk, " in error and "choose another folder" in error


def grow(shard, name, rows):
    """Give tensor `name` that many rows, with nothing in them; the file takes no more room than before."""
    data = shard.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header, position = json.loads(data[8 : 8 + length]), 0
    header[name]["shape"][0] = rows
    for key, entry in header.items():
        if key != "__metadata__":
            size = 2
            for extent in entry["shape"]:
                size *= extent
            entry["data_offsets"] = [position, position + size]
            position += size
    raw = json.dumps(header).encode()
    shard.write_bytes(struct.pack("<Q", len(raw)) + raw)
    os.truncate(shard, 8 + len(raw) + position)


def test_a_missing_32b_says_how_to_get_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code = finish(convert_hyperclova.main, [])
    error = capsys.readouterr().err
    assert code == 1 and error.count("\n") == 1
    path = "models/HyperCLOVAX-SEED-Think-32B"
    assert f"`hf download naver-hyperclovax/HyperCLOVAX-SEED-Think-32B --local-dir {path}`" in error
    assert all(need in error for need in ("66 GB", "35 GB", "48 GB"))


class Hub(BaseHTTPRequestHandler):
    """A stand-in for the hub: lab/whole is the server's folder, lab/gated is gated, others are not there."""

    def do_GET(self):
        path = self.path.partition("?")[0]
        error = {} if "/whole" in path else {"X-Error-Code": "GatedRepo" if "/gated" in path else "RepoNotFound"}
        data = b"" if error else self.content(path)
        headers = {"X-Repo-Commit": "a" * 40, "ETag": hashlib.sha256(data).hexdigest(), **error}
        self.send_response(200 if not error else 403 if "/gated" in path else 404)
        for name, value in {**headers, "Content-Length": len(data)}.items():
            self.send_header(name, str(value))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)
            self.server.sent.append(path.rpartition("/")[2])

    do_HEAD = do_GET

    def content(self, path):
        files = sorted(self.server.folder.iterdir())
        if "/resolve/" in path:
            return (self.server.folder / path.rpartition("/")[2]).read_bytes()
        if "/tree/" in path:
            sizes = [{"path": file.name, "size": file.stat().st_size} for file in files]
            return json.dumps([{"type": "file", "oid": "b" * 40, **size} for size in sizes]).encode()
        names = [{"rfilename": file.name} for file in files]
        return json.dumps({"id": "lab/whole", "sha": "a" * 40, "siblings": names}).encode()

    def log_message(self, *_):
        pass


@pytest.fixture
def hub():
    """A running stand-in for the hub, `folder` to be set; `sent` lists what it sent."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.sent = []
    Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


def test_a_model_on_the_hub_is_downloaded_without_what_is_not_needed(make, hub, tmp_path):
    hub.folder = make()
    (hub.folder / "modeling.py").write_text("print('remote code')", encoding="utf-8")
    (hub.folder / "pytorch_model.bin").write_bytes(b"pickle")
    target = tmp_path / "out"
    address = f"http://127.0.0.1:{hub.server_port}"
    settings = {"HF_HOME": str(tmp_path / "home"), "HF_ENDPOINT": address, "HF_HUB_OFFLINE": "0"}
    command = [sys.executable, "convert_hyperclova.py", "--hf-path", "lab/whole", "--mlx-path", str(target)]
    done = subprocess.run(command, env={**os.environ, **settings}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (target / "summary.json").exists() and "tokenizer.json" in hub.sent
    assert not {"modeling.py", "pytorch_model.bin"} & set(hub.sent)


def test_hub_errors_are_one_line(hub, tmp_path):
    online = {"HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}", "HF_HUB_OFFLINE": "0"}
    cases = {
        "lab/gated": (
            online,
            "gated; accept its licence at https://huggingface.co/lab/gated, then run `hf auth login`",
        ),
        "lab/unknown": (online, "no such folder, and no such model on the hub; check the name"),
        "lab/offline": ({"HF_HUB_OFFLINE": "1"}, "the hub cannot be reached; connect"),
    }
    script = str(ROOT / "convert_hyperclova.py")
    running = {}
    for name, (settings, _) in cases.items():
        environment = {**os.environ, "HF_HOME": str(tmp_path), **settings}
        command = [sys.executable, script, "--hf-path", name, "--mlx-path", str(tmp_path / "out")]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        running[name] = subprocess.Popen(command, env=environment, **pipes)
    for name, process in running.items():
        error = process.communicate(timeout=60)[1]
        assert process.returncode == 1 and error.startswith(f"error: {name}: ") and error.count("\n") == 1, error
        assert cases[name][1] in error


def test_the_command_imports_no_mlx_before_it_parses():
    """--help answers at once, and lab.device is the first to load MLX."""
    code = "import sys, convert_hyperclova; sys.exit(any(name.split('.')[0] == 'mlx' for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_bad_usage_is_exit_code_2(capsys):
    with pytest.raises(SystemExit) as caught:
        convert_hyperclova.main(["--q-bits", "7"])
    assert caught.value.code == 2


def test_memory_too_small_for_the_model_leaves_the_answer_out(tmp_path):
    plan = SimpleNamespace(output_bytes=1 << 60)
    assert conversion.check_answer(tmp_path, plan) is None
