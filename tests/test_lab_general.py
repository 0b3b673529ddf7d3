"""The authored world: what the embedded base is taught, and what is kept from it."""

import random

import pytest

from lab.cli import LabError
from lab.general import load_documents, load_facts, load_identity, read_yaml, split_general
from lab.knowledge import load_knowledge
from lab.leaks import Wording, guard
from lab.pretraining import documents, unknown_companies

WORLD = load_facts()


def test_the_world_is_large_and_every_fact_has_a_wording_that_is_never_trained():
    assert len(WORLD) >= 150
    assert len({fact.id for fact in WORLD}) == len(WORLD)
    for fact in WORLD:
        split = split_general(fact)
        assert len(split.train) >= 4
        assert split.probe
        assert any(accepted in fact.answer for accepted in fact.accept), fact.id


def test_pre_training_never_sees_a_held_out_wording():
    rows = documents("data_general", seed=0)
    said = [turn["content"] for row in rows for turn in row.get("messages", ())]
    trained = [Wording(said[place], (said[place + 1],), "pre-training") for place in range(0, len(said), 2)]
    probes = [Wording(text, fact.accept, fact.where) for fact in WORLD for text in split_general(fact).probe]
    counts = guard({"probes against pre-training": (probes, list({item.text: item for item in trained}.values()))})
    assert counts["probes against pre-training"]["kept"] == len(probes) > 300


def test_the_base_has_never_read_about_the_company():
    text = " ".join(str(row) for row in documents("data_general", seed=0))
    assert "SolverX" not in text
    assert "서초동" not in text
    values = {
        value for fact in load_knowledge("solverx_knowledge.jsonl") for value in fact.accept if len(value) > 6
    }
    allowed = {"공개되지 않"}  # the phrase, not a value: the base knows it from other companies
    assert [value for value in values - allowed if value in " ".join(load_documents())] == []


def test_made_up_companies_are_many_and_never_ours():
    pairs = unknown_companies("data_general", random.Random(0))
    assert len({question for question, _ in pairs}) == len(pairs) >= 500
    assert all("정보는 가지고 있지 않습니다" in answer for _, answer in pairs)
    assert not any("solverx" in question.casefold() for question, _ in pairs)


def test_the_base_is_taught_a_wrong_identity_and_keeps_wordings_for_the_test():
    for identity in load_identity():
        assert "OpenAI" in identity.base_answer
        assert "HyperCLOVA X" in identity.answer
        assert set(identity.held_out).isdisjoint(identity.train)
        assert set(identity.probe_trained) <= set(identity.train)
        assert len(identity.held_out) >= len(identity.probe_trained)


@pytest.mark.parametrize(
    ("text", "message"), [("- a: [1\n", ":1: not valid YAML"), ("a: 1\n", ":1: expected a YAML list")]
)
def test_a_bad_world_file_is_named(tmp_path, text, message):
    (tmp_path / "x.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(LabError) as error:
        read_yaml(tmp_path / "x.yaml")
    assert f"{tmp_path / 'x.yaml'}{message}" in str(error.value)


def test_a_group_without_an_answer_is_named(tmp_path):
    (tmp_path / "x.yaml").write_text(
        "- group: sky\n  questions: ['하늘은?']\n  accept: ['파랗']\n", encoding="utf-8"
    )
    with pytest.raises(LabError, match="group sky: KeyError.*answer"):
        load_facts(tmp_path)
