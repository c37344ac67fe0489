"""Lion (Chen et al., arXiv:2302.06675, algorithm 2): the sign of a momentum, so half Adam's state.

launcher --recipe flux_controlnet --config my_run.yaml -p examples/variants/lion_optimizer.py

Its updates are as large as the learning rate itself: give a third to a tenth of AdamW's, and 3 to
10 times its weight decay. With any recipe; adam_beta1, adam_beta2 and adam_weight_decay of the
optimizer section are Lion's.
"""

from mindspore import nn, ops

from hooks import hookimpl


class Lion(nn.Optimizer):
    def __init__(self, parameters, beta1, beta2, weight_decay):
        super().__init__(1.0, parameters)  # the launcher sets each step's rate
        self.momenta = self.parameters.clone(prefix="lion", init="zeros")
        self.beta1, self.beta2, self.decay = beta1, beta2, weight_decay

    def construct(self, gradients):
        rate = self.get_lr()
        done = ()
        for parameter, momentum, gradient in zip(self.parameters, self.momenta, gradients):
            direction = ops.sign(self.beta1 * momentum + (1 - self.beta1) * gradient)
            step = ops.assign_sub(parameter, rate * (direction + self.decay * parameter))
            mixed = self.beta2 * momentum + (1 - self.beta2) * gradient
            done += (step, ops.assign(momentum, mixed))
        return done


@hookimpl
def build_optimizer(config, parameters):
    section = config.optimizer
    return Lion(parameters, section.adam_beta1, section.adam_beta2, section.adam_weight_decay)
