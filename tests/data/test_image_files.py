"""Image files as all readers see them: gzip as a stream, spacings that can be, grids, palettes, names."""

from __future__ import annotations

import gzip
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from nnunet_echo.cli.main import main
from nnunet_echo.data.check import check_dataset
from nnunet_echo.data.images import PLAUSIBLE_MM, Frame, SourceError, check_grid, read_frame, read_image, write_image
from nnunet_echo.data.natural_image import read_natural_image
from nnunet_echo.data.parallel import map_in_order
from nnunet_echo.dataset_conversion.camus.phantom import write_camus

SIZE = (30, 20)


def write(path: Path, spacing: tuple[float, ...] = (0.3, 0.2), dtype: type = np.uint8, slices: int = 0) -> Path:
    shape = (*([slices] if slices else []), *SIZE[::-1])
    image = sitk.GetImageFromArray(np.random.default_rng(0).integers(0, 255, shape).astype(dtype))
    image.SetSpacing(spacing)
    sitk.WriteImage(image, str(path), True)
    return path


def patched(path: Path, place: int, kind: str, *values: float) -> Path:
    """The header of a .nii.gz with other values at this byte."""
    data = bytearray(gzip.decompress(path.read_bytes()))
    struct.pack_into(kind, data, place, *values)
    path.write_bytes(gzip.compress(bytes(data)))
    return path


PIXDIM, DIM, DATATYPE, OFFSET, UNITS = 80, 40, 70, 108, 123


@pytest.mark.parametrize(
    "spacing",
    [(float("nan"), 0.3), (0.3, float("nan")), (0.0, 0.3), (0.3, 0.0), (float("inf"), 0.3), (-0.3, 0.3), (0.3, -0.3)],
)
@pytest.mark.parametrize("unit", ["mm", "px"])
def test_a_spacing_that_is_no_length_is_refused_in_any_unit(
    spacing: tuple[float, float], unit: str, tmp_path: Path
) -> None:
    path = patched(write(tmp_path / "a.nii.gz"), PIXDIM, "<2f", *spacing)
    with pytest.raises(SourceError, match=r"dir/a.nii.gz: spacing .*each must be a positive number") as error:
        read_image(path, "dir/a.nii.gz", unit)
    assert all(f"{length:g}" in str(error.value) for length in spacing)


@pytest.mark.parametrize(
    "spacing",
    [
        (1e-30, 1e-30),
        (3.08e-4, 3.08e-4),
        (308, 308),
        (0.0308, 0.0154),
        (0.3, 0.0002),
        (1000, 0.3),
        (0.049, 0.3),
        (0.3, 10.01),
    ],
)
def test_a_spacing_in_another_unit_than_mm_is_refused_with_its_value(
    spacing: tuple[float, float], tmp_path: Path
) -> None:
    path = write(tmp_path / "a.nii.gz", spacing)
    with pytest.raises(SourceError, match=f"spacing {spacing[0]:g} x {spacing[1]:g} mm, but pixels of an echo are "):
        read_image(path, "a.nii.gz")
    assert read_image(path, "a.nii.gz", "px").GetSize() == SIZE


@pytest.mark.parametrize(
    "spacing",
    [(0.154, 0.308), (0.308, 0.154, 1.54), (1, 1), (1, 1, 999), (0.3, 0.3, 1e-3), (4.4, 4.4, 5.0), PLAUSIBLE_MM],
)
def test_a_spacing_of_an_echo_passes_whatever_the_step_of_slices_or_time(
    spacing: tuple[float, ...], tmp_path: Path
) -> None:
    image = read_image(write(tmp_path / "a.nii.gz", spacing, slices=2 * (len(spacing) == 3)), "a.nii.gz")
    assert image.GetSpacing() == pytest.approx(spacing)


def test_units_of_a_nifti_header_are_heeded_and_a_step_of_0_of_one_slice_is_none(tmp_path: Path) -> None:
    metres = patched(write(tmp_path / "a.nii.gz", (3e-4, 2e-4)), UNITS, "b", 1)
    assert read_image(metres, "a").GetSpacing() == pytest.approx((0.3, 0.2))
    slices = patched(write(tmp_path / "b.nii.gz", (0.3, 0.2, 1), slices=2), PIXDIM + 8, "<f", 0)
    assert read_image(slices, "b").GetSpacing()[:2] == pytest.approx((0.3, 0.2))


def bomb(path: Path, megabytes: int, header: bytes) -> Path:
    """A header and then zeros without end, in a small file."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    with path.open("wb") as file:
        file.write(packer.compress(header))
        for _ in range(megabytes):
            file.write(packer.compress(bytes(2**20)))
        file.write(packer.flush())
    return path


READ_IN_64_MB = """
import resource, sys
import numpy, SimpleITK
from pathlib import Path
from nnunet_echo.data.images import SourceError, read_image
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**26, used + 2**26))
try:
    read_image(Path(sys.argv[1]), "b.nii.gz")
except SourceError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits the memory")
@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        (None, "b.nii.gz: not a NIfTI-1 file"),
        (SIZE, "b.nii.gz: damaged: more than 600 bytes of pixels where the header promises 600"),
        ((20000, 20000), "b.nii.gz: truncated: 314572800 bytes of pixels where the header promises 400000000"),
        ((32000, 32000, 32000), "b.nii.gz: the header promises 32768000000000 bytes of pixels, more than"),
    ],
)
def test_a_gzip_bomb_is_read_no_further_than_its_header_allows(
    sizes: tuple[int, ...] | None, message: str, tmp_path: Path
) -> None:
    header = bytearray(gzip.decompress(write(tmp_path / "a.nii.gz").read_bytes())[:352] if sizes else 352)
    if sizes:
        struct.pack_into(f"<{len(sizes) + 1}h", header, DIM, len(sizes), *sizes)
        struct.pack_into("<f", header, PIXDIM + 8, 1)
    path = bomb(tmp_path / "b.nii.gz", 300, bytes(header))
    done = subprocess.run([sys.executable, "-c", READ_IN_64_MB, str(path)], capture_output=True, text=True)
    assert done.stdout.startswith(message), done.stdout + done.stderr


def test_a_frame_is_smaller_than_a_cine_may_be(tmp_path: Path) -> None:
    path = patched(write(tmp_path / "a.nii.gz"), DIM, "<3h", 2, 12000, 12000)
    with pytest.raises(SourceError, match="a: the header promises 144000000 bytes of pixels, more than an echo can"):
        read_frame(path, "a")
    with pytest.raises(SourceError, match="a: truncated: 600 bytes of pixels where the header promises 144000000"):
        read_image(path, "a")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:-9], "truncated or damaged gzip data"),
        (lambda data: data[:-4] + bytes(4), "truncated or damaged gzip data"),
        (lambda data: data + b"x", "truncated or damaged gzip data"),
        (lambda data: data + gzip.compress(b"x"), "more than 600 bytes"),
        (lambda data: gzip.compress(gzip.decompress(data)[:-1]), "truncated: 599 bytes of pixels where the header"),
        (lambda data: gzip.compress(gzip.decompress(data)[:347]), r"not a NIfTI-1 file \(347 bytes\)"),
    ],
)
def test_a_damaged_gzip_is_named(damage: Callable[[bytes], bytes], message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "a.nii.gz")
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(SourceError, match=f"dir/a: .*{message}"):
        read_image(path, "dir/a")


def test_headers_that_simpleitk_reads_otherwise_are_damaged(tmp_path: Path) -> None:
    for place, kind, value in (
        (DATATYPE, "<h", 4),
        (DATATYPE + 2, "<h", 16),
        (DATATYPE, "<h", 9),
        (DIM, "<h", 0),
        (OFFSET, "<f", float("nan")),
        (DIM + 2, "<h", -30),
    ):
        with pytest.raises(SourceError, match="damaged NIfTI header"):
            read_image(patched(write(tmp_path / "a.nii.gz"), place, kind, value), "a")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_floats_are_finite_also_beyond_the_first_piece(
    value: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nnunet_echo.data.nifti.CHUNK", 64)
    path = write(tmp_path / "a.nii.gz", dtype=np.float32)
    assert read_image(path, "a").GetSize() == SIZE
    with pytest.raises(SourceError, match="holds NaN or infinite values"):
        read_image(patched(path, 352 + 4 * 599, "<f", value), "a")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda label: label.SetDirection((1, 0, 0, -1)),
            "b: direction 1 x 0 x 0 x -1, but the image a has 1 x 0 x 0 x 1",
        ),
        (lambda label: label.SetDirection((0, 1, 1, 0)), "b: direction"),
        (lambda label: label.SetSpacing((0.2, 0.3)), "b: spacing 0.2 x 0.3, but the image a has 0.3 x 0.2"),
        (lambda label: label.SetSpacing((0.3, 0.2005)), "b: spacing 0.3 x 0.2005"),
    ],
)
def test_mask_and_image_lie_on_one_grid(change: Callable[[sitk.Image], None], message: str, tmp_path: Path) -> None:
    image, label = (read_image(write(tmp_path / "a.nii.gz"), name) for name in "ab")
    check_grid(Frame(image, "a", label, "b"))
    change(label)
    with pytest.raises(SourceError, match=message):
        check_grid(Frame(image, "a", label, "b"))


def png(path: Path, mode: str, bits: int | None = None) -> np.ndarray:
    """A mask of 0 and 1 in this mode; of a palette the indices are the labels, the colours are not."""
    mask = np.zeros((20, 30), np.uint8)
    mask[5:9, 5:20] = 1
    image = Image.fromarray(mask)
    if mode == "P":
        image = Image.fromarray(mask, "P")
        image.putpalette([200, 10, 10, 5, 250, 5, *([0] * 762)])
    elif mode == "1":
        image = Image.fromarray(mask.astype(bool))
    elif mode == "I;16":
        image = Image.fromarray(mask.astype(np.uint16))
    elif mode != "L":
        image = image.convert(mode)
    image.save(path, **({"bits": bits} if bits else {}))
    return mask


@pytest.mark.parametrize(
    ("mode", "bits"), [("L", None), ("1", None), ("I;16", None), ("P", None), ("P", 1), ("P", 2), ("P", 4)]
)
def test_masks_in_png_are_grey_values_or_the_indices_of_a_palette(mode: str, bits: int | None, tmp_path: Path) -> None:
    mask = png(tmp_path / "a.png", mode, bits)
    pixels, found = read_natural_image(tmp_path / "a.png", "a.png")
    assert np.array_equal(pixels, mask) and found == mode


def test_a_path_that_is_no_utf8_is_an_error_in_words(tmp_path: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    folder.mkdir()
    (folder / "a.nii.gz").write_bytes(write(tmp_path / "a.nii.gz").read_bytes())
    with pytest.raises(SourceError, match=r"not UTF-8\. Rename the folder or file\."):
        read_image(folder / "a.nii.gz", "caf\udce9/a.nii.gz")
    with pytest.raises(OSError, match=r"caf\\udce9.*not UTF-8\. Rename"):
        write_image(sitk.Image(4, 4, sitk.sitkUInt8), folder / "b.nii.gz", folder)


@pytest.mark.parametrize("place", ["source", "raw", "patient"])
def test_conversions_name_a_folder_that_is_no_utf8(
    place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    strange = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")
    source = Path(strange if place == "source" else tmp_path / "source")
    write_camus(tmp_path / "phantom", 4, 3, spacing_mm=2.0, half_sequence=False)
    (tmp_path / "phantom").rename(source)
    raw = strange if place == "raw" else str(tmp_path / "raw")
    Path(raw).mkdir()
    if place == "patient":
        patients = source / "database_nifti"
        strange_folder = Path(os.fsdecode(os.fsencode(source) + b"/caf\xe9"))
        strange_folder.mkdir()
        (patients / "patient0002").rename(strange_folder / "patient0002")
        (strange_folder / "patient0002" / "patient0002_4CH_ES_gt.nii.gz").unlink()  # its path goes into the report
    code = main(["convert", "camus", str(source), "--raw", raw, "--workers", "2", "--views", "4CH"])
    error = capsys.readouterr().err
    if place == "patient":
        assert code == 1
        report = (Path(raw) / "Dataset751_CAMUS" / "conversion_report.txt").read_text()
        assert r"caf\udce9/patient0002" in report and "[name not UTF-8] CAMUS_patient0002_4CH_ED" in report
        assert not [
            finding for finding in check_dataset(Path(raw) / "Dataset751_CAMUS", 1) if "patient0002" in finding.text
        ]
    else:
        assert code == 2 and "the name is not UTF-8. Rename the folder." in error
        assert r"caf\udce9" in error


def die(how: int) -> None:
    os.kill(os.getpid(), how)


@pytest.mark.parametrize(("how", "message"), [(6, r"crashed \(SIGABRT\)"), (9, "perhaps for want of memory")])
def test_a_worker_that_crashed_did_not_want_memory(how: int, message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        list(map_in_order(die, [how] * 2, title="", workers=2))
