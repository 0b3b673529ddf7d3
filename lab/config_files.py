"""The YAML files in configs/, read as mlx-lm reads them."""

import re
from pathlib import Path

import yaml

from lab.cli import LabError
from lab.flags import SHORT


class _Loader(yaml.SafeLoader):
    """YAML in which 1e-5 is a number, as in mlx-lm's loader; plain YAML 1.1 reads it as a string."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def read_config_file(path, known):
    """The settings of a YAML file. Raises LabError for a missing file, bad YAML or a key that is not `known`."""
    path = Path(path)
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader) or {}
    except OSError as error:
        raise LabError(f"{path}: cannot read ({error.strerror}); see configs/ for the files there are") from error
    except UnicodeDecodeError as error:
        raise LabError(f"{path}: not UTF-8 (byte {error.start}); save the file as UTF-8") from error
    except yaml.YAMLError as error:
        line = getattr(getattr(error, "problem_mark", None), "line", 0) + 1
        raise LabError(f"{path}:{line}: not valid YAML; mend the line") from error
    if not isinstance(content, dict):
        raise LabError(f"{path}:1: expected `key: value` lines")
    if nested := sorted(content.keys() & set(SHORT)):
        where = "optimizer_config" if nested[0] == "weight_decay" else "lora_parameters"
        raise LabError(f"{path}: {nested[0]} is a flag; in YAML it stands in {where}, as mlx-lm has it")
    if unknown := sorted(content.keys() - known.keys()):
        raise LabError(f"{path}: unknown settings {', '.join(unknown)}; known: {', '.join(sorted(known))}")
    return content
