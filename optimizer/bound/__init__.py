"""A time to the target that no plan beats."""

from optimizer.bound.lower import Bound, lower_bound

__all__ = ["Bound", "lower_bound"]
