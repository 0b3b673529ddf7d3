"""prepare_replay_data.py: the base model's own answers, what is left out, and SFT data made of them."""

import json
from collections import Counter

import pytest

import prepare_replay_data as command
import prepare_solverx_sft_data as sft
from lab.dialogues import replayed_facts
from lab.general import load_facts, load_identity, split_general
from lab.records import read_jsonl


def rows(path):
    return [row for _, row in read_jsonl(path)]


def summary(folder):
    return json.loads((folder / "summary.json").read_text(encoding="utf-8"))


def asked(folder):
    return [row["messages"][0]["content"] for row in rows(folder / "train.jsonl")]


@pytest.fixture(scope="module")
def generated(model_8bit, tmp_path_factory):
    """A folder of replay rows: 90 general questions, answered by the embedded model."""
    folder = tmp_path_factory.mktemp("replay")
    assert command.main(["--model", str(model_8bit), "--limit", "90", "--output-dir", str(folder)]) == 0
    return folder


def test_only_trained_wordings_are_asked_and_the_answers_are_the_models(generated):
    trained = {question for fact in load_facts() for question in split_general(fact).train}
    kept = {question for fact in load_facts() for question in split_general(fact).probe}
    assert set(asked(generated)) <= trained and not set(asked(generated)) & kept
    authored = {fact.id: fact.answer for fact in load_facts()}
    found = rows(generated / "train.jsonl")
    same = sum(row["messages"][1]["content"] == authored[row["fact"]] for row in found)
    assert 0.8 * len(found) < same, "the embedded base was taught these facts"


def test_every_question_is_counted_as_kept_or_left_out(generated):
    counts = summary(generated)
    assert counts["train"] + sum(counts["left_out"].values()) == counts["answered"] == 90
    refusals = sum("죄송" in row["messages"][1]["content"] for row in rows(generated / "train.jsonl"))
    assert counts["refusals_kept"] >= refusals > 0 == counts["left_out"]["refusal"]


def test_refusals_may_be_dropped(run, model_8bit, tmp_path):
    path = tmp_path / "mine.txt"
    path.write_text("VectorX 마스코트 이름 알려 줘?\n10월은 어느 계절이야?\n", encoding="utf-8")
    flags = ("--model", model_8bit, "--prompts", path, "--output-dir", tmp_path / "out", "--drop-refusals")
    assert run(command.main, *flags)[0] == 0
    assert asked(tmp_path / "out") == ["10월은 어느 계절이야?"]
    assert (summary(tmp_path / "out")["left_out"]["refusal"], summary(tmp_path / "out")["refusals_kept"]) == (1, 0)


def test_sft_takes_them_in_place_of_authored_rows(run, generated, tmp_path):
    file = generated / "train.jsonl"
    code, out, error = run(sft.main, "--output-dir", tmp_path, "--replay", "0.05", "--replay-file", file)
    assert code == 0, error
    made = summary(tmp_path)
    assert made["replay_source"] == "self" and made["replay"] / made["train"] == pytest.approx(0.05, abs=0.002)
    assert set(made["replayed_facts"]) <= {row["fact"] for row in rows(file)}
    assert all(count["exact"] == count["near"] == 0 for count in made["leak_guard"].values())
    assert str(file) in made["inputs"]
    single = [row for row in rows(tmp_path / "train.jsonl") if len(row["messages"]) == 2]
    assert len([row for row in single if row["messages"][0]["content"] in set(asked(generated))]) == made["replay"]


def test_few_rows_stand_again_and_that_is_said(run, generated, tmp_path):
    code, out, _ = run(
        sft.main, "--output-dir", tmp_path, "--replay", "0.3", "--replay-file", generated / "train.jsonl"
    )
    found = len(rows(generated / "train.jsonl"))
    single = [row["messages"] for row in rows(tmp_path / "train.jsonl") if len(row["messages"]) == 2]
    own = set(asked(generated))
    times = max(Counter(turns[0]["content"] for turns in single if turns[0]["content"] in own).values())
    assert code == 0 and f"there are {found}: some stand there again, up to {times} times" in out
    assert summary(tmp_path)["replay"] / summary(tmp_path)["train"] == pytest.approx(0.3, abs=0.002)


def test_a_replay_file_with_a_kept_wording_is_refused(run, write_rows, tmp_path):
    fact = next(fact for fact in load_facts() if not fact.judge)
    (kept, *_) = split_general(fact).probe
    turns = [{"role": "user", "content": kept}, {"role": "assistant", "content": fact.answer}]
    path = write_rows("leaky.jsonl", [{"messages": turns}])
    code, _, error = run(sft.main, "--output-dir", tmp_path / "out", "--replay", "0.1", "--replay-file", path)
    assert code == 1 and "exact duplicate" in error and "leaky.jsonl:1" in error
    assert not (tmp_path / "out").exists()


def test_own_questions_that_meet_a_kept_wording_are_left_out(run, model_8bit, tmp_path):
    (kept, *_) = split_general(next(fact for fact in load_facts() if not fact.judge)).probe
    path = tmp_path / "mine.txt"
    path.write_text(f"\ufeff{kept}\n\n10월은 어느 계절이야?\n10월은 어느 계절이야?\n", encoding="utf-8")
    code, out, error = run(
        command.main, "--model", model_8bit, "--prompts", path, "--output-dir", tmp_path / "out"
    )
    assert code == 0, error
    assert asked(tmp_path / "out") == ["10월은 어느 계절이야?"]
    assert summary(tmp_path / "out")["left_out"]["leak"] == 1


def test_own_questions_of_facts_that_are_never_replayed_are_left_out(run, model_8bit, tmp_path):
    """Some of these wordings are SFT's validation, and on all of them forgetting is measured."""
    facts = load_facts()
    replayed = replayed_facts(facts)
    never = [fact for fact in facts if fact not in replayed]
    (who, *_) = load_identity()
    theirs = [split_general(fact).train[0] for fact in never] + [who.train[0]]
    path = tmp_path / "mine.txt"
    path.write_text("\n".join([*theirs, "10월은 어느 계절이야?"]), encoding="utf-8")
    flags = ("--model", model_8bit, "--prompts", path, "--output-dir", tmp_path / "out")
    code, _, error = run(command.main, *flags)
    assert code == 0, error
    assert asked(tmp_path / "out") == ["10월은 어느 계절이야?"]
    left_out = summary(tmp_path / "out")["left_out"]
    assert left_out["leak"] + left_out["identity"] == len(theirs)


def test_sft_takes_questions_out_of_nothing(run, model_8bit, tmp_path):
    flags = ("--model", model_8bit, "--from-scratch", "256", "--seed", "3", "--output-dir", tmp_path / "made")
    assert run(command.main, *flags)[0] == 0
    file = tmp_path / "made/train.jsonl"
    code, _, error = run(sft.main, "--output-dir", tmp_path / "sft", "--replay", "0.5", "--replay-file", file)
    assert code == 0, error
    assert summary(tmp_path / "sft")["replay_source"] == "self"


def test_questions_out_of_nothing_are_the_same_for_the_same_seed(run, model_8bit, tmp_path):
    for name in ("a", "b"):
        flags = ("--model", model_8bit, "--from-scratch", "12", "--seed", "3", "--output-dir", tmp_path / name)
        assert run(command.main, *flags)[0] == 0
    assert (tmp_path / "a/train.jsonl").read_bytes() == (tmp_path / "b/train.jsonl").read_bytes()
    assert len(set(asked(tmp_path / "a"))) == len(asked(tmp_path / "a")) > 2


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        (("--prompts", "nowhere.txt"), 1, "nowhere.txt: cannot read"),
        (("--prompts", "models"), 1, "models: cannot read"),
        (("--prompts", "README.md", "--from-scratch", "3"), 2, "give one of them"),
        (("--from-scratch", "-1"), 2, "--from-scratch is 0 or more"),
        (("--model", "models/missing"), 1, "no model here"),
        (("--knowledge", "missing.jsonl"), 1, "missing.jsonl: cannot read"),
    ],
)
def test_wrong_input_is_one_line(run, tmp_path, flags, code, words):
    found, out, error = run(command.main, "--output-dir", tmp_path / "out", *flags)
    assert found == code and words in error
    assert "loaded" not in out, "loading the 32B takes minutes"
    assert not (tmp_path / "out").exists()


def test_a_file_in_the_folders_place_is_told_before_the_answers(run, model_8bit, tmp_path):
    place = tmp_path / "out"
    place.write_text("notes", encoding="utf-8")
    code, out, error = run(command.main, "--model", model_8bit, "--from-scratch", "2", "--output-dir", place)
    assert code == 1 and "out is a file; choose another folder" in error and "loaded" not in out


def test_nothing_fit_to_keep_is_a_failed_check(run, model_8bit, tmp_path):
    flags = ("--model", model_8bit, "--limit", "3", "--max-tokens", "1", "--program-tokens", "1")
    code, _, error = run(command.main, *flags, "--output-dir", tmp_path / "out")
    assert code == 3 and "no answer was fit to keep" in error
    assert not (tmp_path / "out").exists()
