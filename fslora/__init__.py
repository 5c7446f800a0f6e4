"""Federated LoRA: models, data, sketches, stacked local training, aggregation, and their cost.

Knows nothing of radio, time or policies.
"""
