"""KMMLU's prompts and few-shot examples, without a model, and the fault that a label read from 0 makes."""

import random

import pytest

from lab import kmmlu
from lab.cli import LabError
from lab.kmmlu import FIRST, HAERAE, KMMLU, Item, Style


def item(number, label=1, subject="Law"):
    options = tuple(f"{letter}{number}" for letter in "가나다라")
    return Item(f"{subject}/{number}", subject, f"물음 {number}?", options, label, where=f"f.csv:{number + 2}")


DEV, TEST = [item(number, 1 + number % 4) for number in range(5)], [item(10 + number) for number in range(30)]


def block(number):
    return f"물음 {number}?\nA. 가{number}\nB. 나{number}\nC. 다{number}\nD. 라{number}\n정답："


def test_plain_prompt():
    assert kmmlu.prompt(KMMLU, None, TEST[0], [], Style()) == block(10)
    shown = kmmlu.prompt(KMMLU, None, TEST[0], [DEV[1], DEV[3]], Style(shots=2))
    assert shown == f"{block(1)} B\n\n{block(3)} D\n\n{block(10)}"


def test_chat_prompt_ends_in_the_think_block(tokenizer):
    end = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    turns = kmmlu.prompt(KMMLU, tokenizer, TEST[0], [DEV[2]], Style(shots=1, chat=True))
    said = f"<|im_start|>user\n{block(2)}<|im_end|>\n<|im_start|>assistant\nC<|im_end|>\n"
    assert turns == f"{said}<|im_start|>user\n{block(10)}{end}"
    single = kmmlu.prompt(KMMLU, tokenizer, TEST[0], [DEV[2]], Style(shots=1, chat=True, multiturn=False))
    assert single == f"<|im_start|>user\n{block(2)} C\n\n{block(10)}{end}"


@pytest.mark.parametrize("chat", [False, True])
def test_choices_begin_where_the_prompt_ends(tokenizer, chat):
    style = Style(chat=chat)
    text = kmmlu.prompt(KMMLU, tokenizer, TEST[0], [], style)
    head, tails = kmmlu.tokens(KMMLU, tokenizer, text, style)
    assert tokenizer.decode(head) == text
    assert [tokenizer.decode(head + tail)[len(text) :] for tail in tails] == [
        f"{'' if chat else ' '}{c}" for c in "ABCD"
    ]


def test_a_model_without_a_chat_template_is_refused():
    with pytest.raises(LabError, match="--chat: this model has no chat template"):
        kmmlu.prompt(KMMLU, object(), TEST[0], [], Style(chat=True))


def test_examples_are_drawn_as_the_harness_draws_them():
    """One random.Random a subject, used anew for each item: an item's examples do not depend on --limit."""
    own = random.Random(1234)
    wanted = [own.sample(DEV, 3) for _ in TEST]
    assert kmmlu.examples(KMMLU, TEST, DEV, Style(shots=3)) == wanted
    assert kmmlu.examples(KMMLU, TEST[:4], DEV, Style(shots=3)) == wanted[:4]
    assert kmmlu.examples(KMMLU, TEST, DEV, Style(shots=3, seed=5)) != wanted
    assert kmmlu.examples(KMMLU, TEST, DEV, Style(shots=2, order=FIRST)) == [DEV[:2]] * 30
    assert kmmlu.examples(KMMLU, TEST, (), Style()) == [[]] * 30


@pytest.mark.parametrize("order", [kmmlu.LM_EVAL, FIRST])
def test_no_item_is_its_own_example(order):
    pool = [*TEST, TEST[3], TEST[3]]
    for each, shown in zip(TEST, kmmlu.examples(HAERAE, TEST, pool, Style(shots=5, order=order)), strict=True):
        assert len(shown) == 5 and each not in shown


def test_too_few_examples_are_told():
    with pytest.raises(LabError, match="f.csv: 5 examples, too few for --shots 5"):
        kmmlu.examples(HAERAE, DEV, DEV, Style(shots=5))
    assert len(kmmlu.examples(KMMLU, DEV, DEV, Style(shots=5))[0]) == 5


def read_from_0(label):
    """The letter that the seed's lab took for a label from 1: one too far, the last stays the last."""
    return "ABCD"[min(label, 3)]


@pytest.mark.parametrize("share_of_4, subject", [(0.247, "Law"), (0.305, "all subjects")])
def test_a_perfect_model_fails_where_labels_are_read_from_0(share_of_4, subject):
    """It scores the share of items labelled 4, the only label that the fault leaves alone; A is never right.

    Source of the shares: the labels of KMMLU's test files (24.7 % in Law); other labels are made up here.
    """
    number = 1000
    labels = [4] * round(share_of_4 * number)
    labels += [1 + place % 3 for place in range(number - len(labels))]
    items = [item(place, label, subject) for place, label in enumerate(labels)]
    said = [KMMLU.target(each) for each in items]
    assert (
        sum(read_from_0(each.label) == answer for each, answer in zip(items, said, strict=True))
        == share_of_4 * number
    )
    assert "A" not in map(read_from_0, labels)
    perfect = [kmmlu.pick([float(letter == answer) for letter in "ABCD"]) for answer in said]
    assert [place + 1 for place in perfect] == labels


def test_the_first_of_equals_is_picked():
    assert kmmlu.pick([-1.0, -0.5, -0.5, -2.0]) == 1
