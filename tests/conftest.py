"""What all tests share: the way to the modules of the app, and few threads on small machines."""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
# MONAI Label puts the app's folder on the path when it starts it.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "apps" / "causal_sam"))
