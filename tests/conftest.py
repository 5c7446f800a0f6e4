"""How tests run: one thread each, and properties on the same examples every time."""

import os

# Before numpy or torch are imported: workers beside each other have a core each, and threads that
# wait for one another on it take several times as long.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from hypothesis import settings

settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")
