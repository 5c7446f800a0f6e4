"""SplitLoRA: devices hold the first blocks, the server the rest (arXiv 2407.00952).

Device n has the embeddings, blocks 1..c and their factors; the server has the other blocks, the
head and their factors. In each local step the device runs its part forward and sends what comes out
of block c with the labels; the server goes on from there, forward and backward, steps its factors,
and sends back the gradient of what it got; the device runs backward from that and steps its own.
After H steps the changes of all factors are averaged as in FedIT, A <- A + sum_n v_n dA_n and
B <- B + sum_n v_n dB_n, unbiased for every sampling of the devices. Where a model is cut changes no
number, so that training and merge are FedIT's: only time, traffic and memory differ.

With b examples of l tokens and width d, each step takes b l d numbers and the labels up, 4 bytes
per token or, for classes, per example, and b l d numbers down; of each adapted layer of the first c
blocks r n numbers go up and r n down per round, nothing of the others and of the head. Tokens are
those of the examples without padding, as the arithmetic counts them. Labels leave the device, and
for a causal language model they are the text itself. A gradient is clipped by its norm over both
parts; the one number each way that this takes in a step is not counted.

Departures from the paper, of which only the abstract and the authors' code were read: every device
has a copy of the server's factors for the round (SplitFed's first version), where the code lets
devices take turns on one copy that moves between them; its averages are taken after a fixed number
of steps of all devices together, ours after each device's H; weights are the policy's and not 1/N;
a device starts its optimizer anew each round; no label smoothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fslora.methods.fedit import FedIT


@dataclass(frozen=True, slots=True)
class SplitLoRA(FedIT):
    """Averaged factors of a model that is cut after some blocks.

    Parameters
    ----------
    blocks
        c >= 1, blocks that devices hold.
    """

    blocks: int = 1
    name: ClassVar[str] = "splitlora"
    per_token: ClassVar[str] = "d"
    unicast: ClassVar[bool] = True
    sums: ClassVar[bool] = False

    @property
    def device_blocks(self) -> int:
        """The first c."""
        return self.blocks
