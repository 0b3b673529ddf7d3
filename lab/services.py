"""--report-to: the curve sent on to TensorBoard, Weights & Biases or SwanLab while training goes, where they are installed.

TensorBoard's files stay in <adapter-path>/tensorboard. The other two send to their own servers: only when they are named.
Scalars, by the optimizer update: train_loss and val_loss in nats/token, learning_rate, tokens_per_second, peak_memory in GB.
"""

import sys
from importlib.util import find_spec
from pathlib import Path

from lab.cli import LabError

PACKAGES = {  # service: packages that can write for it, the first of which is the one to install
    "tensorboard": ("tensorboardX", "tensorboard"),
    "wandb": ("wandb",),
    "swanlab": ("swanlab",),
}
TENSORBOARD = "tensorboard"


def check(report_to):
    """Raise LabError, with the command that installs it, for a service of `report_to` whose package is missing."""
    for service in _names(report_to):
        packages = PACKAGES[service]
        if not any(find_spec(package) for package in packages):
            command = f"`{sys.executable} -m pip install {packages[0]}`"
            raise LabError(
                f"--report-to {service}: {packages[0]} is not installed here; {command}, or leave it out"
            )


def _names(report_to):
    return report_to.split(",") if report_to else []


class Services:
    """Where the curve of a run is sent; `start` is the update it goes on from, `config` what is said of the run."""

    def __init__(self, settings, config, start=0):
        check(settings.report_to)
        names, folder = _names(settings.report_to), Path(settings.adapter_path)
        self._board = _board(folder / TENSORBOARD, start) if TENSORBOARD in names else None
        others = ",".join(name for name in names if name != TENSORBOARD)
        self._others = _callbacks(others, settings.project_name, folder, config) if others else None

    def trained(self, iteration, **figures):
        """Send figures of the training: train_loss, learning_rate, tokens_per_second, peak_memory."""
        self._send("on_train_loss_report", "train", iteration, figures)

    def evaluated(self, iteration, **figures):
        """Send figures of an evaluation: val_loss and what else is measured there."""
        self._send("on_val_loss_report", "valid", iteration, figures)

    def close(self):
        """Have everything on the disk."""
        if self._board is not None:
            self._board.close()

    def _send(self, event, group, iteration, figures):
        known = {name: float(value) for name, value in figures.items() if value is not None}
        if self._board is not None:
            for name, value in known.items():
                self._board.add_scalar(f"{group}/{name}", value, iteration)
        if self._others is not None:
            getattr(self._others, event)({"iteration": iteration, **known})


def _board(folder, start):
    """A writer of TensorBoard files; after a resume, points that the interrupted run had already sent are taken back."""
    if find_spec("tensorboardX"):
        from tensorboardX import SummaryWriter

        # files are named by the second: a suffix of its own keeps a resumed run from writing over the first one
        return SummaryWriter(str(folder), purge_step=start + 1 if start else None, filename_suffix=f".{start}")
    from tensorboard.summary import Writer

    return Writer(str(folder))


def _callbacks(names, project_name, folder, config):
    from mlx_lm.tuner.callbacks import get_reporting_callbacks

    return get_reporting_callbacks(names, project_name=project_name, log_dir=str(folder), config=config)
