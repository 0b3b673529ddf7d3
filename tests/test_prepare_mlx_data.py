"""prepare_mlx_data.py: what it makes of facts and of tables, what it drops and says, and what it refuses."""

import csv
import json
import os
import random
import subprocess
import sys
import unicodedata
from collections import Counter

import pytest

import prepare_mlx_data as command
from lab.cleaning import clean
from lab.corpus import workplace
from lab.general import load_facts, load_identity, split_general
from lab.knowledge import load_knowledge, split_questions
from lab.korean import comparable
from lab.leaks import NEAR, Wording, find_leaks, similarity, trigrams
from lab.records import read_jsonl, training_rows

PARTS = ("train", "valid", "test")
FAQ = ("--question-column", "질문", "--answer-column", "답변")
WORDS = "서울 부산 대구 공장 본사 제품 계약 배송 환불 결제 회원 설치 점검 보증 교육 상담 예약 품질 안전 설계 절차 기준 비용".split()


def rows(path):
    return [row for _, row in read_jsonl(path)]


def asked(row):
    return row["messages"][0]["content"] if "messages" in row else row["text"]


def summary(folder):
    return json.loads((folder / "summary.json").read_text(encoding="utf-8"))


@pytest.fixture
def table(tmp_path):
    """A function that writes rows as a CSV and returns its path."""

    def write(cells, head=("질문", "답변"), name="faq.csv", **more):
        path = tmp_path / name
        with open(path, "w", encoding="utf-8", newline="") as file:
            csv.writer(file, **more).writerows([head, *cells])
        return path

    return write


def made_rows(number, seed=0):
    """Questions and answers of which some are duplicates, near duplicates or conflicts, some of one answer."""
    draw, made = random.Random(seed), []
    for place in range(number):
        question, answer = (
            " ".join(draw.choices(WORDS, k=6)) + "?",
            f"{' '.join(draw.choices(WORDS, k=4))} {place}",
        )
        if made and draw.random() < 0.5:
            question, answer = draw.choice(
                [
                    (f" {made[-1][0]} ", made[-1][1]),
                    (made[-1][0], answer),
                    (f"{made[-1][0]} 네", made[-1][1]),
                    (question, made[-1][1]),
                ]
            )
        made.append((question, answer))
    return made


# --- facts


def test_facts_train_validate_and_test_in_different_wordings(run, tmp_path):
    code, out, _ = run(command.main, "-c", "configs/data.yaml", "--output-dir", tmp_path / "out")
    made, parts = summary(tmp_path / "out"), {name: rows(tmp_path / f"out/{name}.jsonl") for name in PARTS}
    assert (code, "leaks 0" in out) == (0, True)
    facts = load_knowledge("solverx_knowledge.jsonl")
    probes = {text for fact in facts for text in split_questions(fact).probe}
    assert {asked(row) for row in parts["test"]} == probes
    taught = {turn["content"] for row in parts["train"] for turn in row["messages"] if turn["role"] == "user"}
    for fact in facts:
        split = split_questions(fact)
        assert set(split.train) <= taught and not taught & {*split.valid, *split.probe}
        assert set(split.valid) <= {asked(row) for row in parts["valid"]}
    assert all(counts["exact"] == counts["near"] == 0 for counts in made["leak_guard"].values())
    assert made["replay"] / made["train"] == pytest.approx(0.5, abs=0.001)
    assert {name: len(parts[name]) for name in PARTS} == {name: made[name] for name in PARTS}
    assert not taught & {text for entry in load_identity() for text in entry.train}  # another model's
    recall = rows(tmp_path / "out/recall.jsonl")
    assert all(any(text in row["messages"][-1]["content"] for text in row["accept"]) for row in recall)
    assert [asked(row) for row in recall] == [asked(row) for row in parts["valid"]]
    assert not (tmp_path / "out/dropped.jsonl").exists()


def test_general_rows_by_number_are_of_many_facts(run, tmp_path):
    assert run(command.main, "--general-rows", 15, "--several-turns", 0, "--output-dir", tmp_path)[0] == 0
    made = summary(tmp_path)
    assert (made["replay"], made["train"]) == (15, made["company"] + 15)
    assert len(made["replayed_facts"]) > 9
    general = {text for fact in load_facts() for text in split_general(fact).train}
    assert sum(asked(row) in general for row in rows(tmp_path / "train.jsonl")) == 15


def test_facts_are_cleaned_but_keep_their_addresses(run, write_rows, tmp_path):
    facts = [
        {
            "text": f"<b>하나상사</b>의 {part}는\u200b {value}이다.",
            "questions": [f"하나상사 {part}{end}" for end in ("는?", "를  알려 줘", "를 말해 봐", "가 뭐야?")],
            "answer": f"{value}입니다.",
            "accept": [value],
        }
        for part, value in (("누리집", "https://hana.kr"), ("대표 상품", "고추장 &amp; 된장"))
    ]
    path = write_rows("hana.jsonl", facts)
    code, _, error = run(command.main, "--knowledge", path, "--output-dir", tmp_path / "out")
    assert code == 0, error
    answers = {row["messages"][1]["content"] for row in rows(tmp_path / "out/test.jsonl")}
    assert answers == {"https://hana.kr입니다.", "고추장 & 된장입니다."}
    steps = summary(tmp_path / "out")["cleaning"]["steps"]
    assert [name for name, step in steps.items() if step["changed"]] == ["control", "html", "whitespace"]
    code, _, error = run(command.main, "--knowledge", path, "--links", "remove", "--output-dir", tmp_path / "none")
    assert (code, "hana.jsonl:1: a wording is empty once it is cleaned" in error) == (1, True)
    assert not (tmp_path / "none").exists()


def test_facts_without_questions_are_refused(run, write_rows, tmp_path):
    path = write_rows("bare.jsonl", [{"text": "하나상사는 봄마다 나무를 심는다."}])
    code, _, error = run(command.main, "--knowledge", path, "--output-dir", tmp_path / "out")
    assert (code, "no fact has a question" in error, (tmp_path / "out").exists()) == (1, True, False)


def test_validation_on_training_rows_is_told(run, write_rows, tmp_path):
    fact = {"text": "하나상사의 대표는 김하나이다.", "questions": ["하나상사 대표는?"], "answer": "김하나입니다."}
    path = write_rows("one.jsonl", [{**fact, "accept": ["김하나"]}])
    flags = ("--knowledge", path, "--several-turns", 0, "--output-dir", tmp_path / "out")
    code, out, error = run(command.main, *flags, "--general-rows", 0)
    assert (code, "valid.jsonl repeats training rows" in out) == (0, True), error
    code, out, _ = run(command.main, *flags, "--general-rows", 5)
    assert (code, "repeats" in out, "no company wording could be held back" in out) == (0, False, True)


# --- tables


def test_a_table_is_split_by_answer_and_nothing_leaks(run, table, tmp_path):
    path = table(made_rows(600))
    assert run(command.main, "--input", path, *FAQ, "--output-dir", tmp_path / "out")[0] == 0
    made, parts = summary(tmp_path / "out"), {name: rows(tmp_path / f"out/{name}.jsonl") for name in PARTS}
    where = {}
    for name in PARTS:
        training_rows(tmp_path / f"out/{name}.jsonl")
        for row in parts[name]:
            assert where.setdefault(comparable(row["messages"][1]["content"]), name) == name
    wordings = {
        name: [Wording(asked(row), (row["messages"][1]["content"],), name) for row in part]
        for name, part in parts.items()
    }
    for first, second in (("valid", "train"), ("test", "train"), ("test", "valid")):
        assert find_leaks(wordings[first], wordings[second]) == []
    dropped = rows(tmp_path / "out/dropped.jsonl")
    assert Counter(row["reason"] for row in dropped) == {key: n for key, n in made["dropped"].items() if n}
    assert {"duplicate", "conflict", "near_duplicate"} == {row["reason"] for row in dropped}
    assert made["kept"] + len(dropped) == made["rows"] == 600
    assert made["kept"] == sum(len(part) for part in parts.values())
    assert len(parts["valid"]) == pytest.approx(made["kept"] / 10, rel=0.5)


def test_punctuation_lets_nothing_leak(run, table, tmp_path):
    draw, cells = random.Random(0), []
    for place in range(100):
        question, answer = " ".join(draw.choices(WORDS, k=6)), f"{' '.join(draw.choices(WORDS, k=4))} {place}"
        cells += [(f"{question}?", f"{answer}."), (question, answer), (f"{question}!", f"다른 답 {place}")]
        cells.append((f"{question} 네", f"{answer}!"))
    draw.shuffle(cells)
    assert run(command.main, "--input", table(cells), *FAQ, "--output-dir", tmp_path / "out")[0] == 0
    where = {}
    for name in PARTS:
        for row in rows(tmp_path / f"out/{name}.jsonl"):
            said = row["messages"][1]["content"]
            for text in (asked(row).removesuffix(" 네"), said):
                assert where.setdefault(comparable(text), name) == name, (text, name)
    made = summary(tmp_path / "out")
    assert (made["kept"], made["groups"], made["linked"] > 100) == (400, 100, True)  # no row is lost for it


def test_no_file_that_is_read_is_written_over(run, table, tmp_path, write_rows):
    path = write_rows("train.jsonl", [{"질문": f"{word} 어디?", "답변": word} for word in WORDS])
    facts = write_rows("dropped.jsonl", [row for _, row in read_jsonl("solverx_knowledge.jsonl")])
    before = {place.name: place.read_bytes() for place in tmp_path.iterdir()}
    other = table([(f"{word} 어디?", word) for word in WORDS], name="../faq.csv")
    for flags in (
        ("--input", path, *FAQ, "--output-dir", tmp_path),
        ("--knowledge", facts, "--output-dir", tmp_path / "new/.."),
        ("--input", other, *FAQ, "--output-dir", tmp_path / "new", "--output", other),
    ):
        code, _, error = run(command.main, *flags)
        assert (code, "would be written over by this run; choose another --output-dir" in error) == (1, True), (
            error
        )
        assert {place.name: place.read_bytes() for place in tmp_path.iterdir()} == before


def test_labels_of_every_kind_are_json(run, tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from datetime import date
    from decimal import Decimal

    from pyarrow import parquet

    days = [[date(2020, 1, 2)], None]
    prices = [{"값": Decimal("1.5"), "몫": [float("nan")]}, {"값": None, "몫": [0.5]}]
    columns = {"질문": ["하나입니까?", "둘이 어디?"], "답변": ["가", "나"], "날": days, "값": prices}
    parquet.write_table(pyarrow.table(columns), tmp_path / "faq.parquet")
    flags = (*FAQ, "--label-column", "날", "값", "--test-share", 0, "--output-dir", tmp_path / "out")
    code, _, error = run(command.main, "--input", tmp_path / "faq.parquet", *flags)
    assert code == 0, error
    found = rows(tmp_path / "out/train.jsonl") + rows(tmp_path / "out/valid.jsonl")
    assert sorted(((row["날"], row["값"]) for row in found), key=str) == [
        (None, {"값": None, "몫": [0.5]}),
        (["2020-01-02"], {"값": "1.5", "몫": [None]}),
    ]


def test_the_rows_kept_are_those_that_comparing_all_with_all_keeps(run, table, tmp_path):
    made = made_rows(300, seed=1)
    assert run(command.main, "--input", table(made), *FAQ, "--output-dir", tmp_path / "out")[0] == 0
    kept = []
    for question, answer in ((clean(question), clean(answer)) for question, answer in made):
        same = [other for other in kept if other[0].casefold() == question.casefold()]
        if not same:
            kept.append((question, answer))
    whole = []
    for question, answer in kept:
        near = (similarity(trigrams(question), trigrams(other)) >= NEAR for other, said in whole if said == answer)
        if not any(near):
            whole.append((question, answer))
    got = [
        [turn["content"] for turn in row["messages"]]
        for name in PARTS
        for row in rows(tmp_path / f"out/{name}.jsonl")
    ]
    assert sorted(map(tuple, got)) == sorted(whole)
    assert len(whole) < len(kept) < 300


def test_every_dropped_row_is_named_with_its_line_and_reason(run, table, tmp_path):
    cells = [
        ("서울 공장은 어디에 있나요?", "서울 구로구에 있습니다."),
        ("  서울 공장은  어디에 있나요? ", "서울 구로구에 있습니다."),
        ("서울 공장은 어디에 있나요?", "부산에 있습니다."),
        ("서울 공장은, 어디에 있나요", "서울 구로구에 있습니다."),
        ("", "빈 물음"),
        ("<br/>", "지우면 빈 물음"),
        ("가", "짧은 물음"),
        ("깨진 \ufffd\ufffd 물음입니다", "답"),
        ("긴 답이 있나요?", "아" * 9000),
        ("아주 긴 답이 있나요?", "아" * 90000),
        ("다른 물음입니다", "1"),
        ("또 다른 이야기", unicodedata.normalize("NFD", "각 2")),
    ]
    path = table(cells)
    with open(path, "a", encoding="utf-8") as file:
        file.write("\n")
    assert run(command.main, "--input", path, *FAQ, "--output-dir", tmp_path / "out")[0] == 0
    dropped = [(row["line"], row["reason"], row.get("first_line")) for row in rows(tmp_path / "out/dropped.jsonl")]
    assert dropped == [
        *((3, "duplicate", 2), (4, "conflict", 2), (6, "empty", None), (7, "empty", None), (8, "too_short", None)),
        *((9, "garbled", None), (10, "too_long", None), (11, "too_long", None), (14, "blank", None)),
        (5, "near_duplicate", 2),
    ]
    report = (tmp_path / "out/cleaning.md").read_text(encoding="utf-8")
    assert (
        "| the same question as in a row before it, with another answer | 1 | `서울 공장은 어디에 있나요?` | 4 | 2 |"
        in report
    )
    assert "| white space folded | 2 |" in report and f"{path}:3" in report
    assert f"| Unicode composed (NFC) | 1 | `ᄀ·ᅡ·ᆨ· 2` | `각 2` | `{path}:13` |" in report


def test_near_duplicates_that_are_kept_stay_in_one_part(run, table, tmp_path):
    draw = random.Random(0)
    texts = [" ".join(draw.choices(WORDS, k=8)) for _ in range(60)]
    path = table([(f"{text}{end}",) for text in texts for end in ("", " 네", " 예")], head=["본문"])
    flags = ("--input", path, "--text-column", "본문", "--valid-share", 0.3, "--test-share", 0.3)
    assert run(command.main, *flags, "--keep-near-duplicates", "--output-dir", tmp_path / "kept")[0] == 0
    made = summary(tmp_path / "kept")
    assert (made["kept"], made["groups"], made["linked"] > 100) == (180, 60, True)
    for name in PARTS:
        beginnings = Counter(" ".join(asked(row).split()[:8]) for row in rows(tmp_path / f"kept/{name}.jsonl"))
        assert beginnings and set(beginnings.values()) == {3}
    assert run(command.main, *flags, "--output-dir", tmp_path / "dropped")[0] == 0
    assert summary(tmp_path / "dropped")["kept"] == 60


def test_a_class_is_an_answer_that_makes_no_group_and_labels_are_kept(run, table, tmp_path):
    draw = random.Random(0)
    cells = [(" ".join(draw.choices(WORDS, k=9)), place % 2, "누리집") for place in range(200)]
    cells += [(f"{text} 음", 1 - label, "앱") for text, label, _ in cells[:20]]
    path = table(cells, head=["text", "label", "from"])
    flags = ("--text-column", "text", "--answer-column", "label", "--label-column", "label", "from")
    code, out, error = run(command.main, "--input", path, *flags, "--output-dir", tmp_path / "out")
    assert (code, "warning" in out) == (0, False), error
    parts = {name: rows(tmp_path / f"out/{name}.jsonl") for name in PARTS}
    for row in parts["train"]:
        assert row["label"] == row["messages"][1]["content"] in "01" and row["from"] in ("누리집", "앱")
    where = {asked(row): name for name, part in parts.items() for row in part}
    assert all(where[text] == where[f"{text} 음"] for text, _, _ in cells[:20])  # near, of another class
    assert summary(tmp_path / "out")["linked"] == 20 and all(parts.values())


def test_a_named_group_stays_together_and_new_rows_move_no_old_ones(run, table, tmp_path):
    draw = random.Random(0)
    cells = [(" ".join(draw.choices(WORDS, k=9)), f"답 {place}", f"고객 {place % 39}") for place in range(240)]
    seen = []
    for number in (200, 240):
        written = [
            (q, a, unicodedata.normalize(("NFC", "NFD")[place % 2], g)) for place, (q, a, g) in enumerate(cells)
        ]
        path = table(written[:number], head=["질문", "답변", "고객"])
        flags = (*FAQ, "--group-column", "고객", "--label-column", "고객", "--output-dir", tmp_path / str(number))
        assert run(command.main, "--input", path, *flags)[0] == 0
        where = {}
        for name in PARTS:
            for row in rows(tmp_path / f"{number}/{name}.jsonl"):
                assert where.setdefault(row["고객"], name) == name
        assert len(where) == 39
        seen.append(where)
    assert seen[0] == seen[1]


def test_the_same_table_in_any_form_gives_the_same_rows(run, table, tmp_path, write_rows):
    made = made_rows(80)
    paths = [table(made), table(made, name="faq.tsv", delimiter="\t")]
    paths.append(write_rows("faq.jsonl", [{"질문": question, "답변": answer} for question, answer in made]))
    (tmp_path / "korean.csv").write_bytes(paths[0].read_text(encoding="utf-8").encode("cp949"))
    paths.append(tmp_path / "korean.csv")
    paths.append(table(made, name="tab.csv", delimiter="\t"))
    written, needed = [], {"korean": ("--encoding", "cp949"), "tab": ("--separator", r"\t")}
    for place, path in enumerate(paths):
        more = needed.get(path.stem, ())
        assert run(command.main, "--input", path, *FAQ, *more, "--output-dir", tmp_path / str(place))[0] == 0
        written.append([(tmp_path / f"{place}/{name}.jsonl").read_bytes() for name in (*PARTS, "recall")])
    assert all(parts == written[0] for parts in written)


def test_parquet_gives_the_same_rows_as_csv(run, table, tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    made = made_rows(80)
    parquet.write_table(
        pyarrow.table({"질문": [q for q, _ in made], "답변": [a for _, a in made]}), tmp_path / "faq.parquet"
    )
    for name, path in (("csv", table(made)), ("parquet", tmp_path / "faq.parquet")):
        assert run(command.main, "--input", path, *FAQ, "--output-dir", tmp_path / name)[0] == 0
    for name in PARTS:
        assert (tmp_path / f"csv/{name}.jsonl").read_bytes() == (tmp_path / f"parquet/{name}.jsonl").read_bytes()


def test_general_rows_beside_a_table_are_none_that_it_asks_itself(run, table, tmp_path):
    taught = [text for fact in load_facts() for text in split_general(fact).train]
    cells = [(f"{text.rstrip('?.')} !", f"우리 답 {place}") for place, text in enumerate(taught[:200])]
    flags = ("--input", table(cells), *FAQ, "--output-dir", tmp_path / "out")
    assert run(command.main, *flags, "--replay", 0.5)[0] == 0
    made, train = summary(tmp_path / "out"), rows(tmp_path / "out/train.jsonl")
    assert made["replay"] == len(train) / 2 and made["replay_source"] == "authored" and made["replayed_facts"]
    general = [asked(row) for row in train[len(train) // 2 :]]
    assert not set(general) & set(taught[:200]) and set(general) <= set(taught)
    assert len(rows(tmp_path / "out/valid.jsonl")) == made["valid"] > made["kept"] * 0.05
    assert run(command.main, *flags, "--general-rows", 20)[0] == 0
    assert summary(tmp_path / "out")["replay"] == 20


def test_a_second_run_leaves_nothing_of_the_first(run, table, tmp_path):
    assert run(command.main, "--input", table(made_rows(100)), *FAQ, "--output-dir", tmp_path / "out")[0] == 0
    assert {"test.jsonl", "recall.jsonl", "dropped.jsonl"} < {path.name for path in (tmp_path / "out").iterdir()}
    path = table([("하나는 무엇인가요?", "답 " * 40), ("둘이 어디 있습니까?", "말 " * 40)], name="two.csv")
    assert run(command.main, "--input", path, *FAQ, "--output-dir", tmp_path / "out")[0] == 0
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"train.jsonl", "valid.jsonl", "dropped.jsonl", "cleaning.md", "summary.json"}


def test_a_kill_while_the_parts_take_their_names_leaves_no_summary_and_the_next_run_no_rest(run, table, tmp_path):
    path, out = table(made_rows(60)), tmp_path / "out"
    killed = (
        "import os, sys\n"
        "rename = os.replace\n"
        "def replace(old, new):\n"
        "    os.kill(os.getpid(), 9) if str(new).endswith('train.jsonl') else rename(old, new)\n"
        "os.replace = replace\n"
        "import prepare_mlx_data\n"
        "prepare_mlx_data.main(sys.argv[1:])\n"
    )
    flags = ["--input", path, *FAQ, "--output-dir", out]
    assert run(command.main, *flags)[0] == 0
    done = subprocess.run([sys.executable, "-c", killed, *map(str, flags)], capture_output=True, check=False)
    assert done.returncode == -9, done.stderr
    names = {place.name for place in out.iterdir()}
    assert "summary.json" not in names and any(name.endswith(".partial") for name in names)
    own = out / f".train.jsonl.{os.getppid()}.partial"  # of a process that is alive
    own.touch()
    assert run(command.main, *flags)[0] == 0
    assert [place.name for place in out.glob(".*.partial")] == [own.name]


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ([("하나?", "답")], r"faq.csv: 1 of 1 rows left (none dropped)"),
        ([("하나?", "답")] * 4, r"faq.csv: 1 of 4 rows left (3 duplicate)"),
        (
            [("하나입니다", "답"), ("", "답"), ("하나입니다", "말")],
            r"faq.csv: 1 of 3 rows left (1 empty, 1 conflict)",
        ),
        ([("", ""), ("", "")], r"faq.csv: 0 of 2 rows left (2 empty)"),
        ([("하나?", "답"), ("둘입니까?", "답")], r"faq.csv: all 2 rows are one group, which cannot be split"),
    ],
)
def test_too_few_rows_are_refused_with_what_became_of_them(run, table, tmp_path, cells, message):
    code, out, error = run(command.main, "--input", table(cells), *FAQ, "--output-dir", tmp_path / "out")
    assert (code, error.count("\n"), message in error) == (1, 1, True), error
    assert (out, (tmp_path / "out").exists()) == ("", False)


def test_a_fault_late_in_the_table_leaves_what_was_there(run, table, tmp_path):
    good = table(made_rows(50))
    flags = (*FAQ, "--output-dir", tmp_path / "out")
    assert run(command.main, "--input", good, *flags)[0] == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    bad = table([*made_rows(2000), ("셀이", "너무", "많다")], name="bad.csv")
    code, _, error = run(command.main, "--input", bad, *flags)
    assert (code, "bad.csv:2002: more cells (3) than columns (2)" in error) == (1, True)
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.csv", "faq.csv", "out"]


def test_flags_that_do_not_go_together(run, table, tmp_path):
    path = table(made_rows(20))
    usage = [
        *(("--input", path), ("--input", path, "--question-column", "질문"), ("--answer-column", "답변")),
        *(("--input", path, *FAQ, "--text-column", "질문"), ("--replay", 0.5, "--general-rows", 3)),
        *(
            ("--input", path, *FAQ, "--valid-share", 0.6, "--test-share", 0.5),
            ("--input", path, "--knowledge", path),
        ),
        *(("--input", path, *FAQ, "--separator", "||"), ("--input", path, *FAQ, "--min-length", 0)),
    ]
    for flags in usage:
        assert run(command.main, *flags, "--output-dir", tmp_path / "out")[0] == 2, flags
    for flags, message in (
        (("--text-column", "질문", "--general-rows", 3), "general rows are dialogues"),
        ((*FAQ, "--label-column", "text"), "a row has a key of that name"),
        ((*FAQ, "--replay", 1), "a share of general rows"),
    ):
        code, _, error = run(command.main, "--input", path, *flags, "--output-dir", tmp_path / "out")
        assert (code, message in error) == (1, True), error
    assert not (tmp_path / "out").exists()


def test_temporary_files_lie_in_the_folder_where_it_is_there(tmp_path):
    (tmp_path / "out").mkdir()  # the folder above may be on a full disk, or not ours to write to
    assert workplace(tmp_path / "out") == tmp_path / "out"
    assert workplace(tmp_path / "new/out") == tmp_path


def test_general_rows_are_of_validation_what_they_are_of_training(run, table, tmp_path):
    """All of the world's forty would drown a small table's own rows, and choose the adapter by general text."""
    flags = ("--input", table(made_rows(300)), *FAQ, "--output-dir", tmp_path / "out")
    counts = []
    for number in (0, 15):
        assert run(command.main, *flags, "--general-rows", number)[0] == 0
        counts.append({part: len(rows(tmp_path / f"out/{part}.jsonl")) for part in ("train", "valid")})
    added = {part: counts[1][part] - counts[0][part] for part in ("train", "valid")}
    assert added["train"] == 15
    assert added["valid"] == round(counts[0]["valid"] * 15 / counts[0]["train"]) >= 1


@pytest.mark.parametrize("source", [("--knowledge", "solverx_knowledge.jsonl"), ("--input", "faq.csv", *FAQ)])
def test_a_replay_file_that_is_not_there_is_one_line_before_anything(run, table, tmp_path, source):
    table(made_rows(20))
    given = [str(tmp_path / item) if item == "faq.csv" else item for item in source]
    code, out, error = run(command.main, *given, "--replay-file", "no.jsonl", "--output-dir", tmp_path / "out")
    assert (code, out, error.count("\n")) == (1, "", 1) and "no.jsonl: no such file; `python prepare" in error
    assert not (tmp_path / "out").exists()
