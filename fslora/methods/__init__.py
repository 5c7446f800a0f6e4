"""Federated-LoRA methods: how adapters are cut, trained and merged. One file each."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from fslora.methods.base import GlobalState, Job, Method, Slice, Update
from fslora.methods.celora import CELoRA
from fslora.methods.fair import LoRAFAIR
from fslora.methods.fedex import FedExLoRA
from fslora.methods.fedhl import FedHL
from fslora.methods.fedit import FedIT
from fslora.methods.fedsa import FedSALoRA
from fslora.methods.ffa import FFALoRA
from fslora.methods.flexlora import FlexLoRA
from fslora.methods.flora import FLoRA
from fslora.methods.fslora import FSLoRA
from fslora.methods.hafl import HAFL
from fslora.methods.hetlora import HetLoRA
from fslora.methods.hierfed import HierFedLoRA
from fslora.methods.replication import Replication
from fslora.methods.rolora import RoLoRA
from fslora.methods.soft import SOFT
from fslora.methods.splitlora import SplitLoRA

_ALL: tuple[Method, ...] = (
    FSLoRA(),
    FedIT(),
    HetLoRA(),
    Replication(),
    FlexLoRA(),
    FLoRA(),
    FFALoRA(),
    RoLoRA(),
    FedSALoRA(),
    FedExLoRA(),
    LoRAFAIR(),
    SOFT(),
    FedHL(),
    HAFL(),
    CELoRA(),
    HierFedLoRA(),
    SplitLoRA(),
)

METHODS: Mapping[str, Method] = MappingProxyType({method.name: method for method in _ALL})
"""Methods by the name that scenarios use, with their default parameters."""

__all__ = ["METHODS", "GlobalState", "Job", "Method", "Slice", "Update"]
