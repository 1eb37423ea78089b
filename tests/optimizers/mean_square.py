"""E‖z‖²/d of every kind in closed form: the column of docs/directions.md, over the weights of one model."""

from zo.directions import Directions, Layers, LowRank, Projected, Sparse
from zo.directions.lowrank import is_matrix, matrix_shape
from zo.weights import Weights


def mean_square(kind: Directions, weights: Weights) -> float:
    """The mean over all weights of E z²; 1 where a kind has no formula here."""
    shares = {Layers: of_layers, LowRank: of_low_rank, Projected: of_projection, Sparse: of_sparse}
    share = shares.get(type(kind))
    if share is None:
        return 1.0
    sizes = {name: tensor.numel() for name, tensor in weights.tensors.items()}
    return sum(size * share(kind, weights, name) for name, size in sizes.items()) / sum(sizes.values())


def of_low_rank(kind: LowRank, weights: Weights, name: str) -> float:
    whole = kind.vectors == "unit" or is_matrix(weights.source(name))
    return 1.0 if whole else 1.0 / kind.rank


def of_projection(kind: Projected, weights: Weights, name: str) -> float:
    source = weights.source(name)
    return min(1.0, kind.rank / matrix_shape(source)[0]) if is_matrix(source) else 1.0


def of_sparse(kind: Sparse, weights: Weights, name: str) -> float:
    return (weights.source(name).abs() <= kind.thresholds[name]).double().mean().item()


def of_layers(kind: Layers, weights: Weights, name: str) -> float:
    """The share of the layers that a step takes, for what is in a layer."""
    layers = kind.layers(weights)
    count = max(layers.values()) + 1
    return len(kind.chosen(weights, 0, 0)) / count if name in layers else 1.0
