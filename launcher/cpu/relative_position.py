"""T5's relative position buckets from a table."""

import math

import mindspore as ms
import numpy as np
from mindspore import ops
from mindspore.ops import constexpr


@constexpr
def _bucket_table(bidirectional, num_buckets, max_distance):
    """The bucket of every relative position from ``-max_distance`` to ``max_distance``, int32."""
    positions = np.arange(-max_distance, max_distance + 1)
    if bidirectional:
        num_buckets //= 2
        side = np.where(positions > 0, num_buckets, 0)
        distance = np.abs(positions)
    else:
        side = np.zeros_like(positions)
        distance = np.maximum(-positions, 0)
    exact = num_buckets // 2
    # From `exact` on, buckets widen logarithmically. The small addition keeps a distance that
    # lies on a boundary (16, 32, 64 with T5's sizes) in the upper bucket.
    steps = np.log(np.maximum(distance, 1) / exact) / math.log(max_distance / exact)
    far = exact + np.floor(steps * (num_buckets - exact) + 1e-6).astype(np.int64)
    bucket = side + np.where(distance < exact, distance, np.minimum(far, num_buckets - 1))
    return ms.Tensor(bucket, ms.int32)


def relative_position_bucket(
    relative_position, bidirectional=True, num_buckets=32, max_distance=128
):
    """``T5Attention._relative_position_bucket`` (Raffel et al., arXiv:1910.10683, section 2.1).

    The original compares logarithms. On CPU they are inexact, and distances of 16, 32 and 64 land
    one bucket too low, which changes T5's embeddings by 9e-3.

    Args:
        relative_position: ``[queries, keys]`` integer, key position minus query position.

    Returns:
        ``[queries, keys]`` int32, ``0 <= bucket < num_buckets``. All positions beyond
        ``max_distance`` share the bucket at ``max_distance``.
    """
    table = _bucket_table(bidirectional, num_buckets, max_distance)
    index = ops.clamp(relative_position, -max_distance, max_distance) + max_distance
    return ops.gather(table, index, 0)
