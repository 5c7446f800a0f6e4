"""At k = r the method is FedAvg-LoRA as PEFT itself trains it."""

from collections.abc import Callable

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.nn.functional import cross_entropy

from fslora.methods import Job
from fslora.trainer import Learner
from tests.fslora.conftest import small_model

Make = Callable[..., Learner]
JOBS = [Job(0, 6, 1), Job(2, 6, 2), Job(4, 6, 3)]
WEIGHTS = [0.2, 0.5, 0.3]


def peft_round(learner: Learner, jobs: list[Job]) -> list[dict[str, torch.Tensor]]:
    """Train each job with a PEFT model and torch's own optimizer; return the trained factors."""
    trained = []
    for job in jobs:
        config = LoraConfig(
            r=6, lora_alpha=8, target_modules=list(learner.adapter.a), lora_dropout=0.0
        )
        model = get_peft_model(small_model("causal-lm"), config).double()
        state = {}
        for name in learner.adapter.a:
            state[f"base_model.model.{name}.lora_A.default.weight"] = learner.adapter.a[name]
            state[f"base_model.model.{name}.lora_B.default.weight"] = learner.adapter.b[name]
        result = model.load_state_dict(state, strict=False)
        assert not result.unexpected_keys
        parameters = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.SGD(parameters, lr=learner.local.learning_rate)
        batches = learner.batches([job])
        for step in range(learner.local.steps):
            tokens = batches.tokens[0, step]
            logits = model(input_ids=tokens).logits
            loss = cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        trained.append({n: p.detach() for n, p in model.named_parameters() if p.requires_grad})
    return trained


@pytest.mark.parametrize("method", ["fslora", "fedit"])
def test_full_rank_round_equals_fedavg_of_peft_models(make_learner: Make, method: str) -> None:
    learner = make_learner(method=method)
    trained = peft_round(learner, JOBS)
    learner.aggregate(learner.train(JOBS), WEIGHTS)
    for name in learner.adapter.a:
        for factor, value in (("A", learner.adapter.a[name]), ("B", learner.adapter.b[name])):
            key = f"base_model.model.{name}.lora_{factor}.default.weight"
            mean = sum(w * t[key] for w, t in zip(WEIGHTS, trained, strict=True))
            assert isinstance(mean, torch.Tensor)
            torch.testing.assert_close(value, mean, atol=1e-12, rtol=0)


def test_one_device_with_a_head_is_centralised_lora(make_learner: Make) -> None:
    # A classifier with a trained head, full participation of one device, several rounds: a PEFT
    # model with `modules_to_save` under torch's own optimizer, restarted each round.
    learner = make_learner("bert", padded=True)
    config = LoraConfig(
        r=6, lora_alpha=8, target_modules=list(learner.adapter.a), modules_to_save=["classifier"]
    )
    model = get_peft_model(small_model("bert"), config).double().eval()
    names = dict(model.named_parameters())
    trained = {}
    for name in learner.adapter.a:
        for factor, values in (("A", learner.adapter.a), ("B", learner.adapter.b)):
            key = f"base_model.model.{name}.lora_{factor}.default.weight"
            trained[key] = values[name]
    for name in learner.adapter.head:
        layer, part = name.split(".")
        trained[f"base_model.model.{layer}.modules_to_save.default.{part}"] = learner.adapter.head[
            name
        ]
    parameters = [p for p in model.parameters() if p.requires_grad]
    assert len(parameters) == len(trained)
    with torch.no_grad():
        for key, value in trained.items():
            names[key].copy_(value)
    for round_index in range(3):
        job = Job(2, 6, 50 + round_index)
        batches = learner.batches([job])
        optimizer = torch.optim.SGD(parameters, lr=learner.local.learning_rate)
        for step in range(learner.local.steps):
            length = batches.length[0, step]
            tokens = batches.tokens[0, step]
            mask = (torch.arange(tokens.shape[1]) < length.unsqueeze(1)).long()
            logits = model(input_ids=tokens, attention_mask=mask).logits
            optimizer.zero_grad()
            cross_entropy(logits, batches.label[0, step]).backward()
            optimizer.step()
        learner.aggregate(learner.train([job]), [1.0])
        for key, value in trained.items():
            torch.testing.assert_close(value, names[key].detach(), atol=1e-12, rtol=0)
