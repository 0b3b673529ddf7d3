import pytest

from lab.cli import LabError
from lab.leaks import Wording, find_leaks, guard


def wording(text, *answers):
    return Wording(text, answers or ("2022년",), "here")


@pytest.mark.parametrize(
    "trained", ["SolverX는 언제 설립되었나요?", "solverx는  언제 설립되었나요", "SolverX는, 언제 설립되었나요?!"]
)
def test_exact_duplicate_whatever_the_case_and_punctuation(trained):
    leaks = find_leaks([wording("SolverX는 언제 설립되었나요?")], [wording(trained, "다른 답")])
    assert [leak.kind for leak in leaks] == ["exact"]


def test_near_duplicate_with_the_same_answer():
    kept, trained = (
        wording("SolverX는 언제 설립되었나요?"),
        wording("SolverX는 언제 설립되었니?", "SolverX는 2022년에 생겼다."),
    )
    assert [leak.kind for leak in find_leaks([kept], [trained])] == ["near"]


def test_a_near_equal_question_with_another_answer_is_no_leak():
    kept, trained = (
        wording("프랑스의 수도는 어디에 있는 도시야?", "파리"),
        wording("벨기에의 수도는 어디에 있는 도시야?", "브뤼셀"),
    )
    assert find_leaks([kept], [trained]) == []


def test_another_wording_is_no_leak():
    assert find_leaks([wording("SolverX가 생긴 해는?")], [wording("SolverX는 언제 설립되었나요?", "2022년")]) == []


def test_guard_counts_and_refuses():
    clean = guard({"a": ([wording("하나 둘 셋 넷")], [wording("다섯 여섯 일곱")])})
    assert clean == {"a": {"kept": 1, "trained": 1, "exact": 0, "near": 0}}
    with pytest.raises(LabError, match="1 leaks.*nothing written.*하나 둘 셋"):
        guard({"a": ([wording("하나 둘 셋")], [wording("하나, 둘, 셋")])})
