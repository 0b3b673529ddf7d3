"""What is trained is what will be generated: the template's own prompt, then the answer to its end token."""

import pytest

from lab.chat import encode_row, end_tokens, prompt_tokens
from lab.cli import LabError

PROMPT = "<|im_start|>user\n하늘은 무슨 색이야?<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
TURNS = [
    {"role": "user", "content": "하늘은 무슨 색이야?"},
    {"role": "assistant", "content": "파란색입니다."},
    {"role": "user", "content": "바다는?"},
    {"role": "assistant", "content": "바다도 파란색입니다."},
]


def learnt(tokenizer, sequence):
    return tokenizer.decode(
        [int(token) for token, trained in zip(sequence.tokens, sequence.trained, strict=True) if trained]
    )


def test_the_template_has_the_conventions_of_the_32b(tokenizer):
    assert tokenizer.decode(prompt_tokens(tokenizer, TURNS[:1])) == PROMPT
    thinking = tokenizer.decode(prompt_tokens(tokenizer, TURNS[:1], thinking=True))
    assert thinking.endswith("<|im_start|>assistant\n<think>\n")
    history = tokenizer.decode(prompt_tokens(tokenizer, TURNS[:3]))
    assert "<|im_start|>assistant\n파란색입니다.<|im_end|>\n" in history
    reasoned = [TURNS[0], {"role": "assistant", "content": "<think>\n음\n</think>\n\n파란색입니다."}, TURNS[2]]
    assert tokenizer.decode(prompt_tokens(tokenizer, reasoned)) == history


def test_a_masked_dialogue_learns_every_answer_as_it_will_be_generated(tokenizer):
    sequences = encode_row(tokenizer, {"messages": TURNS}, "f:1", mask_prompt=True)
    assert [learnt(tokenizer, sequence) for sequence in sequences] == [
        "파란색입니다.<|im_end|>",
        "바다도 파란색입니다.<|im_end|>",
    ]
    for sequence, place in zip(sequences, (1, 3), strict=True):
        prompt = prompt_tokens(tokenizer, TURNS[:place])
        assert sequence.tokens[: len(prompt)].tolist() == prompt
        assert not sequence.trained[: len(prompt)].any()


def test_where_history_is_a_prefix_one_sequence_marks_all_answers(tokenizer):
    plain = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    plain += "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    template = tokenizer.chat_template
    tokenizer.chat_template = plain
    try:
        (sequence,) = encode_row(tokenizer, {"messages": TURNS}, "f:1", mask_prompt=True)
    finally:
        tokenizer.chat_template = template
    assert learnt(tokenizer, sequence) == "파란색입니다.<|im_end|>바다도 파란색입니다.<|im_end|>"


def test_without_a_mask_everything_is_learnt_once(tokenizer):
    (first, second) = encode_row(tokenizer, {"messages": TURNS}, "f:1")
    assert first.trained.all()
    assert learnt(tokenizer, first) == PROMPT + "파란색입니다.<|im_end|>"
    again = PROMPT.replace("<|im_start|>user\n하늘은 무슨 색이야?", "바다는?")  # no turn is learnt twice
    assert learnt(tokenizer, second) == again + "바다도 파란색입니다.<|im_end|>"


def test_prompt_and_completion_is_a_dialogue_of_one_answer(tokenizer):
    row = {"prompt": TURNS[0]["content"], "completion": TURNS[1]["content"]}
    (pair,) = encode_row(tokenizer, row, mask_prompt=True)
    (dialogue,) = encode_row(tokenizer, {"messages": TURNS[:2]}, mask_prompt=True)
    assert pair.tokens.tolist() == dialogue.tokens.tolist()
    assert pair.trained.tolist() == dialogue.trained.tolist()


def test_text_ends_once(tokenizer):
    (plain,) = encode_row(tokenizer, {"text": "하늘은 파랗다."}, mask_prompt=True)
    (ended,) = encode_row(tokenizer, {"text": "하늘은 파랗다.<|im_end|>"})
    assert plain.tokens.tolist() == ended.tokens.tolist()
    assert plain.trained.all()


def test_an_answer_may_stand_in_the_question_too(tokenizer):
    turns = [{"role": "user", "content": "파리라고 말해 줘."}, {"role": "assistant", "content": "파리"}]
    (sequence,) = encode_row(tokenizer, {"messages": turns}, mask_prompt=True)
    assert learnt(tokenizer, sequence) == "파리<|im_end|>"


@pytest.mark.parametrize("answer", ["d", "i", "end", "|", "assistant", "<", "a\nb", "  띄어 씀 "])
def test_a_short_answer_is_not_found_in_the_markup(tokenizer, answer):
    turns = [TURNS[0], {"role": "assistant", "content": answer}]
    (sequence,) = encode_row(tokenizer, {"messages": turns}, mask_prompt=True)
    assert learnt(tokenizer, sequence) == f"{answer}<|im_end|>"


@pytest.mark.parametrize(
    ("turns", "message"),
    [
        ([TURNS[0], {"role": "assistant", "content": "<think>음</think>파랑"}], "think block"),
        ([TURNS[0], {"role": "assistant", "content": "", "tool_calls": [{"name": "f"}]}], "tool_calls"),
    ],
)
def test_an_answer_that_the_template_would_change_is_refused_by_line(tokenizer, turns, message):
    with pytest.raises(LabError, match=f"^train.jsonl:7: .*{message}"):
        encode_row(tokenizer, {"messages": turns}, "train.jsonl:7")


def test_a_template_that_refuses_the_dialogue_names_the_line(tokenizer):
    template = tokenizer.chat_template
    tokenizer.chat_template = "{{ raise_exception('no system role') }}"
    try:
        with pytest.raises(LabError, match="^f:3: .*no system role"):
            encode_row(tokenizer, {"messages": TURNS}, "f:3")
    finally:
        tokenizer.chat_template = template


@pytest.mark.parametrize("name", ["<|im_end|>", "<|endoftext|>"])
def test_both_end_tokens_end_an_answer(tokenizer, name):
    assert tokenizer.convert_tokens_to_ids(name) in end_tokens(tokenizer)
