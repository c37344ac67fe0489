"""The optimizers that `optimizer.name` offers, one file each.

Each is a `mindspore.nn.Optimizer` whose `learning_rate` the step assigns before every update, and
whose whole state is Parameters named after the trained ones. MindSpore, MindONE and mindcv have
most of them too. Why theirs are not used, measured with MindSpore 2.10 and MindONE 0.5:

- `mint.optim.Adam` and `SGD` run on CPU and never change a parameter; `mint.optim.AdamW` and
  mindone.trainers' `BF16AdamW` have no kernel there, and the latter keeps bfloat16 moments.
- mindcv's `AdamW` keeps its moments in the parameter's dtype, and rounds to nearest.
- mindone.trainers' `CAME` forms `1 - 0.9999` in float32, which is 1.7e-4 off, decays weights
  after the update and not before, and spares parameters named beta or gamma: after 100 steps
  parameters are up to 7e-3 away from those of the authors' code, ours 4e-7.
- mindone.trainers' `Muon` computes in bfloat16, which has no kernels on CPU, and has no learning
  rate that the step could assign.

Importing this package imports no MindSpore.
"""

#: Optimizers that update half-precision parameters without losing small updates.
HALF_PRECISION_PARAMETERS = ("adamw_bf16", "adamw_upcast")
