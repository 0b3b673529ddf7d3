"""The core of every verification: ask the probes, judge the answers, count. It knows no model: asking is
handed in.

An answer is a row {"metric", "id", "prompt", "answer", "right"}, "right" None where nothing judges it, with "detail",
"category", "fact", "trained" and, for general answers, "speaks_of_company" where they apply.
"""

from collections import defaultdict
from itertools import combinations

from lab import probes as questions
from lab.report import METRICS
from lab.stats import counted, paired

TOKENS = (64, 48, 320)  # longest chat answer, continuation and program


def load_probes(knowledge, general, metrics, limit=None):
    """(probes, entity): the probes of `metrics` out of a knowledge file and a general folder, and the
    company's name.

    With `limit`, at most so many a metric, spread evenly. What cannot be asked is said aloud.
    """
    from lab.general import load_facts, load_identity
    from lab.knowledge import entity_of, load_knowledge, with_derived_questions

    facts, _, silent = with_derived_questions(load_knowledge(knowledge))
    world, entity = load_facts(general), entity_of(facts)
    every = questions.company_probes(facts) + questions.identity_probes(load_identity(general))
    every += questions.general_probes(world) + questions.bandit_probes(world)
    if "completion" in metrics and (uncut := questions.uncut(facts)):
        print(f"completion: {len(uncut)} of {len(facts)} facts of {knowledge} have no value to cut before")
    if "recall" in metrics and silent:
        print(f"recall: {silent} of {len(facts)} facts of {knowledge} have no question")
    if "glasses" in metrics and not entity:
        print(f"glasses: not measured, no company's name stands in half of the facts of {knowledge}")
    wanted = [metric for metric in METRICS if metric in metrics]
    return [probe for metric in wanted for probe in spread(every, metric, limit)], entity


def spread(probes, metric, limit=None):
    """The probes of one metric, all or `limit` of them, evenly spaced."""
    own = [probe for probe in probes if probe.metric == metric]
    if limit is None or limit >= len(own):
        return own
    return [own[place * len(own) // limit] for place in range(limit)]


def measure(probes, ask, complete, entity="", replayed=(), tokens=TOKENS):
    """(metrics, answers): every probe asked, judged and counted, as `count` and the rows above.

    `ask(prompts, max_tokens)` and `complete(prompts, max_tokens)` return one text a prompt: chat answers and
    continuations. `tokens` are the longest chat answer, continuation and program.
    """
    answers = []
    for kind, limit in zip((questions.CHAT, questions.COMPLETION, questions.PROGRAM), tokens, strict=True):
        asked = [probe for probe in probes if probe.kind == kind]
        said = (complete if kind == questions.COMPLETION else ask)([probe.prompt for probe in asked], limit)
        answers += [_row(probe, text, entity) for probe, text in zip(asked, said, strict=True)]
    order = {probe.id: place for place, probe in enumerate(probes)}
    answers.sort(key=lambda row: order[row["id"]])
    return count(answers, entity, replayed), answers


def _row(probe, answer, entity):
    right, detail = questions.verdict(probe, answer) if probe.judged else (None, "")
    row = {"metric": probe.metric, "id": probe.id, "prompt": probe.prompt, "answer": answer, "right": right}
    more = {"detail": detail, "category": probe.category, "fact": probe.fact}
    row |= {key: value for key, value in more.items() if value}
    row["trained"] = probe.trained
    if probe.metric == "general" and entity:
        row["speaks_of_company"] = questions.speaks_of(answer, entity)
    return row


def count(answers, entity="", replayed=()):
    """{metric: {"correct", "n", "low", "high"}} of answer rows; for `glasses`, "correct" counts those that
    speak of it.

    Where facts were replayed in SFT, general_mixed and general_unmixed tell the general facts apart.
    """
    kept = outcomes(answers, replayed)
    return {metric: counted(sum(kept[metric].values()), len(kept[metric])) for metric in METRICS if metric in kept}


def outcomes(answers, replayed=()):
    """{metric: {probe id: bool}} of the judged answer rows: what `count` counts."""
    kept = defaultdict(dict)
    for row in answers:
        if row["right"] is None:
            continue
        kept[row["metric"]][row["id"]] = row["right"]
        if row["metric"] == "general" and replayed:
            kept["general_mixed" if row["fact"] in replayed else "general_unmixed"][row["id"]] = row["right"]
        if "speaks_of_company" in row:
            kept["glasses"][row["id"]] = row["speaks_of_company"]
    return kept


def differences(answers_of_stages, replayed=()):
    """{metric: [{"first", "second", **paired}]}: every pair of stages, in their order, on the probes of both.

    A difference is the second stage's share less the first's; for `glasses` more is worse.
    """
    kept = {stage: outcomes(rows, replayed) for stage, rows in answers_of_stages.items()}
    found = defaultdict(list)
    for first, second in combinations(kept, 2):
        for metric in METRICS:
            one, other = kept[first].get(metric, {}), kept[second].get(metric, {})
            if both := [name for name in one if name in other]:
                pair = paired([one[name] for name in both], [other[name] for name in both])
                found[metric].append({"first": first, "second": second, **pair})
    return {metric: found[metric] for metric in METRICS if metric in found}


def by_category(answers):
    """{metric: {category: {"correct", "n"}}} of the answer rows that have a category."""
    tallies = defaultdict(lambda: defaultdict(lambda: {"correct": 0, "n": 0}))
    for row in answers:
        if "category" in row:
            tally = tallies[row["metric"]][row["category"]]
            tally["correct"] += row["right"]
            tally["n"] += 1
    return {metric: dict(categories) for metric, categories in tallies.items()}


def samples(answers_of_stages, wanted):
    """The same probes side by side: [{"metric", "prompt", "answers": {stage: {"answer", "right",
    "detail"}}}].

    `wanted` is {metric: how many}, spread evenly over the metric's probes; answers_of_stages is {stage:
    rows}.
    """
    by_id = {stage: {row["id"]: row for row in rows} for stage, rows in answers_of_stages.items()}
    first = next(iter(answers_of_stages.values()))
    picked = []
    for metric, number in wanted.items():
        own = [row for row in first if row["metric"] == metric]
        places = {(2 * place + 1) * len(own) // (2 * number) for place in range(number)} if own else ()
        picked += [own[place] for place in sorted(places)]
    shown = ("answer", "right", "detail")
    return [
        {
            "metric": row["metric"],
            "prompt": row["prompt"],
            "answers": {
                stage: {key: rows[row["id"]][key] for key in shown if key in rows[row["id"]]}
                for stage, rows in by_id.items()
            },
        }
        for row in picked
    ]
