"""An element-wise step that is written once: torch works it out in blocks, native.cpp in arrays of the L1 cache.

    def step(at):                                        # momentum: m ← β m + p z, θ ← θ − η m
        m = at.state["m"] = at.state["m"] * beta + at.noise[0] * p
        return m * -lr

    weights.elementwise(Formula(step), [key], directions, {"m": m})

It may use + − · / between such values and numbers, abs, and `root`, `sign` and `within` of this module, and write
nothing in place: `x = x + y`, not `x += y`. What it reads is what was there before the step, whatever it has assigned
to other names since. Numbers are rounded to fp32 and every operation is rounded by itself, so whoever works it out
gets the same bits (on a CPU).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from zo.errors import ConfigError
from zo.kernels.adam_window import f32, roots

REGISTERS = 40  # of native.cpp
_CODE = {name: i for i, name in enumerate(("add sub mul div root abs sign least most inverse").split())}


class Value(Protocol):
    """fp32 numbers of some elements: a tensor, or a symbol of one."""

    def __add__(self, other: Any, /) -> Any: ...
    def __sub__(self, other: Any, /) -> Any: ...
    def __mul__(self, other: Any, /) -> Any: ...
    def __truediv__(self, other: Any, /) -> Any: ...
    def __abs__(self) -> Any: ...


@dataclass
class Elements:
    """The inputs of a step. name: the tensor's. noise: z of each key. state: by name; assigned values stay."""

    name: str
    noise: Sequence[Any]
    state: dict[str, Any]


class Stateful(Protocol):
    """A block of one tensor (zo.weights.Block)."""

    @property
    def name(self) -> str: ...
    @property
    def noise(self) -> Sequence[Tensor]: ...
    @property
    def state(self) -> dict[str, Tensor]: ...


@dataclass(frozen=True)
class Formula:
    """step: Elements → what is to be added to the weights. by_name: the step is told the tensor's name, else ""."""

    step: Callable[[Elements], Any]
    by_name: bool = False
    _programs: dict[Any, "Program | None"] = field(default_factory=dict)

    def __call__(self, block: Stateful) -> Tensor:
        """Evaluates the formula in torch for one block, and writes its state."""
        self.program(block.name, len(block.noise), tuple(block.state))  # refuses what symbols do not do
        at = Elements(block.name if self.by_name else "", block.noise, dict(block.state))
        step = self.step(at)
        old = {memory(numbers) for numbers in block.state.values()}
        new = {key: value for key, value in at.state.items() if value is not block.state[key]}
        # What is still to be read must not be written over: a state that is to be another, an old one as the step.
        new = {key: value.clone() if memory(value) in old else value for key, value in new.items()}
        step = step.clone() if memory(step) in old else step
        for key, value in new.items():
            block.state[key].copy_(value)
        return step

    def program(self, name: str, keys: int, states: Sequence[str]) -> "Program | None":
        """The operations; None where they need more registers than there are."""
        name = name if self.by_name else ""
        case = (name, keys, *states)
        if case not in self._programs:
            tape = Tape(keys + len(states))
            symbols = [Symbol(tape, place) for place in range(tape.inputs)]
            at = Elements(name, symbols[:keys], dict(zip(states, symbols[keys:], strict=True)))
            step = self.step(at)
            self._programs[case] = tape.program(step.place, [at.state[key].place for key in states])
        return self._programs[case]


@dataclass(frozen=True)
class Program:
    """ops: (code, to, a, b, c): register `to` becomes a ∘ b, or a ∘ c where b is -1. step, states: of the results.

    Registers 0 … are the noise of each key, then each state; only those after them are written.
    """

    ops: tuple[tuple[int, int, int, int, float], ...]
    step: int
    states: tuple[int, ...]


@dataclass
class Tape:
    """Operations in the order they were asked for, each with a place of its own behind the inputs."""

    inputs: int
    ops: list[tuple[int, int, int, float]] = field(default_factory=list)

    def put(self, name: str, a: "Symbol", b: "Symbol | float" = 0.0) -> "Symbol":
        other, number = (b.place, 0.0) if isinstance(b, Symbol) else (-1, f32(b))
        self.ops.append((_CODE[name], a.place, other, number))
        return Symbol(self, self.inputs + len(self.ops) - 1)

    def program(self, step: int, states: list[int]) -> Program | None:
        """Returns the program, whose registers are reused once their values are no longer needed."""
        last = {place: i for i, (_, a, b, _) in enumerate(self.ops) for place in (a, b)}
        last |= dict.fromkeys((step, *states), len(self.ops))
        where = {place: place for place in range(self.inputs)}
        free, used, ops = [], self.inputs, []
        for i, (code, a, b, number) in enumerate(self.ops):
            sides = where[a], -1 if b < 0 else where[b]
            free += {where[place] for place in (a, b) if place >= self.inputs and last[place] == i}
            if not free:
                free.append(used)
                used += 1
            where[self.inputs + i] = to = free.pop()
            ops.append((code, to, *sides, number))
        if used > REGISTERS:
            return None
        return Program(tuple(ops), where[step], tuple(where[place] for place in states))


@dataclass(frozen=True, eq=False)
class Symbol:
    """A value that is not there yet."""

    tape: Tape
    place: int

    def __add__(self, other: "Symbol | float") -> "Symbol":
        return self.tape.put("add", self, other)

    def __sub__(self, other: "Symbol | float") -> "Symbol":
        return self.tape.put("sub", self, other)

    def __mul__(self, other: "Symbol | float") -> "Symbol":
        return self.tape.put("mul", self, other)

    def __truediv__(self, other: "Symbol | float") -> "Symbol":
        return self.tape.put("div", self, other)

    def __neg__(self) -> "Symbol":
        return self * -1.0

    def __rsub__(self, other: float) -> "Symbol":
        return -self + other

    def __rtruediv__(self, other: float) -> "Symbol":
        return self.tape.put("inverse", self) * other  # as torch has it

    __radd__ = __add__
    __rmul__ = __mul__

    def __abs__(self) -> "Symbol":
        return self.tape.put("abs", self)

    def _in_place(self, other: Any) -> "Symbol":
        raise ConfigError(
            "A formula changed a value in place (+=, -=, *= or /=). In torch that also changes whatever else is these "
            "numbers, a state or the noise; in compiled loops it does not. Write x = x + y."
        )

    __iadd__ = __isub__ = __imul__ = __itruediv__ = _in_place


def memory(numbers: Tensor) -> int:
    """Returns the tensor in whose memory this one lies."""
    return numbers.untyped_storage().data_ptr()


def root(x: Any) -> Any:
    """Returns √x as IEEE rounds it."""
    return x.tape.put("root", x) if isinstance(x, Symbol) else roots(x)


def sign(x: Any) -> Any:
    """Returns -1, 0 or 1."""
    return x.tape.put("sign", x) if isinstance(x, Symbol) else torch.sign(x)


def within(x: Any, least: float | None = None, most: float | None = None) -> Any:
    """x, or the bound that it is beyond."""
    if isinstance(x, Symbol):
        x = x if least is None else x.tape.put("least", x, least)
        return x if most is None else x.tape.put("most", x, most)
    return torch.clamp(x, None if least is None else f32(least), None if most is None else f32(most))
