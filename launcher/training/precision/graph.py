"""What a compiled graph computes in, read from the graph itself.

MindSpore casts where nobody wrote a cast (`Cell.to_float` casts operator by operator), and so do
models (MindONE's FLUX attention computes float32 inputs in float16 on Ascend). So what a part was
asked to compute in proves little. The graph that runs is at hand once it is compiled: every
operator in it with the dtypes of its operands.

The scopes in a graph do not name cells reliably (MindSpore parses each class once, and gives every
instance the first one's scope), so operators are told by the parameters that they use.
"""

from __future__ import annotations

import math
import struct
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

Kind = Literal["matmul", "convolution", "attention", "normalisation", "output"]
KINDS: tuple[Kind, ...] = ("matmul", "convolution", "attention", "normalisation", "output")

_MATMULS = {
    "MatMul", "MatMulExt", "BatchMatMul", "BatchMatMulExt", "Matmul", "Mm", "Bmm", "Dense",
    "Addmm", "Addbmm", "Baddbmm", "MatMulV2", "BatchMatMulV2", "MatmulReduceScatter",
}  # fmt: skip
_CONVOLUTIONS = {
    "Conv2D", "Conv2DExt", "Conv2DPadding", "Convolution", "ConvolutionStr", "Conv3D",
    "Conv3DExt", "Conv2DTranspose", "Conv2DBackpropInput",
}  # fmt: skip
_NORMALISATIONS = {
    "LayerNorm", "LayerNormExt", "LayerNormV3", "GroupNorm", "RmsNorm", "BatchNorm",
    "BatchNormExt", "InstanceNorm", "Rsqrt",
}  # fmt: skip
_ATTENTIONS = {
    "FlashAttentionScore", "FlashAttention", "PromptFlashAttention",
}  # fmt: skip
#: Operators that move values and compute nothing, by their first operand.
_MOVES = {
    "Load", "Depend", "Reshape", "View", "Transpose", "TransposeExt", "TransposeView",
    "TupleGetItem", "Split", "SplitTensor", "SplitWithSize", "StridedSlice", "SliceExt",
    "Slice", "BroadcastTo", "Tile", "ExpandDims", "Squeeze", "Contiguous", "StopGradient",
    "InsertGradientOf", "Identity", "Gather", "Embedding", "MakeTuple", "Concat", "ExpandAs",
    "Narrow", "Chunk",
}  # fmt: skip

#: TensorProto.DataType in MindSpore's mind_ir.proto.
_DTYPES = {1: "float32", 10: "float16", 11: "float64", 16: "bfloat16"}
_BITS = {"float16": 16, "bfloat16": 16, "float32": 32, "float64": 64}

#: How `launcher.cpu.bf16` rounds: y = s - (s - x) with s = 65537 * x.
_SPLITTER = 65537.0
EMULATED = "bfloat16 (emulated)"
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Operation:
    """An operator that computes.

    Attributes:
        kind: what it is part of.
        dtype: of its operands; of an output, its own.
        parameter: name of the parameter that it uses, or, with none (attention, plain norms), of
            the first one that its result meets.
        owns: whether `parameter` is its own.
    """

    kind: Kind
    dtype: str
    parameter: str
    owns: bool = True


class UnreadableGraphError(RuntimeError):
    """MindSpore cannot write a graph down, such as one that calls back into Python."""


def compiled_graph(cell: Any, phase: str) -> bytes:
    """One of the graphs that this very cell was compiled to, a key of its `compile_cache`.

    Raises:
        UnreadableGraphError: see there.
    """
    return _written(cell, phase)


def trace(cell: Any, inputs: Sequence[Any], **keywords: Any) -> bytes:
    """The graph of a cell on inputs of these shapes, compiled and not run.

    Args:
        inputs: arrays or tensors.
        keywords: further arguments of the cell.

    Raises:
        UnreadableGraphError: see there.
    """
    import mindspore as ms

    tensors = [i if isinstance(i, ms.Tensor) else ms.Tensor(i) for i in inputs]
    # MindSpore makes no kernels for phases of this name.
    phase, _ = _executor().compile(cell, *tensors, phase="export.mindir.trace", **keywords)
    return _written(cell, phase)


def _written(cell: Any, phase: str) -> bytes:
    try:
        graph: bytes | None = _executor()._get_func_graph_proto(cell, phase, "mind_ir")
    except RuntimeError as error:
        raise UnreadableGraphError(str(error).partition("\n")[0]) from error
    if not graph:
        raise UnreadableGraphError("MindSpore gives no graph for it.")
    return graph


def _executor() -> Any:
    try:
        from mindspore.graph import api
    except ImportError:  # before 2.9
        from mindspore.common import api
    return api._cell_graph_executor


def operations(
    graph: bytes, part_of: Callable[[str], str | None], *, emulated: bool = False
) -> list[Operation]:
    """What the forward pass in a graph computes.

    Args:
        graph: from `compiled_graph` or `trace`. Of several results the first counts, with what
            it is computed from: the loss of a training step, without the backward pass.
        part_of: the part that a parameter belongs to, by the parameter's name. What has nothing
            of its part behind it is the part's output.
        emulated: whether bfloat16 is emulated: values that were rounded to it then count as such.
    """
    reader = _Graph(graph, emulated)
    return [*reader.operations(), *reader.outputs(part_of)]


class _Graph:
    """A graph's nodes by the names of their results."""

    def __init__(self, graph: bytes, emulated: bool) -> None:
        from mindspore.train import mind_ir_pb2

        model = mind_ir_pb2.ModelProto()
        model.ParseFromString(graph)
        self.graph = model.graph
        self.emulated = emulated
        types = {f"REF::{primitive.name}": primitive.op_type for primitive in model.primitives}
        self.nodes = {node.name: node for node in self.graph.node}
        self._types = {n: types.get(node.op_type, node.op_type) for n, node in self.nodes.items()}
        self._operands = {n: list(node.input) for n, node in self.nodes.items()}
        for name, kind in self._types.items():
            if kind in ("Depend", "Load", "UpdateState"):
                del self._operands[name][1:]  # the order of side effects is no computation
        self.parameters = {p.name: (p.ref_key or p.name) for p in self.graph.parameter}
        self.tensors = {p.name: p.data_type for p in self.graph.parameter}
        self.tensors |= {i.name: i.tensor[0].data_type for i in self.graph.input if i.tensor}
        self._rounded: dict[str, bool] = {}

    # ---------------------------------------------------------------------------------------
    # Structure
    # ---------------------------------------------------------------------------------------

    def type(self, name: str) -> str:
        """The operator that makes a value; `Constant`; "" for inputs and parameters."""
        return self._types.get(name, "")

    def operands(self, name: str) -> list[str]:
        """What a value is computed from."""
        return self._operands.get(name, [])

    @cached_property
    def forward(self) -> list[str]:
        """The nodes that the first result is computed from, operands first."""
        result = self.graph.output[0].name
        while self.type(result) in ("Depend", "MakeTuple"):
            result = self.operands(result)[0]
        order: dict[str, None] = {}
        stack = [(result, False)]
        while stack:
            name, done = stack.pop()
            if done:
                order[name] = None
            elif name in self.nodes and name not in order:
                stack.append((name, True))
                stack += [(operand, False) for operand in self.operands(name)]
        return list(order)

    @cached_property
    def users(self) -> dict[str, list[str]]:
        """The nodes of the forward pass that take a value."""
        users: dict[str, list[str]] = {}
        for name in self.forward:
            for operand in self.operands(name):
                users.setdefault(operand, []).append(name)
        return users

    # ---------------------------------------------------------------------------------------
    # Values
    # ---------------------------------------------------------------------------------------

    def dtype(self, name: str) -> str | None:
        """The dtype of a value; None for integers, tuples and what has none."""
        if name in self.tensors:
            dtype = _DTYPES.get(self.tensors[name])
        else:
            dtype = self._node_dtype(name)
        if self.emulated and dtype == "float32" and self.is_rounded(name):
            return EMULATED
        return dtype

    def _node_dtype(self, name: str) -> str | None:
        node = self.nodes.get(name)
        for attribute in node.attribute if node is not None else ():
            if attribute.name == "shape" and attribute.tensors:
                return _DTYPES.get(attribute.tensors[0].data_type)
        return None

    def is_rounded(self, name: str) -> bool:
        """Whether a float32 value holds numbers of bfloat16."""
        if name not in self._rounded:
            self._rounded[name] = False  # until known; graphs have no cycles
            self._rounded[name] = self._is_rounded(name)
        return self._rounded[name]

    def _is_rounded(self, name: str) -> bool:
        kind, operands = self.type(name), self.operands(name)
        if kind == "Sub":
            scaled, difference = operands[:2]
            return (
                self._is_scaled(scaled)
                and self.type(difference) == "Sub"
                and self.operands(difference)[0] == scaled
            )
        if kind in ("Mul", "Muls") and any(map(self._is_power_of_two, operands)):
            return any(map(self.is_rounded, operands))  # exact, whatever the precision
        if kind == "Cast":
            source = operands[0]
            return self.dtype(source) in ("bfloat16", EMULATED)
        if kind in ("Concat", "MakeTuple"):
            tensors = [o for o in operands if self.type(o) != "Constant"]
            return bool(tensors) and all(map(self.is_rounded, tensors))
        return kind in _MOVES and bool(operands) and self.is_rounded(operands[0])

    def _number(self, name: str) -> float | None:
        """The value of a scalar constant."""
        node = self.nodes.get(name)
        if node is None or node.op_type != "Constant":
            return None
        attribute = node.attribute[0]
        if attribute.type == attribute.FLOAT:
            return float(attribute.f)
        if attribute.type == attribute.TENSORS or attribute.tensors:
            tensor = attribute.tensors[0] if attribute.tensors else attribute.t
            if tensor.data_type == 1 and len(tensor.raw_data) == 4:
                return float(struct.unpack("<f", tensor.raw_data)[0])
        return None

    def _is_power_of_two(self, name: str) -> bool:
        number = self._number(name)
        return number is not None and number > 0 and math.frexp(number)[0] == 0.5

    def is_constant(self, name: str) -> bool:
        """Whether a value depends on neither inputs nor parameters."""
        if name not in self.nodes:
            return False
        kind = self.type(name)
        if kind == "Constant":
            return True
        moves = kind in _MOVES or kind == "Cast"
        return moves and bool(self.operands(name)) and self.is_constant(self.operands(name)[0])

    def parameter(self, name: str) -> str | None:
        """The parameter that a value is, cast, rounded or moved."""
        while name not in self.parameters:
            kind, operands = self.type(name), self.operands(name)
            is_rounding = self.emulated and self._is_scaled(operands[0] if kind == "Sub" else name)
            if not operands or not (is_rounding or kind == "Cast" or kind in _MOVES):
                return None
            name = operands[0]
        return self.parameters[name]

    def _is_scaled(self, name: str) -> bool:
        """Whether this is the `s` of a rounding."""
        operands = self.operands(name)
        return self.type(name) in ("Mul", "Muls") and _SPLITTER in map(self._number, operands)

    # ---------------------------------------------------------------------------------------
    # Operations
    # ---------------------------------------------------------------------------------------

    def operations(self) -> Iterator[Operation]:
        for name in self.forward:
            kind = self.type(name)
            if kind in _ATTENTIONS:
                yield self._unowned("attention", name, self._floats(name)[:3])
            elif kind in _CONVOLUTIONS or kind in _MATMULS:
                yield from self._product(name)
            elif kind in _NORMALISATIONS:
                yield self._normalisation(name)

    def outputs(self, part_of: Callable[[str], str | None]) -> Iterator[Operation]:
        """The last operators with parameters of each part."""
        behind: dict[str, frozenset[str | None]] = {}
        for name in reversed(self.forward):
            users = self.users.get(name, [])
            owners = {user: self._owner(user) for user in users}
            behind[name] = frozenset().union(
                *(behind[user] for user in users),
                (part_of(owner) for owner in owners.values() if owner is not None),
            )
            owner = self._owner(name)
            if owner is None or self.parameter(name) is not None or part_of(owner) in behind[name]:
                continue
            dtype = self.dtype(self._settled(name))
            if dtype is not None:
                yield Operation("output", dtype, owner)

    def _product(self, name: str) -> Iterator[Operation]:
        """A product with a parameter is a layer; of two computed values, attention; one with a
        constant is a sum or mean in other clothes."""
        operands = self.operands(name)[:2]
        owner = self._owner(name)
        dtypes = [self.dtype(operand) for operand in operands]
        if owner is not None:
            kind: Kind = "matmul" if self.type(name) in _MATMULS else "convolution"
            yield Operation(kind, _common(dtypes), owner)
        elif not any(map(self.is_constant, operands)) and (
            # The second product takes probabilities, which stay in float32 where bfloat16 is
            # emulated: the first one tells.
            not self.emulated or self._feeds_softmax(name) or "float16" in dtypes
        ):
            yield self._unowned("attention", name, dtypes)

    def _feeds_softmax(self, name: str) -> bool:
        queue, seen = deque(self.users.get(name, [])), set()
        while queue:
            user = queue.popleft()
            kind = self.type(user)
            if kind == "Softmax":
                return True
            if user not in seen and kind not in _MATMULS:
                seen.add(user)
                queue += self.users.get(user, [])
        return False

    def _normalisation(self, name: str) -> Operation:
        dtype = _common([self.dtype(self.operands(name)[0])])
        owner = self._owner(name)
        if owner is not None:
            return Operation("normalisation", dtype, owner)
        return self._unowned("normalisation", name, [dtype])

    def _unowned(self, kind: Kind, name: str, dtypes: Sequence[str | None]) -> Operation:
        return Operation(kind, _common(dtypes), self._next_parameter(name), owns=False)

    def _next_parameter(self, name: str) -> str:
        """The first parameter that a value meets; breadth first, so the nearest."""
        queue, seen = deque([name]), {name}
        while queue:
            for user in self.users.get(queue.popleft(), []):
                owner = self._owner(user)
                if owner is not None:
                    return owner
                if user not in seen:
                    seen.add(user)
                    queue.append(user)
        return ""

    def _owner(self, name: str) -> str | None:
        """The parameter among a node's operands."""
        return next(filter(None, map(self.parameter, self.operands(name))), None)

    def _floats(self, name: str) -> list[str | None]:
        return [dtype for dtype in map(self.dtype, self.operands(name)) if dtype]

    def _settled(self, name: str) -> str:
        """A value after the moves that follow it, and the rounding where there is one."""
        for user in self.users.get(name, []):
            kind = self.type(user)
            if self.emulated and kind in ("Mul", "Muls"):
                for rounding in self.users.get(user, []):
                    if self.type(rounding) == "Sub" and self.is_rounded(rounding):
                        return rounding
            elif kind in _MOVES and kind not in ("Concat", "MakeTuple"):
                return self._settled(user)
        return name


def _common(dtypes: Sequence[str | None]) -> str:
    """What an operator computes in whose operands have these dtypes: the widest."""
    known = [dtype for dtype in dtypes if dtype is not None]
    return max(known, key=lambda dtype: _BITS.get(dtype, 16), default=UNKNOWN)
