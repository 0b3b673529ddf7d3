"""Source shards that an unfinished conversion has deleted (--consume-source), and what its plan still knows of them."""

from lab import checkpoints
from lab.cli import LabError
from lab.headers import Tensor


class Consumed:
    """What the plan of an unfinished run knows of the source shards that it has deleted (--consume-source)."""

    def __init__(self, build):
        self.build, self.names = build, set(build.said("consumed"))
        self.identities = {name: build.plan["identities"][name] for name in self.names}

    def tensors(self, source):
        """{name: Tensor} of the whole source, as it was. Raises LabError where a shard that is left has changed."""
        known = {}
        for name, dtype, shape, shard, offset in self.build.plan["tensors"]:
            known[name] = Tensor(name, dtype, tuple(shape), source.folder / shard, offset)
        for path in {tensor.shard for tensor in known.values()}:
            if path.name not in self.names and path.is_file():
                wanted = [tensor for tensor in known.values() if tensor.shard == path]
                if checkpoints.read_shard(path) != wanted:
                    raise LabError(f"{path}: changed since the unfinished conversion; {self.remedy()}")
        return known

    def remedy(self):
        """What to do where the unfinished run cannot be gone on with."""
        listed = ", ".join(sorted(self.names))
        return f"download the source again (it has consumed {listed}) and remove {self.build.folder}"
