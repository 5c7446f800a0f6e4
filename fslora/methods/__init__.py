"""Federated-LoRA methods: how adapters are cut, trained and merged. One file each."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from fslora.methods.base import Job, Method, Slice, Update
from fslora.methods.fedit import FedIT
from fslora.methods.fslora import FSLoRA

METHODS: Mapping[str, Method] = MappingProxyType(
    {method.name: method for method in (FSLoRA(), FedIT())}
)

__all__ = ["METHODS", "Job", "Method", "Slice", "Update"]
