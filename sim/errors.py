"""The one exception for whatever a user can put right."""

from __future__ import annotations


class InputError(Exception):
    """The input was refused; the message names key, value and remedy. Exit code 2."""
