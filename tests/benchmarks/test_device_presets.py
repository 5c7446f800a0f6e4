"""Published steps: their operations, and the errors that the documentation states."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.device_presets import steps as data
from benchmarks.device_presets.published import Counts, PublishedStep, flops_per_token, predict
from benchmarks.device_presets.steps import PUBLISHED_STEPS

QKVO = ("q", "k", "v", "o")
ALL = (*QKVO, "gate", "up", "down")
DOCS = Path(__file__).parents[2] / "docs" / "devices.md"


def doc_rows(columns):
    """Cells of the documentation's table rows of so many columns, without the header."""
    lines = DOCS.read_text(encoding="utf-8").splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line[:2] == "| "]
    return [row for row in rows if len(row) == columns and row[0] not in ("device", "---")]


@pytest.mark.parametrize(
    ("model", "million"),
    [
        # Weights of linear maps and embedding, as the models' cards and papers round them.
        (data.GEMMA_3_270M, 268),
        (data.GEMMA_3_1B, 1000),
        (data.GEMMA_3_4B, 3880),
        (data.QWEN_3_1B7, 1720),
        (data.QWEN_3_4B, 4022),
        (data.QWEN_1B8, 1837),
        (data.QWEN_7B, 7721.3),
        (data.QWEN_14B, 14167),
        (data.LLAMA_2_7B, 6738),
        (data.LLAMA_2_13B, 13016),
        (data.LLAMA_3_1_8B, 8030),
        (data.MISTRAL_7B, 7242),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_architectures_have_their_published_sizes(model, million):
    """Norms and biases, under 0.05 % of the weights, are not linear maps."""
    tied = model.name.startswith(("Gemma", "Qwen3"))
    total = model.counts().weights + (0 if tied else model.width * model.vocabulary)
    assert total / 1e6 == pytest.approx(million, rel=1e-3)


@pytest.mark.parametrize(
    ("model", "rank", "modules", "parameters"),
    [
        # Uploads of 2.949 MB in float32 (EdgeFlowerTune, section 6.1).
        (data.GEMMA_3_270M, 8, QKVO, 2_949_120 // 4),
        # LitGPT, tutorials/resource-tables.md.
        (data.LLAMA_2_7B, 8, "qv", 4_194_304),
        (data.LLAMA_2_13B, 8, "qv", 6_553_600),
    ],
    ids=["Gemma-3-270M", "Llama-2-7B", "Llama-2-13B"],
)
def test_adapters_have_their_published_sizes(model, rank, modules, parameters):
    assert model.counts(rank, modules).adapter_weights == parameters


def test_operations_are_those_of_the_cost_model():
    """4 P - 2 P_first + 6 A, 6 P + 8 A with checkpointing, 6 P for all weights; plus attention."""
    model = data.LLAMA_2_7B
    lora = model.counts(16, QKVO)
    assert lora.first_weights == 3 * 4096**2
    width = 32 * 4096
    plain = 4 * lora.weights - 2 * lora.first_weights + 6 * lora.adapter_weights
    assert flops_per_token(lora, 100) == plain + 12 * 100 * width
    again = 6 * lora.weights + 8 * lora.adapter_weights
    assert flops_per_token(lora, 100, checkpointing=True) == again + 16 * 100 * width
    every = model.counts()
    assert flops_per_token(every, 0, full=True) == 6 * every.weights
    assert flops_per_token(every, 0, full=True, checkpointing=True) == 8 * every.weights


def test_vendor_counts_agree():
    """NVIDIA's own model TFLOP/s over tokens/s, which count attention within a document too."""
    seven, thirteen = data.LLAMA_2_7B.counts(32, "qkv"), data.LLAMA_2_13B.counts(32, "qkv")
    assert flops_per_token(seven, 0) == pytest.approx(673e12 / 25206, rel=0.02)
    assert flops_per_token(thirteen, 0) == pytest.approx(733e12 / 14161, rel=0.02)
    full = flops_per_token(data.LLAMA_2_7B.counts(), 0, full=True)
    assert full == pytest.approx(682e12 / 17120, rel=0.02)


def test_backward_pass_of_the_top_blocks_alone():
    """Every further block costs the gradient of its activations, and its adapters."""
    model = data.MISTRAL_7B
    cost = [flops_per_token(model.counts(8, QKVO, k), 64) for k in range(1, model.layers + 1)]
    adapters = 6 * 8 * sum(sum(model.shape(each)) for each in QKVO)
    block = 2 * model.block_weights() + adapters + 8 * 64 * model.query_width
    np.testing.assert_allclose(np.diff(cost), block, rtol=1e-12)
    assert cost[-1] == flops_per_token(model.counts(8, QKVO), 64)


def test_adapters_on_the_feed_forward_network_alone_are_refused():
    with pytest.raises(ValueError, match="modules must hold one of q, k, v"):
        data.MISTRAL_7B.counts(8, ("up", "down"))


def test_sources_are_named():
    for step in PUBLISHED_STEPS:
        assert step.source.startswith("github.com/")
        assert step.seconds > 0
        assert step.flops > 0


def test_published_rates_agree_with_published_steps():
    """Where a source gives tokens per second as well; its steps are rounded to 2 or 3 digits."""
    step = {(s.device, s.software, s.model): s for s in PUBLISHED_STEPS}
    for device, model, tokens_per_s in [
        ("Adreno 830 (Snapdragon 8 Elite)", "Qwen3-1.7B", 6.09),
        ("Mali-G715", "Qwen3-1.7B", 1.28),
        ("Mali-G715", "Gemma-3-1B", 2.0),
        ("Apple M3 Pro", "Qwen3-1.7B", 17.53),
        ("Apple M3 Pro", "Qwen3-4B", 7.61),
        ("Apple M3 Pro", "Gemma-3-1B", 24.15),
    ]:
        seconds = step[device, "llama.cpp fork, Q8_0", model].seconds
        assert 128 / seconds == pytest.approx(tokens_per_s, rel=0.01)
    for device, model, tokens_per_s in [
        ("Adreno 830 (Snapdragon 8 Elite)", "BitNet 125M", 68.44),
        ("Adreno 830 (Snapdragon 8 Elite)", "BitNet 1B", 8.92),
        ("Mali-G715", "BitNet 2.7B", 2.28),
        ("iPhone 16", "BitNet 13B", 0.50),
    ]:
        seconds = step[device, "llama.cpp fork, TQ2_0", model].seconds
        assert 128 / seconds == pytest.approx(tokens_per_s, rel=0.01)


def test_fitted_steps_are_met_and_times_scale_with_operations():
    predictions = predict(PUBLISHED_STEPS)
    assert len(predictions) == len(PUBLISHED_STEPS)
    for each in predictions:
        if each.step.fitted:
            assert each.relative_error == pytest.approx(0, abs=1e-12)
        assert each.predicted_s * each.speed_flops == pytest.approx(each.step.flops)


@pytest.mark.parametrize("fitted", [(False, False), (True, True)])
def test_a_family_has_one_fitted_step(fitted):
    flops = flops_per_token(Counts(1e9), 0)
    steps = [PublishedStep("d", "s", "m", "LoRA", flops, 1, 8, 2.0, "x", each) for each in fitted]
    with pytest.raises(ValueError, match="d / s must have one fitted step"):
        predict(steps)


def test_documentation_states_every_error():
    """The table is what the benchmark prints, to its four digits and whole percents."""
    rows = doc_rows(9)
    predictions = predict(PUBLISHED_STEPS)
    assert len(rows) == len(predictions)
    for row, each in zip(rows, predictions, strict=True):
        step = each.step
        assert row[:5] == [
            step.device,
            step.software,
            step.model,
            step.method,
            f"{step.batch} x {step.length}",
        ]
        assert float(row[5]) == pytest.approx(step.flops / 1e9, rel=5e-4)
        assert float(row[6]) == pytest.approx(step.seconds, rel=5e-4)
        assert float(row[7]) == pytest.approx(each.predicted_s, rel=5e-4)
        if step.fitted:
            assert row[8] == "fitted"
        else:
            assert float(row[8].removesuffix(" %")) / 100 == pytest.approx(
                each.relative_error, abs=0.005
            )


def test_documentation_sums_up_the_errors():
    rows = doc_rows(7)
    errors = {}
    for each in predict(PUBLISHED_STEPS):
        family = errors.setdefault((each.step.device, each.step.software), [])
        if not each.step.fitted:
            family.append(abs(each.relative_error))
    assert [tuple(row[:2]) for row in rows] == list(errors)
    for row, family in zip(rows, errors.values(), strict=True):
        assert int(row[3]) == len(family)
        stated = [float(cell.removesuffix(" %")) / 100 for cell in row[4:6]]
        np.testing.assert_allclose(stated, [np.median(family), max(family)], atol=0.0051)
