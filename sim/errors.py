"""The exceptions that end a command with one message."""

from __future__ import annotations


class InputError(Exception):
    """The input was refused; the message names key, value and remedy. Exit code 2."""


class RunError(Exception):
    """The run itself failed; what it wrote so far stays. Exit code 1."""

    exit_code = 1


class Interrupted(RunError):
    """The user stopped the run; what it wrote so far stays. Exit code 130."""

    exit_code = 130
