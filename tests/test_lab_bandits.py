"""Bandit programs: those that win, those that only look like it, and those that cheat."""

import json

import pytest

from lab import sandbox
from lab.bandits import VERDICTS, judge_bandit, program_text
from lab.general import load_facts

HEAD = "import random\n\n\ndef thompson_sampling(pull, arms, rounds):\n"
LOOP = """    wins, losses = [1] * arms, [1] * arms
    for _ in range({rounds}):
        draws = [random.betavariate(wins[i], losses[i]) for i in range(arms)]
        arm = draws.index(max(draws))
        if pull(arm):
            wins[arm] += 1
        else:
            losses[arm] += 1
    return {value}
"""
BEST = "max(range(arms), key=lambda i: wins[i] / (wins[i] + losses[i]))"
SEEN = """    seen = [0] * arms
    for place in range(rounds):
        arm = {arm}
        seen[arm] += pull(arm)
    return seen.index(max(seen))
"""


def label(body, head=HEAD):
    return judge_bandit(f"코드는 다음과 같습니다.\n```python\n{head}{body}```\n끝.").label


def test_the_program_that_is_taught_wins():
    (fact,) = [fact for fact in load_facts("data_general") if fact.judge]
    assert judge_bandit(fact.answer).label == "finds_best_arm"


@pytest.mark.parametrize("value", [BEST, "wins, losses", "None", "{'best': 1}", "0.5"])
def test_thompson_sampling_wins_whatever_it_returns_that_is_no_arm(value):
    assert label(LOOP.format(rounds="rounds", value=value)) == "finds_best_arm"


def test_another_algorithm_that_finds_the_best_arm_wins():
    body = """    counts, sums = [1] * arms, [pull(arm) for arm in range(arms)]
    for place in range(arms, rounds):
        arm = max(range(arms), key=lambda i: sums[i] / counts[i] + math.sqrt(math.log(place) / counts[i]))
        sums[arm] += pull(arm)
        counts[arm] += 1
"""
    assert label(body, HEAD.replace("random", "math")) == "finds_best_arm"


@pytest.mark.parametrize("arm", ["random.randrange(arms)", "place % arms", "0", "1", "2", "3", "arms - 1"])
def test_what_does_not_learn_loses(arm):
    assert label(SEEN.format(arm=arm)) == "runs_and_loses"


@pytest.mark.parametrize(
    ("rounds", "value"),
    [("rounds // 2", BEST), ("rounds - 1", BEST), ("rounds + 1", BEST), ("rounds", "-1"), ("rounds", "arms")],
)
def test_wrong_counts_and_wrong_answers_lose(rounds, value):
    assert label(LOOP.format(rounds=rounds, value=value)) == "runs_and_loses"


def test_pulling_for_ever_loses_at_once():
    verdict = judge_bandit(f"```python\n{HEAD}    while True:\n        pull(0)\n```")
    assert verdict.label == "runs_and_loses"
    assert "more than 600" in verdict.detail


@pytest.mark.parametrize(
    "body",
    [
        "    return pull(7)\n",
        "    return pull('a')\n",
        "    return pull(0.5)\n",
        "    import scipy\n",
        "    while True:\n        raise SystemExit\n",
        "    open('/etc/passwd')\n",
        "    1 / 0\n",
    ],
)
def test_what_breaks_does_not_run(body):
    assert label(body) == "does_not_run"


NUMPY = """import numpy as np


def thompson_sampling(pull, arms, rounds):
    {generator}
    wins, losses = np.ones(arms), np.ones(arms)
    for _ in range(rounds):
        arm = np.argmax({draws}.beta(wins, losses))
        reward = pull(arm)
        wins[arm] += reward
        losses[arm] += 1 - reward
    return np.argmax(wins / (wins + losses))
"""


@pytest.mark.skipif(not sandbox.numpy_folder(), reason="nothing here confines numpy")
@pytest.mark.parametrize(
    ("generator", "draws"),
    [("rng = np.random.default_rng()", "rng"), ("np.random.seed(0)", "np.random"), ("", "np.random")],
)
def test_thompson_sampling_with_numpy_wins(generator, draws):
    program = NUMPY.format(generator=generator or "pass", draws=draws)
    assert judge_bandit(f"```python\n{program}```").label == "finds_best_arm"


@pytest.mark.skipif(not sandbox.numpy_folder(), reason="nothing here confines numpy")
def test_a_whole_number_of_numpys_is_an_arm():
    body = LOOP.format(rounds="rounds", value="numpy.int64(0)")
    verdict = judge_bandit(f"```python\nimport numpy\n{HEAD}{body}```")
    assert (verdict.label, "returned arm 0, the best is 1" in verdict.detail) == ("runs_and_loses", True)


def test_another_function_does_not_run():
    verdict = judge_bandit("```python\ndef bandit():\n    pass\n```")
    assert verdict.label == "does_not_run"
    assert "defines no function thompson_sampling" in verdict.detail


FORGED = {
    "printing": "    print('finds_best_arm')\n    print('finished')\n    return 0\n",
    "sending": """    import sys
    send = pull.__closure__[-1].cell_contents
    for bandit in range(5):
        send(f'returned {bandit % 4}')
    send('finished')
""",
    "ending": "    pull.__closure__[-1].cell_contents('finished')\n",
    "rewriting": """    import sys
    frame = sys._getframe(1)
    frame.f_globals['play'] = lambda *_: None
    return 0
""",
}


@pytest.mark.parametrize("way", FORGED)
def test_a_forged_verdict_is_none(way):
    assert label(FORGED[way]) in ("runs_and_loses", "does_not_run")


def test_the_same_program_gets_the_same_verdict():
    answer = f"```python\n{HEAD}{LOOP.format(rounds='rounds', value=BEST)}```"
    from lab import bandits

    first = bandits.judge_bandit(answer)
    bandits._judge.cache_clear()
    assert bandits.judge_bandit(answer) == first
    assert first.label in VERDICTS


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ("```python\nx = 1\n```", "x = 1\n"),
        ("앞\n```py\nx = 1\n```\n뒤\n```python\ny = 2\n```", "x = 1\n"),
        ("```bash\npip install x\n```\n```python\nx = 1\n```", "x = 1\n"),
        (
            "```python\nx = 1\n```\n```python\ndef thompson_sampling():\n    pass\n```",
            "def thompson_sampling():\n    pass\n",
        ),
        ("```\ndef f():\n    pass\n```", "def f():\n    pass\n"),
        ("```Python\nx = 1", "x = 1"),
        ("def f():\n    pass\n", "def f():\n    pass\n"),
        ("x = 1", None),
        ("모릅니다.", None),
        ("```\nx = 1\n```", None),
        ("", None),
        ("(" * 5000, None),
    ],
)
def test_where_the_program_stands(answer, text):
    assert program_text(answer) == text


def test_verdicts_can_be_written_as_json():
    verdict = judge_bandit("def thompson_sampling(pull, arms, rounds):\n    raise ValueError('\\ud800 \\n 가')\n")
    assert verdict.label == "does_not_run"
    assert "\n" not in verdict.detail
    assert json.loads(json.dumps(verdict.detail)) == verdict.detail
