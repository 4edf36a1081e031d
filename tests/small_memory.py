"""An update in a process that may hardly take more memory than it has when training begins."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Any

from causal_sam.site import training as job_training
from causal_sam.site.paths import SitePaths, UpdateConfig
from causal_sam.site.update import update

ROOM = 64 * 2**20


def update_without_memory(site: SitePaths, config: UpdateConfig) -> None:
    """Run an update; for a process of its own, which stays without memory."""
    adapter_engine = job_training.adapter_engine

    def limited(*args: Any, **options: Any) -> Any:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + ROOM
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        return adapter_engine(*args, **options)

    job_training.adapter_engine = limited
    update(site, config)
