"""Stacked training of a cohort against other ways to do the same work, side by side."""
