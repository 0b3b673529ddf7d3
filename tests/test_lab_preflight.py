"""Faults are named from the skeleton: no weights are read."""

import pytest

from lab.cli import LabError
from lab.preflight import settle
from lab.settings import resolve


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"num_layers": 9}, "num_layers 9: the model has 4"),
        ({"target_modules": "query"}, "target module query"),
        ({"fine_tune_type": "full"}, "is quantized"),
        ({"optimizer": "sgd", "optimizer_config": {"sgd": {"beta": 1}}}, "optimizer_config of sgd"),
        ({"warmup": 10, "iters": 10}, "--warmup 10"),
    ],
)
def test_a_fault_is_named_before_the_weights_are_read(model_8bit, tmp_path, flags, message):
    for path in model_8bit.iterdir():
        if path.suffix != ".safetensors":
            (tmp_path / path.name).write_bytes(path.read_bytes())
    path = tmp_path / "c.yaml"
    path.write_text(f"optimizer_config: {flags.pop('optimizer_config', {})}\n", encoding="utf-8")
    settings, _ = resolve({"model": str(tmp_path), "data": "d", "config": path, **flags})
    with pytest.raises(LabError, match=message):
        settle(settings)


def test_modules_get_their_full_names(model_8bit):
    settings, _ = resolve({"model": str(model_8bit), "data": "d", "target_modules": "q_proj,mlp.up_proj"})
    settle(settings)
    assert settings.lora_parameters["keys"] == ["self_attn.q_proj", "mlp.up_proj"]
