"""FedIT, also called FedAvg-LoRA (arXiv 2305.05644): every device trains all r ranks.

FSLoRA with k = r: the sketch is the identity and its gain 1. In delta form with weights v_n the
factors are averaged apart, so the merged product is not the mean of the products.
"""

from __future__ import annotations

from fslora.methods.fslora import FSLoRA


class FedIT(FSLoRA):
    """Full-rank factors, averaged."""

    name = "fedit"

    def accepts(self, rank: int, sketch_rank: int) -> bool:
        """Only k = r."""
        return sketch_rank == rank
