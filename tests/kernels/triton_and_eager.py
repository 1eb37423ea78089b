"""Run as a program, with a device: the Triton form beside the eager one there; prints a JSON list of what differs."""

import json
import sys

import torch

from zo.kernels import Eager, Noise, Write
from zo.kernels.adam_window import Moments, f32
from zo.kernels.elementwise import Block
from zo.kernels.triton import Triton
from zo.noise import GAUSSIANS, SIGNS

device, pid = torch.device(sys.argv[1]), (1 << 64) - 3
forms = (Triton(), Eager())
wrong = []


def weights(dtype, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype).to(device)


def compare(stream, what, ours, theirs):
    # Of Gaussians that a GPU makes no more is promised than rounding: some units of the last place of bfloat16.
    near = device.type == "cuda" and stream == GAUSSIANS
    same = torch.allclose(ours, theirs, rtol=1e-2, atol=1e-6) if near else torch.equal(ours, theirs)
    if not same:
        wrong.append([stream, *map(str, what), (ours.float() - theirs.float()).abs().max().item()])


def compare_sums(stream, dtype):
    for count, n in ((1, 1), (4230, 1), (130, 9)):
        w = weights(dtype, count)
        terms = [((1 << 64) - 1 - 7919 * k, (-1) ** k * 10.0**-k) for k in range(n)]
        keys, moved = [key for key, _ in terms], [w.clone(), w.clone()]
        for form, mine in zip(forms, moved, strict=True):
            form.move(mine, Noise(pid, stream), terms, Write(1e-3))
        compare(stream, (dtype, count, n), *moved)
        compare(stream, (dtype, count, n), *(form.perturb(w, Noise(pid, stream), terms) for form in forms))
        lists = [terms, terms[:1]]
        many = [torch.stack(form.perturb_many(w, Noise(pid, stream), lists)) for form in forms]
        compare(stream, (dtype, count, n, "many"), *many)
        made = [form.noise(keys, Noise(pid, stream), 256, count, device) for form in forms]
        compare(stream, (dtype, count, n, "noise"), *(torch.stack(list(z)) for z in made))
    matrix, rows = weights(dtype, 50, 256), torch.tensor([3, 0, 49, 3], dtype=torch.int32, device=device)
    parts = [form.perturb_rows(matrix, Noise(pid, stream), terms, rows) for form in forms]
    compare(stream, (dtype, "rows"), *parts)


def compare_moments(stream, dtype, inside):
    gradients = ((0.3, -0.2), (0.1, 0.4), (-2.0, 1.0))
    rule = Moments(gradients, (0.49, 0.7, 1.0), (0.81, 0.9, 1.0), -1e-2, 1e-5, inside)
    ours, theirs = weights(dtype, 4230), weights(dtype, 4230)
    assert forms[0].moments(ours, Noise(pid, stream), rule, range(6), Write(0.01))
    noise = [z.clone() for z in forms[1].noise(range(6), Noise(pid, stream), 0, 4230, device)]
    old = theirs.float()
    theirs.copy_(old + (rule(Block("w", 0, old, noise, {})) - old * f32(0.01)))
    compare(stream, (dtype, "moments", inside), ours, theirs)


for stream in (SIGNS, GAUSSIANS):
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        compare_sums(stream, dtype)
        for inside in (False, True):
            compare_moments(stream, dtype, inside)
print(json.dumps(wrong))
