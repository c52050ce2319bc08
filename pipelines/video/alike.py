"""Do two frames show the same thing? Asked of 32x18 thumbnails, whatever the light and after a small move of the camera.

What belongs here: that one question. Who asks it, and what follows, is in `shots.py` and `gradual.py`.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

FLAT_SPREAD = 3.0  # a thumbnail with a smaller standard deviation shows nothing that could be recognised
MARGIN_X, MARGIN_Y = 5, 3  # thumbnail pixels by which the middle of one frame may lie elsewhere in the other

Thumb = NDArray[np.uint8]  # 18 32 3, YUV


def likeness(first: Thumb, second: Thumb) -> float:
    """-1..1: normalised correlation of luma, the best over shifts of a sixth of the frame; brightness and contrast do not count.

    Two frames of nearly one colour are alike as far as their mean colours are.
    """
    flat_first, flat_second = (float(thumb[..., 0].std()) < FLAT_SPREAD for thumb in (first, second))
    if flat_first and flat_second:
        apart = np.abs(first.mean(axis=(0, 1)) - second.mean(axis=(0, 1))).max()
        return float(1 - min(apart / 16, 1.0))
    if flat_first or flat_second:
        return 0.0
    luma_first, luma_second = first[..., 0].astype(np.float32), second[..., 0].astype(np.float32)
    middle = luma_first[MARGIN_Y:-MARGIN_Y, MARGIN_X:-MARGIN_X]
    if middle.std() < FLAT_SPREAD:
        return float(np.corrcoef(luma_first.ravel(), luma_second.ravel())[0, 1])
    return float(cv2.matchTemplate(luma_second, middle, cv2.TM_CCOEFF_NORMED).max())
