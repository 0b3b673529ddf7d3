import json
import os
import shutil
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lab.device import mx  # isort: skip  (first: it puts the fast BLAS in front)
import mlx_lm
import numpy as np
from mlx import nn
from mlx.utils import tree_flatten
from mlx_lm.models import llama

import convert_hyperclova
from lab import (
    building,
    checkpoints,
    conversion,
    conversion_answer,
    conversion_check,
    conversion_plan,
    hub,
    models,
    tiny_hyperclovax,
)
from lab.cli import CheckFailed, LabError, finish, sha256
from tests.small_checkpoints import (
    PERI_LN,
    convert,
    edit_json,
    flip,
    load_all,
    peri_ln_tensors,
    refused,
    same,
    text_tensors,
)

ROOT = Path(__file__).resolve().parent.parent
SHARD_FILES = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


@pytest.mark.parametrize("layout", ["hub", "transformers", "text-only"])
def test_8_bit_is_what_mlx_lm_makes_to_the_bit(make_checkpoint, by_mlx_lm, layout):
    code, target = convert(make_checkpoint(layout), "-q")
    theirs = load_all(by_mlx_lm)
    assert code == 0 and same(load_all(target), theirs)
    assert "model.embed_tokens.scales" in theirs and "lm_head.scales" in theirs
    assert "model.layers.0.self_attn.o_proj.scales" not in theirs  # 96 inputs
    ours, reference = (json.loads((f / "config.json").read_text()) for f in (target, by_mlx_lm))
    for key in ("quantization", "quantization_config", "rope_theta", "head_dim", "tie_word_embeddings"):
        assert ours[key] == reference[key]


def test_unquantized_weights_are_the_source_to_the_bit(make_checkpoint):
    code, target = convert(make_checkpoint(), "--no-quantize")
    assert code == 0 and same(load_all(target), text_tensors())
    config = json.loads((target / "config.json").read_text())
    assert "quantization" not in config and config["torch_dtype"] == "bfloat16"


def test_dtype_is_that_of_weights_and_scales(make_checkpoint):
    source = make_checkpoint()
    _, target = convert(source, "--no-quantize", "--dtype", "float32")
    assert same(load_all(target), {name: value.astype(mx.float32) for name, value in text_tensors().items()})
    _, target = convert(source, "--dtype", "float16", "--force")
    kinds = {name.rpartition(".")[2]: value.dtype for name, value in load_all(target).items() if "embed" in name}
    assert kinds == {"weight": mx.uint32, "scales": mx.float16, "biases": mx.float16}


def test_plain_mlx_lm_loads_and_the_rest_travels_along(make_checkpoint, tokenizer_files):
    source = make_checkpoint()
    code, target = convert(source)
    model, tokenizer, config = mlx_lm.load(str(target), return_config=True)
    assert code == 0 and isinstance(model, llama.Model) and config["eos_token_id"] == [3, 5, 302]
    for path in tokenizer_files.iterdir():
        assert path.name == "generation_config.json" or (target / path.name).read_bytes() == path.read_bytes()
    assert tokenizer.apply_chat_template([{"role": "user", "content": "안녕"}], tokenize=False).startswith(
        "<|im_start|>"
    )
    config = json.loads((target / "config.json").read_text())
    assert config["model_type"] == "llama" and config["tie_word_embeddings"] is False
    assert (config["eos_token_id"], config["pad_token_id"], "bos_token_id" in config) == ([3, 5, 302], 0, False)


@pytest.mark.parametrize("kind", ["embedded", "32B saved again", "14B"])
def test_mlx_lm_generate_runs_it(make_checkpoint, tmp_path, capsys, kind):
    """In a process that knows nothing of the lab."""
    if kind == "embedded":
        source = ROOT / "models" / "HyperCLOVAX-SEED-Think-Tiny"
    elif kind == "14B":
        source = make_checkpoint("text-only", peri_ln_tensors(), **PERI_LN)
    else:
        source = make_checkpoint("transformers")
    target = tmp_path / "out"
    assert finish(convert_hyperclova.main, ["--hf-path", str(source), "--mlx-path", str(target)]) == 0
    assert ("mlx-lm's glm4" in capsys.readouterr().out) == (kind == "14B")
    flags = ["--model", str(target), "--prompt", "안녕하세요", "--max-tokens", "5"]
    command = [sys.executable, "-m", "mlx_lm", "generate", *flags]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Generation: " in done.stdout


def test_summary_and_report(make_checkpoint, capsys):
    source = make_checkpoint()
    code, target = convert(source, "--output", str(source.parent / "copy.json"))
    out = capsys.readouterr().out
    summary = json.loads((target / "summary.json").read_text(encoding="utf-8"))
    assert code == 0 and (source.parent / "copy.json").read_bytes() == (target / "summary.json").read_bytes()
    assert (summary["architecture"], summary["tensors"], summary["dropped"]) == ("llama", 21, 3)
    assert summary["source_bytes"] == sum(value.nbytes for value in text_tensors().values())
    assert summary["output_bytes"] == sum(value.nbytes for value in load_all(target).values())
    assert summary["bits_per_weight"] == pytest.approx(summary["output_bytes"] * 16 / summary["source_bytes"])
    for file in ("config.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"):
        assert summary["inputs"][f"{source}/{file}"] == sha256(source / file)
    assert summary["files"].keys() == {path.name for path in target.iterdir()} - {"summary.json"}
    for name, facts in summary["files"].items():
        assert facts == {"sha256": sha256(target / name), "bytes": (target / name).stat().st_size}
    assert "21 tensors taken, 3 left out (2 of the projector, 1 of the vision tower)" in out
    assert out.count("device: ") == 1 and "bits per weight" in out


def test_the_embedded_layout_converts(tmp_path, tokenizer_files):
    """Exactly what lab.pretraining writes, and so what the repository ships."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tokenizer_files)
    model = llama.Model(llama.ModelArgs.from_dict({**tiny_hyperclovax.text_config(), "model_type": "llama"}))
    template = ROOT / "data_general" / "chat_template.jinja"
    tiny_hyperclovax.save_checkpoint(tmp_path / "source", model, tokenizer, template, seed=0)
    code, target = convert(tmp_path / "source", "--no-quantize")
    wanted = {name: value.astype(mx.bfloat16) for name, value in tree_flatten(model.parameters())}
    assert code == 0 and same(load_all(target), wanted)


def test_neutral_settings_may_be_missing_or_null(make_checkpoint):
    code, _ = convert(
        make_checkpoint(attention_multiplier=None, residual_multiplier=None, head_dim=24, use_post_norm=None)
    )
    assert code == 0


def test_tied_embeddings_and_biases(make_checkpoint):
    changes = {"tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True}
    code, target = convert(make_checkpoint(tensors=text_tensors(**changes), **changes))
    model, _ = mlx_lm.load(str(target))
    assert code == 0 and "lm_head" not in model and "bias" in model.layers[0].mlp.up_proj


def test_a_malformed_config_is_named_by_line(make_checkpoint, capsys):
    source = make_checkpoint()
    (source / "config.json").write_text('{\n# comment\n"a": }', encoding="utf-8")
    assert f"{source / 'config.json'}:3: not valid JSON" in refused(capsys, source)


def test_a_folder_without_config(make_checkpoint, capsys):
    source = make_checkpoint()
    (source / "config.json").unlink()
    assert f"{source / 'config.json'}: no such file" in refused(capsys, source)


def test_damaged_sources_are_refused_before_any_work(make_checkpoint, capsys):
    source = make_checkpoint()
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


def test_a_value_that_is_not_finite(make_checkpoint, capsys):
    tensors = text_tensors()
    tensors["model.norm.weight"] = mx.array([float("nan")] * 64, dtype=mx.bfloat16)
    error = refused(capsys, make_checkpoint(tensors=tensors))
    assert ".safetensors: model.language_model.model.norm.weight has values that are not finite" in error


def test_a_result_that_computes_nonsense_fails_the_check(make_checkpoint, capsys):
    tensors = text_tensors()
    for name in ("model.norm.weight", "lm_head.weight"):
        tensors[name] = mx.full(tensors[name].shape, 1e38, dtype=mx.bfloat16)
    code, target = convert(make_checkpoint(tensors=tensors), "--no-quantize")
    assert code == 3 and not target.exists()
    assert "computes values that are not finite" in capsys.readouterr().err


def test_a_tokenizer_that_mlx_lm_cannot_load_fails_the_check(make_checkpoint, capsys):
    source = make_checkpoint()
    (source / "tokenizer.json").write_text("{}", encoding="utf-8")
    code, target = convert(source)
    assert code == 3 and not target.exists() and "mlx-lm cannot load the result" in capsys.readouterr().err


@pytest.mark.parametrize(
    "flags", [[], ["--q-bits", "2", "--q-group-size", "32"], ["--no-quantize"], ["--dtype", "float16"]]
)
def test_the_comparison_finds_a_changed_byte(make_checkpoint, flags):
    source = make_checkpoint()
    _, target = convert(source, *flags)
    args = convert_hyperclova.parse_args(flags)
    plan = conversion_plan.make_plan(hub.find_source(source), args)
    path = target / "model.safetensors"
    assert conversion_check.check_shard(path, plan.steps, args) == conversion_check.SAMPLES
    data = bytearray(path.read_bytes())
    start = 8 + struct.unpack("<Q", data[:8])[0]
    data[start + 1 :: 64] = bytes(byte ^ 0x5A for byte in data[start + 1 :: 64])
    path.write_bytes(data)
    with pytest.raises(CheckFailed, match="is not what"):
        conversion_check.check_shard(path, plan.steps, args)


@pytest.mark.parametrize("chunk", [1, 5_000, 1 << 25])
def test_chunks_change_no_bit(make_checkpoint, by_mlx_lm, monkeypatch, chunk):
    monkeypatch.setattr(conversion, "CHUNK_BYTES", chunk)
    code, target = convert(make_checkpoint())
    assert code == 0 and same(load_all(target), load_all(by_mlx_lm))


def test_output_shards_stay_under_the_limit_and_plain_mlx_lm_loads_them(make_checkpoint, by_mlx_lm, monkeypatch):
    monkeypatch.setattr(building, "SHARD_BYTES", 30_000)
    code, target = convert(make_checkpoint())
    files = sorted(target.glob("model-*-of-*.safetensors"))
    index = json.loads((target / "model.safetensors.index.json").read_text(encoding="utf-8"))
    assert code == 0 and len(files) > 2 and {path.name for path in files} == set(index["weight_map"].values())
    assert same(load_all(target), load_all(by_mlx_lm)) and mlx_lm.load(str(target))
    for path in files:
        tensors = checkpoints.read_shard(path)
        assert sum(tensor.nbytes for tensor in tensors) <= 30_000 and tensors[0].offset % 8 == 0
    assert index["metadata"]["total_size"] == sum(value.nbytes for value in load_all(target).values())


def test_the_answer_is_what_plain_mlx_lm_says(model_8bit):
    """Layer by layer in float32 as all at once."""
    model, tokenizer = models.load(model_8bit)
    tokens = tokenizer.encode(conversion_answer.PROMPT)
    for _ in range(conversion_answer.NEW_TOKENS):
        tokens.append(int(mx.argmax(model(mx.array([tokens]))[0, -1])))
    said = tokenizer.decode(tokens[-conversion_answer.NEW_TOKENS :])
    assert json.loads((model_8bit / "summary.json").read_text(encoding="utf-8"))["answer"] == said


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_the_bound_holds_for_the_quantizer_and_is_tight(dtype, bits):
    weight = (mx.random.normal((512, 256), key=mx.random.key(bits)) * 0.02).astype(getattr(mx, dtype))
    code = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}[dtype]
    values, bound = conversion_check.dequantize(*mx.quantize(weight, 64, bits), 64, bits, code)
    off = mx.abs(values - weight.astype(mx.float32))
    assert mx.all(off <= bound).item()
    assert mx.mean(off / bound).item() > 0.2  # 0.5 where only rounding to the nearest code counts


@pytest.mark.parametrize("dtype,code", [("float32", "F32"), ("bfloat16", "BF16"), ("float16", "F16")])
@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
def test_the_bound_holds_for_tiny_weights_and_for_those_far_from_0(dtype, code, bits):
    """A float16 scale of tiny weights has few digits, or none; half a step more was taken for another tensor."""
    draws = mx.random.normal((64, 256), key=mx.random.key(bits))
    tiny = [draws * 10**-power for power in (7.5, 7, 6.5, 6.25, 6, 5.75, 5.5, 5, 4)]
    for weight in (*tiny, 1000 + draws * 0.01, -1 + draws * 0.001, draws * 0, draws * 0 + 7):
        weight = weight.astype(getattr(mx, dtype))
        values, bound = conversion_check.dequantize(*mx.quantize(weight, 64, bits), 64, bits, code)
        assert mx.all(mx.abs(values - weight.astype(mx.float32)) <= bound).item()


@pytest.mark.parametrize("code,kind", [("F32", "u4"), ("BF16", "u2"), ("F16", "u2")])
def test_infinities_and_what_is_no_number_are_found_and_nothing_else(code, kind):
    """Every 16-bit pattern (of F32 the upper half), held against MLX's own judgement."""
    every = np.arange(1 << 16, dtype="<u4")
    bits = (every << 16 if code == "F32" else every).astype(kind)
    finite = np.asarray(mx.isfinite(mx.array(bits).view(conversion.MLX[code])))
    conversion.refuse_not_finite(bits[finite], code, "x", "y")
    conversion.refuse_not_finite(bits[:0], code, "x", "y")
    for wrong in bits[~finite]:
        with pytest.raises(LabError, match="x has values that are not finite"):
            conversion.refuse_not_finite(np.append(bits[:4], wrong), code, "x", "y")


def test_a_layer_computed_on_every_core_gives_the_stock_layers_sums():
    stock = nn.QuantizedLinear(128, 70)
    stock.bias = mx.arange(70).astype(mx.float32)
    spread = nn.QuantizedLinear(128, 70)
    spread.update(stock.parameters())
    x = mx.random.normal((2, 3, 128), key=mx.random.key(0))
    conversion_answer.OnAllCores.streams = [mx.new_stream(mx.cpu) for _ in range(3)]
    spread.__class__ = conversion_answer.OnAllCores
    assert mx.array_equal(spread(x), stock(x)).item()


def test_a_finished_target_is_not_overwritten_without_force(make_checkpoint, capsys):
    source = make_checkpoint()
    convert(source)
    before = (source.parent / "target" / "summary.json").read_bytes()
    code, target = convert(source, "--q-bits", "4")
    assert code == 1 and f"error: {target}: exists; --force overwrites it" in capsys.readouterr().err
    assert (target / "summary.json").read_bytes() == before
    code, _ = convert(source, "--q-bits", "4", "--force")
    assert code == 0 and json.loads((target / "config.json").read_text())["quantization"]["bits"] == 4
    assert sorted(path.name for path in source.parent.iterdir()) == ["source", "target"]


def test_a_failed_force_leaves_the_old_result(make_checkpoint):
    source = make_checkpoint()
    _, target = convert(source)
    before = load_all(target)
    (source / "tokenizer.json").write_text("{}", encoding="utf-8")
    assert convert(source, "--q-bits", "4", "--force")[0] == 3
    assert same(load_all(target), before) and (target / "summary.json").exists()


def test_what_a_hand_has_put_into_the_partial_folder_stays(make_checkpoint, capsys):
    source = make_checkpoint()
    partial = source.parent / "target.partial"
    partial.mkdir()
    (partial / "model-00001-of-00009.safetensors").write_bytes(b"mine")
    assert "not from this command, and in its way" in refused(capsys, source)
    assert (partial / "model-00001-of-00009.safetensors").read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("generation_config.json", "{bad", "generation_config.json:1: not valid JSON"),
        ("generation_config.json", "[]", "generation_config.json:1: not a JSON object"),
        ("generation_config.json", '{"eos_token_id": {"a": [1]}}', "eos_token_id is {'a': [1]}, not a token id"),
        ("tokenizer_config.json", "[]", "tokenizer_config.json:1: not a JSON object"),
        ("tokenizer_config.json", '{"auto_map": ["x.Y", null]}', "in Python code that comes with"),
        ("tokenizer_config.json", '{"auto_map": 5}', "take that entry out"),
        (
            "tokenizer_config.json",
            '{"auto_map": {"AutoTokenizer": ["x.Y", null]}}',
            "in Python code that comes with",
        ),
    ],
)
def test_what_travels_along_is_checked_before_any_work(make_checkpoint, capsys, file, content, message):
    source = make_checkpoint()
    (source / file).write_text(content, encoding="utf-8")
    assert message in refused(capsys, source) and not (source.parent / "target.partial").exists()


def test_an_auto_map_that_names_no_tokenizer_asks_for_no_code(make_checkpoint):
    source = make_checkpoint()
    for content in ({}, {"AutoProcessor": "x.Y"}):
        edit_json(source / "tokenizer_config.json", auto_map=content)
        assert convert(source, "--dry-run")[0] == 0


def test_a_fold_is_computed_in_float32_and_rounded_once(make_checkpoint):
    tensors = peri_ln_tensors()
    _, target = convert(make_checkpoint("text-only", tensors, **PERI_LN), "--no-quantize")
    found, query = load_all(target), "model.layers.1.self_attn.q_proj.weight"
    for name, factor in ((query, 0.15 * 24**0.5), ("model.embed_tokens.weight", 10.0), ("lm_head.weight", 0.125)):
        wanted = (np.array(tensors[name].astype(mx.float32)) * np.float32(factor)).astype(np.float32)
        assert mx.array_equal(found[name], mx.array(wanted).astype(mx.bfloat16)).item()
    twice = (tensors[query] * mx.array(0.15, mx.bfloat16)) * mx.array(24**0.5, mx.bfloat16)
    assert not mx.array_equal(found[query], twice).item()


def test_special_tokens_that_are_none(make_checkpoint, capsys):
    assert "bos_token_id is 'x', not a token id" in refused(capsys, make_checkpoint(bos_token_id="x"))


def test_a_tokenizer_larger_than_the_model_fails_the_check(make_checkpoint, capsys):
    source = make_checkpoint()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(ROOT / "models" / "HyperCLOVAX-SEED-Think-Tiny" / name, source / name)
    code, target = convert(source)
    assert code == 3 and "the model has 320 tokens" in capsys.readouterr().err and not target.exists()


def test_output_never_spoils_source_or_result(make_checkpoint, capsys):
    source = make_checkpoint()
    for place in (source / "config.json", source.parent / "target" / "config.json", source.parent):
        assert "name another file" in refused(capsys, source, "--output", str(place))
    with pytest.raises(SystemExit):
        convert(source, "--dry-run", "--output", "x.json")


def test_a_folder_with_other_things_is_not_replaced(make_checkpoint, capsys):
    source = make_checkpoint()
    _, target = convert(source)
    (target / "thesis.tex").write_text("x")
    assert convert(source, "--force")[0] == 1 and "holds thesis.tex" in capsys.readouterr().err
    assert (target / "thesis.tex").exists()


def test_the_disk_is_checked_before(make_checkpoint, capsys):
    """A checkpoint of 13 TB that takes no room: its shards are holes."""
    if shutil.disk_usage(ROOT).free > 6e12:
        pytest.skip("this disk has room for it")
    rows = 3 << 34
    source = make_checkpoint(vocab_size=rows)
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


def test_the_command_imports_no_mlx_before_it_parses():
    """--help answers at once, and lab.device is the first to load MLX."""
    code = "import sys, convert_hyperclova; sys.exit(any(name.split('.')[0] == 'mlx' for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_bad_usage_is_exit_code_2(capsys):
    with pytest.raises(SystemExit) as caught:
        convert_hyperclova.main(["--q-bits", "7"])
    assert caught.value.code == 2


def test_the_help_shows_every_mode_and_what_its_exit_codes_do_not_say(capsys):
    with pytest.raises(SystemExit) as caught:
        convert_hyperclova.main(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert caught.value.code == 0 and "exits 0 also where something DOES NOT FIT" in text
    examples = text.partition("Takes the text")[0].partition(":")[2]
    assert all(flag in examples for flag in ("--dry-run", "--no-quantize", "--verify"))


def test_the_plan_is_printed_without_touching_weights(make_checkpoint, tmp_path):
    """In a process of its own: no MLX, nothing written, under a second."""
    source = make_checkpoint()
    command = ["convert_hyperclova.py", "--hf-path", str(source), "--mlx-path", str(tmp_path / "out"), "--dry-run"]
    code = (
        "import sys; sys.argv = sys.argv[1:]; import convert_hyperclova; code = convert_hyperclova.main();"
        "sys.exit(code or any(name.split('.')[0] == 'mlx' for name in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "mlx-lm's llama" in done.stdout and "21 tensors taken" in done.stdout
    assert all(f"{what}:" in done.stdout for what in ("reads", "writes", "memory", "disk"))
    assert done.stdout.count("fits") == 4 and sorted(path.name for path in tmp_path.iterdir()) == ["source"]


def test_a_plan_that_does_not_fit_says_so(make_checkpoint, capsys):
    source = make_checkpoint(vocab_size=3 << 34)
    for tensor in checkpoints.read_checkpoint(source).values():
        if tensor.shape == (320, 64):
            grow(tensor.shard, tensor.name, 3 << 34)
    started = time.monotonic()
    code, target = convert(source, "--dry-run")
    out = capsys.readouterr().out
    assert code == 0 and not target.exists() and time.monotonic() - started < 60
    assert "disk:" in out and out.count("DOES NOT FIT") == 4


def test_verify(make_checkpoint, capsys):
    source = make_checkpoint()
    _, target = convert(source)
    verify = ["--mlx-path", str(target), "--verify"]
    assert finish(convert_hyperclova.main, verify) == 0
    out = capsys.readouterr().out
    assert "8 of 8 source files hashed" in out and out.endswith("all as written\n")
    assert finish(convert_hyperclova.main, [*verify, "--hf-path", "nosuch"]) == 1
    assert "--hf-path nosuch: no such folder" in capsys.readouterr().err
    flip(target / "model.safetensors", -1)
    flip(source / "model-00001-of-00002.safetensors", -1)
    (target / "tokenizer_config.json").unlink()
    (target / "extra.txt").write_text("x")
    (target / ".DS_Store").write_text("x")
    assert finish(convert_hyperclova.main, verify) == 3
    error = capsys.readouterr().err
    for fault in (
        f"{target}/model.safetensors: changed; convert again",
        f"{source}/model-00001-of-00002.safetensors: changed; download it again",
        f"{target}/tokenizer_config.json: missing",
        f"{target}/extra.txt: not in summary.json; remove it",
    ):
        assert fault in error
    assert ".DS_Store" not in error
    assert error.count("\n") == 1


def test_verify_needs_a_folder_that_was_converted(tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        convert_hyperclova.main(["--verify"])
    assert caught.value.code == 2
    assert finish(convert_hyperclova.main, ["--verify", "--mlx-path", str(tmp_path)]) == 1
    outside = '{"files": {"../x": {"sha256": "0"}}, "source": {"shards": {}, "config": "0", "folder": "x"}}'
    for content in ("{}", "[]", '{"a": 1}', '{"files": {"a": 1}, "source": {}}', outside):
        (tmp_path / "summary.json").write_text(content, encoding="utf-8")
        assert finish(convert_hyperclova.main, ["--verify", "--mlx-path", str(tmp_path)]) == 1
        assert "holds no hashes" in capsys.readouterr().err


def test_the_model_card_names_source_and_size(make_checkpoint):
    source = make_checkpoint()
    _, target = convert(source)
    card = (target / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\n") and f"| Source | {source} |" in card and "8 bit, groups of 64" in card
    assert "2 tensors of the projector" in card and "parameters" in card
    # 96 inputs: o_proj and down_proj of both layers
    assert "scales in bfloat16: 12 matrices; 4 whose rows are no multiple of the group stay as they are |" in card
    assert r"| End tokens | 3, 5, 302; <\|im_end\|> (302) added: " in card  # a bare bar would end the cell


def test_plan_and_result_say_which_matrices_are_not_quantized(make_checkpoint, capsys):
    """Else nothing explains 15 bits per weight of an 8 bit model."""
    source = make_checkpoint()
    for flags, count in (
        ((), 4),
        (("--q-group-size", "128"), 16),
        (("--q-group-size", "32"), 0),
        (("--no-quantize",), 0),
    ):
        for more in (("--dry-run",), ("--force",)):
            assert convert(source, *flags, *more)[0] == 0
            out = capsys.readouterr().out
            group = flags[1] if len(flags) > 1 else "64"
            line = f"  {count} matrices whose rows are no multiple of the group of {group} stay as they are\n"
            assert (line in out) if count else "stay as they are" not in out, (flags, more, out)


def test_norms_of_another_number_format_are_kept_and_said(make_checkpoint):
    tensors = {name: v.astype(mx.float32) if v.ndim == 1 else v for name, v in text_tensors().items()}
    code, target = convert(make_checkpoint(tensors=tensors), "--no-quantize")
    assert code == 0 and same(load_all(target), tensors)
    assert json.loads((target / "config.json").read_text())["torch_dtype"] == "bfloat16"
    assert "| Numbers | bfloat16 and float32 |" in (target / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("group", [32, 64, 128])
@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
@pytest.mark.parametrize("family", ["llama", "a folded glm4"])
def test_each_kind_of_quantization_is_mlx_lms_to_the_bit(make_checkpoint, tmp_path, family, bits, group):
    wide = {"hidden_size": 128, "intermediate_size": 256}
    tensors, settings = (text_tensors(**wide), {}) if family == "llama" else (peri_ln_tensors(**wide), PERI_LN)
    source = make_checkpoint("text-only", tensors, **wide, **settings)
    _, plain = convert(source, "--no-quantize")
    settings = {"quantize": True, "q_bits": bits, "q_group_size": group}
    mlx_lm.convert(str(plain), str(tmp_path / "theirs"), **settings)
    code, target = convert(source, "--force", "--q-bits", str(bits), "--q-group-size", str(group))
    theirs = load_all(tmp_path / "theirs")
    assert code == 0 and same(load_all(target), theirs)
    assert any(name.endswith(".scales") for name in theirs)
