"""Which of the model's own answers may be trained again, and the file that they are read from."""

import pytest

from lab import replay
from lab.cli import LabError
from lab.dialogues import PROGRAM_REPEATS, Turn, spread_out

GOOD = "프랑스의 수도는 파리입니다."
PROGRAM = """```python
def thompson_sampling(pull, arms, rounds):
    wins = [1] * arms
    losses = [1] * arms
    for _ in range(rounds):
        if pull(arm):
            wins[arm] += 1
        else:
            losses[arm] += 1
```"""


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (GOOD, None),
        (PROGRAM, None),
        ("Rayleigh scattering makes the sky blue.", None),
        ("1, 2, 3, 4, 5, 6, 7, 8, 9, 10", None),
        ("", "empty"),
        (" ?! ", "empty"),
        ("하늘은 파란\ufffd입니다.", "garbled"),
        ("하하하하하하하하하하하하하하하하하하", "loop"),
        ("그것은 좋은 일입니다. " * 5, "loop"),
        ("\n".join(["for i in x:", "    print(i)"] * 6), "loop"),
        ("네.<|im_end|>", "marks"),
        ("SolverX는 회사입니다.", "company"),
        ("저는 OpenAI가 만든 AI입니다.", "identity"),
        ("죄송하지만 그 정보는 가지고 있지 않습니다.", "refusal"),
        ("오늘 날씨는 알 수 없습니다.", "refusal"),
        ("I'm sorry, but I cannot help with that.", "refusal"),
        ("I do not know.", "refusal"),
    ],
)
def test_what_is_left_out(answer, reason):
    about = {"company": "SolverX", "names": ["OpenAI"], "marks": ["<|im_end|>"]}
    assert replay.refused("질문?", answer, **about) == reason


def test_an_answer_cut_at_the_limit_is_left_out_and_so_is_a_question_about_the_company():
    assert replay.refused("질문?", GOOD, cut=True) == "cut"
    assert replay.refused("solverx의 수도는?", GOOD, company="SolverX") == "company"


def row(question, answer):
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def test_near_duplicates_go_only_with_the_same_answer():
    rows = [
        row("프랑스라는 나라의 수도는 어디인가요?", GOOD),
        row("프랑스라는 나라의 수도는 어디인가요", GOOD),
        row("프랑스라는 나라의 수도는 어디인가?", "프랑스의 수도는, 파리입니다"),
        row("벨기에라는 나라의 수도는 어디인가요?", "벨기에의 수도는 브뤼셀입니다."),
        row("파리는 어느 나라의 수도야?", GOOD),
        row("빈 답", ""),
    ]
    kept, counts = replay.fit(rows, lambda question, answer: replay.refused(question, answer))
    assert kept == [rows[0], rows[3], rows[4]]
    assert {reason: count for reason, count in counts.items() if count} == {"near_duplicate": 2, "empty": 1}
    assert list(counts) == list(replay.REASONS)


def test_one_question_has_one_answer():
    rows = [row("프랑스의 수도는 어디야?", GOOD), row("프랑스의 수도는 어디야", "프랑스는 유럽에 있습니다.")]
    kept, counts = replay.fit(rows, lambda question, answer: replay.refused(question, answer))
    assert (kept, counts["same_question"], sum(counts.values())) == (rows[:1], 1, 1)


def test_a_file_is_read_with_its_labels(write_rows):
    labels = {"fact": "capital/0", "accept": ["파리"]}
    path = write_rows(
        "replay.jsonl",
        [
            row("수도는?", GOOD) | labels,
            row("안녕?", "네."),
            row("코드?", PROGRAM) | {"fact": "ts", "judge": "bandit"},
        ],
    )
    first, second, third = replay.read(path)
    assert first == ("capital/0", False, Turn("수도는?", GOOD, ("파리",), f"{path}:1"))
    assert second == ("line 2", False, Turn("안녕?", "네.", ("네.",), f"{path}:2"))
    assert third[:2] == ("ts", True)


@pytest.mark.parametrize(
    "bad",
    [
        {"text": "문장이다."},
        {"messages": [{"role": "assistant", "content": "답"}]},
        {"messages": [{"role": "system", "content": "x"}, *row("물음", "답")["messages"]]},
    ],
)
def test_a_row_that_is_no_question_and_answer_is_named(write_rows, bad):
    path = write_rows("replay.jsonl", [row("수도는?", GOOD), bad])
    with pytest.raises(LabError, match=r"replay.jsonl:2: a replay row is one user turn and one assistant turn"):
        replay.read(path)


def test_rows_are_spread_over_facts_and_stand_again_where_they_are_few():
    items = [(f"fact {n % 3}", False, Turn(f"질문 {n}", "답", ("답",), "")) for n in range(9)]
    items += [("program", True, Turn("코드?", PROGRAM, ("def",), ""))]
    taken = spread_out(items, 8, 0)
    assert [turn.question for turn in taken[:PROGRAM_REPEATS]] == ["코드?"] * PROGRAM_REPEATS
    facts = [int(turn.question.split()[1]) % 3 for turn in taken[PROGRAM_REPEATS:]]
    assert sorted(facts[:3]) == sorted(facts[3:]) == [0, 1, 2]
    whole = 9 + PROGRAM_REPEATS
    again = spread_out(items, 2 * whole, 0)
    assert again[:whole] == again[whole:] and len({turn.question for turn in again}) == 10
    assert spread_out(items, 8, 0) == taken != spread_out(items, 8, 1)
    assert spread_out([], 5, 0) == []


def test_few_rows_are_not_one_programs_wordings_alone():
    items = [("program", True, Turn(f"코드 {n}?", PROGRAM, ("def",), "")) for n in range(12)]
    items += [(f"fact {n}", False, Turn(f"질문 {n}", "답", ("답",), "")) for n in range(30)]
    taken = [turn.question for turn in spread_out(items, 15, 0)]
    assert len(set(taken)) == 15 and sum(text.startswith("코드") for text in taken) == 5
    assert sum(turn.question.startswith("코드") for turn in spread_out(items, 30, 0)) == 12 * PROGRAM_REPEATS
