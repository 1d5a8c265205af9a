"""What does `nnunet-echo predict` cost beside nnUNetv2_predict, and a resident model beside its network?

    python benchmarks/cine.py                  # all of it: about half an hour on two idle cores
    python benchmarks/cine.py --only cold load # some of it
    python benchmarks/cine.py --quick          # a toy network and few frames: does it run?
    python benchmarks/cine.py --model FOLDER --images IMAGES      # a trained model of your own, and its images

Without --model it trains nnU-Net's U-Net of the 1 mm plan (patch 160 x 192, 16 to 256 features) for a minute on drawn
hearts, since a network of random weights has edges everywhere; images are drawn sectors of 389 x 549 pixels.
Processor time counts all processes of a command, whose own threads are as it sets them. Ratios are of one run, medians
of --repeats; commands take turns. Printed, in Markdown, with what is asked of each:

    equal     pixels that differ from nnUNetv2_predict
    first     processor seconds of a new process until its first mask
    cold      the command's processor time over ours, for 20 and for 100 images
    resident  the command's processor time for 20 images over that of a loaded model for 20 frames
    forward   processor time of a frame over that of the network's forward of one patch, 1 mm and 512 x 640
    load      the command's wall time for 20 images over ours, and over a loaded model's for 20 frames, while 8 other
              processes are busy
    memory    peak memory of a stream of 2,000 frames over that of 200
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import numpy as np
import SimpleITK as sitk
import torch
from drawn import drawn_heart, write_model
from measured import Cost, run_measured

from nnunet_echo.cine.model import CineModel

SIZE, PIXEL_MM = (389, 549), 0.308
FIRST = """
import sys, time
from nnunet_echo.cine.model import CineModel
import numpy as np
model = CineModel.load(sys.argv[1], workers=1)
next(iter(model.stream([np.load(sys.argv[2])], spacing_mm=(float(sys.argv[3]),) * 2)))
print(time.process_time())
"""
MEMORY = """
import resource, sys
from nnunet_echo.cine.model import CineModel
import numpy as np
model, frame = CineModel.load(sys.argv[1], workers=2), np.load(sys.argv[2])
frames = (np.roll(frame, n, 1) for n in range(int(sys.argv[4])))
for result in model.stream(frames, spacing_mm=(float(sys.argv[3]),) * 2):
    pass
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


class Bench:
    """A model and images, and one method for each row of the table."""

    def __init__(self, model: Path, images: Path, large: Path, place: Path, repeats: int, quick: bool) -> None:
        self.model, self.large, self.place, self.repeats, self.quick = model, large, place, repeats, quick
        self.files = sorted(images.iterdir())
        image = sitk.ReadImage(str(self.files[0]))
        self.frame, self.pixel = sitk.GetArrayFromImage(image), str(image.GetSpacing()[0])
        np.save(place / "frame.npy", self.frame)
        self.runs = 0
        self.command_s: dict[int, list[Cost]] = {}

    def folder_of(self, count: int) -> Path:
        folder = self.place / f"images_{count}"
        if not folder.exists():
            folder.mkdir()
            for n in range(count):
                (folder / f"c{n:04d}_0000.nii.gz").symlink_to(self.files[n % len(self.files)].resolve())
        return folder

    def run(self, ours: bool, count: int) -> tuple[Cost, Path]:
        self.runs += 1
        out = self.place / f"masks_{self.runs}"
        options = ["-i", str(self.folder_of(count)), "-o", str(out), "-m", str(self.model), "-f", "0"]
        beside = Path(sys.executable).parent
        if ours:
            return run_measured([str(beside / "nnunet-echo"), "predict", *options]), out
        few = ["-device", "cpu", "-npp", "1", "-nps", "1"]
        return run_measured([str(beside / "nnUNetv2_predict_from_modelfolder"), *options, *few]), out

    def turns(self, count: int) -> tuple[list[Cost], list[Cost]]:
        ours, theirs = [], []
        for _ in range(self.repeats):
            ours.append(self.run(True, count)[0])
            theirs.append(self.run(False, count)[0])
        self.command_s[count] = theirs
        return ours, theirs

    def equal(self) -> Iterator[tuple[str, str, str]]:
        count = 4 if self.quick else 100
        (_, ours), (_, theirs) = self.run(True, count), self.run(False, count)
        different = 0
        for file in theirs.glob("*.nii.gz"):
            a, b = (sitk.GetArrayFromImage(sitk.ReadImage(str(folder / file.name))) for folder in (ours, theirs))
            different += int((a != b).sum())
        yield f"pixels that differ, {count} images", str(different), "0"

    def first(self) -> Iterator[tuple[str, str, str]]:
        seconds = median(self._child(FIRST) for _ in range(self.repeats))
        yield "first mask, processor s", f"{seconds:.2f}", "at most 3.5"

    def cold(self) -> Iterator[tuple[str, str, str]]:
        for count, bar in ((4, "-"),) if self.quick else ((20, "4"), (100, "2.5")):
            ours, theirs = self.turns(count)
            ratio = median(t.processor_seconds for t in theirs) / median(o.processor_seconds for o in ours)
            seconds = f"{median(o.processor_seconds for o in ours):.1f} s of ours"
            yield f"cold, {count} images, processor time", f"{ratio:.2f} ({seconds})", f"at least {bar}"

    def resident(self) -> Iterator[tuple[str, str, str]]:
        count = 4 if self.quick else 20
        theirs = self.command_s.get(count) or self.turns(count)[1]
        model = CineModel.load(self.model)
        spacing = (float(self.pixel),) * 2
        seconds = self._processor_s(lambda: list(model.stream([self.frame] * count, spacing_mm=spacing)))
        ratio = median(cost.processor_seconds for cost in theirs) / seconds
        yield f"resident, {count} frames, processor time", f"{ratio:.2f}", "at least 8"

    def forward(self) -> Iterator[tuple[str, str, str]]:
        for name, folder, bar in (("1 mm", self.model, 1.6), ("512 x 640", self.large, 1.25)):
            model = CineModel.load(folder, workers=1)
            count = 2 if self.quick else 5
            patch = torch.randn(1, 1, *model.steps.patch_size)
            spacing = (float(self.pixel),) * 2
            torch.set_num_threads(1)
            with torch.inference_mode():
                forward = self._processor_s(lambda model=model, patch=patch: [model.networks[0](patch)])  # type: ignore[misc]
            frames = [self.frame] * count
            stream = self._processor_s(
                lambda model=model, frames=frames, spacing=spacing: list(model.stream(frames, spacing_mm=spacing))  # type: ignore[misc]
            )
            yield f"frame over forward, {name}", f"{stream / count / forward:.2f}", f"at most {bar}"

    def load(self) -> Iterator[tuple[str, str, str]]:
        count = 4 if self.quick else 20
        model = CineModel.load(self.model)
        spacing = (float(self.pixel),) * 2
        list(model.stream([self.frame] * count, spacing_mm=spacing))
        with busy(2 if self.quick else 8):
            ours, theirs = self.turns(count)
            resident = []
            for _ in range(self.repeats):
                began = time.perf_counter()
                list(model.stream([self.frame] * count, spacing_mm=spacing))
                resident.append(time.perf_counter() - began)
        self.command_s.pop(count)  # not those of an idle machine
        command = median(cost.seconds for cost in theirs)
        cold = median(cost.seconds for cost in ours)
        seconds = f"{command:.0f} s over {cold:.0f} s"
        yield f"under load, {count} images, wall time", f"{command / cold:.1f} ({seconds})", "at least 10"
        yield f"under load, {count} frames by a loaded model", f"{command / median(resident):.1f}", "at least 10"

    def memory(self) -> Iterator[tuple[str, str, str]]:
        few, many = (10, 30) if self.quick else (200, 2000)
        ratio = self._child(MEMORY, str(many)) / self._child(MEMORY, str(few))
        yield f"peak memory, {many} over {few} frames", f"{ratio:.3f}", "at most 1.1"

    def _child(self, code: str, *arguments: str) -> float:
        command = [sys.executable, "-c", code, str(self.model), str(self.place / "frame.npy"), self.pixel, *arguments]
        return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])

    def _processor_s(self, run: Callable[[], object]) -> float:
        run()
        seconds = []
        for _ in range(self.repeats):
            began = time.process_time()
            run()
            seconds.append(time.process_time() - began)
        return median(seconds)


@contextmanager
def busy(processes: int) -> Iterator[None]:
    """That many processes that compute all the time."""
    others = [multiprocessing.get_context("spawn").Process(target=_spin, daemon=True) for _ in range(processes)]
    for other in others:
        other.start()
    try:
        yield
    finally:
        for other in others:
            other.terminate()
            other.join()


def _spin() -> None:
    parent = os.getppid()
    while os.getppid() == parent:
        sum(range(100_000))


ROWS = ("equal", "first", "cold", "resident", "forward", "load", "memory")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=ROWS, default=ROWS)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--model", type=Path, help="a trained 2D model (default: one trained for a minute)")
    parser.add_argument("--images", type=Path, help="its images (default: drawn ones)")
    parser.add_argument("--quick", action="store_true", help="toy sizes; the numbers mean nothing")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        patch, features = ((32, 48), (4, 8)) if args.quick else ((160, 192), (16, 256))
        model = args.model or write_model(place / "model", patch, 1.0, features, 2 if args.quick else 60)
        patch = (64, 80) if args.quick else (512, 640)
        large = write_model(place / "large", patch, 0.308, (4, 8) if args.quick else (32, 512), 0)
        images = args.images
        if images is None:
            images = place / "images"
            images.mkdir()
            for n in range(2 if args.quick else 20):
                image = sitk.GetImageFromArray(drawn_heart((60, 80) if args.quick else SIZE, 1000 + n)[0])
                image.SetSpacing([PIXEL_MM, PIXEL_MM])
                sitk.WriteImage(image, str(images / f"d{n:02d}_0000.nii.gz"))
        bench = Bench(model, images, large, place, 1 if args.quick else args.repeats, args.quick)
        print("| what | measured | asked |\n| --- | ---: | --- |")
        for row in args.only:
            for cells in getattr(bench, row)():
                print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
