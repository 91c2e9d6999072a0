"""Uniform numbers in [0, 1) from a numpy generator, drawn in blocks for speed.

The numbers are the same as without blocks.  `state()` is the state of the generator after the numbers that
were returned so far, as if no block had been drawn; any generator of the same kind accepts it.
Note: no other code may draw from the generator meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from operator import length_hint
from typing import Any

import numpy as np

BLOCK = 4096


class Uniforms:
    """`draw()` returns the next number."""

    draw: Callable[[], float]

    def __init__(self, generator: np.random.Generator) -> None:
        """Draw from `generator`."""
        self._generator = generator
        self._start()

    def state(self) -> dict[str, Any]:
        """Return the generator's state after the last number that was returned."""
        used = BLOCK - length_hint(self._block)
        current = self._generator.bit_generator.state
        self._generator.bit_generator.state = self._state_before_block
        self._generator.random(used)
        state = dict(self._generator.bit_generator.state)
        self._generator.bit_generator.state = current
        return state

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a state that `state()` returned in this or another process."""
        self._generator.bit_generator.state = dict(state)
        self._start()

    def _start(self) -> None:
        self._block: Iterator[float] = iter(())
        self._next_block()
        self.draw = self._numbers().__next__

    def _next_block(self) -> None:
        self._state_before_block = self._generator.bit_generator.state
        self._block = iter(self._generator.random(BLOCK).tolist())

    def _numbers(self) -> Iterator[float]:
        while True:
            yield from self._block
            self._next_block()
