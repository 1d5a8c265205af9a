"""Synthetic hearts, to try everything on without a patient's data.

`sample_heart` draws a heart at random, `ultrasound` what a probe would show of it, at any moment between end diastole
(ED) and end systole (ES). Volumes and ejection fraction (EF) are known exactly: see `nnunet_echo.phantom.heart`. A seed
gives the same bytes each time, and patient k of a seed is the same however many patients are drawn. Complete data sets
are written by the module `phantom` beside each converter, and by `nnunet-echo phantom`.
"""

from nnunet_echo.phantom.heart import Heart, View, sample_heart
from nnunet_echo.phantom.ultrasound import ultrasound

__all__ = ["Heart", "View", "sample_heart", "ultrasound"]
