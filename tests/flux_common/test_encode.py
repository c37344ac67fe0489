"""What `flux_common.encode` adds to an encoder: images read ahead, and a check of what it made."""

import threading

import ml_dtypes
import numpy as np
import pytest

from flux_common.encode import BATCH_SIZE, _ReadAhead, _require_finite
from launcher.training.errors import UserError


class Reader:
    """Notes what is read, and in which thread."""

    def __init__(self, damaged=()):
        self.damaged = damaged
        self.positions = []
        self.threads = set()

    def __call__(self, position):
        self.positions.append(position)
        self.threads.add(threading.current_thread())
        if position in self.damaged:
            raise UserError(f"image {position} is damaged")
        return np.full(3, position)


def got(images, positions):
    return [int(image[0]) for image in images.get(positions)]


def batches(expected):
    return [expected[at : at + BATCH_SIZE] for at in range(0, len(expected), BATCH_SIZE)]


def test_images_are_read_once_each_in_one_thread_and_come_in_the_order_asked_for():
    reader, expected = Reader(), list(range(0, 6 * BATCH_SIZE, 2))
    with _ReadAhead(reader, np.array(expected)) as images:
        for batch in batches(expected):
            assert got(images, batch) == batch
    assert reader.positions == expected
    assert len(reader.threads) == 1
    assert threading.current_thread() not in reader.threads
    assert not any(thread.is_alive() for thread in reader.threads)


def test_the_next_batch_is_read_without_being_asked_for():
    reader = Reader()
    images = _ReadAhead(reader, np.arange(4 * BATCH_SIZE))
    with images:
        images.get(range(BATCH_SIZE))
        for future in images._begun.values():
            future.result(timeout=60)
        assert reader.positions == list(range(2 * BATCH_SIZE))


def test_a_wrong_guess_and_repeated_positions_give_the_right_images():
    reader = Reader()
    with _ReadAhead(reader, np.arange(8 * BATCH_SIZE)) as images:
        for batch in ([0, 1, 2, 2, 2], [40, 41, 41], [3, 4], [63, 63]):
            assert got(images, batch) == batch


def test_an_image_that_cannot_be_read_is_an_error_only_where_it_is_asked_for():
    reader = Reader(damaged={BATCH_SIZE})
    with _ReadAhead(reader, np.arange(2 * BATCH_SIZE)) as images:
        images.get(range(BATCH_SIZE))
        assert got(images, [BATCH_SIZE + 1]) == [BATCH_SIZE + 1]
        with pytest.raises(UserError, match=f"image {BATCH_SIZE} is damaged"):
            images.get([BATCH_SIZE])
    assert not any(thread.is_alive() for thread in reader.threads)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    ("part", "option"), [("vae", "mixed_precision"), ("text_encoder_2", "text_encoders")]
)
def test_what_is_not_finite_is_refused_with_the_part_and_its_option(dtype, value, part, option):
    array = np.ones((3, 4), np.float32)
    array[1, 2] = value
    with pytest.raises(UserError, match=f"^{part} made .* of input 8.*precision.{option}"):
        _require_finite(array.astype(dtype), part, [7, 8, 9], lambda position: f"input {position}")
    _require_finite(array[[0, 2]].astype(dtype), part, [7, 9], str)


@pytest.mark.filterwarnings("ignore:overflow")
def test_an_overflow_of_the_dtype_that_is_kept_is_refused():
    embeds = np.full((1, 4), 1e5, np.float32)
    _require_finite(embeds.astype(ml_dtypes.bfloat16), "text_encoder_2", [0], str)
    with pytest.raises(UserError, match=r"^text_encoder_2 made"):
        _require_finite(embeds.astype(np.float16), "text_encoder_2", [0], str)
