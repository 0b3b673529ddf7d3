import pytest

from lab.cli import LabError
from lab.knowledge import (
    completion,
    entity_of,
    load_knowledge,
    split_questions,
    split_sentences,
    with_derived_questions,
)

FACT = {
    "id": "a",
    "text": "가나다의 본사는 부산에 있다.",
    "paraphrases": ["부산에 가나다의 본사가 있다.", "가나다 본사의 주소는 부산이다."],
    "questions": ["가나다 본사는 어디야?", "가나다의 본사 위치를 알려 줘.", "가나다는 어느 도시에 본사가 있나요?"],
    "answer": "가나다의 본사는 부산에 있습니다.",
    "accept": ["부산"],
}


def other(**changes):
    return {**FACT, "id": "b", "questions": ["가나다의 제품은?"], **changes}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"id": "b"}, "text: field required"),
        (other(text=" "), "text: value error, holds an empty string"),
        (other(question="x"), "question: extra inputs"),
        (other(accept=[]), 'questions without "accept"'),
        (other(accept=["대구"]), "holds none of accept"),
        (other(id="a"), "id 'a' stands already at"),
        (
            other(questions=["가나다, 본사는 어디야"], answer="가나다의 본사는 부산입니다."),
            "is answered otherwise at",
        ),
        (other(questions=["제품이 뭐야?", "제품이  뭐야"]), "stands twice"),
    ],
)
def test_faults_are_named_by_file_and_line(write_rows, row, message):
    path = write_rows("facts.jsonl", [FACT, row])
    with pytest.raises(LabError) as error:
        load_knowledge(path)
    assert f"{path}:2" in str(error.value)
    assert message in str(error.value)


def test_the_company_file_is_what_the_issue_asks_for():
    facts = load_knowledge("solverx_knowledge.jsonl")
    assert len(facts) >= 50
    assert entity_of(facts) == "SolverX"
    assert all(len(fact.texts) >= 4 and len(fact.questions) >= 8 for fact in facts)
    assert all(completion(fact) for fact in facts)


def test_sentences_and_questions_are_split_apart():
    for fact in load_knowledge("solverx_knowledge.jsonl"):
        train, valid = split_sentences(fact)
        assert set(train).isdisjoint(valid)
        assert fact.texts[0] in train
        assert len(valid) == 1
        split = split_questions(fact)
        assert (len(split.valid), len(split.probe)) == (1, 2)


def test_completion_is_cut_before_the_value_at_a_space(write_rows):
    (fact,) = load_knowledge(write_rows("facts.jsonl", [FACT]))
    assert completion(fact) == ("가나다의 본사는", " 부산에 있다.")


def test_a_value_at_the_start_cannot_be_completed(write_rows):
    (fact,) = load_knowledge(write_rows("facts.jsonl", [{**FACT, "text": "부산에 가나다가 있다."}]))
    assert completion(fact) is None


def test_a_company_without_a_common_name_has_no_entity(write_rows):
    path = write_rows(
        "facts.jsonl", [{"text": "하늘은 파랗다."}, {"text": "바다는 깊다."}, {"text": "산은 높다."}]
    )
    assert entity_of(load_knowledge(path)) == ""


def test_questions_are_derived_only_where_that_is_unambiguous(write_rows):
    sentences = [
        "하나상사의 본사는 부산이다.",
        "하나상사의 제품은 가위다.",
        "하나상사의 제품은 칼이다.",
        "하나상사는 크다.",
    ]
    facts = load_knowledge(write_rows("facts.jsonl", [{"text": text} for text in sentences]))
    derived, number, silent = with_derived_questions(facts)
    assert (number, silent) == (1, 3)
    assert derived[0].questions[0] == "하나상사의 본사는 무엇인가요?"
    assert (derived[0].answer, derived[0].accept) == (sentences[0], ("부산",))
    assert not any(fact.questions for fact in derived[1:])
