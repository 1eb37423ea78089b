"""LeZO: layer-wise sparse zeroth-order fine-tuning (Wang et al., arXiv 2410.09823).

    each step:  a share ρ of the layers is left out, drawn anew
    z_i ~ N(0, I) in the others, 0 in these;   then as MeZO, 2n forward passes

Layers left out are not perturbed and get no ĝ: their forward uses the weights as they are. Weight decay, where there
is one, acts on all. No state. Tensors outside
the layers (embeddings, the last norm, a head) are in every step. The released repository holds no code; ρ = 0.75 is
our choice. E‖z‖²/d is about 1 − ρ; nothing is rescaled.
"""

from zo.names import Parameters
from zo.optimizers.optimizer import Rate
from zo.optimizers.twopoint import TwoPoint
from zo.weights import Weights


class LeZO(TwoPoint):
    """MeZO on some layers a step.

    drop: ρ, share of the layers that a step leaves out.
    """

    def __init__(
        self,
        params: Weights | Parameters,
        lr: Rate = 1e-6,
        eps: float = 1e-3,
        n: int = 1,
        drop: float = 0.75,
        weight_decay: float = 0.0,
        *,
        seed: int = 0,
        on_nan: str = "stop",
    ):
        spec = {"kind": "layers", "drop": drop}
        super().__init__(params, lr, eps, n, "two", spec, weight_decay, seed, on_nan)
