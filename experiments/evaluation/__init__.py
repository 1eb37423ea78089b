"""Evaluation: options scored in batches, answers generated in batches, with interval and baselines."""

from experiments.evaluation.evaluate import Evaluation, evaluate

__all__ = ["Evaluation", "evaluate"]
