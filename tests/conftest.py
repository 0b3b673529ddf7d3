"""Real code on a real small model: the embedded checkpoint, converted once for the whole test run."""

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import lab.device  # noqa: E402, F401  (before any test imports mlx: it puts the fast BLAS in front)

EMBEDDED = ROOT / "models/HyperCLOVAX-SEED-Think-Tiny"
ROOM = 4e9  # bytes


def pytest_configure():
    """Temporary folders in memory where there is room: the crash tests sync thousands of times, which a disk pays for."""
    memory = Path("/dev/shm")
    if memory.is_dir() and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > ROOM:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(memory))


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch):
    """Commands name their files from the repository's root."""
    monkeypatch.chdir(ROOT)


@pytest.fixture(scope="session")
def model_8bit(tmp_path_factory):
    """The folder of the embedded model's 8-bit text part."""
    import convert_hyperclova

    path = tmp_path_factory.mktemp("models") / "tiny-8bit"
    assert convert_hyperclova.main(["--hf-path", str(EMBEDDED), "--mlx-path", str(path)]) == 0
    return path


@pytest.fixture(scope="session")
def tokenizer():
    """The embedded model's tokenizer, as mlx-lm loads it."""
    from lab.models import load_tokenizer

    return load_tokenizer(EMBEDDED)


@pytest.fixture(scope="session")
def random_gemma(tmp_path_factory):
    """The folder of a Gemma-2 that was never trained: byte fallback, a template without a system role, endless babble."""
    from tests.small_checkpoints import write_gemma

    return write_gemma(tmp_path_factory.mktemp("gemma"))


@pytest.fixture(scope="session")
def random_adapter():
    """A function that writes to `folder` an adapter of the model at `path` that was never trained."""
    from mlx.utils import tree_flatten

    from lab import adapters, models
    from lab.device import mx

    def write(path, folder, size=0.02):
        model, _ = models.load(path)
        lora = {"rank": 4, "scale": 20.0, "dropout": 0.0}
        config = {"fine_tune_type": "lora", "num_layers": -1, "lora_parameters": lora}
        adapters.add_layers(model, config)
        draws = mx.random.key(0)
        shapes = {name: value.shape for name, value in tree_flatten(model.trainable_parameters())}
        tensors = {name: size * mx.random.normal(shape, key=draws) for name, shape in shapes.items()}
        adapters.save(folder, tensors, config)
        return folder

    return write


@pytest.fixture
def write_rows(tmp_path):
    """A function that writes rows to tmp_path/NAME as JSONL and returns the path."""

    def write(name, rows):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        return path

    return write


@pytest.fixture
def run(capsys):
    """A function that runs a command's main as the shell would: returns (exit code, what it printed, its error line)."""
    from lab.cli import finish

    def call(main, *argv):
        capsys.readouterr()
        try:
            code = finish(main, [str(item) for item in argv])
        except SystemExit as leaving:
            code = leaving.code
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return call


@pytest.fixture(scope="session")
def tokenizer_files(tmp_path_factory):
    """A folder with a tokenizer of at most 320 tokens, HyperCLOVA X's special tokens and chat template."""
    folder = tmp_path_factory.mktemp("tokenizer")
    from lab import tiny_hyperclovax
    from tests.small_checkpoints import TEXT

    template = ROOT / "data_general" / "chat_template.jinja"
    tokenizer = tiny_hyperclovax.train_tokenizer([{"text": "안녕하세요. 서울은 대한민국의 수도이다."}], template)
    assert len(tokenizer) <= TEXT["vocab_size"]
    tokenizer.save_pretrained(str(folder))
    shutil.copyfile(template, folder / "chat_template.jinja")
    (folder / "generation_config.json").write_text('{"eos_token_id": [3, 5]}', encoding="utf-8")
    return folder


@pytest.fixture
def make_checkpoint(tmp_path, tokenizer_files):
    """A function that writes a checkpoint in one of three layouts; keywords change its text config."""
    from tests.small_checkpoints import write_checkpoint

    def build(layout="hub", tensors=None, **changes):
        shutil.copytree(tokenizer_files, tmp_path / "source")
        return write_checkpoint(tmp_path / "source", layout, tensors, **changes)

    return build


@pytest.fixture(scope="session")
def by_mlx_lm(tmp_path_factory, tokenizer_files):
    """The folder of what mlx_lm.convert makes of the same text model, in 8 bit and groups of 64."""
    import mlx_lm

    from tests.small_checkpoints import TEXT, save, text_tensors

    folder = tmp_path_factory.mktemp("mlx-lm")
    shutil.copytree(tokenizer_files, folder / "llama")
    save(folder / "llama", text_tensors(), {**TEXT, "model_type": "llama"})
    mlx_lm.convert(str(folder / "llama"), str(folder / "8bit"), quantize=True, q_bits=8, q_group_size=64)
    return folder / "8bit"
