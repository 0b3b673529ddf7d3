import pytest
from mlx.utils import tree_flatten

from lab import adapters, models
from lab.cli import LabError
from lab.device import mx
from lab.skeletons import linear_outputs, name_modules, size_of, skeleton, weight_bytes

CONFIG = {"fine_tune_type": "lora", "num_layers": 2, "lora_parameters": {"rank": 4, "scale": 20.0, "dropout": 0.0}}


def test_a_skeleton_has_the_loaded_models_shapes_and_weighs_nothing(model_8bit):
    held = mx.get_active_memory()
    bare = skeleton(model_8bit)
    adapters.add_layers(bare, CONFIG)
    assert mx.get_active_memory() - held < 100_000
    loaded, _ = models.load(model_8bit)
    adapters.add_layers(loaded, CONFIG)
    shapes = [
        {name: value.shape for name, value in tree_flatten(model.trainable_parameters())}
        for model in (bare, loaded)
    ]
    assert shapes[0] == shapes[1]
    frozen = size_of(loaded.parameters()) - size_of(loaded.trainable_parameters())
    assert weight_bytes(bare, model_8bit) == 4 * frozen


def test_a_skeleton_refuses_what_the_model_would(model_8bit, tmp_path):
    with pytest.raises(LabError, match="is quantized"):
        adapters.add_layers(skeleton(model_8bit), {"fine_tune_type": "full", "num_layers": -1})
    with pytest.raises(LabError, match="no model here"):
        skeleton(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "no_such_model"}')
    with pytest.raises(LabError, match="cannot load .*; convert it again"):
        skeleton(tmp_path)


def test_32b_takes_no_memory(tmp_path):
    (tmp_path / "config.json").write_text(
        '{"model_type": "llama", "hidden_size": 5120, "num_hidden_layers": 72, "num_attention_heads": 40, "head_dim": 128, '
        '"num_key_value_heads": 8, "intermediate_size": 24192, "vocab_size": 128256, "rms_norm_eps": 1e-5, '
        '"tie_word_embeddings": false}'
    )
    before = mx.get_active_memory()
    assert size_of(skeleton(tmp_path).parameters()) == pytest.approx(32.6e9, rel=1e-3)
    assert mx.get_active_memory() - before < 1e6  # bytes


def test_modules_by_their_ends_or_in_full(model_8bit):
    model = skeleton(model_8bit)
    assert name_modules(model, ["q_proj", "mlp.up_proj"]) == ["self_attn.q_proj", "mlp.up_proj"]
    assert name_modules(model, ["self_attn.q_proj", "q_proj"]) == ["self_attn.q_proj"]
    assert name_modules(model, ["lm_head"]) == ["lm_head"]
    with pytest.raises(LabError, match="target module proj: .*mlp.down_proj, .*self_attn.v_proj"):
        name_modules(model, ["proj"])


def test_the_outputs_of_a_layers_linear_parts(model_8bit):
    layer = skeleton(model_8bit).layers[0]
    assert sorted(linear_outputs(layer)) == [64, 64, 192, 192, 192, 384, 384]
