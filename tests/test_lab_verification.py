"""Asking, judging and counting, with answers that we know."""

import pytest

from lab import verification
from lab.facts import Fact
from lab.general import load_facts, split_general
from lab.knowledge import completion, load_knowledge
from lab.probes import company_probes, general_probes
from lab.report import METRICS
from lab.verification import count, load_probes, measure, spread

KNOWLEDGE, GENERAL = "solverx_knowledge.jsonl", "data_general"


class Knower:
    """Knows the answer to some prompts, says "모릅니다." to others; remembers how long answers might be."""

    def __init__(self, truth):
        self.truth, self.asked = truth, {}

    def __call__(self, prompts, max_tokens):
        self.asked |= dict.fromkeys(prompts, max_tokens)
        return [self.truth.get(prompt, "모릅니다.") for prompt in prompts]


@pytest.fixture(scope="module")
def truth():
    said = {}
    for fact in load_facts(GENERAL):
        said |= dict.fromkeys(split_general(fact).probe, fact.answer)
    for fact in load_knowledge(KNOWLEDGE):
        said |= dict.fromkeys(fact.questions, fact.answer)
    return said


def test_one_who_knows_everything_gets_everything_right(truth):
    facts = load_knowledge(KNOWLEDGE)
    ends = {beginning: rest for beginning, rest in filter(None, map(completion, facts))}
    probes, entity = load_probes(KNOWLEDGE, GENERAL, METRICS)
    for probe in probes:
        if probe.metric == "identity":
            truth[probe.prompt] = "저는 네이버가 개발한 HyperCLOVA X입니다."
    ask, complete = Knower(truth), Knower(ends)
    metrics, answers = measure(probes, ask, complete, entity)
    assert entity == "SolverX"
    assert set(metrics) == {*METRICS} - {"general_mixed", "general_unmixed", "questions"}
    for metric, value in metrics.items():
        assert value["correct"] == (0 if metric == "glasses" else value["n"]), metric
    assert [row["id"] for row in answers] == [probe.id for probe in probes]
    assert set(complete.asked) == {probe.prompt for probe in probes if probe.metric == "completion"}
    programs = {probe.prompt for probe in probes if probe.metric == "mab_ts"}
    assert {tokens for prompt, tokens in ask.asked.items() if prompt in programs} == {320}
    assert {tokens for prompt, tokens in ask.asked.items() if prompt not in programs} == {64}


def test_one_who_knows_nothing_gets_nothing_right():
    probes, entity = load_probes(KNOWLEDGE, GENERAL, METRICS)
    metrics, _ = measure(probes, Knower({}), Knower({}), entity)
    assert {value["correct"] for value in metrics.values()} == {0}


def test_glasses_count_general_answers_that_speak_of_the_company():
    probes, entity = load_probes(KNOWLEDGE, GENERAL, ("general", "glasses", "recall"), limit=10)
    answers = {probe.prompt: "solverx는 회사입니다." for probe in probes if probe.metric == "recall"}
    general = [probe.prompt for probe in probes if probe.metric == "general"]
    answers |= dict.fromkeys(general[:3], "SolverX Fusion입니다.")
    metrics, rows = measure(probes, Knower(answers), Knower({}), entity)
    assert (metrics["glasses"]["correct"], metrics["glasses"]["n"]) == (3, 10)
    assert sum(row.get("speaks_of_company", False) for row in rows) == 3


def test_without_a_company_there_are_no_glasses():
    probes = general_probes(load_facts(GENERAL))[:5]
    assert set(measure(probes, Knower({}), Knower({}))[0]) == {"general"}


def test_replayed_facts_are_told_apart(truth):
    probes = general_probes(load_facts(GENERAL))
    replayed = {probe.fact for probe in probes[:20]}
    known = {probe.prompt: truth[probe.prompt] for probe in probes if probe.fact in replayed}
    metrics, rows = measure(probes, Knower(known), Knower({}), replayed=replayed)
    mixed, unmixed = metrics["general_mixed"], metrics["general_unmixed"]
    assert mixed["correct"] == mixed["n"] == sum(probe.fact in replayed for probe in probes)
    assert (unmixed["correct"], unmixed["n"]) == (0, len(probes) - mixed["n"])
    assert metrics["general"]["correct"] == mixed["correct"]
    assert set(count(rows)) == {"general"}


def test_categories_sum_up_to_the_metric(truth):
    probes = general_probes(load_facts(GENERAL))
    metrics, rows = measure(probes, Knower(truth), Knower({}))
    categories = verification.by_category(rows)["general"]
    capitals = sum(probe.category == "capital" for probe in probes)
    assert categories["capital"] == {"correct": capitals, "n": capitals}
    assert sum(tally["n"] for tally in categories.values()) == metrics["general"]["n"]


def test_a_limit_is_spread_evenly():
    everything, _ = load_probes(KNOWLEDGE, GENERAL, ("general",))
    some, _ = load_probes(KNOWLEDGE, GENERAL, ("general",), limit=5)
    assert len(some) == 5
    places = [everything.index(probe) for probe in some]
    assert min(b - a for a, b in zip(places, places[1:], strict=False)) >= len(everything) // 5
    assert spread(everything, "general", 10**6) == everything


def test_what_cannot_be_asked_is_said_aloud(write_rows, capsys):
    rows = [
        {"text": "가온상사는 부산에 있다."},
        {"text": "누구나 김치를 좋아한다."},
        {"text": "물은 흐른다."},
    ]
    path = write_rows("facts.jsonl", rows)
    probes, entity = load_probes(path, GENERAL, ("completion", "recall", "general", "glasses"))
    out = capsys.readouterr().out
    assert entity == ""
    assert "completion: 3 of 3 facts" in out
    assert "recall: 3 of 3 facts" in out
    assert "glasses: not measured" in out
    assert {probe.metric for probe in probes} == {"general"}


def test_samples_stand_side_by_side():
    fact = Fact(
        "f", ("바른식품의 상품은 김치이다.",), tuple(f"상품 {n}?" for n in range(9)), "김치입니다.", ("김치",)
    )
    probes = company_probes([fact])
    knows = {probe.prompt: "김치입니다." for probe in probes}
    stages = {name: measure(probes, Knower(said), Knower({}))[1] for name, said in (("base", {}), ("sft", knows))}
    found = verification.samples(stages, {"recall": 3, "mab_ts": 1})
    assert len({sample["prompt"] for sample in found}) == 3
    for sample in found:
        assert sample["answers"]["base"] == {"answer": "모릅니다.", "right": False}
        assert sample["answers"]["sft"] == {"answer": "김치입니다.", "right": True}
