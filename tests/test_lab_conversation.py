"""A conversation that outgrows its context, and one that is stopped, taken back, begun anew."""

import pytest

from lab import chat, models
from lab.cli import LabError
from lab.conversation import Asker, Conversation, TooLong, check_system
from lab.sampling import Sampling

SYSTEM = [{"role": "system", "content": "짧게 답해."}]


@pytest.fixture(scope="module")
def loaded(model_8bit):
    return models.load(model_8bit)


def talk(loaded, context=2048, max_tokens=20, system=None, sampling=None):
    return Conversation(Asker(*loaded, sampling or Sampling(), max_tokens, context), system)


def said(conversation, text):
    return "".join(conversation.ask(text))


def test_answers_are_those_of_the_whole_conversation(loaded):
    conversation = talk(loaded, system=SYSTEM[0]["content"])
    for text in ("안녕?", "프랑스의 수도는 어디야?", "고마워."):
        expected = models.answer(*loaded, [[*conversation.messages(), {"role": "user", "content": text}]], 20)
        assert said(conversation, text) == expected[0]
    roles = [turn["role"] for turn in conversation.messages()]
    assert roles == ["system", *["user", "assistant"] * 3] and conversation.left_out == 0


def test_the_oldest_turns_are_left_out_whole_when_the_context_is_full(loaded):
    conversation, left = talk(loaded, context=150, system=SYSTEM[0]["content"]), []
    for number in range(6):
        before, question = (
            list(conversation.turns),
            {"role": "user", "content": f"{number} 더하기 {number}은 얼마야?"},
        )
        answer = said(conversation, question["content"])
        left.append(conversation.left_out)
        shown = [*SYSTEM, *before[conversation.left_out :], question]
        assert conversation.last.prompt == chat.prompt_tokens(loaded[1], shown)
        assert len(conversation.last.prompt) + 20 <= 150
        assert answer == models.answer(*loaded, [shown], 20)[0]
        if conversation.left_out:  # no more than had to be
            more = [*SYSTEM, *before[conversation.left_out - 2 :], question]
            assert len(chat.prompt_tokens(loaded[1], more)) + 20 > 150
    assert left[0] == 0 and left[-1] > 0 and left == sorted(left) and not any(count % 2 for count in left)
    assert len(conversation.turns) == 12  # what is left out of the prompt is not forgotten: /save has it
    conversation.reset()
    assert (conversation.turns, conversation.left_out) == ([], 0)


def test_an_answer_as_long_as_the_context_does_not_push_every_turn_out(loaded):
    conversation = talk(loaded, context=200, max_tokens=5000)
    said(conversation, "안녕?")
    said(conversation, "고마워.")
    assert conversation.left_out == 0 and conversation.last.limit == 200 - len(conversation.last.prompt)


@pytest.mark.parametrize(("text", "error"), [("긴 " * 200, TooLong), ("안녕?<|im_end|>", LabError)])
def test_a_question_that_cannot_be_asked_keeps_the_turns(loaded, text, error):
    conversation = talk(loaded, context=150)
    said(conversation, "안녕?")
    before = list(conversation.turns)
    with pytest.raises(error):
        said(conversation, text)
    assert conversation.turns == before
    assert said(conversation, "고마워.") and len(conversation.turns) == 4


def test_a_stopped_answer_stays_as_far_as_it_came_and_none_takes_its_question_along(loaded):
    conversation = talk(loaded)
    whole = said(conversation, "안녕?")
    conversation.reset()
    assert "".join(conversation.ask("안녕?", stop=lambda: True)) == "" and conversation.turns == []
    counts = iter(range(4))
    part = "".join(conversation.ask("안녕?", stop=lambda: next(counts, None) is None))
    assert part and whole.startswith(part) and part != whole
    assert [turn["content"] for turn in conversation.turns] == ["안녕?", part]


def test_taken_back_and_asked_again_draws_another_answer_but_greedily_the_same(loaded):
    for sampling, same in ((Sampling(), True), (Sampling(temp=3.0), False)):
        conversation = talk(loaded, sampling=sampling)
        first = said(conversation, "안녕?")
        assert conversation.undo() == "안녕?" and conversation.turns == []
        assert (said(conversation, "안녕?") == first) is same
    assert conversation.undo() and conversation.undo() is None


def test_a_system_turn_that_the_template_drops_is_refused(loaded, random_gemma):
    tokenizer = models.load_tokenizer(random_gemma)
    with pytest.raises(LabError, match="knows no system turn; write it into the question"):
        check_system(tokenizer, SYSTEM)
    tokenizer.chat_template = "{% for m in messages if m.role != 'system' %}{{ m.content }}{% endfor %}"
    with pytest.raises(LabError, match="drops a system turn"):
        check_system(tokenizer, SYSTEM)
    check_system(loaded[1], SYSTEM)
