"""How large a GPT is trained where: what it has in parameters, bytes and operations. Pure, without torch."""

from __future__ import annotations

import math

from gpuprov.proof.training.stream import FLOOR

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

GIB = 1 << 30
#: Bytes per parameter that is trained: float32 weight, gradient and AdamW's two moments.
TRAINED, FROZEN = 16, 2


class Size:
    """A GPT and its training. context: tokens of a sequence; batch: sequences of a step.

    bound: what the mean loss of the last steps has to reach, as a part of the way from the floor to ln(vocabulary).
    """

    __slots__ = ("batch", "bound", "context", "heads", "layers", "rate", "steps", "vocabulary", "width")

    def __init__(
        self,
        layers: int,
        width: int,
        heads: int,
        context: int,
        batch: int,
        steps: int,
        vocabulary: int = 256,
        rate: float = 1e-3,
        bound: float = 0.5,
    ) -> None:
        self.layers, self.width, self.heads = layers, width, heads
        self.context, self.batch, self.steps = context, batch, steps
        self.vocabulary, self.rate, self.bound = vocabulary, rate, bound

    def but(self, **changed: Any) -> Size:
        """Return the same with some numbers changed. Pure."""
        values = {name: getattr(self, name) for name in self.__slots__}
        values.update(changed)
        return Size(**values)

    @property
    def tokens(self) -> int:
        """Tokens that a step learns from."""
        return self.batch * self.context

    @property
    def parameters(self) -> int:
        """Weights and biases: of tokens, places, layers, the last norm and the head."""
        w = self.width
        layer = 12 * w * w + 13 * w
        return (2 * self.vocabulary + self.context) * w + self.layers * layer + 2 * w

    @property
    def operations(self) -> float:
        """Floating point operations of a training step: 6 per token and weight of a product, attention's halved."""
        products = 12 * self.layers * self.width**2 + self.vocabulary * self.width
        attention = 6 * self.layers * self.width * self.context
        return float(self.tokens * (6 * products + attention))

    @property
    def loss_bound(self) -> float:
        """What the mean loss of the last steps has to reach."""
        return FLOOR + self.bound * (math.log(self.vocabulary) - FLOOR)

    def text(self) -> str:
        """Return what is trained, for a person, and for comparing only what is equal."""
        return (
            f"GPT of {self.layers} layers, width {self.width}, {self.heads} heads, {self.context} tokens x "
            f"{self.batch}, vocabulary {self.vocabulary}, {self.steps} steps"
        )
