"""Weighted averaging of trained networks (paper, fine-tuning; LLaMa 3): several folders in, one folder out.

Belongs here: the mean of checkpoints that `models.hub` wrote, tensor by tensor. Does not belong here: the moving average
during training (`training/`).
"""

import json
import math
import os
import struct
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from models.hub import CONFIG_NAME, WEIGHTS_NAME, find_weights, read_json

FORMAT_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""torch dtype -> its name in the safetensors format."""


def average_pretrained(
    folders: Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    *,
    weights: Sequence[float] | None = None,
) -> None:
    """Write to `output` the network whose every tensor is the weighted mean of those in `folders`.

    `weights` are one non-negative number per folder, by default equal; they are divided by their sum. The mean is taken in
    float64 and rounded once to the tensors' own dtype; tensors that are not floating must be equal. One tensor of each
    folder is held at a time, so a 30B model needs a few GB. ValueError for configurations, names, shapes or dtypes that differ (the
    text names the difference) and for tensors with NaN or infinity; no half-written weights are left behind.
    """
    shares = _shares(len(folders), weights)
    _check_configs(folders)
    target = Path(output)
    if any(target.resolve() == Path(folder).resolve() for folder in folders):
        raise ValueError(f"given {target} as input and output; expected another folder; choose a new name")
    with ExitStack() as stack:
        files = [stack.enter_context(_open(folder)) for folder in folders]
        _check_tensors(files, folders)
        target.mkdir(parents=True, exist_ok=True)
        part = target / (WEIGHTS_NAME + ".part")
        try:
            with part.open("wb") as out:
                _write(out, files, shares)
            part.replace(target / WEIGHTS_NAME)
        finally:
            part.unlink(missing_ok=True)
    (target / CONFIG_NAME).write_bytes((Path(folders[0]) / CONFIG_NAME).read_bytes())


def _shares(count: int, weights: Sequence[float] | None) -> list[float]:
    given = [1.0] * count if weights is None else list(weights)
    is_usable = all(math.isfinite(w) and w >= 0 for w in given) and sum(given) > 0
    if count < 1 or len(given) != count or not is_usable:
        raise ValueError(
            f"given {count} folders and weights {weights}; expected at least one folder and one finite weight of at least 0 "
            "for each, not all 0; leave weights out for the plain mean"
        )
    return [w / sum(given) for w in given]


def _check_configs(folders: Sequence[str | os.PathLike[str]]) -> None:
    first = read_json(folders[0], CONFIG_NAME)
    for folder in folders[1:]:
        other = read_json(folder, CONFIG_NAME)
        differing = sorted(key for key in first.keys() | other.keys() if first.get(key) != other.get(key))
        if differing:
            key = differing[0]
            raise ValueError(
                f"the configurations of {folders[0]} and {folder} differ in {differing}: {key} is {first.get(key)!r} and "
                f"{other.get(key)!r}; expected equal ones; average only networks of one shape"
            )


def _open(folder: str | os.PathLike[str]) -> Any:
    path = find_weights(folder, WEIGHTS_NAME)
    try:
        return safe_open(path, framework="pt", device="cpu")
    except SafetensorError as error:
        raise ValueError(
            f"{path} is not readable as safetensors ({error}); expected a whole file; copy it again"
        ) from error


def _check_tensors(files: list[Any], folders: Sequence[str | os.PathLike[str]]) -> None:
    names = sorted(files[0].keys())
    for file, folder in zip(files[1:], folders[1:], strict=True):
        alone = sorted(set(names) ^ set(file.keys()))
        if alone:
            raise ValueError(
                f"{folders[0]} and {folder} do not hold the same tensors: {len(alone)} are in one only, first {alone[0]}; "
                "expected the same names; average only checkpoints of one network"
            )
        for name in names:
            (dtype, shape), (other_dtype, other_shape) = _kind(files[0], name), _kind(file, name)
            if (dtype, shape) != (other_dtype, other_shape):
                raise ValueError(
                    f"tensor {name} is {dtype} {shape} in {folders[0]} and {other_dtype} {other_shape} in {folder}; "
                    "expected equal dtypes and shapes; save both alike"
                )


def _kind(file: Any, name: str) -> tuple[str, tuple[int, ...]]:
    view = file.get_slice(name)
    return view.get_dtype(), tuple(view.get_shape())


def _write(out: BinaryIO, files: list[Any], shares: list[float]) -> None:
    """The safetensors layout: header length (8 bytes, little-endian), JSON header, then the tensors end to end."""
    names = sorted(files[0].keys())
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name in names:
        dtype, shape = _kind(files[0], name)
        size = math.prod(shape) * _item_bytes(dtype, name)
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the format aligns the first tensor to 8 bytes
    out.write(struct.pack("<Q", len(text)) + text)
    for name in names:
        mean = _mean(name, [file.get_tensor(name) for file in files], shares)
        out.write(mean.reshape(-1).view(torch.uint8).numpy().data)


def _mean(name: str, tensors: list[Tensor], shares: list[float]) -> Tensor:
    first = tensors[0]
    if not first.is_floating_point():
        if any(not torch.equal(first, other) for other in tensors[1:]):
            raise ValueError(
                f"tensor {name} of {first.dtype} differs between the folders; expected equal values, because whole numbers "
                "have no mean; take the checkpoints from one configuration"
            )
        return first.contiguous()
    total = torch.zeros(first.shape, dtype=torch.float64)
    for tensor, share in zip(tensors, shares, strict=True):
        if not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"tensor {name} holds NaN or infinity; expected finite weights; leave that checkpoint out")
        total.add_(tensor.to(torch.float64), alpha=share)
    return total.to(first.dtype).contiguous()


def _item_bytes(dtype: str, name: str) -> int:
    for torch_dtype, format_name in FORMAT_DTYPES.items():
        if format_name == dtype:
            return torch_dtype.itemsize
    raise ValueError(
        f"tensor {name} is {dtype}; expected one of {sorted(FORMAT_DTYPES.values())}; convert the checkpoint to bfloat16"
    )
