"""Training arithmetic without numbers: tensors that only have a size, and a tape of what is saved.

A network written with these operations holds and frees bytes in the order in which torch would:
each operation makes the tensors that torch's makes, its backward pass keeps what torch's keeps,
and Python's own counting of references frees what torch would free. So the peak of the ledger is
the peak of a training step, found in a tenth of a second and without torch.

What is saved follows the derivative formulas of torch (`derivatives.yaml`) and its lists of what
autocast computes in which precision (the notes on automatic mixed precision).
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from math import prod

from sdft.planning.ledger import ACTIVATIONS, GRADIENTS, TEMPORARIES, Ledger, Storage

FLOAT32 = 4
HALF = 2

Shape = tuple[int, ...]
Backward = Callable[["Tensor"], Sequence["Tensor | None"]]


@dataclass(eq=False, slots=True)
class Node:
    """Where a tensor comes from: what to do with its gradient."""

    number: int
    sources: tuple[Node | None, ...]
    backward: Backward | None
    """Gone once it was used, and with it what it keeps."""


@dataclass(eq=False, slots=True)
class Tensor:
    """A shape over bytes that it may share with others."""

    storage: Storage
    shape: Shape
    itemsize: int
    node: Node | None = None

    @property
    def num_bytes(self) -> int:
        return prod(self.shape) * self.itemsize


@dataclass(eq=False, slots=True)
class Weight:
    """One parameter."""

    shape: Shape
    itemsize: int
    is_trained: bool = True
    gradient: Storage | None = None


@dataclass(eq=False)
class Tape:
    """Does the operations, and remembers what their backward passes need."""

    ledger: Ledger
    half: bool = False
    """Whether autocast lets products be computed in 16 bits."""
    norms_in_float32: bool = False
    """Whether autocast computes norms in float32: on a GPU, not on a CPU."""
    fuses: bool = False
    """Whether a compiler joins operations and computes those of single values again."""
    offloads: bool = False
    """Whether what checkpointed blocks begin with lies in main memory meanwhile."""
    on_gradient: Callable[[Weight], None] = lambda weight: None
    """Called when a weight's gradient of this pass is whole."""
    flops: int = 0
    """Two for each product with a sum; of all products so far."""
    records: bool = True
    _casts: dict[Weight, Tensor] = field(default_factory=dict)
    _numbers: count[int] = field(default_factory=count)

    def new(self, shape: Shape, itemsize: int, part: str = ACTIVATIONS) -> Tensor:
        storage = Storage(self.ledger, part, prod(shape) * itemsize)
        return Tensor(storage, shape, itemsize)

    def forget_casts(self) -> None:
        """Leave autocast: it holds no weights in 16 bits any more."""
        self._casts.clear()

    # -- the tape --------------------------------------------------------------------------

    def made(self, result: Tensor, sources: Sequence[Tensor | None], backward: Backward) -> Tensor:
        """Return the result, knowing its sources if one of them leads to something trained."""
        if self.records:
            nodes = tuple(None if one is None else one.node for one in sources)
            result.node = Node(next(self._numbers), nodes, backward)
        return result

    def backward(self, root: Tensor, gradient: Tensor) -> None:
        """Go back from a result, latest operation first, as torch's engine does."""
        assert root.node is not None
        waiting: dict[Node, Tensor] = {root.node: gradient}
        order = [(-root.node.number, root.node)]
        del gradient, root
        while order:
            _, node = heapq.heappop(order)
            step, node.backward = node.backward, None
            assert step is not None, "a tape is gone through once"
            results = list(step(waiting.pop(node)))
            del step
            for source in node.sources:
                one = results.pop(0)
                if source is None or one is None:
                    continue
                if source in waiting:
                    waiting[source] = self.new(one.shape, one.itemsize, TEMPORARIES)
                else:
                    waiting[source] = one
                    heapq.heappush(order, (-source.number, source))
                del one

    def checkpoint(self, block: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        """Do a block without saving what is in it; its backward pass does it again first.

        With `offloads` its first input waits in main memory.
        """
        if not self.records:
            return block(*inputs)
        self.records = False
        result = block(*inputs)
        self.records = True
        kept: list[Tensor | None] = [*inputs]
        shape, itemsize = inputs[0].shape, inputs[0].itemsize
        if self.offloads:
            kept[0] = None

        def backward(gradient: Tensor) -> Sequence[Tensor | None]:
            found: list[Tensor | None] = [None] * len(kept)
            kept[0] = kept[0] or self.new(shape, itemsize)
            ends = [self._end(found, place, one) for place, one in enumerate(kept) if one]
            result = block(*ends)
            # Autocast is entered for this block alone.
            self.forget_casts()
            self.backward(result, gradient)
            return found

        return self.made(result, inputs, backward)

    def _end(self, found: list[Tensor | None], place: int, value: Tensor) -> Tensor:
        """Return the same tensor as the beginning of a tape of its own."""

        def backward(gradient: Tensor) -> Sequence[Tensor | None]:
            found[place] = gradient
            return ()

        return Tensor(
            value.storage, value.shape, value.itemsize, Node(next(self._numbers), (), backward)
        )

    # -- weights and precision --------------------------------------------------------------

    def _cast(self, value: Tensor, itemsize: int) -> Tensor:
        """Return the tensor in another precision, or itself."""
        if value.itemsize == itemsize:
            return value
        before = value.itemsize
        return self.made(
            self.new(value.shape, itemsize),
            [value],
            lambda gradient: [self.new(gradient.shape, before, TEMPORARIES)],
        )

    def _for_products(self, value: Tensor) -> Tensor:
        return self._cast(value, HALF) if self.half else value

    def _for_norms(self, value: Tensor) -> Tensor:
        casts = self.half and self.norms_in_float32 and not self.fuses
        return self._cast(value, FLOAT32) if casts else value

    def _weight_for_products(self, weight: Weight) -> Tensor | None:
        """Return what holds a weight in 16 bits, where that is not the weight itself.

        Autocast keeps one for all uses, though only of a weight that is trained.
        """
        if not self.half or weight.itemsize == HALF:
            return None
        if weight not in self._casts:
            cast = self.new(weight.shape, HALF, TEMPORARIES)
            if not weight.is_trained:
                return cast
            self._casts[weight] = cast
        return self._casts[weight]

    def give_gradient(self, weight: Weight, itemsize: int) -> None:
        """Take a weight's gradient of one pass, which comes in `itemsize` bytes a value."""
        if not weight.is_trained:
            return
        size = prod(weight.shape)
        fresh = Storage(
            self.ledger, GRADIENTS if itemsize == weight.itemsize else TEMPORARIES, size * itemsize
        )
        if itemsize != weight.itemsize:
            fresh = Storage(self.ledger, GRADIENTS, size * weight.itemsize)
        if weight.gradient is None:
            weight.gradient = fresh
        del fresh
        self.on_gradient(weight)

    # -- operations -------------------------------------------------------------------------

    def product(
        self, value: Tensor, weights: Sequence[Weight], shape: Shape, *, kept_weight: bool = True
    ) -> Tensor:
        """Return a linear layer or convolution of `value`; the first weight is its matrix."""
        value = self._for_products(value)
        casts = [self._weight_for_products(one) for one in weights]
        matrix = weights[0]
        products = 2 * prod(shape) * prod(matrix.shape[1:])
        self.flops += products
        result = self.new(shape, value.itemsize)

        def backward(gradient: Tensor) -> Sequence[Tensor | None]:
            self.flops += products * (1 + matrix.is_trained)
            itemsize = gradient.itemsize
            into = self.new(value.shape, itemsize, TEMPORARIES) if value.node else None
            for place, weight in enumerate(weights):
                self.give_gradient(weight, HALF if casts[place] is not None else weight.itemsize)
            return [into]

        return self.made(result, [value], backward)

    def norm(self, value: Tensor, weights: Sequence[Weight], *, copies: bool = False) -> Tensor:
        """Return a group or layer norm; with `copies` the values do not lie in its order."""
        value = self._for_norms(value)
        result = self.new(value.shape, value.itemsize)
        if copies:
            self.ledger.touch(TEMPORARIES, value.num_bytes)

        def backward(gradient: Tensor) -> Sequence[Tensor | None]:
            into = self.new(value.shape, value.itemsize, TEMPORARIES)
            for weight in weights:
                self.give_gradient(weight, weight.itemsize)
            return [into]

        return self.made(result, [value], backward)

    def pointwise(self, value: Tensor, *, keeps: bool = True) -> Tensor:
        """Return a function of each value; most keep what they were given."""
        kept = value if keeps and not self.fuses else None
        shape, itemsize = value.shape, value.itemsize

        def backward(gradient: Tensor) -> Sequence[Tensor | None]:
            result = self.new(shape, itemsize, TEMPORARIES)
            assert kept is None or kept.shape == shape
            return [result]

        return self.made(self.new(shape, itemsize), [value], backward)

    def add(self, first: Tensor, second: Tensor) -> Tensor:
        """Return a sum; a smaller second is spread over the first."""
        itemsize = max(first.itemsize, second.itemsize)
        shape, small = first.shape, second.shape

        def backward(gradient: Tensor) -> Sequence[Tensor | None]:
            if small == shape:
                return [gradient, gradient]
            return [gradient, self.new(small, gradient.itemsize, TEMPORARIES)]

        return self.made(self.new(shape, itemsize), [first, second], backward)

    def join(self, first: Tensor, second: Tensor) -> Tensor:
        """Return both behind each other along the channels."""
        shape = (first.shape[0], first.shape[1] + second.shape[1], *first.shape[2:])
        shapes = first.shape, second.shape

        def backward(gradient: Tensor) -> Sequence[Tensor | None]:
            return [Tensor(gradient.storage, one, gradient.itemsize) for one in shapes]

        return self.made(self.new(shape, first.itemsize), [first, second], backward)

    def copy(self, value: Tensor, shape: Shape) -> Tensor:
        """Return the values in another order or number, such as an upsampled picture."""
        before = value.shape

        def backward(gradient: Tensor) -> Sequence[Tensor | None]:
            return [self.new(before, gradient.itemsize, TEMPORARIES)]

        return self.made(self.new(shape, value.itemsize), [value], backward)

    def view(self, value: Tensor, shape: Shape) -> Tensor:
        """Return the same bytes as another shape."""
        before = value.shape

        def backward(gradient: Tensor) -> Sequence[Tensor | None]:
            return [Tensor(gradient.storage, before, gradient.itemsize)]

        return self.made(Tensor(value.storage, shape, value.itemsize), [value], backward)

    def attention(self, query: Tensor, key: Tensor, value: Tensor, *, heads: int) -> Tensor:
        """Return attention by a kernel that never holds all scores; shapes [B, S, D].

        It keeps its three inputs, its result and the logarithm of each row's sum.
        """
        batch, tokens, width = query.shape
        keys = key.shape[1]
        products = 4 * batch * tokens * keys * width
        self.flops += products
        result = self.new(query.shape, query.itemsize)
        sums = self.new((batch, heads, tokens), FLOAT32)
        kept = (query, key, value, result.storage, sums)

        def backward(gradient: Tensor) -> Sequence[Tensor | None]:
            # The scores are computed once more.
            self.flops += products * 5 // 2
            query, key, value, *_ = kept
            return [self.new(one.shape, one.itemsize, TEMPORARIES) for one in (query, key, value)]

        return self.made(result, [query, key, value], backward)

    def gated(self, value: Tensor) -> Tensor:
        """Return GEGLU: the first half times the GELU of the second; shape [B, S, 2 D]."""
        *outer, width = value.shape
        half_shape = (*outer, width // 2)
        gate = None if self.fuses else self.new(half_shape, value.itemsize)

        def backward(gradient: Tensor) -> Sequence[Tensor | None]:
            assert gate is None or gate.shape == half_shape
            halves = [self.new(half_shape, value.itemsize, TEMPORARIES) for _ in range(3)]
            # That of the gate's inside comes after that of the gate.
            del halves[1]
            return [self.new(value.shape, halves[0].itemsize, TEMPORARIES)]

        return self.made(self.new(half_shape, value.itemsize), [value], backward)
