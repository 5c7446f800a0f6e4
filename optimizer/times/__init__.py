"""Estimates of the round time that plans are searched on."""
