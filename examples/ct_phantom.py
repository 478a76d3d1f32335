"""A drawn abdominal CT slice in Hounsfield units: our own picture, free of patient data.

Seen from the feet as radiologists look at it: the patient's right side is on the left of the
image, the table is at the bottom. Everything is drawn from formulas and one random seed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SIZE = 512
SPACING_MM = 0.72
SEED = 20_240
_OVERSAMPLE = 2

Field = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Phantom:
    """A slice and the truth about it.

    Attributes:
        hu: ``(512, 512)`` int16 Hounsfield units, noise included.
        organs: name -> ``(512, 512)`` bool, pixels of which at least half belong to the organ.
    """

    hu: NDArray[np.int16]
    organs: dict[str, Mask]

    def box(self, organ: str) -> tuple[int, int, int, int]:
        """Tight XYXY box of an organ in pixels; the far edges are exclusive."""
        ys, xs = np.nonzero(self.organs[organ])
        return int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1


class _Canvas:
    """Drawing surface with twice the resolution, so that edges get partial volume."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        side = SIZE * _OVERSAMPLE
        axis = (np.arange(side) + 0.5) / _OVERSAMPLE
        self.y, self.x = np.meshgrid(axis, axis, indexing="ij")
        self.hu: Field = np.full((side, side), -1000.0)
        self.organs: dict[str, Mask] = {}
        self._grains: dict[float, Field] = {}

    def blob(
        self,
        centre: tuple[float, float],
        radii: tuple[float, float],
        *,
        angle: float = 0.0,
        wobble: float = 0.0,
        power: float = 2.0,
    ) -> Mask:
        """Super-ellipse around ``centre`` (x, y) whose outline wobbles by a share of its radius."""
        reach = 1.5 * max(radii)
        rows = self._span(centre[1], reach)
        cols = self._span(centre[0], reach)
        turn = np.deg2rad(angle)
        dx, dy = self.x[rows, cols] - centre[0], self.y[rows, cols] - centre[1]
        u = (dx * np.cos(turn) + dy * np.sin(turn)) / radii[0]
        v = (-dx * np.sin(turn) + dy * np.cos(turn)) / radii[1]
        edge = np.ones_like(u)
        if wobble > 0.0:
            theta = np.arctan2(v, u)
            for k in range(2, 7):
                size, phase = self.rng.normal(0.0, wobble / k), self.rng.uniform(0.0, 2 * np.pi)
                edge += size * np.cos(k * theta + phase)
        inside = np.zeros(self.hu.shape, dtype=np.bool_)
        inside[rows, cols] = np.abs(u) ** power + np.abs(v) ** power < edge**power
        return inside

    def _span(self, middle: float, reach: float) -> slice:
        low, high = (int((middle + sign * reach) * _OVERSAMPLE) for sign in (-1, 1))
        return slice(max(low, 0), max(high, 0))

    def _grain(self, size: float) -> Field:
        """One mottled field per grain size, shifted at random for each use."""
        if size not in self._grains:
            self._grains[size] = _smooth_noise(self.rng, self.hu.shape, size * _OVERSAMPLE)
        shift = self.rng.integers(0, self.hu.shape[0], 2)
        return np.roll(self._grains[size], tuple(int(v) for v in shift), axis=(0, 1))

    def fill(self, where: Mask, hu: float, texture: float = 0.0, grain: float = 6.0) -> None:
        """Paint a tissue of mean ``hu``, mottled by ``texture`` HU at ``grain`` pixels."""
        self.hu[where] = hu
        if texture > 0.0:
            self.hu[where] += texture * self._grain(grain)[where]

    def organ(self, name: str, where: Mask, hu: float, texture: float = 0.0) -> None:
        """Paint and remember the region under ``name``."""
        self.fill(where, hu, texture)
        self.forget(where)
        self.organs[name] = where.copy()

    def forget(self, where: Mask) -> None:
        """Say that no organ remembered so far covers ``where``."""
        for other in self.organs:
            self.organs[other] &= ~where


def _blur(image: Field, sigma: float) -> Field:
    """Periodic Gaussian blur through the Fourier transform."""
    fy = np.fft.fftfreq(image.shape[0])[:, None]
    fx = np.fft.rfftfreq(image.shape[1])[None, :]
    gain = np.exp(-2.0 * (np.pi * sigma) ** 2 * (fx**2 + fy**2))
    return np.fft.irfft2(np.fft.rfft2(image) * gain, s=image.shape)


def _smooth_noise(rng: np.random.Generator, shape: tuple[int, ...], sigma: float) -> Field:
    noise = _blur(rng.standard_normal(shape), sigma)
    return noise / noise.std()


def _shrink(image: Field) -> Field:
    side = image.shape[0] // _OVERSAMPLE
    return image.reshape(side, _OVERSAMPLE, side, _OVERSAMPLE).mean(axis=(1, 3))


def _trunk(c: _Canvas) -> Mask:
    """Table, skin, fat, muscle wall and ribs; returns the inside of the abdominal cavity."""
    below = c.y - 458 + 0.0005 * (c.x - 256) ** 2
    across = np.abs(c.x - 256) < 218
    c.fill((np.abs(below - 9) < 9) & across, -880)
    for shell in (0, 18):
        c.fill((np.abs(below - shell) < 1.8) & across, -60)
    skin = c.blob((256, 262), (226, 176), wobble=0.012, power=2.25)
    c.fill(skin, 20)
    fat = c.blob((256, 262), (223, 173), wobble=0.004, power=2.25) & skin
    c.fill(fat, -103, texture=5)
    wall = c.blob((256, 268), (203, 152), wobble=0.012, power=2.3) & fat
    c.fill(wall, 52, texture=7, grain=3)
    cavity = c.blob((256, 258), (187, 134), wobble=0.012, power=2.3) & wall
    c.fill(cavity, -98, texture=7)
    for side in (-1, 1):
        back = c.blob((256 + side * 46, 396), (40, 27), angle=side * -14, wobble=0.04, power=2.4)
        c.fill(back & ~cavity, 58, texture=9)
        psoas = c.blob((256 + side * 39, 346), (18, 22), angle=side * 18, wobble=0.05)
        c.fill(psoas, 60, texture=8)
    for degrees in (-163, -137, -43, -17, 8, 27, 46, 134, 153, 172):
        t = np.deg2rad(degrees)
        x, y = 256 + 196 * np.cos(t), 263 + 144 * np.sin(t)
        along = np.rad2deg(np.arctan2(144 * np.cos(t), -196 * np.sin(t)))
        bone = c.blob((x, y), (17, 6.5), angle=along, wobble=0.05)
        cavity &= ~c.blob((x, y), (19, 9), angle=along)
        c.fill(bone, 620)
        c.fill(c.blob((x, y), (13.5, 3.6), angle=along), 190, texture=40)
    return cavity


def _spine(c: _Canvas) -> None:
    arch = c.blob((256, 384), (30, 13), wobble=0.05) | c.blob((256, 408), (6, 22), wobble=0.05)
    for side in (-1, 1):
        arch |= c.blob((256 + side * 38, 380), (24, 6), angle=side * 16, wobble=0.06)
    c.fill(arch, 480, texture=60, grain=3)
    body = c.blob((256, 346), (35, 28), wobble=0.02, power=2.5)
    c.organ("vertebra", body, 560)
    c.fill(c.blob((256, 346), (31, 24), wobble=0.02, power=2.5), 240, texture=45)
    c.fill(c.blob((256, 383), (14, 10)), 25, texture=5)


def _liver(c: _Canvas, cavity: Mask) -> None:
    right = c.blob((158, 254), (90, 112), angle=12, wobble=0.05, power=2.3)
    left = c.blob((232, 190), (74, 40), angle=14, wobble=0.05)
    fissure = c.blob((226, 262), (26, 50), angle=-24)
    liver = (right | left) & cavity & ~fissure & ~c.blob((218, 318), (26, 44), angle=-12)
    c.organ("liver", liver, 108, texture=6)
    root = np.array([196.0, 238.0])
    for end, width in (((120, 200), 4.5), ((98, 262), 5.0), ((128, 312), 4.0), ((216, 186), 4.0)):
        bend = c.rng.normal(0.0, 10.0, 2)
        for t in np.linspace(0.0, 1.0, 60):
            x, y = (1 - t) * root + t * np.array(end) + np.sin(np.pi * t) * bend
            c.fill(c.blob((x, y), (width * (1 - 0.65 * t),) * 2) & liver, 172)
    for name, place, size, hu in (
        ("lesion", (116, 232), (21, 18), 52),
        ("lesion_small", (150, 288), (9, 8), 60),
        ("cyst", (150, 182), (12, 11), 6),
    ):
        c.organ(name, c.blob(place, size, angle=25, wobble=0.06) & liver, hu, texture=5)
    gall = c.blob((206, 274), (16, 24), angle=-28, wobble=0.03)
    c.organ("gallbladder", gall, 9, texture=2)


def _left_side(c: _Canvas, cavity: Mask) -> None:
    stomach = c.blob((338, 194), (68, 44), angle=24, wobble=0.05, power=2.2) & cavity
    c.organ("stomach", stomach, 48)
    inner = c.blob((338, 194), (62, 38), angle=24, wobble=0.03, power=2.2) & stomach
    c.fill(inner, 22, texture=12)
    c.fill(inner & (c.y < 178), -930)
    spleen = c.blob((408, 284), (30, 62), angle=-16, wobble=0.05) & cavity
    c.organ("spleen", spleen & ~c.blob((378, 288), (18, 30)), 124, texture=6)
    pancreas = c.blob((290, 258), (58, 14), angle=-14, wobble=0.12)
    c.organ("pancreas", pancreas & cavity & ~stomach, 84, texture=14)
    for place, size, air in (
        ((330, 256), (17, 14), False),
        ((352, 276), (15, 13), True),
        ((372, 236), (17, 14), True),
    ):
        loop = c.blob(place, size, wobble=0.08)
        c.fill(loop, 55)
        c.fill(c.blob(place, (size[0] - 4, size[1] - 4), wobble=0.06), -850 if air else 18)


def _kidney(c: _Canvas, side: int, cavity: Mask) -> None:
    name = "kidney_left" if side > 0 else "kidney_right"
    x, y = 256 + side * 94, 338 + (2 if side < 0 else -4)
    fat = c.blob((x - side * 4, y + 3), (38, 52), angle=side * -24) & cavity
    c.fill(fat, -98, texture=6)
    c.forget(fat)
    kidney = c.blob((x, y), (29, 43), angle=side * -24, wobble=0.03)
    hilum = c.blob((x - side * 25, y - 3), (17, 13), angle=side * -20)
    c.organ(name, kidney & ~hilum, 196, texture=6)
    medulla = c.blob((x, y), (17, 30), angle=side * -24, wobble=0.1)
    c.fill(medulla & kidney & ~hilum, 150, texture=18)
    sinus = c.blob((x - side * 8, y - 1), (11, 17), angle=side * -24, wobble=0.15)
    c.fill(sinus & kidney, -70, texture=18)
    c.fill(c.blob((x - side * 13, y), (5, 7)) & kidney, 10)


def _vessels(c: _Canvas) -> None:
    c.organ("aorta", c.blob((276, 304), (15.5, 15), wobble=0.01), 232)
    c.fill(c.blob((282, 296), (4.5, 2.4), angle=35), 760)
    c.organ("vena_cava", c.blob((228, 302), (17, 12.5), angle=-12, wobble=0.03), 158)
    c.fill(c.blob((271, 277), (5, 5)), 222)
    c.fill(c.blob((252, 274), (7, 6)), 168)


def make_phantom(seed: int = SEED) -> Phantom:
    """Draw the slice; the same seed gives the same picture."""
    rng = np.random.default_rng(seed)
    c = _Canvas(rng)
    cavity = _trunk(c)
    _spine(c)
    _left_side(c, cavity)
    _liver(c, cavity)
    for side in (-1, 1):
        _kidney(c, side, cavity)
    _vessels(c)

    hu = _shrink(_blur(c.hu, 0.55 * _OVERSAMPLE))
    fine = _smooth_noise(rng, hu.shape, 0.75)
    coarse = _smooth_noise(rng, hu.shape, 2.2)
    thick = np.clip(1.25 - np.hypot(*_centred()) / 330.0, 0.45, None)
    hu = hu + thick * (11.0 * fine + 4.5 * coarse)
    organs = {name: _shrink(where.astype(np.float64)) >= 0.5 for name, where in c.organs.items()}
    return Phantom(np.clip(np.rint(hu), -1024, 3071).astype(np.int16), organs)


def _centred() -> tuple[Field, Field]:
    axis = np.arange(SIZE) - (SIZE - 1) / 2
    y, x = np.meshgrid(axis, axis, indexing="ij")
    return y, x


def window_8bit(hu: NDArray[np.int16], centre: float, width: float) -> NDArray[np.uint8]:
    """Map ``centre - width/2 .. centre + width/2`` HU to 0..255, rounded and clipped."""
    scaled = (hu.astype(np.float64) - (centre - width / 2)) / width
    return (np.clip(scaled, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)
