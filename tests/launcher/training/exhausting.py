"""A program for test_device_memory.py: needs more memory than it may have, says what came of it,
and goes on. A file of its own, since what is compiled has to be in one."""

import os
import resource
import sys

import mindspore as ms
import numpy as np
from mindspore import nn, ops

from launcher.training import device, device_memory
from launcher.training.errors import UserError


class Repeated(nn.Cell):
    """The sum of the exponentials of x, repeated."""

    def __init__(self, times):
        super().__init__()
        self.times = times

    def construct(self, x):
        return ops.exp(ops.tile(x, (self.times, 1))).sum()


device.set_up("CPU", 0, "graph")
small, large = Repeated(2), Repeated(16384)
ones = ms.Tensor(np.ones((1024, 256), np.float32))
before = small(ones).asnumpy()
with open("/proc/self/statm") as file:
    limit = int(file.read().split()[0]) * resource.getpagesize() + 3 * 2**30
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
try:
    with device_memory.needed_for("seventeen gigabytes", "Want less."):
        large(ones).asnumpy()
except UserError as error:
    print(error)
assert small(ones).asnumpy() == before
sys.stdout.flush()
os._exit(0)  # at exit MindSpore would ask for memory, too
