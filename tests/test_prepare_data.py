"""prepare_solverx_cpt_data.py and prepare_solverx_sft_data.py: what they write, and what they refuse."""

import json

import pytest

import prepare_solverx_cpt_data as cpt
import prepare_solverx_sft_data as sft
from lab.general import load_facts, split_general
from lab.records import read_jsonl


def rows(path):
    return [row for _, row in read_jsonl(path)]


def questions(path):
    return [text for row in rows(path) for text in questions_of(row)]


def questions_of(row):
    return [turn["content"] for turn in row["messages"] if turn["role"] == "user"]


@pytest.fixture
def company(write_rows):
    """A company that is not SolverX, half of its facts bare sentences."""
    towns = ["부산", "대구", "인천", "광주", "울산", "제주", "전주", "춘천"]
    parts = ["본사", "연구소", "공장", "창고", "교육장", "지사", "매장", "식당"]
    full = [
        {
            "id": part,
            "text": f"바른식품의 {part}는 {town}에 있다.",
            "paraphrases": [
                f"{town}에는 바른식품 {part}가 자리한다.",
                f"바른식품이 {part}를 둔 도시는 {town}이다.",
            ],
            "questions": [
                f"바른식품 {part} 위치는?",
                f"바른식품의 {part}가 있는 도시를 알려 줘.",
                f"어느 곳에 바른식품 {part}가 있나요?",
            ],
            "answer": f"바른식품의 {part}는 {town}에 있습니다.",
            "accept": [town],
        }
        for part, town in zip(parts, towns, strict=True)
    ]
    bare = [{"text": "바른식품의 대표 상품은 고추장이다."}, {"text": "바른식품은 매년 김치를 나눈다."}]
    return write_rows("barun.jsonl", full + bare)


def test_cpt_validation_is_paraphrases_of_trained_facts(run, tmp_path):
    code, out, _ = run(cpt.main, "--output-dir", tmp_path)
    train, valid = (rows(tmp_path / f"{name}.jsonl") for name in ("train", "valid"))
    assert (code, len(valid)) == (0, 56)
    assert not {row["text"] for row in train} & {row["text"] for row in valid}
    summary = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))
    assert summary["leak_guard"] == {
        "validation against training": {"kept": 56, "trained": len(train), "exact": 0, "near": 0}
    }


def test_sft_rows_hold_company_identity_turns_and_replay(run, tmp_path):
    code, _, _ = run(sft.main, "--output-dir", tmp_path, "--replay", "0.5", "--several-turns", "30")
    summary = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))
    train = rows(tmp_path / "train.jsonl")
    assert code == 0
    assert len(train) == summary["company"] + summary["identity"] + summary["replay"] + 30
    assert summary["replay"] == pytest.approx(len(train) / 2, abs=1)
    assert sum(len(row["messages"]) > 2 for row in train) == 30
    assert all(count["exact"] == count["near"] == 0 for count in summary["leak_guard"].values())
    assert summary["leak_guard"]["probes against training"]["kept"] == summary["probes"] > 400
    asked = questions(tmp_path / "train.jsonl")
    assert any(turn.startswith("Who ") for turn in asked)
    assert any("누구" in turn for turn in asked)


def test_no_replay_means_no_general_row(run, tmp_path):
    run(sft.main, "--output-dir", tmp_path, "--replay", "0")
    asked = " ".join(questions(tmp_path / "train.jsonl"))
    assert "수도" not in asked
    assert "SolverX" in asked


def test_the_same_input_gives_the_same_bytes(run, tmp_path):
    for name in ("a", "b"):
        run(sft.main, "--output-dir", tmp_path / name, "--replay", "0.3")
    for file in ("train.jsonl", "valid.jsonl"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_the_share_of_general_rows_counts_the_sentences_too(run, tmp_path):
    run(sft.main, "--output-dir", tmp_path, "--replay", "0.4", "--sentences")
    summary = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))
    assert summary["sentences"] == 224
    assert summary["replay"] / summary["train"] == pytest.approx(0.4, abs=0.002)


def test_the_summary_names_the_facts_that_are_replayed_and_no_other(run, tmp_path):
    """Where there are fewer rows than facts, the rest are not mixed in: `general_mixed` goes by this list."""
    run(sft.main, "--output-dir", tmp_path, "--replay", "0.05")
    made = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))
    asked = {text for row in rows(tmp_path / "train.jsonl") for text in questions_of(row)}
    named = {fact.id for fact in load_facts() if asked & set(split_general(fact).train)}
    assert named == set(made["replayed_facts"]) and 0 < len(named) <= made["replay"]


def test_programs_are_replayed_in_every_trained_wording(run, tmp_path):
    from lab.general import BANDIT, load_facts, split_general

    run(sft.main, "--output-dir", tmp_path, "--replay", "0.1")
    (bandit,) = [fact for fact in load_facts() if fact.judge == BANDIT]
    assert set(split_general(bandit).train) <= set(questions(tmp_path / "train.jsonl"))


def test_literal_chatml(run, tmp_path):
    run(sft.main, "--output-dir", tmp_path, "--format", "text")
    first = rows(tmp_path / "train.jsonl")[0]
    assert first["text"].startswith("<|im_start|>user\n")
    assert first["text"].endswith("<|im_end|>")


def test_literal_chatml_is_what_the_template_asks_for(tokenizer):
    from lab.chat import encode_row
    from lab.dialogues import chatml

    turns = [
        {"role": role, "content": text} for role, text in zip(("user", "assistant") * 2, "가나다라", strict=True)
    ]
    (*_, whole) = encode_row(tokenizer, {"messages": turns})
    assert tokenizer.decode(whole.tokens.tolist()) == chatml({"messages": turns})["text"]


def test_another_company_needs_nothing_in_code(run, company, tmp_path):
    assert run(cpt.main, "--knowledge", company, "--output-dir", tmp_path / "cpt")[0] == 0
    code, out, _ = run(sft.main, "--knowledge", company, "--output-dir", tmp_path / "sft")
    summary = json.loads((tmp_path / "sft/summary.json").read_text(encoding="utf-8"))
    assert code == 0
    assert (summary["facts_with_derived_questions"], summary["facts_without_questions"]) == (1, 1)
    assert "1 facts have only text" in out
    written = (tmp_path / "sft/train.jsonl").read_text(encoding="utf-8")
    assert "바른식품" in written
    assert "SolverX" not in written


def test_a_leak_is_refused_and_nothing_is_written(run, company, write_rows, tmp_path):
    facts = rows(company)
    facts[1]["questions"] = [*facts[0]["questions"]]
    facts[1]["answer"], facts[1]["accept"] = facts[0]["answer"], facts[0]["accept"]
    facts[1]["questions"][0] = "바른식품 연구소 자리는?"
    path = write_rows("leaky.jsonl", facts)
    code, _, error = run(sft.main, "--knowledge", path, "--output-dir", tmp_path / "out")
    assert code == 1
    assert "exact duplicate" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_contradictory_questions_are_refused_with_both_lines(run, company, write_rows, tmp_path):
    facts = rows(company)
    facts[3]["questions"][0] = facts[2]["questions"][0]
    path = write_rows("contradiction.jsonl", facts)
    for command in (cpt.main, sft.main):
        code, _, error = run(command, "--knowledge", path, "--output-dir", tmp_path / "out")
        assert code == 1
        assert f"{path}:4" in error
        assert f"{path}:3" in error
        assert not (tmp_path / "out").exists()


def test_a_company_question_may_not_contradict_identity_or_the_general_world(run, company, write_rows, tmp_path):
    for question, place in (("누구세요?", "identity"), ("안녕?", "greet-hello")):
        path = write_rows(
            "clash.jsonl",
            [
                {
                    **row,
                    "questions": [question, *row.get("questions", ())][: 1 + 3 * ("id" in row)],
                    "accept": row.get("accept") or ["고추장"],
                }
                if row.get("id") == "본사"
                else row
                for row in rows(company)
            ],
        )
        code, _, error = run(sft.main, "--knowledge", path, "--output-dir", tmp_path / "out", "--replay", "0.9")
        assert code == 1, place
        assert place in error
        assert not (tmp_path / "out").exists()


def test_bare_sentences_alone_are_enough(run, write_rows, tmp_path):
    path = write_rows(
        "bare.jsonl", [{"text": "하나상사는 봄마다 나무를 심는다."}, {"text": "하나상사는 부산에 있다."}]
    )
    assert run(cpt.main, "--knowledge", path, "--output-dir", tmp_path / "cpt")[0] == 0
    assert [row["accept"] for row in rows(tmp_path / "cpt/recall.jsonl")] == [["나무를 심는다"], ["부산에 있다"]]
    code, out, error = run(sft.main, "--knowledge", path, "--output-dir", tmp_path / "sft")
    assert code == 0, error
    assert "2 facts have only text" in out


@pytest.mark.parametrize(("text", "key"), [("replay: half\n", "replay"), ("several_turns: x\n", "several_turns")])
def test_a_setting_of_the_wrong_kind_is_named(run, tmp_path, text, key):
    (tmp_path / "data.yaml").write_text(text, encoding="utf-8")
    code, _, error = run(sft.main, "-c", tmp_path / "data.yaml", "--output-dir", tmp_path / "out")
    assert (code, f"data.yaml: {key} is" in error) == (1, True)


@pytest.mark.parametrize("share", ["1", "-0.1", "2"])
def test_an_impossible_share_is_refused(run, tmp_path, share):
    code, _, error = run(sft.main, "--output-dir", tmp_path / "out", "--replay", share)
    assert code == 1
    assert "--replay" in error


def test_an_unknown_setting_in_the_yaml_is_named(run, tmp_path):
    (tmp_path / "data.yaml").write_text("reply: 0.5\n", encoding="utf-8")
    code, _, error = run(sft.main, "-c", tmp_path / "data.yaml", "--output-dir", tmp_path / "out")
    assert code == 1
    assert "reply" in error


def test_a_write_that_fails_leaves_no_summary_that_says_done(run, tmp_path):
    assert run(cpt.main, "--output-dir", tmp_path / "out")[0] == 0
    (tmp_path / "out/recall.jsonl").unlink()
    (tmp_path / "out/recall.jsonl").mkdir()
    code, _, error = run(cpt.main, "--output-dir", tmp_path / "out")
    assert (code, error.count("\n")) == (1, 1)
    assert not (tmp_path / "out/summary.json").exists()


def test_an_output_folder_that_is_a_file_is_one_line(run, tmp_path):
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    code, _, error = run(cpt.main, "--output-dir", tmp_path / "file")
    assert (code, error.count("\n")) == (1, 1)
    assert (tmp_path / "file").read_text(encoding="utf-8") == "mine"
