"""--report-to says what is missing before anything is trained. What arrives is checked in tests/reference/."""

import sys
from importlib.util import find_spec

import pytest

from lab.cli import LabError
from lab.services import PACKAGES, Services, check
from lab.settings import resolve


@pytest.mark.parametrize("service", PACKAGES)
def test_a_missing_package_is_named_with_its_command(service, monkeypatch):
    for package in PACKAGES[service]:
        monkeypatch.setitem(sys.modules, package, None)  # Python's own way to say: not importable
    monkeypatch.setattr(
        "lab.services.find_spec", lambda name: None if sys.modules.get(name, 0) is None else find_spec(name)
    )
    with pytest.raises(LabError, match=rf"^--report-to {service}: .*pip install {PACKAGES[service][0]}`") as error:
        check(service)
    assert "\n" not in str(error.value)


def test_without_a_service_nothing_is_sent_or_written(tmp_path):
    settings, _ = resolve({"model": "m", "data": "d", "adapter_path": str(tmp_path / "a")})
    services = Services(settings, {})
    services.trained(1, train_loss=1.0)
    services.evaluated(1, val_loss=1.0, recall=None)
    services.close()
    assert not (tmp_path / "a").exists()


def test_services_are_named_once_and_in_any_order():
    settings, _ = resolve({"model": "m", "data": "d", "report_to": "wandb, tensorboard,wandb"})
    assert settings.report_to == "wandb,tensorboard"
