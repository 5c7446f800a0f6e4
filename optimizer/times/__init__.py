"""Estimates of the round time that plans are searched on.

============ ============================================= ==================================
estimate     of what                                       good for
============ ============================================= ==================================
Surrogate    an upper bound, one sort                      any fleet, to find the basin
Quadrature   the law of the round's end, without draws     smooth descent; fleets above 1000
Sampled      the mean over fixed cohorts, or all of them   up to 12 devices exactly; to 1000
============ ============================================= ==================================

They share one interface, `optimizer.times.base.TimeModel`, and live in the modules of their names;
`optimizer.times.mean_field` has a baseline besides. The modules are imported where they are used:
`optimizer.roundtime`, which `Sampled` builds on, offers `Quadrature` as one of its methods.
"""
