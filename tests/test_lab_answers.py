"""Masks under templates of many shapes: what is learnt is the assistant's turns to their end token, or the row is refused."""

from pathlib import Path

import pytest

from lab.answers import turn_ends
from lab.chat import encode_row, prompt_tokens
from lab.cli import LabError
from lab.models import load_tokenizer

EMBEDDED = "models/HyperCLOVAX-SEED-Think-Tiny"
TEMPLATES = Path("tests/chat_templates")
ENDS = {  # template: its end tokens; the tokens that the embedded tokenizer lacks are added to it
    "chatml": ["<|im_end|>"],
    "llama3": ["<|eot_id|>", "<|eom_id|>", "<|end_of_text|>"],
    "gemma2": ["<end_of_turn>", "<eos>"],
    "gemma3": ["<end_of_turn>", "<eos>"],
    "mistral": ["</s>"],
    "qwen3": ["<|im_end|>", "<|endoftext|>"],
    "hyperclovax14b": ["<|endofturn|>", "<|stop|>"],
    "deepseek_r1": ["<|end|>"],
    "phi3": ["<|end|>", "<|endoftext|>"],
    "phi4": ["<|end|>", "<|endoftext|>"],
    "alpaca": ["<|im_end|>"],
}
OPENERS = [
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<start_of_turn>",
    "[INST]",
    "[/INST]",
    "<|User|>",
    "<|Assistant|>",
]
OPENERS += ["<|user|>", "<|assistant|>", "<|system|>"]
ONE, TWO = "파란색입니다.", "바다도 푸릅니다."
LEARNT = {  # of a dialogue of two answers, sequence by sequence
    "chatml": [f"{ONE}<|im_end|>{TWO}<|im_end|>"],
    "llama3": [f"{ONE}<|eot_id|>{TWO}<|eot_id|>"],
    "gemma2": [f"{ONE}<end_of_turn>{TWO}<end_of_turn>"],
    "gemma3": [f"{ONE}<end_of_turn>{TWO}<end_of_turn>"],
    "mistral": [f" {ONE}</s> {TWO}</s>"],
    "qwen3": [f"<think>\n\n</think>\n\n{ONE}<|im_end|>", f"<think>\n\n</think>\n\n{TWO}<|im_end|>"],
    "hyperclovax14b": [f"\n{ONE}<|im_end|><|endofturn|>", f"\n{TWO}<|im_end|><|endofturn|>"],
    "phi3": [f"{ONE}<|end|>{TWO}<|end|>"],
    "alpaca": [f"{ONE}\n\n<|im_end|>", f"{TWO}\n\n<|im_end|>"],
}
CALL = {"type": "function", "function": {"name": "get_weather", "arguments": {"city": "서울"}}}
TOOL = {"type": "function", "function": {"name": "get_weather", "description": "날씨", "parameters": {}}}


def turns(*contents, system=None):
    roles = ("user", "assistant") * len(contents)
    said = [{"role": role, "content": content} for role, content in zip(roles, contents, strict=False)]
    return [{"role": "system", "content": system}, *said] if system else said


DIALOGUE = turns("하늘은 무슨 색이야?", ONE, "바다는?", TWO)


@pytest.fixture(scope="module")
def speaking():
    """A function that gives the embedded tokenizer a template from tests/chat_templates and that template's tokens."""
    made = {}

    def load(name):
        if name not in made:
            tokenizer = load_tokenizer(EMBEDDED)
            known = tokenizer.get_vocab()
            wanted = [token for token in (*ENDS[name], *OPENERS) if token not in known]
            tokenizer._tokenizer.add_special_tokens(
                {"extra_special_tokens": wanted}, replace_extra_special_tokens=False
            )
            tokenizer._tokenizer.eos_token = ENDS[name][0]
            tokenizer._eos_token_ids = set(tokenizer.convert_tokens_to_ids(ENDS[name]))
            tokenizer.chat_template = (TEMPLATES / f"{name}.jinja").read_text(encoding="utf-8")
            made[name] = tokenizer
        return made[name]

    return load


def learnt(tokenizer, sequence):
    return tokenizer.decode(sequence.tokens[sequence.trained].tolist())


def masked(tokenizer, messages, where="f:1", **row):
    return encode_row(tokenizer, {"messages": messages, **row}, where, mask_prompt=True)


@pytest.mark.parametrize("name", LEARNT)
def test_every_answer_is_learnt_to_its_end_token_and_nothing_else(speaking, name):
    tokenizer = speaking(name)
    assert [learnt(tokenizer, sequence) for sequence in masked(tokenizer, DIALOGUE)] == LEARNT[name]


@pytest.mark.parametrize("name", LEARNT)
def test_what_stands_before_the_last_answer_is_the_prompt_it_is_generated_after(speaking, name):
    tokenizer = speaking(name)
    sequences = masked(tokenizer, DIALOGUE)
    for sequence, place in zip(sequences, (1, 3)[-len(sequences) :], strict=True):
        prompt = prompt_tokens(tokenizer, DIALOGUE[:place])
        assert sequence.tokens[: len(prompt)].tolist() == prompt
        assert sequence.trained[len(prompt) :].all()


@pytest.mark.parametrize("name", LEARNT)
def test_without_a_mask_every_turn_is_learnt_once(speaking, name):
    tokenizer = speaking(name)
    sequences = encode_row(tokenizer, {"messages": DIALOGUE}, "f:1")
    text = "".join(learnt(tokenizer, sequence) for sequence in sequences)
    for part in ("하늘은 무슨 색이야?", ONE, "바다는?", TWO):
        assert text.count(part) == 1, part


@pytest.mark.parametrize(
    "answer",
    [
        "a",
        "end",
        "assistant",
        "줄\n바꿈",
        "끝에 줄\n\n",
        "끝에 빈칸  ",
        "\n앞에 줄",
        "  앞에 빈칸",
        "<b>",
        "한 🙂",
    ],
)
@pytest.mark.parametrize("name", LEARNT)
def test_awkward_answers_are_learnt_as_the_template_writes_them(speaking, name, answer):
    tokenizer = speaking(name)
    (sequence,) = masked(tokenizer, turns("질문\n", answer))
    rendered = tokenizer.apply_chat_template(turns("질문\n", answer), tokenize=False)
    own = (
        learnt(tokenizer, sequence).removesuffix("<|im_end|>") if name == "alpaca" else learnt(tokenizer, sequence)
    )
    prompt = tokenizer.apply_chat_template(turns("질문\n"), tokenize=False, add_generation_prompt=True)
    assert rendered.startswith(prompt + own)
    assert rendered.removeprefix(prompt + own).strip() in ("", "<|endoftext|>")
    assert answer.strip() in own


def test_a_merge_over_the_boundary_stays_on_its_side(speaking):
    """The prompt ends with a line break, the answer begins with one, and the tokenizer has a token for both."""
    tokenizer = speaking("chatml")
    pair = tokenizer.encode("\n\n", add_special_tokens=False)
    (sequence,) = masked(tokenizer, turns("질문", "\n답"))
    prompt = prompt_tokens(tokenizer, turns("질문"))
    assert len(pair) == 1
    assert sequence.tokens[: len(prompt)].tolist() == prompt
    assert learnt(tokenizer, sequence) == "\n답<|im_end|>"


@pytest.mark.parametrize(
    ("name", "messages", "reason"),
    [
        ("gemma2", turns("질문", ONE, system="짧게"), "System role not supported"),
        ("gemma2", [*turns("하나"), *turns("둘", ONE)], "must alternate"),
        ("deepseek_r1", turns("질문", ONE), "opens a think block"),
        (
            "chatml",
            [*turns("날씨?"), {"role": "assistant", "content": None, "tool_calls": [CALL]}],
            "drops the answer's tool_calls",
        ),
        (
            "phi3",
            [*turns("?"), {"role": "assistant", "content": ONE, "reasoning_content": "음"}],
            "the answer's reasoning_content",
        ),
        ("chatml", turns("<|im_end|>은 뭐야?", ONE), "turn 1 .user. holds <.im_end.>"),
        ("chatml", turns("끝은?", "<|im_end|>입니다."), "turn 2 .assistant. holds <.im_end.>"),
        ("chatml", turns("<|im_start|>assistant\n네", ONE), "turn 1 .user. holds <.im_start.>"),
        ("llama3", turns("<|start_header_id|>", ONE), "turn 1"),
        ("mistral", turns("[INST] 또", ONE), "turn 1"),
    ],
)
def test_what_a_template_cannot_show_is_refused_by_line(speaking, name, messages, reason):
    with pytest.raises(LabError, match=f"^train.jsonl:7: .*{reason}"):
        masked(speaking(name), messages, "train.jsonl:7")


def test_tools_that_the_template_does_not_show_are_refused(speaking):
    with pytest.raises(LabError, match="^f:1: .*does not show the tool get_weather"):
        masked(speaking("chatml"), turns("날씨?", ONE), tools=[TOOL])


def test_a_turn_that_the_template_drops_is_refused(speaking):
    tokenizer = load_tokenizer(EMBEDDED)
    tokenizer.chat_template = (
        "{% for m in messages if m.role != 'system' %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
    )
    tokenizer.chat_template += "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    with pytest.raises(LabError, match=r"^f:1: .*drops turn 1 \(system\)"):
        masked(tokenizer, turns("질문", ONE, system="짧게"))


@pytest.mark.parametrize("name", ["gemma3", "mistral"])
def test_a_folded_system_turn_is_context(speaking, name):
    tokenizer = speaking(name)
    sequences = masked(tokenizer, turns("하늘?", ONE, "바다?", TWO, system="짧게 답한다"))
    assert "짧게 답한다" in tokenizer.decode(sequences[0].tokens.tolist())
    assert "".join(learnt(tokenizer, sequence) for sequence in sequences) == LEARNT[name][0]
    assert len(sequences) == (2 if name == "mistral" else 1)  # mistral's system turn moves to the last question


@pytest.mark.parametrize(
    ("name", "thought", "own"),
    [
        ("qwen3", "<think>\n음\n</think>\n\n파랑", "<think>\n음\n</think>\n\n파랑<|im_end|>"),
        ("qwen3", "<think>음</think>파랑", "<think>\n음\n</think>\n\n파랑<|im_end|>"),
        ("deepseek_r1", "<think>\n음\n</think>\n\n파랑", "음\n</think>\n\n파랑<|end|>"),
        (None, "<think>\n음\n</think>\n\n파랑", "음\n</think>\n\n파랑<|im_end|>"),
    ],
)
def test_reasoning_is_learnt_after_the_prompt_that_asks_for_it(speaking, tokenizer, name, thought, own):
    tokenizer = speaking(name) if name else tokenizer
    messages = turns("하늘?", thought, "바다?", thought)
    sequences = masked(tokenizer, messages)
    assert [learnt(tokenizer, sequence) for sequence in sequences] == [own, own]
    said = tokenizer.decode(sequences[1].tokens.tolist())
    assert said.count("음") == 1  # the reasoning of the past answer is gone
    assert said.removesuffix(own).endswith("assistant\n" if name == "qwen3" else "<think>\n")


def test_reasoning_in_a_turn_of_its_own(speaking):
    tokenizer = speaking("hyperclovax14b")
    messages = [*turns("하늘?"), {"role": "assistant", "content": ONE, "reasoning_content": "음"}]
    (sequence,) = masked(tokenizer, messages)
    think = "/think\n음<|im_end|>\n<|im_start|>assistant\n"
    assert learnt(tokenizer, sequence) == f"{think}{ONE}<|im_end|><|endofturn|>"
    tokenizer._eos_token_ids = {*tokenizer._eos_token_ids, tokenizer.convert_tokens_to_ids("<|im_end|>")}
    try:  # an end token inside the reasoning's closing cuts nothing off
        (sequence,) = masked(tokenizer, messages)
        assert learnt(tokenizer, sequence) == f"{think}{ONE}<|im_end|>"
    finally:
        tokenizer._eos_token_ids.discard(tokenizer.convert_tokens_to_ids("<|im_end|>"))


ASKED = {
    "llama3": ['{"name": "get_weather", "parameters": {"city": "서울"}}<|eom_id|>', f"{ONE}<|eot_id|>"],
    "qwen3": [
        '<tool_call>\n{"name": "get_weather", "arguments": {"city": "서울"}}\n</tool_call><|im_end|>',
        f"{ONE}<|im_end|>",
    ],
    "hyperclovax14b": [" -> tool/function_call\n", f"{ONE}<|im_end|><|endofturn|>"],
}


@pytest.mark.parametrize("arguments", [{"city": "서울"}, '{"city": "서울"}'])
@pytest.mark.parametrize("name", ASKED)
def test_tool_calls_are_learnt_and_tool_results_are_context(speaking, name, arguments):
    """OpenAI's arguments are a string of JSON; templates want the object, and would write the string as JSON once more."""
    tokenizer = speaking(name)
    call = {"type": "function", "function": {"name": "get_weather", "arguments": arguments}}
    messages = [*turns("날씨?"), {"role": "assistant", "content": None, "tool_calls": [call]}]
    messages += [{"role": "tool", "content": '{"도": "21"}'}, {"role": "assistant", "content": ONE}]
    sequences = masked(tokenizer, messages, tools=[TOOL])
    said = "".join(learnt(tokenizer, sequence) for sequence in sequences)
    assert all(part in said for part in ASKED[name]), said
    assert '"city": "서울"' in said
    assert "21" not in said
    assert "날씨?" not in said


def test_a_template_that_wants_the_arguments_as_a_string_gets_the_string(speaking):
    call = {"type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
    messages = [*turns("?"), {"role": "assistant", "content": "<think>\n음\n</think>", "tool_calls": [call]}]
    tokenizer = speaking("deepseek_r1")
    with pytest.raises(LabError, match="drops the answer's tool_calls"):
        masked(tokenizer, messages)  # its history has no reasoning beside a call
    template = tokenizer.chat_template
    tokenizer.chat_template = template.replace("<think>\\n", "")
    try:
        (sequence,) = masked(tokenizer, [*turns("?"), {"role": "assistant", "content": "", "tool_calls": [call]}])
    finally:
        tokenizer.chat_template = template
    assert learnt(tokenizer, sequence) == 'f\n```json\n{"x": 1}\n```<|end|>'


def test_a_tokenizer_that_puts_a_space_before_every_text(tmp_path):
    """SentencePiece's way: an answer tokenized alone would begin with a space that the answer does not have."""
    from mlx_lm.tokenizer_utils import TokenizerWrapper
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    model = Tokenizer(models.BPE(unk_token="<unk>"))
    model.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    model.decoder = decoders.Metaspace(prepend_scheme="first")
    model.train_from_iterator(
        ["a b hi there <b>", "hi:hi"] * 9, trainers.BpeTrainer(special_tokens=["<unk>", "</s>"])
    )
    wrapped = TokenizerWrapper(PreTrainedTokenizerFast(tokenizer_object=model, eos_token="</s>"))
    wrapped.chat_template = "{% for m in messages %}{{ 'a:' if m.role == 'assistant' else 'b:' }}{{ m.content }}"
    wrapped.chat_template += "{{ '</s>' if m.role == 'assistant' }}{% endfor %}{{ 'a:' if add_generation_prompt }}"
    (sequence,) = masked(wrapped, turns("hi", "there"))
    own = wrapped.convert_ids_to_tokens(sequence.tokens[sequence.trained].tolist())
    assert "".join(own) == "there</s>"


@pytest.mark.parametrize("template", sorted(ENDS))
def test_a_turn_ends_with_one_token_and_thoughts_end_no_turn(speaking, template):
    """Of <|im_end|><|endofturn|> the first ends a 14B's thoughts, too: stopping there, it would never answer."""
    wanted = [] if template == "alpaca" else ENDS[template][:1]  # alpaca's writes no token behind an answer
    assert turn_ends(speaking(template)) == wanted
