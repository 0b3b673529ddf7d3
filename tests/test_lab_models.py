"""Loading and batch generation on the embedded model."""

import pytest

from lab import models
from lab.cli import LabError
from lab.device import computes_in_float32, mx

QUESTIONS = [
    "안녕?",
    "프랑스의 수도는 어디야?",
    "Python Hello World 예제 보여 줘.",
    "사과를 영어로 뭐라고 해?",
    "고마워.",
]


@pytest.fixture(scope="module")
def loaded(model_8bit):
    return models.load(model_8bit)


def test_answers_in_a_batch_are_the_answers_one_by_one(loaded):
    together = models.answer(*loaded, QUESTIONS, max_tokens=40)
    assert together == [models.answer(*loaded, [question], max_tokens=40)[0] for question in QUESTIONS]
    assert len(set(together)) == len(QUESTIONS)


def test_small_batches_keep_the_order(loaded):
    assert models.answer(*loaded, QUESTIONS, 20, batch_size=2) == models.answer(*loaded, QUESTIONS, 20)


def test_answers_end_at_the_end_token(loaded):
    (answer,) = models.answer(*loaded, ["안녕하세요."], max_tokens=60)
    assert "<|" not in answer
    assert len(loaded[1].encode(answer)) < 50


def test_a_completion_goes_on_with_the_text(loaded):
    (rest,) = models.complete(*loaded, ["대한민국의 수도는"], max_tokens=8)
    assert rest


def test_on_the_cpu_weights_are_dequantized_to_what_they_stand_for(loaded, model_8bit):
    from mlx_lm import load

    quantized, _ = load(str(model_8bit))
    tokens = mx.array([[3, 4, 5, 6]])
    expected, ours = quantized(tokens).astype(mx.float32), loaded[0](tokens)
    assert mx.abs(expected - ours).max().item() < 0.05 * mx.abs(expected).max().item()
    if computes_in_float32():
        assert loaded[0].model.embed_tokens.weight.dtype == mx.float32


@pytest.mark.parametrize("load", [models.load, models.load_tokenizer])
@pytest.mark.parametrize(
    ("path", "remedy"),
    [
        ("models/missing", "`make convert` builds it"),
        ("/nowhere/at/all", "`make convert` builds it"),
        ("an-owner/a-model", "`make convert` builds it"),
        ("elsewhere/HyperCLOVAX-SEED-Think-32B-Text-8bit", "`make convert PROFILE=hcx` builds it"),
    ],
)
def test_a_missing_model_is_one_line_with_the_remedy(load, path, remedy):
    with pytest.raises(LabError) as error:
        load(path)
    assert str(error.value) == f"{path}: no model here (no config.json); {remedy}"


def test_a_damaged_model_is_one_line(model_8bit, tmp_path):
    import shutil

    copy = shutil.copytree(model_8bit, tmp_path / "copy")
    weights = next(copy.glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(LabError, match="cannot load"):
        models.load(copy)
