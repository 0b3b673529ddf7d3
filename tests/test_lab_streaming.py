"""Pieces of text that are whole, and a cache that changes no answer."""

import random

import pytest

from lab import chat, models, streaming
from lab.conversation import Asker
from lab.sampling import Sampling

TEXTS = ("뷁쀍 안녕하세요 🙂👩‍👧 x", "  두 칸\n\n탭\t끝 ", "a ,b 'm n't", "\ufffd", "한자 漢字 é")


@pytest.fixture(scope="module")
def gemma(random_gemma):
    return models.load(random_gemma)


@pytest.fixture(scope="module", params=["gemma", "hyperclovax"])
def either_tokenizer(request, tokenizer):
    return request.getfixturevalue("gemma")[1] if request.param == "gemma" else tokenizer


def pieces(tokenizer, tokens):
    streamed = streaming.Pieces(tokenizer)
    return [*map(streamed.add, tokens), streamed.finish()]


@pytest.mark.parametrize("text", TEXTS)
def test_pieces_are_whole_characters_and_together_the_text(either_tokenizer, text):
    tokens = either_tokenizer.encode(text, add_special_tokens=False)
    found = pieces(either_tokenizer, tokens)
    assert "".join(found) == text
    assert all("\ufffd" not in piece for piece in found) or "\ufffd" in text
    if len(tokens) > 3 and " " in text:
        assert sum(map(bool, found)) > 2  # streamed, not kept back


def test_pieces_of_any_tokens_are_the_batch_decode(either_tokenizer):
    """Broken bytes and special tokens in every order; the first 330 ids of Gemma's are specials and bytes."""
    draw, seen = random.Random(0), 0
    for number in range(600):
        among = 330 if number % 2 else len(either_tokenizer) + 30  # a model's vocabulary may be padded
        tokens = [draw.randrange(among) for _ in range(12)]
        expected = either_tokenizer.decode(tokens, skip_special_tokens=True)
        found = pieces(either_tokenizer, tokens)
        assert "".join(found) == expected, tokens
        seen += "\ufffd" in expected
    assert seen > 50


def test_nothing_is_shown_of_special_tokens(either_tokenizer):
    marks = [token for token in either_tokenizer.all_special_ids]
    tokens = either_tokenizer.encode("안녕", add_special_tokens=False)
    assert len(marks) > 4
    assert "".join(pieces(either_tokenizer, [*marks, *tokens, *marks])) == "안녕"


def dialogue(gemma, sampling, cached, turns=4):
    """The answers of a dialogue, read with one cache for all turns or anew each time; the cache's Answers too."""
    model, tokenizer = gemma
    asker, cache = Asker(model, tokenizer, sampling, 12, 2048), streaming.PromptCache(model)
    messages, answers = [], []
    for place in range(turns):
        messages.append({"role": "user", "content": f"파리 {place} 서울?"})
        answer = asker.answer(chat.prompt_tokens(tokenizer, messages), place, cache if cached else None)
        assert "".join(answer) == answer.text
        messages.append({"role": "assistant", "content": answer.text})
        answers.append(answer)
    return answers


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(),
        Sampling(repetition_penalty=1.6, repetition_context_size=0),
        Sampling(temp=0.8, top_k=30, repetition_penalty=1.3, repetition_context_size=40, seed=2),
    ],
)
def test_a_cache_kept_over_turns_changes_no_answer_and_reads_only_what_is_new(gemma, sampling):
    cached, anew = (dialogue(gemma, sampling, keep) for keep in (True, False))
    assert [answer.tokens for answer in cached] == [answer.tokens for answer in anew]
    assert len({tuple(answer.tokens) for answer in anew}) > 1
    assert [answer.reused for answer in anew] == [0] * 4
    for before, answer in zip(cached, cached[1:], strict=False):
        assert len(before.prompt) <= answer.reused < len(answer.prompt)


def test_an_answer_left_off_anywhere_leaves_a_cache_that_changes_nothing(gemma):
    model, tokenizer = gemma
    asker = Asker(model, tokenizer, Sampling(repetition_penalty=1.6), 12, 2048)
    first, second = (models.chat_prompts(tokenizer, [text])[0] for text in ("파리는 서울?", "파리는 안녕?"))
    expected = ["".join(asker.answer(prompt)) for prompt in (first, second)]
    for checks in range(1, 8):  # while the prompt is read, then between tokens
        cache, asked = streaming.PromptCache(model), iter(range(checks))
        stopped = asker.answer(first, cache=cache, stop=lambda asked=asked: next(asked, None) is None)
        "".join(stopped)
        assert len(stopped.tokens) < 12 and not stopped.ended
        assert "".join(asker.answer(second, cache=cache)) == expected[1]
        again = asker.answer(first, cache=cache)
        assert "".join(again) == expected[0] and again.reused > 0


class BrokenOff:
    """A layer that raises KeyboardInterrupt when it is called for the last time of `calls`."""

    def __init__(self, layer, calls):
        self.layer, self.calls = layer, calls

    def __call__(self, *inputs):
        self.calls -= 1
        if self.calls == 0:
            raise KeyboardInterrupt
        return self.layer(*inputs)


def test_an_answer_broken_off_between_two_layers_leaves_a_cache_that_changes_nothing(gemma):
    model, tokenizer = gemma
    asker, cache = Asker(model, tokenizer, Sampling(), 12, 2048), streaming.PromptCache(model)
    first, second = (models.chat_prompts(tokenizer, [text])[0] for text in ("파리는 서울?", "파리는 안녕?"))
    expected, layer = "".join(asker.answer(second)), model.layers[2]
    "".join(asker.answer(first, cache=cache))
    model.layers[2] = BrokenOff(layer, 4)
    try:
        with pytest.raises(KeyboardInterrupt):
            "".join(asker.answer(second, cache=cache))
    finally:
        model.layers[2] = layer
    assert [part.size() for part in cache.layers] == [0] * len(cache.layers)
    assert "".join(asker.answer(second, cache=cache)) == expected


def test_an_answer_says_whether_the_model_ended_it_and_how_fast_it_was(model_8bit):
    model, tokenizer = models.load(model_8bit)
    asker = Asker(model, tokenizer, Sampling(), 40, 2048)
    (prompt,) = models.chat_prompts(tokenizer, ["프랑스의 수도는 어디야?"])
    whole = asker.answer(prompt)
    assert "".join(whole) == models.answer(model, tokenizer, ["프랑스의 수도는 어디야?"])[0]
    assert whole.ended and asker.cut(whole) == "" and 0 < whole.first_seconds <= whole.seconds
    assert whole.figures().startswith(
        f"prompt {len(prompt)} tokens ({len(prompt)} read anew), first token after 0."
    )
    for limit, context, said in (
        (3, 2048, "[cut at 3 tokens]"),
        (40, len(prompt) + 2, f"[cut at 2 tokens; the context of {len(prompt) + 2} is full]"),
    ):
        short = Asker(model, tokenizer, Sampling(), limit, context)
        answer = short.answer(prompt)
        assert whole.text.startswith("".join(answer)) and short.cut(answer) == said
