"""Choices' log-likelihoods in batches with shared beginnings, against the stock model asked one by one."""

import random

import mlx.nn as nn
import numpy as np
import pytest

from lab import choices, models, tiny_gemma
from lab.choices import Plan, Question
from lab.device import mx
from tests.small_checkpoints import TEXT

LETTERS = [[5], [6], [7], [8]]


@pytest.fixture(scope="module")
def model(model_8bit):
    return models.load(model_8bit)[0]


def one_by_one(model, question):
    """[log-likelihood of each choice], by the stock model's own forward pass of prompt and choice."""
    found, seen = [], {}
    for tokens in question.choices:
        stem = tuple(tokens[:-1])
        if stem not in seen:
            logits = model(mx.array([[*question.prompt.tolist(), *stem]]))
            seen[stem] = nn.log_softmax(logits[0, -len(tokens) :], axis=-1).tolist()
        found.append(sum(row[token] for row, token in zip(seen[stem], tokens, strict=True)))
    return found


def all_scored(model, plan, done=0):
    found = {}
    for numbers, values in choices.scored(model, plan, done):
        found.update(zip(numbers, values, strict=True))
    return found


def questions_of(shape, seed=0):
    """Questions whose prompts begin alike, as `shape` says: [(shared lengths, number of prompts, own length)]."""
    chance = random.Random(seed)

    def text(length):
        return [chance.randrange(2000) for _ in range(length)]

    made = []
    for shared, number, own in shape:
        beginning = text(shared)
        made += [beginning + text(chance.randint(1, own)) for _ in range(number)]
    chance.shuffle(made)
    return [Question.of(tokens, LETTERS) for tokens in made]


SHAPES = {
    "nothing shared": [(0, 9, 40)],
    "one beginning": [(70, 5, 30)],
    "several beginnings and loose ones": [(100, 3, 20), (50, 4, 30), (0, 3, 60)],
    "prompts of one token": [(0, 3, 1)],
    "one question": [(30, 1, 5)],
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_as_one_by_one(model, shape):
    questions = questions_of(shape)
    found = all_scored(model, Plan(questions, batch_size=4))
    assert sorted(found) == list(range(len(questions)))
    for number, question in enumerate(questions):
        assert found[number] == pytest.approx(one_by_one(model, question), abs=1e-4)


@pytest.mark.parametrize(
    "answers",
    [
        [[11, 5], [11, 6], [11, 7], [11, 8]],
        [[11, 5, 12], [11, 6, 12], [11, 7, 12], [9]],
        [[11], [11, 12], [11, 12, 13], [14, 15]],
        [[5], [5]],
    ],
)
def test_choices_of_several_tokens(model, answers):
    questions = [Question.of(each.prompt, answers) for each in questions_of([(80, 3, 9), (0, 1, 30)])]
    for number, values in all_scored(model, Plan(questions, 3)).items():
        assert values == pytest.approx(one_by_one(model, questions[number]), abs=1e-4)


def test_the_same_prompt_twice_and_one_that_goes_on_after_another(model):
    base = list(range(100, 220))
    questions = [Question.of(tokens, LETTERS) for tokens in (base, base, base + [3], base[:-1])]
    for number, values in all_scored(model, Plan(questions, 2)).items():
        assert values == pytest.approx(one_by_one(model, questions[number]), abs=1e-4)


def test_beginnings_within_beginnings_are_computed_once():
    """Five examples drawn in every order: a tree of 5 + 20 + 60 + 120 + 120 examples, not 120 times five."""
    from itertools import permutations

    chance = random.Random(0)
    parts = [[chance.randrange(2000) for _ in range(50)] for _ in range(5)]
    prompts = [sum(order, []) + [number] for number, order in enumerate(permutations(parts))]
    prompts += [[*prompt[:-1], 200, 201] for prompt in prompts]
    plan = Plan([Question.of(tokens, LETTERS) for tokens in prompts], 32)
    given, every = plan.tokens()
    assert every == sum(map(len, prompts))
    assert given <= 50 * (5 + 20 + 60 + 120 + 120) + 3 * len(prompts)
    assert sorted(number for batch in plan.batches() for number in batch) == list(range(len(prompts)))


def test_a_run_that_goes_on_has_the_same_bits(model):
    plan = Plan(questions_of(SHAPES["several beginnings and loose ones"]), 3)
    batches = list(plan.batches())
    assert len(batches) == plan.size >= 4
    whole = list(choices.scored(model, plan))
    assert [numbers for numbers, _ in whole] == batches
    for done in (1, plan.size - 1, plan.size):
        assert list(choices.scored(model, plan, done)) == whole[done:]


def small(kind, **more):
    """A random model of another of mlx-lm's architectures, in the working number format of this device."""
    from mlx_lm.models import gemma2, glm4, llama

    if kind == "gemma2":  # caps so low that they bite
        config = {**tiny_gemma.text_config(), "vocab_size": TEXT["vocab_size"], "num_hidden_layers": 2, **more}
        return gemma2.Model(gemma2.ModelArgs.from_dict(config))
    config = {**TEXT, "num_hidden_layers": 2, "tie_word_embeddings": False, **more}
    if kind == "glm4":
        config |= {"partial_rotary_factor": 0.5, "rope_theta": 1e4, "attention_bias": False}
        return glm4.Model(glm4.ModelArgs.from_dict({**config, "model_type": "glm4"}))
    return llama.Model(llama.ModelArgs.from_dict({**config, "model_type": "llama"}))


@pytest.mark.parametrize(
    "kind, more, shares",
    [
        ("glm4", {}, True),
        ("gemma2", {"attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0}, True),
        ("llama", {"tie_word_embeddings": True}, True),
        ("llama", {"layer_types": ["full_attention", "sliding_attention"], "sliding_window": 8}, False),
    ],
)
def test_other_architectures(kind, more, shares):
    """glm4, Gemma-2, tied embeddings; a sliding window, where beginnings are not shared."""
    mx.random.seed(0)
    model = small(kind, **more)
    mx.eval(model.parameters())
    assert choices.can_share(model) == shares
    vocabulary = TEXT["vocab_size"]
    questions = [
        Question.of(np.array(each.prompt) % vocabulary, LETTERS)
        for each in questions_of([(90, 4, 20), (0, 2, 30)])
    ]
    for number, values in all_scored(model, Plan(questions, 3, shares)).items():
        assert values == pytest.approx(one_by_one(model, questions[number]), abs=1e-4)
