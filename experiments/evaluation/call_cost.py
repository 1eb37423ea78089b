"""Decides from lengths alone how rows are put together in calls of the model: no clock decides what is computed."""

from collections.abc import Sequence

import torch

# The fixed part of a model call, in token positions: weights are read and layers started, whatever the rows.
# CPU: measured with SmolLM2-135M in bfloat16 on one thread, 8 positions take 78 ms and each more 1.6 ms. Elsewhere not
# measured: starting the kernels of a call takes a GPU some 3 ms, or about a thousand positions of a model of 1 B.
_CALL = {"cpu": 48}
_ELSEWHERE = 1024


def call_cost(device: torch.device) -> int:
    """Returns the token positions that could be evaluated in the time of a call's fixed part."""
    return _CALL.get(device.type, _ELSEWHERE)


def cut_by_length(lengths: Sequence[int], call: int) -> list[list[int]]:
    """Returns the numbers of rows in groups of like length, the shortest first.

    A group is one call of the model, as wide as its longest row. The groups are those that evaluate the fewest
    positions, a call counted as `call` of them.
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    costs, begins = [0], [0]  # of the first n rows: the least cost, and where the last group begins
    for end, last in enumerate(order, start=1):
        cost, begin = min((costs[b] + call + (end - b) * lengths[last], b) for b in range(end))
        costs.append(cost)
        begins.append(begin)
    groups: list[list[int]] = []
    end = len(order)
    while end:
        groups.append(sorted(order[begins[end] : end]))
        end = begins[end]
    return groups[::-1]
