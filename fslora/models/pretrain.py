"""Pre-train `builtin:tiny-llama`: `python -m fslora.models.pretrain --out FOLDER`.

Writes `model.safetensors` (half precision), `pretrain.csv` (step, training loss, loss on held-out
chunks of the ten packages, nats per byte) and `pretrain.json` (recipe, versions, hash of the text).
The text is the single-file modules of the standard library, so the packages, which devices later
fine-tune on, stay unseen. A run repeats exactly on one machine with the same Python and torch.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import math
import platform
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import LlamaForCausalLM

from fslora.data.stdlib import load_modules, load_stdlib
from fslora.models.tiny_llama import tiny_llama_config


@dataclass(frozen=True, slots=True)
class Recipe:
    """Every choice that decides the weights (AdamW, cosine decay after a linear warm-up)."""

    seed: int = 1
    steps: int = 5000
    warmup_steps: int = 100
    batch: int = 32
    length: int = 128
    learning_rate: float = 4e-3
    weight_decay: float = 0.1
    clip_norm: float = 1.0
    threads: int = 2

    def rate(self, step: int) -> float:
        """Learning rate of `step`."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        done = (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps)
        return self.learning_rate * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * done)))


def pretrain(out: Path, recipe: Recipe) -> None:
    """Train by `recipe` and write weights and log into `out`."""
    torch.manual_seed(recipe.seed)
    torch.set_num_threads(recipe.threads)
    source = load_modules().encode()
    text = torch.frombuffer(bytearray(source), dtype=torch.uint8).long()
    held_out = _held_out_chunks(recipe.length)
    model = LlamaForCausalLM(tiny_llama_config())
    parameters: list[torch.Tensor] = list(model.parameters())
    matrices = [parameter for parameter in parameters if parameter.ndim >= 2]
    gains = [parameter for parameter in parameters if parameter.ndim < 2]
    optimizer = torch.optim.AdamW(
        [{"params": matrices}, {"params": gains, "weight_decay": 0.0}],  # type: ignore[arg-type]
        lr=recipe.learning_rate,
        betas=(0.9, 0.95),
        weight_decay=recipe.weight_decay,
    )
    draws = torch.Generator().manual_seed(recipe.seed)
    out.mkdir(parents=True, exist_ok=True)
    provenance = {
        "recipe": asdict(recipe),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "text_sha256": hashlib.sha256(source).hexdigest(),
        "text_bytes": len(source),
    }
    (out / "pretrain.json").write_text(json.dumps(provenance, indent=2) + "\n", encoding="utf-8")
    with (out / "pretrain.csv").open("w", newline="", encoding="utf-8") as log:
        rows = csv.writer(log, lineterminator="\n")
        rows.writerow(["step", "train_loss", "held_out_loss"])
        recent: list[float] = []
        for step in range(recipe.steps):
            for group in optimizer.param_groups:
                group["lr"] = recipe.rate(step)
            starts = torch.randint(len(text) - recipe.length, (recipe.batch, 1), generator=draws)
            batch = text[starts + torch.arange(recipe.length)]
            with torch.autocast("cpu", torch.bfloat16):
                loss = model(input_ids=batch, labels=batch, use_cache=False).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, recipe.clip_norm)
            optimizer.step()
            optimizer.zero_grad()
            recent.append(loss.item())
            if (step + 1) % 250 == 0 or step + 1 == recipe.steps:
                value = _mean_loss(model, held_out)
                mean = sum(recent) / len(recent)
                rows.writerow([step + 1, f"{mean:.4f}", f"{value:.4f}"])
                log.flush()
                print(
                    f"step {step + 1} of {recipe.steps}: train {mean:.4f}, held out {value:.4f} "
                    "nats per byte",
                    flush=True,
                )
                recent.clear()
    weights = {
        name: tensor.to(torch.float16).contiguous()
        for name, tensor in model.state_dict().items()
        if name != "lm_head.weight"  # tied to the embedding
    }
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})


def _held_out_chunks(length: int, per_package: int = 40) -> torch.Tensor:
    corpus = load_stdlib()
    chunks = []
    for group in range(len(corpus.group_names)):
        text = "".join(d.text for d in corpus.held_out if d.group == group).encode()
        whole = torch.frombuffer(bytearray(text), dtype=torch.uint8).long()
        pieces = whole[: len(whole) // length * length].view(-1, length)
        chunks.append(pieces[torch.linspace(0, len(pieces) - 1, per_package).long()])
    return torch.cat(chunks)


@torch.no_grad()
def _mean_loss(model: LlamaForCausalLM, chunks: torch.Tensor) -> float:
    total = 0.0
    for part in chunks.split(50):
        total += model(input_ids=part, labels=part, use_cache=False).loss.item() * len(part)
    return total / len(chunks)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Pre-train builtin:tiny-llama.")
    parser.add_argument("--out", type=Path, required=True, help="folder to write into")
    parser.add_argument("--steps", type=int, default=Recipe().steps)
    arguments = parser.parse_args()
    pretrain(arguments.out, Recipe(steps=arguments.steps))


if __name__ == "__main__":
    main()
