"""Clips: DICOM, videos, images of several frames and folders of frames, read frame by frame as grey pictures."""

from nnunet_echo.cine.clips.clip import Clip, ClipError, Finding

__all__ = ["Clip", "ClipError", "Finding"]
