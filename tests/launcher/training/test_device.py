"""Which device is chosen, and what is refused, on a machine with and without NPUs."""

import pytest

from launcher.training import device
from launcher.training.errors import UserError


@pytest.fixture
def npus(monkeypatch):
    """Set the number of NPUs that MindSpore finds."""
    return lambda count: monkeypatch.setattr(device, "_npu_count", lambda: count)


def test_ascend_without_an_npu_is_refused(npus):
    npus(0)
    with pytest.raises(UserError, match=r"runtime.device is Ascend.*set runtime.device=CPU"):
        device.set_up("Ascend", 0, "graph")


def test_an_npu_number_that_does_not_exist_is_refused(npus):
    npus(2)
    with pytest.raises(UserError, match=r"runtime.device_id is 2.*from 0 to 1"):
        device.set_up("auto", 2, "graph")


@pytest.mark.parametrize("asked", ["auto", "CPU"])
def test_an_npu_number_on_the_cpu_is_not_ignored(npus, asked):
    npus(0)
    with pytest.raises(UserError, match=r"runtime.device_id is 1.*Leave runtime.device_id out"):
        device.set_up(asked, 1, "graph")
