"""NIfTI files for the tests: any header that a program might write, right or wrong."""

from __future__ import annotations

import struct
from typing import Any

import nibabel
import numpy as np
from numpy.typing import NDArray

# Fields of the header by their places in it, as struct formats.
FIELDS = {
    "sizeof_hdr": (0, "i"),
    "dim": (40, "8h"),
    "dim0": (40, "h"),
    "dim1": (42, "h"),
    "dim3": (46, "h"),
    "intent_code": (68, "h"),
    "datatype": (70, "h"),
    "bitpix": (72, "h"),
    "pixdim": (76, "8f"),
    "pixdim1": (80, "f"),
    "vox_offset": (108, "f"),
    "scale": (112, "2f"),
    "xyzt_units": (123, "B"),
    "raw_codes": (252, "2h"),
    "quatern": (256, "3f"),
    "srow": (280, "12f"),
    "magic": (344, "4s"),
    "extension": (348, "4b2i"),
}


def nifti(
    array: NDArray,
    sform: NDArray | None = None,
    qform: NDArray | None = None,
    codes: tuple[int, int] = (1, 1),
    kind: type = nibabel.Nifti1Image,
    **fields: Any,
) -> bytes:
    """Return a NIfTI file.

    Args:
        array: its voxels.
        sform: by default 1 mm voxels.
        qform: by default the sform.
        codes: of the sform and the qform.
        kind: class of nibabel that writes it.
        fields: names of `FIELDS` with the values, one or several, that are written over them.
    """
    sform = np.eye(4) if sform is None else sform
    image = kind(array, None, dtype=array.dtype)
    image.set_sform(sform, codes[0])
    image.set_qform(sform if qform is None else qform, codes[1])
    content = bytearray(image.to_bytes())
    for name, value in fields.items():
        offset, form = FIELDS[name]
        struct.pack_into(f"<{form}", content, offset, *(value if isinstance(value, tuple | list) else [value]))
    return bytes(content)
