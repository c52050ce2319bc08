"""Importing torchvision beside a torch it was not compiled for.

torchvision's wheels carry operators for the CUDA build of torch; beside the CPU build they do not load, and the import ends
with "operator torchvision::nms does not exist". open_clip needs torchvision's Python part only, and transformers imports it
wherever it is installed, even for a text model. So where the real operators
are absent, the two names are declared (not implemented: calling them fails) and the import goes through.
"""

import functools
import importlib.util
import sys

import torch


@functools.cache
def import_torchvision() -> torch.library.Library | None:
    """Make `import torchvision` work; None where it does by itself or is not installed.

    Otherwise the declarations, which the cache keeps alive. To be called before the first import of transformers.
    """
    if importlib.util.find_spec("torchvision") is None:
        return None
    try:
        import torchvision
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
    else:
        return None
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]  # the half-imported remains
    library = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import torchvision  # noqa: F401

    return library
