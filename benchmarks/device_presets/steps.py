"""The published steps themselves; what was assumed where a source is silent stands beside them."""

from benchmarks.device_presets.published import Architecture, Counts, PublishedStep, flops_per_token

_QKVO = ("q", "k", "v", "o")
_ALL = (*_QKVO, "gate", "up", "down")

# From the models' configuration files.
GEMMA_3_270M = Architecture("Gemma-3-270M", 18, 640, 1024, 256, 2048, 262144)
GEMMA_3_1B = Architecture("Gemma-3-1B", 26, 1152, 1024, 256, 6912, 262144)
GEMMA_3_4B = Architecture("Gemma-3-4B", 34, 2560, 2048, 1024, 10240, 262144)
QWEN_3_1B7 = Architecture("Qwen3-1.7B", 28, 2048, 2048, 1024, 6144, 151936)
QWEN_3_4B = Architecture("Qwen3-4B", 36, 2560, 4096, 1024, 9728, 151936)
QWEN_1B8 = Architecture("Qwen-1.8B", 24, 2048, 2048, 2048, 5504, 151936)
QWEN_7B = Architecture("Qwen-7B", 32, 4096, 4096, 4096, 11008, 151936)
QWEN_14B = Architecture("Qwen-14B", 40, 5120, 5120, 5120, 13696, 152064)
LLAMA_2_7B = Architecture("Llama-2-7B", 32, 4096, 4096, 4096, 11008, 32000)
LLAMA_2_13B = Architecture("Llama-2-13B", 40, 5120, 5120, 5120, 13824, 32000)
LLAMA_3_1_8B = Architecture("Llama-3.1-8B", 32, 4096, 4096, 1024, 14336, 128256)
MISTRAL_7B = Architecture("Mistral-7B", 32, 4096, 4096, 1024, 14336, 32000)

EDGE_FLOWER_TUNE = (
    "github.com/Edge-Intelligence-Lab/EdgeFlowerTune, docs/original/"
    "current_system_and_device_profile_20260421.md, 6.1 and 6.2 (arXiv 2605.08636)"
)
EDGE_FLOWER_TUNE_EARLY = (
    "github.com/Edge-Intelligence-Lab/EdgeFlowerTune, docs/original/report.md, 4.1.3"
)
FABRIC = (
    "github.com/tetherto/qvac-rnd-fabric-llm-finetune, docs/BENCHMARKS.md, "
    "Fine-tuning Completion Time, Time/Step"
)
FABRIC_BITNET = (
    "github.com/tetherto/qvac-rnd-fabric-llm-bitnet, docs/BENCHMARKS.md, "
    "TQ2_0 LoRA Fine-tuning (Time per Epoch)"
)
QWEN = "github.com/QwenLM/Qwen, README.md, Profiling of Memory and Speed"
NEMO = "github.com/NVIDIA/NeMo, docs/source/performance/performance_summary.md, Finetuning"


def _flower() -> list[PublishedStep]:
    """Means over five phones and three boards; target maps and rank from the run's configuration.

    The phones compute the batch at once, the boards one sequence at a time.
    """
    per_token = flops_per_token(GEMMA_3_270M.counts(8, _QKVO), 64)
    rows = (
        ("Snapdragon 778G (CPU)", (170.1887, 174.3541, 170.3717, 170.5589, 170.6399), True),
        ("Snapdragon 778G (CPU)", (167.5717, 171.0454, 168.0978, 167.7521, 167.3728), False),
        ("Jetson Nano", (11.3659, 14.1289, 11.8274), True),
        ("Jetson Nano", (10.8456, 12.3349, 10.3642), False),
    )
    steps = [
        PublishedStep(
            device,
            "MobileFineTuner",
            "Gemma-3-270M",
            f"LoRA r=8 q k v o, {'WikiText' if first else 'MMLU'}",
            per_token,
            8,
            64,
            sum(seconds) / len(seconds),
            EDGE_FLOWER_TUNE,
            first,
        )
        for device, seconds, first in rows
    ]
    # Two weeks before, with a sequence length that may not have been filled: 229.5 s for one step
    # a round, 457.3 s for two, hence no part of it is a fixed cost of the round.
    early = PublishedStep(
        "Snapdragon 778G (CPU)",
        "MobileFineTuner",
        "Gemma-3-270M",
        "LoRA r=8 q k v o, earlier build",
        flops_per_token(GEMMA_3_270M.counts(8, _QKVO), 128),
        1,
        128,
        229.5,
        EDGE_FLOWER_TUNE_EARLY,
    )
    return [*steps[:2], early, *steps[2:]]


def _fabric() -> list[PublishedStep]:
    """Q8_0 bases, context 128, all seven maps; rank 8 is the tool's default.

    For the iPhone the source's tokens per second and time per epoch imply 24 to 26 s a step of
    Qwen3-1.7B instead of 21 s.
    """
    models = (QWEN_3_1B7, GEMMA_3_1B, QWEN_3_4B, GEMMA_3_4B)
    seconds = {
        "Adreno 830 (Snapdragon 8 Elite)": (21.0, 71.0),
        "Mali-G715": (100.0, 64.0),
        "iPhone 16": (21.0, 85.0),
        "Apple M3 Pro": (7.3, 5.3, 16.8, 16.6),
    }
    return [
        PublishedStep(
            device,
            "llama.cpp fork, Q8_0",
            model.name,
            "LoRA r=8 all maps",
            flops_per_token(model.counts(8, _ALL), 128),
            1,
            128,
            time,
            FABRIC,
            model is QWEN_3_1B7,
        )
        for device, times in seconds.items()
        for model, time in zip(models, times, strict=False)
    ]


def _fabric_bitnet() -> list[PublishedStep]:
    """Ternary bases named by their size alone, 41,754 tokens an epoch in contexts of 128.

    Four operations per nominal weight and token: the architectures are not published, so the
    embedding counts where it should not, and adapters and attention do not.
    """
    sizes = {"125M": 125e6, "350M": 350e6, "1B": 1e9, "1.5B": 1.5e9, "2.7B": 2.7e9, "3.8B": 3.8e9}
    larger = {"7B": 7e9, "13B": 13e9}
    minutes = {
        "Adreno 830 (Snapdragon 8 Elite)": (10 + 10 / 60, 28 + 40 / 60, 78, 117, 208, 291),
        "Mali-G715": (17 + 25 / 60, 50 + 52 / 60, 128, 178, 304, 435, 786),
        "iPhone 16": (12.4, 44 + 34 / 60, 105, 142, 264, 383, 744, 1390),
        "Apple M3 Pro": (
            *(6 + 19 / 60, 8 + 10 / 60, 9 + 19 / 60, 10.85, 12.65, 19 + 29 / 60),
            *(35 + 25 / 60, 63),
        ),
    }
    return [
        PublishedStep(
            device,
            "llama.cpp fork, TQ2_0",
            f"BitNet {size}",
            "LoRA all maps",
            flops_per_token(Counts(weights), 0),
            1,
            128,
            time * 60 * 128 / 41754,
            FABRIC_BITNET,
            size == "1B",
        )
        for device, times in minutes.items()
        for (size, weights), time in zip((sizes | larger).items(), times, strict=False)
    ]


def _qwen() -> list[PublishedStep]:
    """Eight accumulated sequences a step; rank, maps and checkpointing as in the repository.

    What the source calls w1, w2 and c_proj are gate, up and both outputs.
    """
    times = {
        QWEN_7B: {2048: 5.2, 256: 1.2, 512: 1.5, 1024: 2.8, 4096: 10.1, 8192: 21.3},
        QWEN_1B8: {512: 1.0, 2048: 1.7, 8192: 6.8},
        QWEN_14B: {512: 2.4, 2048: 8.4, 8192: 36.0},
    }
    return [
        PublishedStep(
            "A100 80GB",
            "PyTorch, FlashAttention 2",
            model.name,
            "LoRA r=64 all maps, checkpointing",
            flops_per_token(model.counts(64, _ALL), length, checkpointing=True),
            8,
            length,
            time,
            QWEN,
            model is QWEN_7B and length == 2048,
        )
        for model, by_length in times.items()
        for length, time in by_length.items()
    ]


def _nemo() -> list[PublishedStep]:
    """FP8, 8 GPUs, 4 packed sequences each; rank 32 on q, k, v is assumed.

    The adapters are 0.4 % of the operations. Packed questions are short and attend to themselves
    alone, so attention is left out.
    """
    rows = ((LLAMA_2_7B, 32, 25206), (LLAMA_2_13B, 32, 14161), (LLAMA_2_7B, 0, 17120))
    return [
        PublishedStep(
            "H100 (DGX)",
            "NeMo, FP8",
            model.name,
            "LoRA" if rank else "all weights",
            flops_per_token(model.counts(rank, "qkv" if rank else ""), 0, full=not rank),
            4,
            4096,
            4 * 4096 / tokens_per_s,
            NEMO,
            model is LLAMA_2_7B and rank > 0,
        )
        for model, rank, tokens_per_s in rows
    ]


PUBLISHED_STEPS: tuple[PublishedStep, ...] = (
    *_flower(),
    *_fabric(),
    *_fabric_bitnet(),
    *_qwen(),
    *_nemo(),
)
"""Measured steps, those of a family next to each other."""
