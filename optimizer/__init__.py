"""The decision: which devices take part, at which rank, to reach the target soonest."""

from optimizer.cohort import Cohort, draw_cohort
from optimizer.plan import Certificate, Plan
from optimizer.problem import Problem
from optimizer.rounds import Progress, RoundModel
from optimizer.solve import judge, solve

__all__ = [
    "Certificate",
    "Cohort",
    "Plan",
    "Problem",
    "Progress",
    "RoundModel",
    "draw_cohort",
    "judge",
    "solve",
]
