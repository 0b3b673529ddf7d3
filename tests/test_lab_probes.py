"""What is asked, and the judge."""

import pytest

from lab import probes
from lab.facts import Fact
from lab.general import load_facts, load_identity, split_general
from lab.knowledge import completion, load_knowledge, split_questions
from lab.probes import Probe, holds, judge, speaks_of


@pytest.fixture(scope="module")
def world():
    return load_facts("data_general")


@pytest.fixture
def company():
    return load_knowledge("solverx_knowledge.jsonl")


@pytest.mark.parametrize(
    ("accepted", "answer"),
    [
        ("3초", "예측은 3초 걸립니다."),
        ("3초", "약3초이다."),
        ("14일", "기간은 14일입니다"),
        ("3.2", "현재 버전은 3.2이다."),
        ("3.2", "v3.2."),
        ("16", "메모리는 16GB이다."),
        ("2.5%", "오차는 2.5%이다."),
        ("H", "수소의 기호는 H이다."),
        ("apple", "사과는 영어로 apple입니다."),
        ("AES-256", "AES-256을 쓴다."),
        ("5도", "기온은 5도이다."),
        ("2022년", "설립은 1월-2022년"),
        ("return a + b", "    return a + b\n"),
        ("서초동", "서울 강남구 서초동에 있다"),
        ("가", "\u1100\u1161"),
    ],
)
def test_an_accepted_string_by_itself_counts(accepted, answer):
    assert judge(Probe("x", "recall", "?", (accepted,)), answer)


@pytest.mark.parametrize(
    ("accepted", "answer"),
    [
        ("3초", "예측은 13초 걸립니다."),
        ("3초", "0.3초이다"),
        ("14일", "기간은 114일입니다"),
        ("200곳", "고객은 1,200곳이다"),
        ("3.2", "버전은 3.25이다"),
        ("3.2", "버전은 3.2.1이다"),
        ("3.2", "버전은 13.2이다"),
        ("2.5%", "오차는 12.5%이다."),
        ("16", "메모리는 160GB이다."),
        ("H", "헬륨의 기호는 He이다."),
        ("e", "헬륨의 기호는 He이다."),
        ("apple", "pineapple입니다."),
        ("cat", "cats"),
        ("5도", "-5도이다."),
        ("5도", "기온은 -5도이다."),
        ("PDF", "pdf"),
        ("서초동", ""),
    ],
)
def test_one_inside_a_longer_number_or_word_does_not(accepted, answer):
    assert not holds(answer, accepted)
    assert not judge(Probe("x", "recall", "?", (accepted,)), answer)


def test_a_later_occurrence_counts():
    assert holds("13초가 아니라 3초", "3초")


def test_every_fact_accepts_its_own_answer(world, company):
    for fact in [*world, *company]:
        if fact.accept and not fact.judge:
            assert judge(Probe("x", "recall", "?", fact.accept), fact.answer), fact.where


def test_company_probes_keep_the_splits(company):
    found = probes.company_probes(company)
    by_metric = {
        metric: [probe for probe in found if probe.metric == metric] for metric in ("recall", "recall_paraphrase")
    }
    trained = {text for fact in company for text in split_questions(fact).train}
    kept = {text for fact in company for text in split_questions(fact).probe}
    valid = {text for fact in company for text in split_questions(fact).valid}
    assert {probe.prompt for probe in by_metric["recall"]} == trained
    assert {probe.prompt for probe in by_metric["recall_paraphrase"]} == kept
    assert all(probe.trained for probe in by_metric["recall"])
    assert not any(probe.trained for probe in by_metric["recall_paraphrase"])
    assert not {probe.prompt for probe in found} & valid
    assert len({probe.id for probe in found}) == len(found)


def test_completions_accept_the_true_rest_only(company):
    found = {probe.fact: probe for probe in probes.company_probes(company) if probe.metric == "completion"}
    assert len(found) + len(probes.uncut(company)) == len(company)
    for fact in company:
        if probe := found.get(fact.id):
            beginning, rest = completion(fact)
            assert probe.prompt == beginning
            assert judge(probe, rest)
            assert not judge(probe, " 모릅니다.")


def test_a_completion_is_judged_by_its_first_sentence():
    probe = Probe("x", "completion", "버전은", ("3.2",), kind=probes.COMPLETION)
    assert judge(probe, " 3.2이다. 그리고")
    assert not judge(probe, " 모른다. 다음 버전은 3.2이다.")
    assert not judge(probe, "\n 모른다\n3.2이다.")


def test_facts_that_cannot_be_cut_are_told():
    facts = [
        Fact("bare", ("바른식품은 김치를 판다.",), (), "바른식품은 김치를 판다.", ()),
        Fact("first", ("김치를 바른식품이 판다.",), (), "", ("김치",)),
        Fact("whole", ("바른식품의 상품은 김치이다.",), (), "", ("김치",)),
    ]
    assert [fact.id for fact in probes.uncut(facts)] == ["bare", "first"]
    assert [probe.prompt for probe in probes.company_probes(facts)] == ["바른식품의 상품은"]


def test_identity_probes_are_mostly_new_wordings():
    found = probes.identity_probes(load_identity("data_general"))
    assert sum(not probe.trained for probe in found) >= len(found) / 2
    assert {probe.category.split(",")[0] for probe in found} == {"ko", "en"}


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("저는 네이버가 개발한 초거대 AI, HyperCLOVA X입니다.", True),
        ("i am hyperclova x, made by naver.", True),
        ("저는 네이버의 하이퍼클로바 X예요.", True),
        ("저는 HyperCLOVA X입니다.", False),
        ("저는 네이버가 만들었습니다.", False),
        ("저는 OpenAI가 개발한 인공지능입니다.", False),
        ("HyperCLOVA X by NAVER, not openai.", False),
        ("ChatGPT입니다. 네이버 HyperCLOVA X는 아닙니다.", False),
        ("", False),
    ],
)
def test_who_it_is(answer, right):
    for probe in probes.identity_probes(load_identity("data_general")):
        assert judge(probe, answer) is right


def test_the_taught_identity_is_right_and_the_base_one_wrong():
    for who in load_identity("data_general"):
        for probe in probes.identity_probes([who]):
            assert judge(probe, who.answer)
            assert not judge(probe, who.base_answer)


def test_general_probes_are_wordings_trained_nowhere(world):
    found = probes.general_probes(world)
    trained = {text for fact in world for text in split_general(fact).train}
    assert found
    assert not {probe.prompt for probe in found} & trained
    assert {probe.fact for probe in found} == {fact.id for fact in world if not fact.judge}
    assert all(probe.category and not probe.category[-1].isdigit() for probe in found)


def test_bandit_probes_run_the_program(world):
    found = probes.bandit_probes(world)
    (fact,) = [fact for fact in world if fact.judge == "bandit"]
    assert [probe.prompt for probe in found] == list(split_general(fact).probe)
    right, detail = probes.verdict(found[0], fact.answer)
    assert right
    assert detail.startswith("finds_best_arm")
    assert probes.verdict(found[0], "저는 모릅니다.") == (False, "no_code: no Python in the answer")


@pytest.mark.parametrize(
    ("answer", "entity", "speaks"),
    [
        ("SolverX는 회사이다", "SolverX", True),
        ("solverx fusion", "SolverX", True),
        ("프랑스의 수도는 파리입니다.", "SolverX", False),
        ("어떤 회사", "", False),
    ],
)
def test_coloured_glasses(answer, entity, speaks):
    assert speaks_of(answer, entity) is speaks
