"""Clips: DICOM, videos, images of several frames and folders of frames, read frame by frame as grey pictures."""

from nnunet_echo.cine.clips.clip import Clip, ClipError, Finding
from nnunet_echo.cine.clips.read import read_clip

__all__ = ["Clip", "ClipError", "Finding", "read_clip"]
