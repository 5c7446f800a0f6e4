"""On a GPU the numbers are those of the CPU."""

from collections.abc import Callable

import pytest
import torch

from fslora.methods import Job
from fslora.stacked import StackedModel
from fslora.trainer import Learner

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def to_cuda(learner: Learner) -> Learner:
    """The same learner with its model and state on the GPU."""
    model: StackedModel = learner.model
    model.model.to("cuda")
    for part in (learner.adapter.a, learner.adapter.b, learner.adapter.head):
        for name, value in part.items():
            part[name] = value.cuda()
    return learner


@pytest.mark.parametrize("kind", ["causal-lm", "classification", "bert"])
def test_round_on_the_gpu_equals_the_round_on_the_cpu(
    make_learner: Callable[..., Learner], kind: str
) -> None:
    jobs = [Job(0, 6, 1), Job(2, 3, 2)]
    cpu, gpu = make_learner(kind, padded=True), to_cuda(make_learner(kind, padded=True))
    for learner in (cpu, gpu):
        learner.aggregate(learner.train(jobs), [0.5, 1.5])
    for name, value in cpu.adapter.b.items():
        torch.testing.assert_close(gpu.adapter.b[name].cpu(), value, atol=1e-9, rtol=1e-9)
    assert gpu.evaluate().loss == pytest.approx(cpu.evaluate().loss, rel=1e-5)
