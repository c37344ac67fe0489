"""Which size an image is trained at."""

import numpy as np
import pytest

from launcher.training.buckets import Buckets, nearest, problems

SIZES = [(512, 512), (448, 576), (576, 448), (384, 640)]


def chosen(images, sizes=SIZES):
    return [tuple(sizes[i]) for i in nearest(np.array(images, np.uint32), sizes)]


def test_the_nearest_aspect_ratio_whatever_the_size():
    assert chosen([(100, 100), (3000, 3000), (3000, 4000), (4000, 3000), (300, 520)]) == [
        (512, 512), (512, 512), (448, 576), (576, 448), (384, 640),
    ]  # fmt: skip


def test_as_brute_force_finds_it():
    rng = np.random.default_rng(0)
    images = rng.integers(20, 3000, (300, 2))

    def distance(image, size):
        (h, w), (height, width) = image, size
        return abs(np.log(h / w) - np.log(height / width))

    for image, size in zip(images, chosen(images)):
        assert distance(image, size) == pytest.approx(min(distance(image, s) for s in SIZES))


def test_twice_as_wide_is_as_far_as_twice_as_high():
    # 1:1 lies in the middle of 2:3 and 3:2: the nearest area decides, not a rounding error.
    for order in (1, -1):
        assert chosen([(600, 600)], [(480, 720), (600, 400)][::order]) == [(480, 720)]
        assert chosen([(490, 490)], [(480, 720), (600, 400)][::order]) == [(600, 400)]


def test_of_one_ratio_the_nearest_area():
    sizes = [(256, 256), (512, 512), (1024, 1024)]
    assert chosen([(200, 200), (300, 300), (400, 400), (700, 700), (9000, 9000)], sizes) == [
        (256, 256), (256, 256), (512, 512), (512, 512), (1024, 1024),
    ]  # fmt: skip


def test_the_first_of_equals():
    assert chosen([(100, 100)], [(32, 64), (64, 32)]) == [(32, 64)]
    assert chosen([(100, 100)], [(64, 32), (32, 64)]) == [(64, 32)]


def test_numbers_are_compact():
    images = np.ones((5, 2), np.uint32)
    assert nearest(images, SIZES).dtype == np.uint8
    many = [(16, 16 * (i + 1)) for i in range(300)]
    found = nearest(np.array([(10, 10 * 300)], np.uint32), many)
    assert found.dtype == np.uint16 and found.tolist() == [299]


def test_buckets_of_a_data_set():
    buckets = Buckets(SIZES, lambda: np.array([(90, 100), (40, 30)], np.uint32))
    assert [buckets[0], buckets[1]] == [(512, 512), (576, 448)]
    assert buckets.groups.tolist() == [0, 2]
    np.testing.assert_array_equal(buckets.all_sizes(2), [(512, 512), (576, 448)])


def test_with_one_size_no_image_is_looked_at():
    buckets = Buckets([(64, 96)], lambda: pytest.fail("looked at"))
    assert buckets[17] == (64, 96) and buckets.groups is None
    np.testing.assert_array_equal(buckets.all_sizes(3), [(64, 96)] * 3)


@pytest.mark.parametrize("sizes", [[], [(16, 16), (16, 16)]])
def test_sizes_that_a_caller_must_not_give(sizes):
    with pytest.raises(ValueError, match="sizes are"):
        Buckets(sizes, lambda: np.ones((1, 2)))


@pytest.mark.parametrize(
    ("buckets", "said"),
    [
        ([[512, 512], [448, 576]], []),
        ([], ["b is empty"]),
        ([[512]], ["b has [512]; each of them is [height, width]"]),
        ([[512, 512, 3]], ["b has [512, 512, 3]; each"]),
        ([[500, 575]], ["b has [500, 575]; heights and widths are multiples of 16: the nearest "
                        "is [496, 576]"]),
        ([[0, -5]], ["nearest is [16, 16]"]),
        ([[64, 32], [32, 64], [64, 32], [1, 16]], ["[64, 32] twice", "[1, 16]; heights"]),
    ],
)  # fmt: skip
def test_what_is_wrong_with_an_option(buckets, said):
    found = problems(buckets, "b", 16)
    assert len(found) == len(said)
    assert all(text in problem for text, problem in zip(said, found))
