"""The look of the phantom: B-mode ultrasound of a section of the heart.

Scatterers with a random phase, as strong as their tissue reflects, are blurred by the pulse along the beam and by the
beam's width across it, on the polar grid of the probe. The envelope of the sum is speckle with Rayleigh statistics
(Wagner et al., IEEE Trans. Sonics Ultrason. 30(3), 1983). It is compressed logarithmically and drawn into the sector;
outside the image is black.

Speckle is drawn afresh for each frame; texture, shadows and gain belong to the view and stay for all its frames.
"""

from __future__ import annotations

import numpy as np
from numpy import ndarray
from scipy.ndimage import gaussian_filter, map_coordinates

from nnunet_echo.phantom.heart import LA, LV, MYO, Section

_STEP_MM = 0.4  # of the polar grid along the beam
_BEAMS = 256
_PULSE_MM = 0.5  # standard deviation of the pulse along the beam
_BEAM_DEG = 0.7  # standard deviation of the beam's width
_LOOKS = 2  # independent echoes averaged, as scanners do: real speckle is smoother than one echo's
_GREY_PER_DB = 255 / 50  # a dynamic range of 50 dB
_BLOOD_GREY = 75
# What the image quality changes: the contrast in dB between myocardium and blood, how many shadows, how dark in dB.
_QUALITY = {"Good": (12.0, 1, 6.0), "Medium": (9.0, 2, 9.0), "Poor": (6.0, 3, 12.0)}


def ultrasound(section: Section, x: ndarray, y: ndarray, frame: int, spacing_mm: float) -> ndarray:
    """The image at the points x (1, W) and y (H, 1), in mm: (H, W) uint8.

    `frame` (from 1) chooses the speckle, which is averaged over pixels of `spacing_mm`.

    >>> from nnunet_echo.phantom.heart import sample_heart
    >>> section = Section(sample_heart(np.random.default_rng(0)), "4CH", contraction=0)
    >>> x, y = np.arange(-60, 60, 2.0)[None, :], np.arange(0, 140, 2.0)[:, None]
    >>> image = ultrasound(section, x, y, frame=1, spacing_mm=2.0)
    >>> image.shape, image.dtype.name, int(image[0, 0])  # black outside the sector
    ((70, 60), 'uint8', 0)
    """
    view = section.view
    half_angle = np.deg2rad(view.half_angle_deg)
    radius = np.arange(0, view.depth_mm + 2 * _STEP_MM, _STEP_MM)[:, None]
    angle = np.linspace(-half_angle, half_angle, _BEAMS)[None, :]
    beam_step = 2 * half_angle / (_BEAMS - 1)

    # An entropy list [seed] equals [seed, 0] to NumPy, so the frames' own start from 1.
    strength_db = _echo_strength_db(section, radius, angle, np.random.default_rng([view.seed]))
    speckle = np.random.default_rng([view.seed, frame])
    scatterers = speckle.standard_normal((2 * _LOOKS, radius.size, _BEAMS), np.float32)
    blur = (_PULSE_MM / _STEP_MM, np.deg2rad(_BEAM_DEG) / beam_step)
    echo = gaussian_filter(scatterers * (10 ** (strength_db / 20)).astype(np.float32), (0, *blur))
    # The blur divides the variance of white noise by 4 pi sigma_1 sigma_2.
    intensity = (echo**2).mean(axis=0) * (4 * np.pi * blur[0] * blur[1])
    grey = _BLOOD_GREY + _GREY_PER_DB * 10 * np.log10(intensity + 1e-12)
    # On a grid coarser than the speckle, average over a pixel before sampling, as a resampled image would.
    grey = gaussian_filter(np.clip(grey, 0, 255), (max(0.0, spacing_mm / _STEP_MM - 1) / 2, 0))

    rows = np.hypot(x, y) / _STEP_MM
    columns = (np.arctan2(x, np.broadcast_to(y, rows.shape)) + half_angle) / beam_step
    image = map_coordinates(grey, [rows, columns], order=1, mode="nearest")
    return np.where(section.in_sector(x, y), np.rint(image), 0).astype(np.uint8)


def _echo_strength_db(section: Section, radius: ndarray, angle: ndarray, rng: np.random.Generator) -> ndarray:
    """Strength of the scatterers in dB over blood: (R, T) for the polar grid of radius (R, 1) in mm, angle (1, T)."""
    view = section.view
    contrast_db, shadows, shadow_db = _QUALITY[view.quality]
    x, y = radius * np.sin(angle), radius * np.cos(angle)
    u, v = section.to_heart(x, y)
    labels = section.labels(x, y)

    # The numbers below were set by eye and by the median and spread of the grey of each structure in CAMUS as a whole.
    coarse, fine, clutter = (_texture(rng, x, y, size_mm) for size_mm in (15, 4, 8))
    blood = 1.2 * coarse
    tissue = 0.4 * contrast_db + 8 * coarse + 2.5 * fine
    strength = np.where(section.right_heart(u, v), blood + 1, tissue)
    pericardium = np.abs(v) - section.epicardial_half_width(u)
    brightens_downwards = contrast_db * np.clip(u / section.length_mm - 0.2, 0, 1)
    strength = np.where((pericardium > 0) & (pericardium < 4), strength + brightens_downwards, strength)
    strength = np.where(labels == MYO, contrast_db + 5 * coarse + 2.5 * fine, strength)
    strength = np.where(labels == LA, blood + 3, strength)
    strength = np.where(labels == LV, blood, strength)
    strength[section.valve_distance(u, v) < 1.0] = contrast_db + 8

    strength += view.gain_db - view.attenuation_db_per_mm * (radius - view.depth_mm / 2)
    # Reverberation near the probe.
    strength += (6 + 3 * clutter) * np.exp(-radius / 14)
    for _ in range(rng.poisson(shadows)):
        centre, width = rng.uniform(angle.min(), angle.max()), np.deg2rad(rng.uniform(2, 6))
        start = rng.uniform(10, 0.6 * view.depth_mm)
        beams = np.exp(-((angle - centre) ** 2) / (2 * width**2))
        strength -= shadow_db * rng.uniform(0.5, 1) * beams / (1 + np.exp(-(radius - start) / 6))
    return strength


def _texture(rng: np.random.Generator, x: ndarray, y: ndarray, size_mm: float) -> ndarray:
    """Smooth noise at the points (x, y) of mean 0, standard deviation about 1 and a grain of about `size_mm`."""
    rows, columns = (y - y.min()) / size_mm, (x - x.min()) / size_mm
    noise = rng.standard_normal((int(rows.max()) + 2, int(columns.max()) + 2))
    return map_coordinates(noise, [rows, columns], order=3, mode="reflect")
