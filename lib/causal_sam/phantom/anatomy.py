"""Random anatomies: label maps of three neighbouring slices, to be rendered in any style.

No real image or label is used. Models generalise to real images because of the variety of the shapes: bodies with
walls, bones, air and touching organs; nested shells as in the head; partitions by smooth noise; thin and tubular
structures; lesions inside organs.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage

SLICES = 3
MAX_LABELS = 48
# Mean square of the weights of a cubic B-spline: factor of the control points' variance along one axis.
CUBIC_POWER = 151 / 315


@dataclass
class Anatomy:
    """A label map with the properties of its labels.

    Attributes:
        labels: 3xHxW uint8; 0 is the outside; the middle slice is to be segmented.
        parents: for each label, the surrounding label (the organ of a lesion), or 0.
        materials: for each label, one of ``AIR`` to ``LESION``.
    """

    labels: np.ndarray
    parents: np.ndarray = field(default_factory=lambda: np.zeros(MAX_LABELS, np.uint8))
    materials: np.ndarray = field(default_factory=lambda: np.zeros(MAX_LABELS, np.uint8))

    def with_descendants(self, label: int) -> np.ndarray:
        """Return ``label`` and all labels inside it."""
        members = {label}
        for child, parent in enumerate(self.parents):
            if parent and int(parent) in members:
                members.add(child)
        return np.array(sorted(members), np.uint8)

    def is_inside_lesion(self, label: int) -> bool:
        """Return whether ``label`` lies inside a lesion, such as its core."""
        while label := int(self.parents[label]):
            if self.materials[label] == LESION:
                return True
        return False


AIR, FAT, MUSCLE, ORGAN, BLOOD, BONE, FLUID, LESION = range(8)


class AnatomySampler:
    """Draws anatomies of one size.

    Anatomies extend over coordinates from -1 to 1. The slices show a square window of them; a small window shows a few
    structures at a higher resolution.

    Args:
        size: side of the slices in pixels.
        rng: source of randomness; the same state gives the same anatomies.
        centre: (y, x) of the window.
        reach: half the side of the window; 1 shows the whole anatomy.
    """

    def __init__(
        self, size: int, rng: np.random.Generator, centre: tuple[float, float] = (0.0, 0.0), reach: float = 1.0
    ) -> None:
        self.size = size
        self.rng = rng
        self._pixel = 2 * reach / size
        offsets = (np.arange(size) + 0.5) * self._pixel - reach
        self._axes = tuple((c + offsets).astype(np.float32) for c in centre)
        self._y, self._x = np.meshgrid(*self._axes, indexing="ij")

    def sample(self) -> Anatomy:
        """Draw one anatomy."""
        kind = self.rng.choice(4, p=[0.43, 0.33, 0.12, 0.12])
        return (self.body, self.head, self.partition, self.scatter)[kind]()

    def noise(self, cells: float, channels: int = 1) -> np.ndarray:
        """Return smooth noise of unit variance, channels x 3 x size x size, with about ``cells`` bumps per axis.

        The three slices are steps of random size through a three-dimensional field, so that shapes shift and end
        between slices as in a volume with thick slices.
        """
        n = max(2, round(cells)) + 5
        depth = 4
        coarse = self.rng.standard_normal((channels, depth, n, n)).astype(np.float32)
        step = self.rng.uniform(0.02, 0.35)
        positions = 1.5 + step * np.array([-1, 0, 1])
        # Linear interpolation along z, where the steps are small; cubic in the plane.
        low = np.floor(positions).astype(int)
        w = (positions - low).astype(np.float32)[None, :, None, None]
        slices = coarse[:, low] * (1 - w) + coarse[:, low + 1] * w
        # Coordinates beyond the anatomy are clipped to the control points.
        rows, columns = (_cubic_basis(np.clip(2 + (axis + 1) / 2 * (n - 5), 1, n - 2), n) for axis in self._axes)
        field_ = np.einsum("hi,czij,wj->czhw", rows, slices, columns, optimize=True)
        return field_ / np.sqrt(CUBIC_POWER**2 * float(np.mean(w[0, 1] ** 2 + (1 - w[0, 1]) ** 2)))

    def warped_grid(self, strength: float, cells: float) -> tuple[np.ndarray, np.ndarray]:
        """Return image coordinates (y, x), each 3 x size x size, displaced by smooth noise."""
        shift = self.noise(cells, 2) * strength
        return self._y + shift[0], self._x + shift[1]

    # -- the four kinds of anatomy ---------------------------------------------------------------------------------

    def body(self) -> Anatomy:
        """Draw a trunk: fat, muscle, spine, ribs, touching organs, vessels, bowel with air, lesions."""
        rng = self.rng
        anatomy, labels, add = self._new_anatomy()
        y, x = self.warped_grid(rng.uniform(0.0, 0.08), rng.uniform(2, 5))
        ry, rx = rng.uniform(0.55, 0.85), rng.uniform(0.7, 1.05)
        centre_y, centre_x = rng.normal(0, 0.06, 2)
        radius = np.sqrt(((y - centre_y) / ry) ** 2 + ((x - centre_x) / rx) ** 2)
        add(radius < 1, FAT)
        wall = rng.uniform(0.72, 0.97)
        add(radius < wall, MUSCLE)
        cavity = radius < wall - rng.uniform(0.03, 0.15)
        inside = add(cavity, rng.choice([FAT, FAT, ORGAN, AIR, FLUID]))

        organs = []
        if rng.random() < 0.5:
            organs += self._packed_organs(cavity, (centre_y, centre_x), (ry * wall, rx * wall), add)
        yw, xw = self.warped_grid(rng.uniform(0.01, 0.12), rng.uniform(3, 8))
        for _ in range(rng.integers(0 if organs else 3, 16)):
            scale = rng.choice([0.5, 0.3, 0.18, 0.1], p=[0.2, 0.3, 0.3, 0.2]) * rng.uniform(0.7, 1.4)
            angle, ratio = rng.uniform(0, np.pi), rng.uniform(0.35, 1.0)
            distance, phi = np.sqrt(rng.uniform(0, 0.8)), rng.uniform(0, 2 * np.pi)
            cy, cx = centre_y + ry * distance * np.sin(phi), centre_x + rx * distance * np.cos(phi)
            power = rng.uniform(1.6, 3.5)
            shape = self._superellipse(yw, xw, cy, cx, scale, scale * ratio, angle, power, ends=True) & cavity
            if organs and rng.random() < 0.3:  # touches existing organs instead of covering them
                shape &= np.isin(labels, [inside])
            organ = add(shape, rng.choice([ORGAN, ORGAN, ORGAN, MUSCLE, FLUID, BLOOD]))
            if organ:
                organs.append(organ)
        for organ in list(organs):
            where = labels == organ
            kind = rng.random()
            if kind < 0.15:  # bowel or stomach: a wall around fluid, with air above
                hollow = ndimage.binary_erosion(where[1], iterations=int(rng.integers(1, 6)))
                filling = where & np.stack([hollow] * SLICES)
                content = add(filling, rng.choice([ORGAN, FLUID, FLUID]), parent=organ)
                if content and rng.random() < 0.7:
                    rows = self._y[np.nonzero(hollow)[0], 0]
                    add(filling & (y < rng.uniform(rows.min(), rows.max())), AIR, parent=organ)
            elif kind < 0.27:  # cortex around a medulla
                inner = ndimage.binary_erosion(where[1], iterations=int(rng.integers(2, 8)))
                add(where & np.stack([inner] * SLICES) & (self.noise(12)[0] > rng.uniform(-1, 0.5)), ORGAN, organ)
            elif kind < 0.5:
                self._lesions(labels, organ, add, int(rng.integers(1, 4)))
            if rng.random() < 0.25:  # vessels run through the organ
                add(self._tubes(rng.integers(1, 4), rng.uniform(0.008, 0.03)) & (labels == organ), BLOOD, parent=organ)
        spine_y, spine_x = centre_y + ry * rng.uniform(0.3, 0.7), centre_x + rng.normal(0, 0.04)
        if rng.random() < 0.8:
            vertebra = add(self._superellipse(yw, xw, spine_y, spine_x, 0.12, 0.16, 0.0, 2.4), BONE)
            add(
                self._superellipse(y, x, spine_y, spine_x, 0.09, 0.13, 0.0, 2.4) & (labels == vertebra), ORGAN, vertebra
            )
            add(self._superellipse(y, x, spine_y + 0.17, spine_x, 0.05, 0.06, 0.0, 2.0), FLUID)
            for _ in range(rng.integers(1, 3)):
                place = spine_y - rng.uniform(0.15, 0.3), spine_x + rng.normal(0, 0.08)
                size = rng.uniform(0.03, 0.08)
                add(self._superellipse(y, x, *place, size, size, 0.0, 2.0), BLOOD)
        if rng.random() < 0.6:
            angle = np.arctan2(y - centre_y, x - centre_x)
            phase, count = rng.uniform(0, 6), rng.integers(8, 20)
            add((np.abs(radius - wall + 0.05) < 0.025) & (np.sin(angle * count + phase) > 0.4), BONE)
        if rng.random() < 0.3:  # table or arms beside the body
            add(
                self._superellipse(y, x, 0.1, rng.choice([-1.0, 1.0]) * 0.95, 0.2, 0.12, 0.0, 2.0) & (labels == 0),
                MUSCLE,
            )
        return anatomy

    def head(self) -> Anatomy:
        """Draw a head: scalp, skull, fluid, folded cortex, white matter, paired deep nuclei, lesions."""
        rng = self.rng
        anatomy, labels, add = self._new_anatomy()
        y, x = self.warped_grid(rng.uniform(0.0, 0.06), rng.uniform(2, 4))
        ry, rx = rng.uniform(0.6, 0.98), rng.uniform(0.55, 0.9)
        radius = np.sqrt((y / ry) ** 2 + (x / rx) ** 2)
        if rng.random() < 0.6:  # otherwise skull-stripped, as often in research data
            add(radius < 1, FAT)
            add(radius < rng.uniform(0.9, 0.96), BONE)
            brain_radius = rng.uniform(0.8, 0.88)
        else:
            brain_radius = rng.uniform(0.9, 1.0)
        add(radius < brain_radius, FLUID)
        folds = self.noise(rng.uniform(8, 22))[0] * rng.uniform(0.015, 0.06)
        cortex = add(radius + folds < brain_radius - 0.03, ORGAN)
        white = add(radius + 2.2 * folds < brain_radius - rng.uniform(0.08, 0.2), MUSCLE)
        mirrored = np.abs(x)
        for _ in range(rng.integers(1, 7)):
            cy, cx = rng.uniform(-0.45, 0.45) * ry, rng.uniform(0.03, 0.45) * rx
            shape = self._superellipse(
                y,
                mirrored,
                cy,
                cx,
                rng.uniform(0.04, 0.28),
                rng.uniform(0.03, 0.14),
                rng.normal(0, 0.6),
                rng.uniform(1.6, 3),
                ends=True,
            )
            shape &= radius < brain_radius - 0.1
            material = rng.choice([ORGAN, ORGAN, FLUID])
            if rng.random() < 0.5:  # left and right are separate labels
                add(shape & (x > 0), material)
                add(shape & (x <= 0), material)
            else:
                add(shape, material)
        if rng.random() < 0.6:
            self._lesions(labels, white or cortex, add, int(rng.integers(1, 12)), spread=rng.random() < 0.5)
        if rng.random() < 0.8:
            brain = radius < brain_radius - 0.02
            for _ in range(rng.choice([1, 1, 2])):
                self._tumour(brain, labels == white if white else np.zeros_like(brain), add)
        return anatomy

    def partition(self) -> Anatomy:
        """Draw a partition of the image by smooth noise fields: touching shapes without a body."""
        rng = self.rng
        anatomy, labels, add = self._new_anatomy()
        count = int(rng.integers(3, 14))
        regions = self.noise(rng.uniform(2, 9), count).argmax(axis=0)
        if rng.random() < 0.5:
            y, x = self.warped_grid(0.1, 3)
            regions = np.where(np.hypot(y, x) < rng.uniform(0.6, 1.0), regions, -1)
        added = [add(regions == n, rng.integers(1, 7)) for n in range(count)]
        for organ in added:
            if organ and rng.random() < 0.25:
                self._lesions(labels, organ, add, int(rng.integers(1, 4)))
        return anatomy

    def scatter(self) -> Anatomy:
        """Draw blobs, rings and tubes on a textured background."""
        rng = self.rng
        anatomy, _, add = self._new_anatomy()
        add(np.ones((SLICES, self.size, self.size), bool) & (self.noise(3)[0] > rng.uniform(-3, 0)), MUSCLE)
        yw, xw = self.warped_grid(rng.uniform(0.0, 0.15), rng.uniform(3, 9))
        for _ in range(rng.integers(4, 22)):
            scale = np.exp(rng.uniform(np.log(0.03), np.log(0.45)))
            cy, cx = rng.uniform(-0.9, 0.9, 2)
            ratio, angle, power = rng.uniform(0.3, 1), rng.uniform(0, np.pi), rng.uniform(1.2, 4)
            shape = self._superellipse(yw, xw, cy, cx, scale, scale * ratio, angle, power, ends=True)
            outer = add(shape, rng.integers(1, 8))
            if outer and rng.random() < 0.25:
                inner = self._superellipse(yw, xw, cy, cx, scale * 0.6, scale * ratio * 0.6, angle, power)
                add(inner & shape, rng.integers(0, 8), parent=outer)
        if rng.random() < 0.5:
            for _ in range(rng.integers(1, 4)):
                add(self._tubes(1, rng.uniform(0.01, 0.05)), BLOOD)
        return anatomy

    # -- parts -----------------------------------------------------------------------------------------------------

    def _new_anatomy(self):
        anatomy = Anatomy(np.zeros((SLICES, self.size, self.size), np.uint8))
        labels = anatomy.labels
        used = 0

        def add(shape: np.ndarray, material: int, parent: int = 0) -> int:
            """Paint a shape with the next label and return it; 0 if the shape is empty or no label is left."""
            nonlocal used
            if used + 1 >= MAX_LABELS or not shape.any():
                return 0
            used += 1
            labels[shape] = used
            anatomy.parents[used] = parent
            anatomy.materials[used] = material
            return used

        return anatomy, labels, add

    def _tumour(self, brain: np.ndarray, white: np.ndarray, add) -> None:
        """Add a tumour that crosses structures: oedema along white matter, a lobed core, rim and necrosis."""
        rng = self.rng
        y, x = self.warped_grid(rng.uniform(0.04, 0.14), rng.uniform(3, 9))
        cy, cx = rng.uniform(-0.5, 0.5, 2)
        scale = np.exp(rng.uniform(np.log(0.08), np.log(0.45)))

        def blob(size: float) -> np.ndarray:
            angle, ratio = rng.uniform(0, np.pi), rng.uniform(0.55, 1)
            dy, dx = rng.normal(0, 0.12 * scale, 2)
            power = rng.uniform(1.6, 2.6)
            return self._superellipse(y, x, cy + dy, cx + dx, size, size * ratio, angle, power, ends=True) & brain

        whole = blob(scale)
        if white.any() and rng.random() < 0.6:
            whole |= blob(1.7 * scale) & white & (self.noise(rng.uniform(4, 12))[0] > rng.uniform(-1.2, 0.3))
        parent = add(whole, LESION)
        if not parent:
            return
        # Core, enhancing rim and necrosis, from outside to inside; any may be missing.
        for share in np.cumprod(rng.uniform(0.45, 0.9, 3)):
            if rng.random() < 0.7:
                material = rng.choice([LESION, LESION, FLUID])
                parent = add(blob(scale * share) & whole, material, parent=parent) or parent

    def _packed_organs(self, cavity: np.ndarray, centre: tuple, radii: tuple, add) -> list[int]:
        """Fill a cavity with touching organs of unequal size, with or without fat between them."""
        rng = self.rng
        count = int(rng.integers(3, 12))
        y, x = self.warped_grid(rng.uniform(0.03, 0.15), rng.uniform(2, 6))
        # A power diagram of warped space gives neighbours a common border.
        power = []
        for _ in range(count):
            distance, phi = np.sqrt(rng.uniform(0, 0.9)), rng.uniform(0, 2 * np.pi)
            cy, cx = (c + r * distance * t for c, r, t in zip(centre, radii, (np.sin(phi), np.cos(phi)), strict=True))
            power.append((y - np.float32(cy)) ** 2 + (x - np.float32(cx)) ** 2 - np.float32(rng.uniform(0, 0.15)))
        power = np.stack(power)
        first, second = np.partition(power, 1, axis=0)[:2]
        filled = cavity & (second - first > rng.choice([0.0, rng.uniform(0, 0.06)]))
        nearest = power.argmin(axis=0)
        materials = rng.choice([ORGAN, ORGAN, ORGAN, ORGAN, FLUID, FAT], count)
        added = (add(filled & (nearest == n), materials[n]) for n in range(count) if rng.random() < 0.8)
        return [organ for organ in added if organ]

    def _superellipse(self, y, x, cy, cx, ry, rx, angle, power, *, ends: bool = False) -> np.ndarray:
        """Return a superellipse, equal on all slices; with ``ends`` a superellipsoid that tapers and may end."""
        dy, dx = y - np.float32(cy), x - np.float32(cx)
        c, s = np.float32(np.cos(angle)), np.float32(np.sin(angle))
        u, v = np.abs(dy * c + dx * s) / np.float32(ry), np.abs(-dy * s + dx * c) / np.float32(rx)
        left = np.ones((SLICES, 1, 1), np.float32)  # threshold in the plane, after the part along z
        if ends:
            height = np.exp(self.rng.uniform(np.log(1.0), np.log(14.0)))  # half the height, in slices
            beyond = min(0.5, 0.2 * height)  # some lie on a neighbouring slice only
            w = np.abs(np.array([-1, 0, 1]) - self.rng.uniform(-height - beyond, height + beyond)) / height
            left = (1 - np.clip(w, 0, 1) ** power).astype(np.float32)[:, None, None]
        inside = np.zeros(u.shape, bool)
        near = (u < 1) & (v < 1)
        inside[near] = u[near] ** power + v[near] ** power < np.broadcast_to(left, u.shape)[near]
        return inside

    def _tubes(self, count: int, radius: float) -> np.ndarray:
        """Return winding tubes: the zero level of smooth noise, cut into pieces by another field."""
        ridge = np.abs(self.noise(self.rng.uniform(2, 6))[0]) < radius * self.rng.uniform(4, 8)
        return ridge & (self.noise(2)[0] > self.rng.uniform(-0.5, 0.8) - 0.2 * count)

    def _lesions(self, labels, organ, add, count: int, spread: bool = False) -> None:
        """Add lesions to an organ, as separate labels or, with ``spread``, as one label."""
        if not organ:
            return
        rows, columns = np.nonzero(labels[1] == organ)
        if len(rows) < 30:
            return
        extent = np.sqrt(len(rows)) * self._pixel
        y, x = self.warped_grid(0.03, 10)
        shapes = np.zeros(labels.shape, bool)
        for _ in range(count):
            n = self.rng.integers(len(rows))
            cy, cx = self._y[rows[n], 0], self._x[0, columns[n]]
            scale = max(extent * self.rng.uniform(0.05, 0.3), 2 * self._pixel)
            shape = self._superellipse(
                y, x, cy, cx, scale, scale * self.rng.uniform(0.5, 1), self.rng.uniform(0, 3), 2.0, ends=True
            )
            shape &= labels == organ
            if spread:
                shapes |= shape
            else:
                add(shape, LESION, parent=organ)
        if spread:
            add(shapes, LESION, parent=organ)


def _cubic_basis(positions: np.ndarray, count: int) -> np.ndarray:
    """Return cubic B-spline weights of control points at the integers, len(positions) x count."""
    distance = np.abs(positions[:, None] - np.arange(count)[None])
    near = 2 / 3 - distance**2 + distance**3 / 2
    far = np.clip(2 - distance, 0, None) ** 3 / 6
    return np.where(distance < 1, near, far).astype(np.float32)
