"""Our rows beside mlx-lm's own data sets: the same tokens, and the prompt ends at the same place."""

from pathlib import Path

import pytest
from mlx_lm.tuner.datasets import ChatDataset, CompletionsDataset, TextDataset, create_dataset

from lab.chat import encode_row
from lab.models import load_tokenizer

TEMPLATES = Path("tests/chat_templates")
PLAIN = ["안녕", "답은 42입니다.", " 앞뒤 빈칸 ", "줄\n\n바꿈\n", "def f(x):\n    return x\n"]


@pytest.fixture(scope="module", params=["chatml", "qwen3"])
def tokenizer(request):
    own = load_tokenizer("models/HyperCLOVAX-SEED-Think-Tiny")
    own.chat_template = (TEMPLATES / f"{request.param}.jinja").read_text(encoding="utf-8")
    return own


def beside(tokenizer, row, theirs):
    """Check a row of one answer: ours are their tokens to the end token; what they add is the line break after it."""
    tokens, offset = theirs.process(row)
    (masked,), (whole,) = (encode_row(tokenizer, row, "f:1", mask_prompt=mask) for mask in (True, False))
    assert masked.tokens.tolist() == whole.tokens.tolist() == tokens[: len(masked)]
    assert tokenizer.decode(tokens[len(masked) :]).strip() == ""
    assert masked.tokens[-1] == tokenizer.eos_token_id
    assert masked.trained.tolist() == [place >= offset for place in range(len(masked))]
    assert whole.trained.all()


@pytest.mark.parametrize("answer", PLAIN)
@pytest.mark.parametrize("question", PLAIN)
def test_completions(tokenizer, question, answer):
    row = {"prompt": question, "completion": answer}
    beside(tokenizer, row, CompletionsDataset([row], tokenizer, "prompt", "completion", mask_prompt=True))


@pytest.mark.parametrize("answer", PLAIN)
def test_chats(tokenizer, answer):
    system = {"role": "system", "content": "짧게"}
    turns = [system, {"role": "user", "content": "질문"}, {"role": "assistant", "content": answer}]
    beside(tokenizer, {"messages": turns}, ChatDataset([], tokenizer, mask_prompt=True))


def test_tools_and_calls():
    tokenizer = load_tokenizer("models/HyperCLOVAX-SEED-Think-Tiny")
    tokenizer.chat_template = (TEMPLATES / "qwen3.jinja").read_text(encoding="utf-8")
    call = {"type": "function", "function": {"name": "get_weather", "arguments": {"city": "서울"}}}
    tool = {"type": "function", "function": {"name": "get_weather", "description": "날씨"}}
    turns = [{"role": "user", "content": "날씨?"}, {"role": "assistant", "content": "", "tool_calls": [call]}]
    beside(tokenizer, {"messages": turns, "tools": [tool]}, ChatDataset([], tokenizer, mask_prompt=True))


@pytest.mark.parametrize("text", [*PLAIN, "끝이 있다.<|im_end|>", "<|im_start|>user\n글<|im_end|>\n"])
def test_texts(tokenizer, text):
    tokens, _ = TextDataset([], tokenizer).process({"text": text})
    (own,) = encode_row(tokenizer, {"text": text})
    assert own.tokens.tolist() == tokens
    assert own.trained.all()


@pytest.mark.parametrize("extra", [{"text": "글"}, {"text": "글", "prompt": "물음"}])
def test_a_row_with_several_keys(tokenizer, extra):
    turns = [{"role": "user", "content": "질문"}, {"role": "assistant", "content": "답"}]
    theirs = create_dataset([{"messages": turns, **extra}], tokenizer, config=None)
    beside_tokens, _ = theirs.process({"messages": turns, **extra})
    (own,) = encode_row(tokenizer, {"messages": turns, **extra})
    assert own.tokens.tolist() == beside_tokens[: len(own)]
