"""Laws are searched for counterexamples, not timed: the machine may be busy."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("aggregation", deadline=None)
settings.load_profile("aggregation")
