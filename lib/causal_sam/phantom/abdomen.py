"""Phantom of the abdomen in patient space, with the organs of the demo studies.

Lengths are millimetre; x runs to the patient's right, y to anterior, z to superior (RAS+), with the origin in front of
the spine at the level of the kidneys.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

ORGANS = (
    "fat",
    "muscle",
    "intraperitoneal fat",
    "bone",
    "spinal canal",
    "lung",
    "bowel",
    "bowel content",
    "pancreas",
    "inferior vena cava",
    "aorta",
    "stomach",
    "stomach content",
    "gallbladder",
    "right kidney",
    "left kidney",
    "spleen",
    "liver",
    "liver lesion",
)
LABELS = {name: value for value, name in enumerate(ORGANS, start=1)}
# Structures for annotation; the others complete the body.
SEGMENTED = (
    "liver", "spleen", "right kidney", "left kidney", "stomach", "gallbladder", "pancreas", "aorta",
    "inferior vena cava", "liver lesion",
)  # fmt: skip


def draw_abdomen(shape: tuple[int, ...], affine: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Draw the abdomen on a grid.

    Args:
        shape: (I, J, K).
        affine: 4x4, voxel index -> RAS+ millimetre, axis-aligned or oblique.
        rng: source of randomness for the shapes; the same state gives the same anatomy on every grid.

    Returns:
        (I, J, K) label map with the values of `LABELS`, 0 outside the body.
    """
    index = np.stack(np.meshgrid(*(np.arange(n, dtype=np.float32) for n in shape), indexing="ij"))
    x, y, z = np.tensordot(affine[:3, :3].astype(np.float32), index, 1) + affine[:3, 3, None, None, None].astype(
        np.float32
    )
    wave = [rng.uniform(0, 2 * np.pi, 6) for _ in range(3)]

    def warp(strength: float, length: float) -> list[NDArray[np.float32]]:
        """Return coordinates displaced by waves in patient space, which deform the ellipsoids."""
        k = 2 * np.pi / length
        shifts = [
            np.sin(k * y + w[0])
            + np.sin(k * z + w[1])
            + 0.6 * np.sin(1.7 * k * x + w[2])
            + 0.5 * np.sin(2.3 * k * (y + z) + w[3])
            for w in wave
        ]
        return [c + strength * s for c, s in zip((x, y, z), shifts, strict=True)]

    def ellipsoid(centre, radii, space=None, tilt: float = 0.0) -> NDArray[np.bool_]:
        """Return the mask of an ellipsoid, rotated by ``tilt`` radians in the x-z plane."""
        px, py, pz = (c - m for c, m in zip(space or organ, centre, strict=True))
        c, s = np.cos(tilt), np.sin(tilt)
        return ((c * px + s * pz) / radii[0]) ** 2 + (py / radii[1]) ** 2 + ((c * pz - s * px) / radii[2]) ** 2 < 1

    trunk, organ = warp(2.0, 260), warp(4.0, 110)
    # Power 2.4 gives the flattened sides of a trunk; the spine lies behind its centre.
    radius = (np.abs(trunk[0] / 172) ** 2.4 + np.abs((trunk[1] - 5) / 118) ** 2.4) ** (1 / 2.4)
    labels = np.zeros(shape, np.uint8)

    def paint(name: str, where: NDArray[np.bool_]) -> None:
        labels[where] = LABELS[name]

    paint("fat", radius < 1)
    paint("muscle", radius < 0.9 - 0.03 * np.cos(np.arctan2(y, x) * 2))
    cavity = (radius < 0.8) & ~ellipsoid((0, -95, 0), (75, 42, 1e4), trunk)
    paint("intraperitoneal fat", cavity)
    for side in (1, -1):  # psoas
        paint("muscle", ellipsoid((side * 38, -62, -90), (19, 20, 100), trunk))
    ribs = (
        (np.abs(radius - 0.85) < 0.028)
        & (np.sin((z + 0.45 * np.abs(x) - 0.25 * y) * 2 * np.pi / 34) > 0.62)
        & (z > -55)
    )
    paint("bone", ribs)
    disc = np.abs((z + 8) % 32 - 16) > 12.5
    vertebra = ellipsoid((0, -62, 0), (23, 18, 1e4), trunk)
    paint("bone", vertebra & ~disc)
    paint("muscle", vertebra & disc)
    paint("bone", ellipsoid((0, -90, 0), (17, 15, 1e4), trunk) | (ellipsoid((0, -84, 0), (46, 5, 1e4), trunk) & ~disc))
    paint("spinal canal", ellipsoid((0, -89, 0), (9, 8, 1e4), trunk))

    loops = [c / 10.5 for c in warp(9.0, 90)]
    # A gyroid consists of winding tubes, similar to bowel loops.
    gyroid = sum(np.sin(loops[n]) * np.cos(loops[(n + 1) % 3]) for n in range(3))
    bowel = cavity & (y > -25) & (z < 12) & (gyroid > 0.35)
    paint("bowel", bowel)
    paint("bowel content", (gyroid > 0.9) & bowel & (y > 30) & (np.abs(x) > 40))
    duct = np.clip((x + 75) / 125, 0, 1)
    middle_y, middle_z = -2 + 26 * np.sin(duct * np.pi), 22 - 30 * duct
    paint(
        "pancreas",
        (np.hypot(organ[1] - middle_y, (organ[2] - middle_z) / 1.25) < 11 + 5 * duct) & (x > -75) & (x < 50) & cavity,
    )
    paint("stomach", ellipsoid((-62, 30, 42), (47, 36, 52), tilt=0.5) & cavity)
    inner = ellipsoid((-62, 30, 42), (42, 31, 47), tilt=0.5) & cavity
    paint("stomach content", inner)
    for name, centre, tilt in (("right kidney", (62, -48, -18), -0.2), ("left kidney", (-64, -48, -4), 0.2)):
        side = np.sign(centre[0])
        sinus = ellipsoid((centre[0] - side * 19, centre[1] + 9, centre[2]), (13, 10, 19), tilt=tilt)
        paint(name, ellipsoid(centre, (29, 26, 54), tilt=tilt) & ~sinus)
    paint(
        "spleen", ellipsoid((-112, -28, 40), (34, 50, 46)) & ~ellipsoid((-74, -10, 36), (32, 52, 60)) & (radius < 0.8)
    )
    liver = ellipsoid((72, 8, 42), (92, 82, 68)) | ellipsoid((-5, 44, 58), (78, 36, 34))
    liver &= ~ellipsoid((30, -55, -45), (68, 74, 66)) & (radius < 0.8)
    paint("liver", liver & ~np.isin(labels, [LABELS["right kidney"], LABELS["bone"]]))
    paint("gallbladder", ellipsoid((52, 42, -4), (15, 24, 22)))
    paint("liver lesion", ellipsoid((100, 22, 44), (16, 14, 14)) & (labels == LABELS["liver"]))
    paint("liver lesion", ellipsoid((68, -18, 66), (10, 10, 11)) & (labels == LABELS["liver"]))
    for side, top in ((1, 62), (-1, 70)):  # domes of the diaphragm
        paint(
            "lung",
            (radius < 0.78) & (z > top + 26 - ((x - side * 82) / 11) ** 2 / 3 - (y / 14) ** 2 / 3) & (side * x > 22),
        )
    paint("inferior vena cava", ellipsoid((20, -34, 0), (12, 9, 1e4)))
    paint("aorta", ellipsoid((-11, -34, 0), (11, 11, 1e4), trunk))
    return labels
