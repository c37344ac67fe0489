"""What a device can compute in."""

import pytest

from launcher.training.errors import UserError
from launcher.training.precision import check


def test_bf16_on_the_cpu_is_refused_with_the_way_out():
    with pytest.raises(UserError, match=r"CPU.*precision\.mixed_precision=no"):
        check("bf16", "CPU")


@pytest.mark.parametrize(
    ("name", "device"), [("no", "CPU"), ("fp16", "CPU"), ("bf16", "Ascend"), ("no", "Ascend")]
)
def test_what_works_is_accepted(name, device):
    check(name, device)
