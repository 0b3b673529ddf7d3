"""The report's bars, with intervals and chance, and what all its pictures share.

Shares are drawn in percent. Bars stand in the order of the legend, so that no colour has to be seen.
"""

import textwrap

from lab import svg
from lab.svg import COLOURS, label, series

WIDTH = 5.0  # inches; 360 px, so that a phone shows the picture at its own size
FILLED = 0.8  # of the room of a group of bars
NAME = 22  # letters of a name on a line


def bars(name, title, rows, lines, reach):
    """Horizontal bars with intervals: `rows` is [(text, {stage: counted})], one group of bars a row.

    `lines` is {words: share} of the dashed lines, say for chance; the axis goes to `reach` percent.
    """
    stages = list(dict.fromkeys(stage for _, values in rows for stage in values))
    thick = FILLED / max(1, len(stages))

    def draw(figure):
        ax = figure.subplots()
        for number, stage in enumerate(stages):
            places = [
                (row + _offset(number, stages), values[stage])
                for row, (_, values) in enumerate(rows)
                if stage in values
            ]
            found = [share_of(value) for _, value in places]
            reaches = [[share - low for share, low, _ in found], [high - share for share, _, high in found]]
            look = {"ecolor": COLOURS["ink"], "error_kw": {"linewidth": 1}, "color": series(number)}
            at, lengths = [place for place, _ in places], [share for share, _, _ in found]
            ax.barh(at, lengths, 0.88 * thick, xerr=reaches, label=label(stage), **look)
        for (words, share), dashes in zip(lines.items(), ((0, (4, 2)), ":"), strict=False):
            text = f"{words} {100 * share:.3g} %"
            ax.axvline(100 * share, color=COLOURS["ink"], linewidth=1.2, linestyle=dashes, label=text)
        names = ["\n".join(textwrap.wrap(text, NAME)) for text, _ in rows]
        ax.set_yticks(range(len(rows)), names, fontsize=9)
        ax.set(xlabel="right answers, %", xlim=(0, reach), ylim=(len(rows) - 0.5, -0.5))
        ax.grid(visible=False, axis="y")
        legend(figure, 3)

    height = 1.1 + len(rows) * (0.1 + 0.17 * len(stages))
    return svg.picture(name, title, describe_bars(rows, lines), draw, (WIDTH, height))


def reach_of(rows, lines):
    """How far an axis must go, in percent, for all the bars of `rows` and the `lines`."""
    ends = [share_of(value)[2] for _, values in rows for value in values.values()]
    return min(100, max([*ends, *(100 * share for share in lines.values())]) + 5)


def _offset(number, stages):
    """Where the bar of stage `number` stands from the middle of its group."""
    return (number - (len(stages) - 1) / 2) * FILLED / len(stages)


def describe_bars(rows, lines):
    """Every bar in words."""
    parts = []
    for text, values in rows:
        shares = (f"{stage} {share_of(value)[0]:.1f} %" for stage, value in values.items())
        parts.append(f"{text}: {', '.join(shares)}")
    return ". ".join([*parts, *(f"{words} {100 * share:.3g} %" for words, share in lines.items())]) + "."


def letters(name, title, stages):
    """The letters that each stage chose, in percent, the true ones as lines: {stage: {"letters", "answers"}}."""
    chosen = {stage: _of_letters(value["letters"]) for stage, value in stages.items() if value.get("letters")}
    true = next((_of_letters(value["answers"]) for value in stages.values() if value.get("answers")), {})
    names = sorted({letter for shares in (*chosen.values(), true) for letter in shares})
    places = range(len(names))

    def draw(figure):
        ax = figure.subplots()
        for number, (stage, shares) in enumerate(chosen.items()):
            at = [place + _offset(number, chosen) for place in places]
            heights = [shares.get(letter, 0) for letter in names]
            ax.bar(at, heights, 0.88 * FILLED / len(chosen), color=series(number), label=label(stage))
        if true:
            starts, ends = [place - 0.45 for place in places], [place + 0.45 for place in places]
            marks = [true.get(letter, 0) for letter in names]
            ax.hlines(marks, starts, ends, color=COLOURS["ink"], linewidth=1.6, label="true answers")
        ax.set_xticks(places, names)
        ax.set(ylabel="of the items, %", ylim=(0, None))
        ax.grid(visible=False, axis="x")
        legend(figure, 3)

    return svg.picture(
        name, title, describe_letters(chosen | ({"true answers": true} if true else {})), draw, (WIDTH, 2.8)
    )


def describe_letters(chosen):
    """{stage: {letter: percent}} in words."""
    parts = []
    for stage, shares in chosen.items():
        parts.append(
            f"{stage}: " + ", ".join(f"{letter} {share:.0f} %" for letter, share in sorted(shares.items()))
        )
    return f"{'; '.join(parts)}."


def _of_letters(counts):
    whole = sum(counts.values())
    return {letter: 100 * count / whole for letter, count in counts.items()} if whole else {}


def legend(figure, columns):
    """Put the legend of the figure's first axes above it, bars before lines."""
    handles, names = figure.axes[0].get_legend_handles_labels()
    pairs = sorted(zip(handles, names, strict=True), key=lambda pair: not isinstance(pair[0], tuple))
    if pairs:
        figure.legend(*zip(*pairs, strict=True), loc="outside upper left", ncols=columns)


def share_of(value):
    """(share, low, high) of a counted metric, in percent; 0 of no items."""
    share = value["correct"] / value["n"] if value["n"] else 0.0
    low, high = min(value["low"], share), max(value["high"], share)  # rounded bounds may lie a hair inside
    return 100 * share, 100 * low, 100 * high
