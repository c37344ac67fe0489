"""Gradients of a recipe's loss cell, for tests of its properties."""


def gradients_by_name(loss, names, loss_scaler=None):
    """A function from a micro-batch to (loss, gradients by name), without the loss scale. Its graph
    is compiled once.

    Args:
        loss: the cell.
        names: of its trained parameters, in their order.
    """
    from mindspore import Tensor

    from launcher.training.step import Gradients

    scale = 1.0 if loss_scaler is None else float(loss_scaler.scale_value)
    cell = Gradients(loss, loss.trainable_params(), loss_scaler)

    def run(micro_batch):
        value, gradients = cell(*map(Tensor, micro_batch))
        arrays = (g.asnumpy() / scale for g in gradients)
        return float(value), dict(zip(names, arrays, strict=True))

    return run
