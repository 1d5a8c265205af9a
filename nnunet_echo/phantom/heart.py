"""The anatomy of the phantom: a left ventricle of known volume, its myocardium and its left atrium.

The cavity of the left ventricle (LV) is a stack of elliptic disks along one straight long axis, which both apical
views share. The 4-chamber view (4CH) shows one diameter of every disk and the 2-chamber view (2CH) the other, so the
biplane rule of disks, V = pi/4 * sum(d_2ch * d_4ch) * h (Simpson), gives its volume exactly, and so does a closed form.

Coordinates in mm. Image: x to the right, y down, (0, 0) at the tip of the sector (the probe). Heart: u along the long
axis from the apex (0) to the mitral plane (the length), v across it, to the right where the axis points straight down.
`contraction` runs from 0 (end diastole, ED) to 1 (end systole, ES); the cavity's volume falls linearly with it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy import ndarray

VIEWS = ("2CH", "4CH")
BACKGROUND, LV, MYO, LA = range(4)

_LA_WIDEST = 0.55  # where along its length the atrium is widest


@dataclass(frozen=True)
class View:
    """What one view adds to the heart: where it lies in the sector, its width in this plane and how well it is seen.

    >>> view = sample_heart(np.random.default_rng(0)).views["4CH"]
    >>> view.quality, view.frames, view.depth_mm
    ('Poor', 21, 160.0)
    """

    quality: str  # Good, Medium or Poor
    apex_mm: tuple[float, float]  # (x, y) of the cavity's apex
    tilt_deg: float  # of the long axis, positive: the mitral plane lies to the right of the apex
    diameter_mm: float  # of the cavity at its widest, ED
    bend_mm: float  # how far the disks' centres leave the straight axis
    wall_mm: float  # ED
    la_length_mm: float  # ED
    la_diameter_mm: float  # ED
    la_lean: float  # tangent of the angle between the atrium and the long axis
    depth_mm: float  # of the sector
    half_angle_deg: float  # of the sector
    gain_db: float
    attenuation_db_per_mm: float  # what the scanner's depth compensation leaves; negative: deep tissue is brighter
    frames: int  # of the half sequence
    fps: float
    es_first: bool  # the half sequence runs from ES to ED, as a few of CAMUS do
    seed: int  # of texture and speckle


@dataclass(frozen=True)
class Heart:
    """One patient. `views` maps "2CH" and "4CH" to their `View`; `fullness` is where along the long axis the widest
    disk lies (0 at the apex, 1 at the mitral plane); `shortening` the part of the long axis lost from ED to ES.

    >>> heart = sample_heart(np.random.default_rng(0))
    >>> round(100 * (1 - heart.esv_ml / heart.edv_ml)) == round(heart.ef_percent)
    True
    """

    sex: str
    age: int
    ef_percent: float
    long_axis_mm: float  # ED
    fullness: float
    shortening: float
    views: dict[str, View]

    def volume_ml(self, contraction: float) -> float:
        """Volume of the cavity in mL at `contraction`."""
        # The disk at s (0..1) has the squared radius 1 - ((s - f) / f)^2, relative to the widest one's; its integral is
        f = self.fullness
        shape = 1 - (f**3 + (1 - f) ** 3) / (3 * f**2)
        edv_mm3 = np.pi / 4 * self.views["2CH"].diameter_mm * self.views["4CH"].diameter_mm * self.long_axis_mm * shape
        return float(edv_mm3 / 1000 * (1 - self.ef_percent / 100 * contraction))

    @property
    def edv_ml(self) -> float:
        return self.volume_ml(0.0)

    @property
    def esv_ml(self) -> float:
        return self.volume_ml(1.0)


def sample_heart(rng: np.random.Generator) -> Heart:
    """A heart at random. The distributions resemble CAMUS: EF 15..75 %, EDV about 60..200 mL, weak hearts dilated.

    >>> heart = sample_heart(np.random.default_rng(0))
    >>> round(heart.edv_ml), round(heart.esv_ml), round(heart.ef_percent)
    (81, 41, 50)
    """
    ef = float(np.clip(rng.normal(48, 13), 15, 75))
    length = float(np.clip(rng.normal(82, 7), 66, 98))
    dilation = 1 + (48 - ef) / 250
    return Heart(
        sex=str(rng.choice(["F", "M"], p=[0.34, 0.66])),
        age=int(rng.integers(25, 90)),
        ef_percent=ef,
        long_axis_mm=length,
        fullness=float(rng.uniform(0.55, 0.64)),
        shortening=float(rng.uniform(0.25, 0.35)) * ef / 100,
        views={name: _sample_view(rng, name, length, dilation) for name in VIEWS},
    )


def _sample_view(rng: np.random.Generator, name: str, length_mm: float, dilation: float) -> View:
    """A view of a ventricle of this length; `dilation` multiplies its usual diameter."""

    def normal(mean: float, sd: float, low: float, high: float) -> float:
        return float(np.clip(rng.normal(mean, sd), low, high))

    apex_y = normal(32, 4, 25, 44)
    la_length = normal(42, 8, 26, 60)
    # Scanners offer the depth in steps; now and then it cuts the atrium off.
    depth = 10 * round((apex_y + length_mm + la_length * rng.uniform(0.7, 1.5)) / 10)
    return View(
        quality=str(rng.choice(["Good", "Medium", "Poor"], p=[0.5, 0.38, 0.12])),
        apex_mm=(normal(1 if name == "4CH" else 0, 3, -6, 8), apex_y),
        tilt_deg=normal(9 if name == "4CH" else 0, 4, -8, 17),
        diameter_mm=normal(46, 4, 37, 56) * dilation,
        bend_mm=normal(1, 1.5, -2, 4),
        wall_mm=normal(11.5, 1.5, 8, 15),
        la_length_mm=la_length,
        la_diameter_mm=normal(41, 5, 30, 54),
        la_lean=normal(0, 0.12, -0.25, 0.25),
        depth_mm=float(np.clip(depth, 120, 200)),
        half_angle_deg=float(rng.choice([37.4, 45.0], p=[0.85, 0.15])),
        gain_db=normal(0, 3.5, -7, 8),
        attenuation_db_per_mm=normal(-0.04, 0.05, -0.14, 0.1),
        frames=int(rng.integers(10, 27)),
        fps=round(normal(52, 9, 33, 85), 1),
        es_first=bool(rng.random() < 0.04),
        seed=int(rng.integers(2**31)),
    )


class Section:
    """The heart in one view at one contraction: what lies at each point of the image plane.

    `contraction` runs from 0 (ED) to 1 (ES). Its methods take arrays of any shape, in mm, and return arrays of that
    shape. Raises ValueError for a view that there is not, and for a contraction outside.

    >>> section = Section(sample_heart(np.random.default_rng(0)), "4CH", contraction=0)
    >>> x, y = np.arange(-60, 60, 2.0)[None, :], np.arange(0, 140, 2.0)[:, None]  # mm
    >>> labels = section.labels(x, y)
    >>> labels.shape, np.unique(labels).tolist()
    ((70, 60), [0, 1, 2, 3])
    """

    def __init__(self, heart: Heart, view: str, contraction: float) -> None:
        if view not in heart.views:
            raise ValueError(f"view={view!r}: the phantom draws {' and '.join(VIEWS)}. Choose one of them.")
        if not 0 <= contraction <= 1:
            raise ValueError(f"contraction={contraction}: must lie between 0 (end diastole) and 1 (end systole).")
        self.view = heart.views[view]
        self.right_heart_seen = view == "4CH"
        self.contraction = contraction
        self._fullness = heart.fullness
        # Apex and roof of the atrium stay where they are: the mitral plane moves between them.
        self.length_mm = heart.long_axis_mm * (1 - heart.shortening * contraction)
        self.la_length_mm = self.view.la_length_mm + heart.long_axis_mm - self.length_mm
        self._la_radius_mm = self.view.la_diameter_mm / 2 * (1 + 0.1 * contraction)
        # Both diameters shrink alike, by what the shorter axis leaves to lose.
        volume_left = 1 - heart.ef_percent / 100 * contraction
        self.radius_mm = self.view.diameter_mm / 2 * np.sqrt(volume_left * heart.long_axis_mm / self.length_mm)
        self.wall_mm = self.view.wall_mm * (1 + heart.ef_percent / 200 * contraction)
        self._apical_wall_mm = 0.8 * self.wall_mm

    def to_heart(self, x: ndarray, y: ndarray) -> tuple[ndarray, ndarray]:
        """(u, v) of the image points (x, y); v is measured from the centres of the disks."""
        tilt = np.deg2rad(self.view.tilt_deg)
        x, y = x - self.view.apex_mm[0], y - self.view.apex_mm[1]
        u = x * np.sin(tilt) + y * np.cos(tilt)
        v = x * np.cos(tilt) - y * np.sin(tilt)
        return u, v - self._bend(u)

    def to_image(self, u: ndarray, v: ndarray) -> tuple[ndarray, ndarray]:
        """(x, y) of the points (u, v) of the heart: the inverse of `to_heart`."""
        tilt = np.deg2rad(self.view.tilt_deg)
        v = v + self._bend(u)
        x = u * np.sin(tilt) + v * np.cos(tilt)
        y = u * np.cos(tilt) - v * np.sin(tilt)
        return x + self.view.apex_mm[0], y + self.view.apex_mm[1]

    def _bend(self, u: ndarray) -> ndarray:
        return self.view.bend_mm * np.sin(np.pi * np.clip(u / self.length_mm, 0, 1))

    def lv_half_width(self, u: ndarray) -> ndarray:
        """Half the cavity's diameter at `u`; 0 outside."""
        widest = self._fullness * self.length_mm
        inside = (u >= 0) & (u <= self.length_mm)
        return np.where(inside, _ellipse(u, widest, widest, self.radius_mm), 0)

    def epicardial_half_width(self, u: ndarray) -> ndarray:
        """Half the diameter of cavity and wall together at `u`; 0 outside.

        The wall ends at the mitral plane, as experts draw it: the atrium meets it only at the hinges of the valve.
        """
        widest = self._fullness * self.length_mm
        half_width = _ellipse(u, widest, widest + self._apical_wall_mm, self.radius_mm + self.wall_mm)
        return np.where(u <= self.length_mm, half_width, 0)

    def la_half_width(self, u: ndarray) -> ndarray:
        """Half the atrium's diameter at `u`: the mitral ring's at the mitral plane, rounded at the roof; 0 outside."""
        q = (u - self.length_mm) / self.la_length_mm
        ring = self.lv_half_width(np.float64(self.length_mm))
        towards_ring = ring + (self._la_radius_mm - ring) * np.sin(np.pi / 2 * np.clip(q / _LA_WIDEST, 0, 1))
        towards_roof = np.sqrt(1 - np.clip((q - _LA_WIDEST) / (1 - _LA_WIDEST), 0, 1) ** 2.5)
        return np.where((q > 0) & (q < 1), towards_ring * towards_roof, 0)

    def in_sector(self, x: ndarray, y: ndarray) -> ndarray:
        """True where the probe sees."""
        view = self.view
        return (np.hypot(x, y) <= view.depth_mm) & (np.abs(x) <= y * np.tan(np.deg2rad(view.half_angle_deg)))

    def labels(self, x: ndarray, y: ndarray) -> ndarray:
        """Labels as uint8: 0 background, 1 LV cavity, 2 myocardium, 3 left atrium (as far as the sector shows it)."""
        u, v = self.to_heart(x, y)
        labels = np.full(u.shape, BACKGROUND, np.uint8)
        labels[np.abs(v) < self.epicardial_half_width(u)] = MYO
        leaning = v - self.view.la_lean * (u - self.length_mm)
        labels[(np.abs(leaning) < self.la_half_width(u)) & self.in_sector(x, y)] = LA
        labels[np.abs(v) < self.lv_half_width(u)] = LV
        return labels

    def right_heart(self, u: ndarray, v: ndarray) -> ndarray:
        """True in the right ventricle and atrium, left of the septum in the 4-chamber view; they carry no label."""
        if not self.right_heart_seen:
            return np.zeros(u.shape, bool)
        septum = self.view.diameter_mm / 2 + self.view.wall_mm
        middle_u = self.length_mm + 0.45 * self.la_length_mm
        ventricle = np.hypot((u - 0.68 * self.length_mm) / (0.36 * self.length_mm), (v + septum + 8) / 17) < 1
        atrium = np.hypot((u - middle_u) / (0.4 * self.la_length_mm), (v + self._la_radius_mm + 24) / 19) < 1
        return ventricle | atrium

    def valve_distance(self, u: ndarray, v: ndarray) -> ndarray:
        """Distance in mm to the nearer leaflet of the mitral valve: ajar in the ventricle at ED, shut at ES."""
        ring = float(self.lv_half_width(np.float64(self.length_mm)))
        angle = np.deg2rad(55) * (1 - self.contraction)
        along_u, along_v = -np.sin(angle), np.cos(angle)  # from the hinge; v is mirrored for the other leaflet
        du, dv = u - self.length_mm, ring - np.abs(v)
        along = np.clip(du * along_u + dv * along_v, 0, ring)
        return np.hypot(du - along * along_u, dv - along * along_v)


def _ellipse(u: ndarray, centre: float, semi_axis: float, radius: float) -> ndarray:
    """Half-width at `u` of an ellipse with this centre and semi-axis along u and this radius across."""
    return radius * np.sqrt(np.maximum(0, 1 - ((u - centre) / semi_axis) ** 2))
