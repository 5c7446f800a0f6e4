"""The sections of a scenario: every key with its type, range, default and meaning."""
