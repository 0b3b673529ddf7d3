"""The report's curves: losses while training, and what is kept against the replay ratio, with intervals.

Each is drawn from what lab.measured read; shares are drawn in percent, losses in nats/token. No line is told apart by its
colour alone: each has its own dashes and marks.
"""

import math

from lab import svg
from lab.bars import WIDTH, legend, share_of
from lab.svg import COLOURS, series

LINES = {  # of a curve: colour, dashes, in words
    "train_loss": (0, (1, 1.2), "training"),
    "valid_loss": (1, "", "validation"),
    "guard_loss": (2, (5, 2), "general text"),
}
FOLLOWED = {
    "recall": (1, "o", "-"),
    "general": (3, "s", "--"),
    "glasses": (2, "^", ":"),
}  # metric: colour, mark, dashes


def curve(name, title, summary, rows):
    """The losses of a training run, and recall below where it was followed; the kept point and the end are marked."""
    recall = _points(rows, "recall")

    def draw(figure):
        ratios = [2.2, 1] if recall else [1]
        axes = figure.subplots(len(ratios), sharex=True, height_ratios=ratios, squeeze=False)[:, 0]
        for key, (colour, dashes, words) in LINES.items():
            if points := _points(rows, key):
                line = axes[0].plot(*zip(*points, strict=True), color=series(colour), label=words)[0]
                if dashes:
                    line.set_dashes(dashes)
        if (limit := guard_limit(summary, rows)) is not None:
            axes[0].axhline(limit, color=series(2), linewidth=1, linestyle="-.", label="limit for general text")
        if recall:
            axes[1].plot(*_percent(recall), color=series(3), marker="o", markersize=3, label="recall")
            axes[1].set(ylabel="recall, %", ylim=(-4, 104))
        _mark_ends(axes, summary)
        axes[0].set(ylabel="loss, nats/token", ylim=(0, None))
        axes[-1].set(xlabel="updates")
        legend(figure, 3)

    return svg.picture(name, title, describe_curve(summary, rows), draw, (WIDTH, 4.3 if recall else 3.3))


def _mark_ends(axes, summary):
    """Mark the update whose adapter was kept, and where the run was stopped early."""
    best, last = summary.get("best_iteration"), summary.get("iterations")
    for number, ax in enumerate(axes):
        if best is not None:
            text = f"kept: {best}" if number == 0 else None
            ax.axvline(best, color=COLOURS["ink"], linewidth=1.2, linestyle=(0, (4, 2)), label=text)
        if summary.get("stopped_early") and last is not None:
            text = f"stopped: {last}" if number == 0 else None
            ax.axvline(last, color=COLOURS["ink"], linewidth=1.2, linestyle=(0, (1, 1.5)), label=text)


def guard_limit(summary, rows):
    """The loss on general text above which the forgetting guard acts; None without a guard."""
    limit, points = summary.get("flags", {}).get("max_forgetting"), _points(rows, "guard_loss")
    return points[0][1] + limit if points and type(limit) in (int, float) else None


def describe_curve(summary, rows):
    """A training run's course in a sentence or two."""
    parts = []
    for key, (_, _, words) in LINES.items():
        if points := _points(rows, key):
            parts.append(f"{words} loss from {points[0][1]:.2f} to {points[-1][1]:.2f} nats/token")
    if recall := _points(rows, "recall"):
        parts.append(f"recall from {100 * recall[0][1]:.0f} % to {100 * recall[-1][1]:.0f} %")
    kept = f"Kept: update {summary.get('best_iteration')} of {summary.get('iterations')}"
    text = f"{', '.join(parts) or 'no points'}. {kept}"
    return text + (", where the run was stopped early." if summary.get("stopped_early") else ".")


def forgetting(name, title, content):
    """Recall, general, glasses against the share of general rows, with bands; self-generated replay as hollow marks."""
    metrics = {metric: look for metric, look in FOLLOWED.items() if _of(content["points"], metric)}

    def draw(figure):
        ax = figure.subplots()
        plain = [point for point in content["points"] if point["replay"] != "self"]
        for number, (metric, (colour, mark, dashes)) in enumerate(metrics.items()):
            points = sorted(_of(plain, metric), key=lambda point: point[0])
            if points:
                ratios, shares, lows, highs = zip(*points, strict=True)
                ax.fill_between(ratios, lows, highs, color=series(colour), alpha=0.18, linewidth=0)
                ax.plot(ratios, shares, dashes, color=series(colour), marker=mark, markersize=5, label=metric)
            own = [point for point in content["points"] if point["replay"] == "self"]
            for ratio, share, low, high in _of(own, metric):
                at, reach = ratio + 2.2 + 1.3 * number, [[share - low], [high - share]]
                look = {"markerfacecolor": "none", "markersize": 8, "markeredgewidth": 1.6, "capsize": 3}
                ax.errorbar(at, share, reach, color=series(colour), marker=mark, linestyle="none", **look)
        base = content["base"].get("general")
        if base and base["n"]:
            ax.axhline(
                share_of(base)[0], color=series(3), linewidth=1, linestyle=(0, (1, 2)), label="general, base"
            )
        default = next(point for point in content["points"] if point["name"] == content["default"])
        ax.axvline(
            100 * default["ratio"], color=COLOURS["muted"], linewidth=1, linestyle=(0, (4, 2)), label="default"
        )
        ax.plot([], [], "D", color=COLOURS["ink"], markerfacecolor="none", label="self-generated (hollow)")
        ax.set(
            xlabel="general rows among the training rows, %", ylabel="share of the questions, %", ylim=(-3, 103)
        )
        legend(figure, 3)

    return svg.picture(name, title, describe_forgetting(content), draw, (WIDTH, 3.9))


def describe_forgetting(content):
    """What each point of the forgetting picture shows, in words."""
    parts = []
    for point in content["points"]:
        shares = [f"{metric} {share:.0f} %" for metric in FOLLOWED for _, share, _, _ in _of([point], metric)]
        parts.append(f"{point['name']} ({point['replay']}): {', '.join(shares)}")
    return ". ".join(parts) + "."


def _of(points, metric):
    """[(ratio, share, low, high)] in percent of the points that measured `metric`."""
    found = ((point["ratio"], point["metrics"].get(metric)) for point in points)
    return [(100 * ratio, *share_of(value)) for ratio, value in found if value and value["n"]]


def _points(rows, key):
    """[(iteration, value)] of a curve's rows that hold a finite `key`."""
    return [(row["iteration"], row[key]) for row in rows if key in row and math.isfinite(row[key])]


def _percent(points):
    return [iteration for iteration, _ in points], [100 * share for _, share in points]
