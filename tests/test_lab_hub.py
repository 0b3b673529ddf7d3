"""What a missing folder's error advises; downloads are tested with the converter."""

import struct
import subprocess
import sys
from pathlib import Path

import pytest

from lab import hub
from lab.cli import LabError

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """A root without models."""
    monkeypatch.chdir(tmp_path)


def advice(path):
    with pytest.raises(LabError) as error:
        hub.find_source(path)
    return str(error.value)


@pytest.mark.parametrize("written", ["models/HyperCLOVAX-SEED-Think-32B", "./models/HyperCLOVAX-SEED-Think-32B/"])
def test_the_32b_is_to_be_downloaded(written):
    assert f"`hf download naver-hyperclovax/HyperCLOVAX-SEED-Think-32B --local-dir {written}`" in advice(written)


def test_the_embedded_model_is_in_git():
    path = "models/HyperCLOVAX-SEED-Think-Tiny"
    assert advice(path) == f"{path}: no such folder; `git checkout -- {path}` brings it back"


@pytest.mark.parametrize(
    "path", ["models/HyperCLOVAX-SEED-Thing-32B", "/nowhere/at/all", "./somewhere", "plain", "a/b/c"]
)
def test_any_other_path_is_to_be_checked(path):
    assert advice(path) == f"{path}: no such folder; check the path"


@pytest.mark.parametrize(
    ("path", "command"),
    [
        ("models/HyperCLOVAX-SEED-Think-32B-Text-8bit", "make convert PROFILE=hcx"),
        ("models/HyperCLOVAX-SEED-Think-Tiny-Text-8bit", "make convert"),
    ],
)
def test_a_missing_converted_model_names_its_own_command(path, command):
    with pytest.raises(LabError) as error:
        hub.model_folder(path)
    assert str(error.value) == f"{path}: no model here (no config.json); `{command}` builds it"


@pytest.fixture
def folder(tmp_path):
    """A checkpoint folder of one tensor."""
    header = b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}'
    path = tmp_path / "checkpoint"
    path.mkdir()
    (path / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    (path / "README.md").write_text("---\nlicense: apache-2.0\n---\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("weights", hub.WEIGHTS)
def test_a_local_folder_is_a_source(folder, weights):
    source = hub.find_source(str(folder), weights=weights)
    assert source == hub.Source(folder, None, None, "apache-2.0", {}, {})
    assert list(source.tensors()) == ["a"] and source.fetch("model.safetensors") == folder / "model.safetensors"
    source.release("model.safetensors")
    assert not (folder / "model.safetensors").exists()
    with pytest.raises(LabError, match="model.safetensors: no such file; download it again"):
        source.fetch("model.safetensors")


def test_what_a_source_cannot_be(folder):
    with pytest.raises(LabError, match="--revision v1: .* is a local folder, which has none; leave it out"):
        hub.find_source(folder, "v1")
    with pytest.raises(LabError, match="README.md: a file; give the folder that holds config.json"):
        hub.find_source(folder / "README.md")
    with pytest.raises(ValueError, match="weights='some'"):
        hub.find_source(folder, weights="some")


def test_local_folders_need_no_hub(folder):
    code = "import sys; from lab import hub; hub.find_source(sys.argv[1]).tensors(); sys.exit('huggingface_hub' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code, folder], cwd=ROOT, check=False).returncode == 0
