"""What all tests share: one thread for each computation, since CI machines are small and tests run beside a server."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
