"""What --report-to tensorboard writes, as TensorBoard itself reads it."""

import pytest

from lab.services import TENSORBOARD, Services
from lab.settings import resolve

pytestmark = pytest.mark.reference


def scalars(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    reader = EventAccumulator(str(folder))
    reader.Reload()
    return {
        name: [(point.step, point.value) for point in reader.Scalars(name)] for name in reader.Tags()["scalars"]
    }


def send(folder, iterations, start=0):
    settings, _ = resolve({"model": "m", "data": "d", "report_to": "tensorboard", "adapter_path": str(folder)})
    services = Services(settings, {}, start)
    for iteration in iterations:
        services.trained(iteration, train_loss=iteration / 2, learning_rate=0.5)
    services.evaluated(iterations[-1], val_loss=0.25, recall=None)
    services.close()


def test_the_curve_arrives(tmp_path):
    pytest.importorskip("tensorboard")
    send(tmp_path, [10, 20])
    assert scalars(tmp_path / TENSORBOARD) == {
        "train/train_loss": [(10, 5.0), (20, 10.0)],
        "train/learning_rate": [(10, 0.5), (20, 0.5)],
        "valid/val_loss": [(20, 0.25)],
    }


def test_a_resumed_run_takes_back_what_it_will_send_again(tmp_path):
    pytest.importorskip("tensorboard")
    pytest.importorskip("tensorboardX")
    send(tmp_path, [10, 20, 30])
    send(tmp_path, [20, 30], start=10)
    assert [step for step, _ in scalars(tmp_path / TENSORBOARD)["train/train_loss"]] == [10, 20, 30]
