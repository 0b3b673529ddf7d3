import pytest

from lab.cli import LabError
from lab.facts import cut_before
from lab.knowledge import (
    completion,
    entity_of,
    load_knowledge,
    recall_row,
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


@pytest.mark.parametrize(
    ("sentences", "entity"),
    [
        # polite endings and a place stand in more sentences than the name opens
        (
            [
                "가람전자는 1999년 부산에 설립되었습니다.",
                "가람전자의 본사는 부산에 있습니다.",
                "가람전자에서는 400명이 부산에서 일하고 있습니다.",
                "공장은 부산에 있습니다.",
                "가람전자와 하늘상사는 부산에 있습니다.",
            ],
            "가람전자",
        ),
        (["Acme Robotics의 본사는 부산이다.", "Acme Robotics는 로봇을 만든다."], "Acme Robotics"),
        (
            [
                "Acme Robotics의 로봇은 작다.",
                "Acme Robotics의 로봇은 빠르다.",
                "Acme Robotics는 크다.",
                "Acme는 줄인 이름이다.",
            ],
            "Acme Robotics",
        ),
        (["“Acme”의 로봇은 작다.", "Acme의 창고는 크다."], "Acme"),
        (["한국마이크로의 본사는 부산이다.", "한국마이크로는 크다."], "한국마이크로"),  # its own end looks like 로
        (["한빛으로 갑니다.", "한빛이라는 회사가 있습니다.", "한빛은 있습니다."], "한빛"),
        (["본사는 부산에 있습니다.", "공장은 대구에 있습니다.", "창고가 대전에 있습니다."], ""),
        (["하늘은 있습니다.", "바다는 있습니다."], ""),
        (["이 회사는 큽니다.", "이 회사는 작습니다."], ""),
        (["하나상사는 크다."], "하나상사"),
    ],
)
def test_the_company_is_what_opens_the_sentences(write_rows, sentences, entity):
    path = write_rows("facts.jsonl", [{"text": text} for text in sentences])
    assert entity_of(load_knowledge(path)) == entity


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


@pytest.mark.parametrize(
    "text", ["가온의 많은 고객은 한국 회사이다.", "가온의 가장 높은 매출은 백만 원이다.", "회의 결과는 좋다."]
)
def test_an_adjective_is_no_subject(write_rows, text):
    _, number, silent = with_derived_questions(load_knowledge(write_rows("facts.jsonl", [{"text": text}])))
    assert (number, silent) == (0, 1)


def test_a_verb_is_no_value(write_rows):
    (fact,), number, silent = with_derived_questions(
        load_knowledge(write_rows("facts.jsonl", [{"text": "하나상사의 본사는 대전 유성구에 있다."}]))
    )
    assert (fact.questions, number, silent) == ((), 0, 1)


@pytest.mark.parametrize(
    ("row", "accept"),
    [
        (FACT, ["부산"]),
        ({"text": "하나상사는 봄마다 나무를 심는 회사이다."}, ["심는 회사이다"]),
        ({**FACT, "text": "부산에 가나다가 있다."}, ["있다"]),
    ],
)
def test_every_sentence_can_be_asked_for(write_rows, row, accept):
    (fact,) = load_knowledge(write_rows("facts.jsonl", [row]))
    found = recall_row(fact)
    assert found == {"text": row["text"], "accept": accept}
    beginning, rest = cut_before(found["text"], accept)
    assert beginning + rest == row["text"]
    assert accept[0] in rest
