"""How a run begins and is kept on several ranks: the first rank reads and writes its files, the others follow it.

Only the first one's checkpoints are read, so the other machines need none.
"""

import json
from contextlib import nullcontext

from lab import ranks, runs
from lab.cli import LabError
from lab.fingerprint import differences
from lab.recorder import Recorder
from lab.snapshots import Snapshot

OWN = ("machine ",)  # labels of a fingerprint that may differ between machines of a run


def settle(settings):
    """Take from the settings of a rank that only follows what would write or send."""
    ranks.name_run(settings.adapter_path)
    if not ranks.first():
        settings.report_to = None


def locked(folder):
    """runs.locked, on the first rank."""
    return runs.locked(folder) if ranks.first() else nullcontext()


def begin(settings, found):
    """Where the run with the fingerprint `found` begins, as the first rank finds it (see runs.begin).

    Returns a Beginning, on the other ranks without Snapshots. Raises LabError where a rank reads other data, another model,
    other settings or versions than the first one.
    """
    if ranks.size() == 1:
        return runs.begin(settings, found)
    _refuse_other_inputs(found)
    beginning = runs.begin(settings, found) if ranks.first() else None
    snapshot = beginning and beginning.snapshot
    kept = snapshot and {"iteration": snapshot.iteration, "run": snapshot.run, "state": snapshot.state}
    said = json.loads(ranks.told(ranks.first() and json.dumps([beginning.finished, kept]).encode()))
    tensors = ranks.told_tensors(snapshot and snapshot.tensors) if said[1] else {}
    if ranks.first():
        return beginning
    return runs.Beginning(settings, None, Snapshot(tensors=tensors, **said[1]) if said[1] else None, said[0])


def _refuse_other_inputs(found):
    shared = {label: value for label, value in found.items() if not label.startswith(OWN)}
    told = json.loads(ranks.told(ranks.first() and json.dumps(shared).encode()))
    if other := differences(told, shared):
        raise LabError(f"not what rank 0 has: {'; '.join(other)}; copy its files and packages to this machine")


def recorder(updates, beginning, found):
    """The Recorder of a run, on the first rank; on the others one that writes and says nothing."""
    return (Recorder if ranks.first() else _Follower)(updates, beginning, found)


class _Follower(Recorder):
    """Keeps in memory what the loop comes back to: the best adapter, and the last one inside the guard's limit."""

    def copy(self, state):
        pass

    def save(self, state):
        pass

    def _publish(self, state, new_best):
        pass
