"""On a GPU the numbers are those of the CPU, and no step waits for the host."""

import warnings
from collections.abc import Callable

import pytest
import torch

from fslora.local import LocalTraining
from fslora.methods import Job
from fslora.stack_training import StackTrainer
from fslora.trainer import Learner

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

Make = Callable[..., Learner]
KINDS = ["causal-lm", "classification", "bert"]
JOBS = [Job(0, 6, 1), Job(2, 3, 2), Job(1, 1, 3)]
RULES = {
    "sgd": LocalTraining(6, 2, 0.3),
    "momentum, clipped, proximal": LocalTraining(6, 2, 0.3, 0.5, 0.1, proximal=0.3),
    "adamw": LocalTraining(6, 2, 0.05, optimizer="adamw", weight_decay=0.1),
    "epochs": LocalTraining(1, 3, 0.3, epochs=2),
}
SIZES = (12, 5, 7, 12, 12)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_rounds_on_the_gpu_equal_rounds_on_the_cpu(
    make_learner: Make, kind: str, rule: str, dropout: float
) -> None:
    options = {"padded": True, "local": RULES[rule], "dropout": dropout, "sizes": SIZES}
    cpu, gpu = make_learner(kind, **options), make_learner(kind, **options, device="cuda")
    for jobs, weight in ((JOBS, [0.5, 1.5, 1.0]), (JOBS[:2], [1.0, 0.5]), (JOBS, [0.1, 0.2, 2.0])):
        for learner in (cpu, gpu):
            learner.aggregate(learner.train(jobs), weight)
    for mine, theirs in ((gpu.adapter.a, cpu.adapter.a), (gpu.adapter.b, cpu.adapter.b)):
        for name, value in theirs.items():
            torch.testing.assert_close(mine[name].cpu(), value, atol=1e-9, rtol=1e-9)
    assert gpu.evaluate().loss == pytest.approx(cpu.evaluate().loss, rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("padded", [False, True])
def test_steps_are_captured_and_do_not_wait(
    make_learner: Make, monkeypatch: pytest.MonkeyPatch, kind: str, padded: bool
) -> None:
    learner = make_learner(kind, padded=padded, local=RULES["sgd"], device="cuda")
    learner.train(JOBS)
    assert learner.stacks.replay
    run = StackTrainer._run

    def guarded(*arguments: object) -> None:
        torch.cuda.set_sync_debug_mode("error")
        try:
            run(*arguments)  # type: ignore[arg-type]
        finally:
            torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(StackTrainer, "_run", guarded)
    learner.train(JOBS)


def test_a_model_that_cannot_be_captured_trains_all_the_same(
    make_learner: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = make_learner(local=RULES["sgd"], device="cuda")
    waiting = make_learner(local=RULES["sgd"], device="cuda")
    forward = waiting.model.logits

    def waits(*arguments: object, **options: object) -> torch.Tensor:
        logits = forward(*arguments, **options)  # type: ignore[arg-type]
        logits.sum().item()
        return logits

    monkeypatch.setattr(waiting.model, "logits", waits)
    stream = torch.cuda.current_stream()
    with pytest.warns(UserWarning, match="cannot be captured"):
        updates = waiting.train(JOBS)
    assert torch.cuda.current_stream() == stream
    for mine, theirs in zip(updates, plain.train(JOBS), strict=True):
        for name, delta in theirs.delta_b.items():
            torch.testing.assert_close(mine.delta_b[name], delta, atol=1e-12, rtol=1e-9)


def test_equal_runs_give_equal_bytes_with_deterministic_kernels(
    make_learner: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Without it some builds of torch refuse cuBLAS products.
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    try:
        states = []
        for _ in range(2):
            learner = make_learner("causal-lm", padded=True, local=RULES["sgd"], device="cuda")
            for _ in range(3):
                learner.aggregate(learner.train(JOBS), [0.5, 1.5, 1.0])
            states.append({name: value.cpu() for name, value in learner.adapter.b.items()})
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_a_larger_cohort_is_captured_again(make_learner: Make) -> None:
    # More memory means new addresses, so everything recorded is dropped.
    learner = make_learner(local=RULES["sgd"], device="cuda")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        for jobs in (JOBS[:2], JOBS[:2], JOBS):
            learner.train(jobs)
            assert learner.stacks.replay


def test_memory_does_not_grow_from_round_to_round(make_learner: Make) -> None:
    learner = make_learner(padded=True, local=RULES["sgd"], device="cuda")
    held = []
    for round_index in range(12):
        jobs = [Job(d, 1 + (d + round_index) % 6, 10 * round_index + d) for d in range(5)]
        learner.aggregate(learner.train(jobs), [0.2] * 5)
        held.append(torch.cuda.memory_allocated())
    assert held[-1] <= held[len(held) // 2]
