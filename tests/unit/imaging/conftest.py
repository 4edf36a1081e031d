"""Property tests here may take as long as a busy machine needs: none of them is about time."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile("imaging", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("imaging")
