"""What a missing folder's error advises; downloads are tested with the converter."""

import pytest

from lab import hub
from lab.cli import LabError


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """A root without models."""
    monkeypatch.chdir(tmp_path)


def advice(path):
    with pytest.raises(LabError) as error:
        hub.find_checkpoint(path)
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
        hub.check_model(path)
    assert str(error.value) == f"{path}: no model here (no config.json); `{command}` builds it"
