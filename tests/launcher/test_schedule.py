"""What a run says of its steps before it begins."""

from types import SimpleNamespace

import numpy as np
import pytest

from hooks.types import Dist
from launcher.schedule import Schedule

GROUPS = np.array([4] * 11 + [1] * 6 + [9], np.uint8)


def schedule(groups=GROUPS, dist=None, **options):
    section = SimpleNamespace(
        seed=0, train_batch_size=2, gradient_accumulation_steps=2, max_train_steps=None,
        num_train_epochs=1, lr_scheduler="constant", learning_rate=1e-3, lr_warmup_steps=0,
        lr_step_rules=None, lr_num_cycles=1, lr_power=1.0,
    )  # fmt: skip
    section.__dict__.update(options)
    return Schedule(section, len(GROUPS), dist or Dist(), groups)


def collate(indices, draws):
    return tuple(indices), draws.uniform("x")


def test_an_epoch_sees_every_sample_in_every_shape():
    whole = schedule()
    assert whole.total_steps == 5  # 6 + 3 + 1 micro-batches
    assert (whole.shapes, whole.unseen) == (3, 0)


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 7])
def test_a_shorter_run_says_what_it_does_not_see(steps):
    short = schedule(max_train_steps=steps)
    batches = [short.batch(step, collate).micro_batches for step in range(steps)]
    seen = {i for batch in batches for indices, _ in batch for i in indices}
    assert short.unseen == len(GROUPS) - len(seen)
    assert short.shapes == len({GROUPS[i] for i in seen})


def test_without_groups_there_is_one_shape():
    assert schedule(groups=None).shapes == 1
    assert schedule(groups=None).unseen == 0


def test_processes_share_a_batch_of_one_group_and_its_draws():
    one = schedule(train_batch_size=4)
    two = [schedule(dist=Dist(rank, 2)) for rank in range(2)]
    for step in range(9):
        whole = one.batch(step, collate).micro_batches
        shares = [s.batch(step, collate).micro_batches for s in two]
        for number, (indices, uniform) in enumerate(whole):
            assert len(set(GROUPS[list(indices)])) == 1
            assert sum((share[number][0] for share in shares), ()) == indices
            drawn = np.concatenate([share[number][1] for share in shares])
            np.testing.assert_array_equal(drawn, uniform)
