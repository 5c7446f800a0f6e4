"""Encoders whose classifier reads one position compute only that one behind the last attention."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fslora.models.checkpointing import blocks

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel

#: Families whose classification heads read the first position, and nothing else, of the last block.
_READS_FIRST = ("bert", "camembert", "electra", "roberta", "xlm-roberta")


def skip_unread_positions(model: PreTrainedModel) -> bool:
    """Let the last block go on with the first position alone once its attention has been taken.

    Behind the last attention no position sees another, so what the classifier reads, and every
    gradient, stay what they are, while nine twelfths of the last block's products are left out.

    Parameters
    ----------
    model
        Changed in place if it is a sequence classifier of a family known to read that way; the
        hidden states of its last block then have one position.

    Returns
    -------
    bool
        Whether it was changed.
    """
    classifies = type(model).__name__.endswith("ForSequenceClassification")
    if not classifies or model.config.model_type not in _READS_FIRST:
        return False
    output = blocks(model)[-1].get_submodule("attention.output")
    output.register_forward_pre_hook(_first_position, with_kwargs=True)
    return True


def _first_position(
    _: nn.Module, inputs: tuple[Tensor, ...], named: dict[str, Any]
) -> tuple[tuple[Tensor, ...], dict[str, Any]]:
    """Cut hidden states (samples, L, d) to (samples, 1, d)."""
    return tuple(each[:, :1] for each in inputs), {k: v[:, :1] for k, v in named.items()}
