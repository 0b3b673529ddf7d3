"""Loading and batch generation on the embedded model."""

import json
import shutil

import pytest

from lab.device import computes_in_float32, mx  # isort: skip  (first: it puts the fast BLAS in front)
from mlx_lm import stream_generate

from lab import blas, models
from lab.cli import LabError
from lab.conversation import Asker
from lab.hub import GEMMA_TINY
from lab.probes import COMPLETION
from lab.report import METRICS
from lab.sampling import Sampling
from lab.verification import load_probes

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


@pytest.fixture
def babbler(model_8bit, random_adapter, tmp_path):
    """An adapter that was never trained: the model babbles, and many next tokens are nearly as likely as the best."""
    return random_adapter(model_8bit, tmp_path)


def test_answers_in_a_batch_are_the_answers_one_by_one(loaded):
    together = models.answer(*loaded, QUESTIONS, max_tokens=40)
    assert together == [models.answer(*loaded, [question], max_tokens=40)[0] for question in QUESTIONS]
    assert len(set(together)) == len(QUESTIONS)


@pytest.fixture(scope="module")
def mixed():
    """(questions, beginnings): what the verification commands ask, of very unlike lengths; programs among them."""
    probes, _ = load_probes("solverx_knowledge.jsonl", "data_general", tuple(METRICS), limit=4)
    chat = [probe.prompt for probe in probes if probe.kind != COMPLETION]
    chat.append([{"role": role, "content": "안녕? " * 40} for role in ("user", "assistant", "user")])
    return chat, [probe.prompt for probe in probes if probe.kind == COMPLETION]


@pytest.mark.parametrize("adapter", [None, "made"])
def test_any_batch_size_gives_the_tokens_that_mlx_lm_gives_one_by_one(loaded, mixed, adapter, babbler):
    models.switch_adapter(loaded[0], babbler if adapter else None)
    same_in_batches(*loaded, mixed, (1, 5, 64))
    models.switch_adapter(loaded[0], None)


def test_gemma_in_batches_of_prompts_of_several_lengths(mixed):
    """mlx-lm 0.32's gemma2 raises there: its scores have a dimension more than a batch's mask."""
    some = [prompts[::-3] for prompts in mixed]  # the longest stands last
    same_in_batches(*models.load(GEMMA_TINY), some, (2, 64))


def same_in_batches(model, tokenizer, mixed, sizes):
    """Assert that batches of `sizes` give the tokens that mlx_lm gives one by one."""
    prompts = models.chat_prompts(tokenizer, mixed[0]) + [tokenizer.encode(text) for text in mixed[1]]
    assert max(map(len, prompts)) > 10 * min(map(len, prompts))
    with blas.threads(1):
        alone = [
            [part.token for part in stream_generate(model, tokenizer, item, max_tokens=16)] for item in prompts
        ]
    ends = tokenizer.eos_token_ids
    expected = [
        (
            tokenizer.decode([token for token in tokens if token not in ends], skip_special_tokens=True),
            tokens[-1] in ends,
        )
        for tokens in alone
    ]
    for size in sizes:
        assert models.generated(model, tokenizer, prompts, 16, size) == expected, size


def test_each_prompt_may_have_a_limit_of_its_own(loaded):
    prompts = models.chat_prompts(loaded[1], QUESTIONS)
    whole = models.generated(*loaded, prompts, 40)
    assert all(ended for _, ended in whole)
    mixed = models.generated(*loaded, prompts, [40, 2, 40, 1, 40], batch_size=3)
    assert [mixed[place] for place in (0, 2, 4)] == [whole[place] for place in (0, 2, 4)]
    for place in (1, 3):
        assert whole[place][0].startswith(mixed[place][0]) and mixed[place][1] is False


def test_draws_repeat_and_differ_by_seed(loaded):
    opening = models.user_opening(loaded[1])
    assert loaded[1].decode(opening) == "<|im_start|>user\n"
    drawn = [models.sampled(*loaded, [opening] * 4, 12, 4, 1.0, seed) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


DRAWN = Sampling(temp=0.9, top_p=0.95, top_k=40, min_p=0.01, repetition_penalty=1.5, repetition_context_size=0)


@pytest.mark.parametrize("sampling", [Sampling(), DRAWN, Sampling(repetition_penalty=1.5)])
def test_gemma_answers_in_any_batch_as_one_by_one_by_its_own_seed_and_penalty(random_gemma, sampling):
    model, tokenizer = models.load(random_gemma)
    prompts = models.chat_prompts(tokenizer, ["안녕?", "프랑스의 수도는 어디야? " * 9, "파리 파리", "x"])
    asker = Asker(model, tokenizer, sampling, 10, 2048)
    alone = []
    for place, prompt in enumerate(prompts):
        answer = asker.answer(prompt, place)
        alone.append(("".join(answer), answer.ended))
    assert len({text for text, _ in alone}) > 2
    for size in (2, 4):  # 2 is the number of key-value heads: there mlx-lm's mask fits, wrongly
        drawing = {
            "samplers": [asker.sampler(place) for place in range(4)],
            "logits_processors": [asker.processors() for _ in prompts],
        }
        assert models.generated(model, tokenizer, prompts, 10, size, **drawing) == alone, size
    if sampling != Sampling():
        assert alone != models.generated(model, tokenizer, prompts, 10)


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
        ("models/missing", "check the path, or name a model of the hub, google/gemma-2-9b-it say"),
        ("/nowhere/at/all", "check the path, or name a model of the hub, google/gemma-2-9b-it say"),
        ("models/Gemma-2-Missing/Gemma-2-Tiny", "`git checkout -- models/Gemma-2-Tiny` brings it back"),
        ("/no/gemma-2-9b-it", "`--model google/gemma-2-9b-it` downloads it"),
        ("/elsewhere/HyperCLOVAX-SEED-Think-32B-Text-8bit", "`make convert PROFILE=hcx` builds it"),
    ],
)
def test_a_missing_model_is_one_line_with_the_remedy(load, path, remedy):
    with pytest.raises(LabError) as error:
        load(path)
    assert str(error.value) == f"{path}: no model here (no config.json); {remedy}"


def test_a_damaged_model_is_one_line(model_8bit, tmp_path):
    copy = shutil.copytree(model_8bit, tmp_path / "copy")
    weights = next(copy.glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(LabError, match="cannot load"):
        models.load(copy)


def test_a_rope_that_mlx_lm_would_not_read_is_refused(tmp_path):
    """transformers 5 writes rope_theta into rope_parameters; mlx-lm's gemma2 would take its default in silence."""
    copy = shutil.copytree(GEMMA_TINY, tmp_path / "copy")
    config = json.loads((copy / "config.json").read_text(encoding="utf-8"))
    config["rope_parameters"] = {"rope_type": "default", "rope_theta": config.pop("rope_theta")}
    (copy / "config.json").write_text(json.dumps(config), encoding="utf-8")
    models.load(copy)  # the default it takes is the right one
    config["rope_parameters"]["rope_theta"] = 500000.0
    (copy / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(
        LabError, match="rope_theta 500000.0 stands in rope_parameters alone, and mlx-lm would take 1"
    ):
        models.load(copy)


@pytest.mark.parametrize("load", [lambda path: models.load(path)[1], models.load_tokenizer])
def test_what_closes_a_turn_ends_an_answer_whatever_the_configuration_names(load, tmp_path):
    """Gemma's tokenizer calls <eos> its end, its turns end with <end_of_turn>: an answer would run on to the limit."""
    copy = shutil.copytree(GEMMA_TINY, tmp_path / "copy")
    for name in ("config.json", "generation_config.json"):
        config = json.loads((copy / name).read_text(encoding="utf-8"))
        (copy / name).write_text(json.dumps({**config, "eos_token_id": 1}), encoding="utf-8")
    assert load(copy).eos_token_ids == {1, 5}
