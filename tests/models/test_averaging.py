"""Promises of averaging: the mean is exact, memory is one tensor's, and what does not match is named."""

import dataclasses
import json
import tracemalloc
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from models.averaging import average_pretrained
from models.dit import DiT, DiTConfig

CONFIG = DiTConfig(depth=1, width=32, ffn_width=48, heads=2, text_widths=(8,), max_frames=2, max_rows=4, max_columns=4)


def saved(folder: Path, seed: int, config: DiTConfig = CONFIG, dtype: torch.dtype = torch.float32) -> Path:
    model = DiT(config)
    model.init_weights(torch.Generator().manual_seed(seed))
    model.to(dtype).save_pretrained(folder)
    return folder


def rewritten(folder: Path, **tensors: Tensor) -> Path:
    path = folder / "model.safetensors"
    save_file({**load_file(path), **tensors}, path)
    return folder


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_tensor_is_the_weighted_mean_and_the_result_loads(tmp_path, dtype: torch.dtype) -> None:
    folders = [saved(tmp_path / str(seed), seed, dtype=dtype) for seed in range(3)]
    average_pretrained(folders, tmp_path / "mean", weights=[1, 1, 2])
    mean = DiT.from_pretrained(tmp_path / "mean")
    given = [load_file(folder / "model.safetensors") for folder in folders]
    for name, tensor in mean.state_dict().items():
        exact = sum(w * g[name].double() for w, g in zip([0.25, 0.25, 0.5], given, strict=True))
        assert torch.equal(tensor, exact.to(dtype)), name


def test_equal_weights_are_the_default_and_one_folder_is_copied(tmp_path) -> None:
    a, b = saved(tmp_path / "a", 0), saved(tmp_path / "b", 1)
    average_pretrained([a, b], tmp_path / "plain")
    average_pretrained([a, b], tmp_path / "halves", weights=[0.5, 0.5])
    names = ["model.safetensors", "config.json"]
    assert all((tmp_path / "plain" / n).read_bytes() == (tmp_path / "halves" / n).read_bytes() for n in names)
    average_pretrained([a], tmp_path / "copy")
    one, other = load_file(a / "model.safetensors"), load_file(tmp_path / "copy" / "model.safetensors")
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_the_result_is_a_safetensors_file_like_any_other(tmp_path) -> None:
    a = rewritten(
        saved(tmp_path / "a", 0), steps=torch.tensor(7), none=torch.zeros(0, 3), wide=torch.ones(2, dtype=torch.float64)
    )
    average_pretrained([a, a], tmp_path / "mean")
    with safe_open(tmp_path / "mean" / "model.safetensors", framework="pt") as file:
        assert file.metadata() == {"format": "pt"}
        assert file.get_tensor("steps").item() == 7 and file.get_tensor("none").shape == (0, 3)
        assert file.get_tensor("wide").dtype == torch.float64


def test_only_one_tensor_at_a_time_is_held(tmp_path) -> None:
    folder = tmp_path / "big"
    folder.mkdir()
    save_file({f"t{i}": torch.full((250_000,), float(i)) for i in range(32)}, folder / "model.safetensors")
    (folder / "config.json").write_text("{}")
    held = []
    double = torch.Tensor.to

    def watched(self: Tensor, *args, **kwargs) -> Tensor:  # every tensor passes here on its way to the sum
        held.append(self.numel())
        return double(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "to", watched)
        tracemalloc.start()
        average_pretrained([folder, folder], tmp_path / "mean")
        peak_bytes = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert max(held) == 250_000  # never a concatenation
    assert peak_bytes < 2**20  # Python's own share: the file is written through, not gathered
    assert load_file(tmp_path / "mean" / "model.safetensors")["t31"].unique().item() == 31


def other_config(folder: Path) -> Path:
    return saved(folder, 1, dataclasses.replace(CONFIG, heads=4))


def other_dtype(folder: Path) -> Path:
    return saved(folder, 1, dtype=torch.bfloat16)


def more_tensors(folder: Path) -> Path:
    return rewritten(saved(folder, 1), stranger=torch.zeros(1))


def other_shape(folder: Path) -> Path:
    return rewritten(saved(folder, 1), **{"text.null": torch.zeros(5)})


def with_nan(folder: Path) -> Path:
    return rewritten(saved(folder, 1), **{"text.null": torch.full((32,), float("nan"))})


def damaged(folder: Path) -> Path:
    path = saved(folder, 1) / "model.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    return folder


def missing(folder: Path) -> Path:
    (saved(folder, 1) / "model.safetensors").unlink()
    return folder


def pickled(folder: Path) -> Path:
    missing(folder)
    (folder / "model.bin").write_bytes(b"")
    return folder


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (other_config, r"differ in \['heads'\]: heads is 2 and 4"),
        (other_dtype, "F32 .* BF16"),
        (more_tensors, "first stranger"),
        (other_shape, r"text.null is F32 \(32,\) .* F32 \(5,\)"),
        (with_nan, "text.null holds NaN"),
        (damaged, "copy it again"),
        (missing, "no model.safetensors"),
        (pickled, "pickle"),
    ],
)
def test_what_does_not_match_is_named_and_nothing_is_left_behind(tmp_path, make, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        average_pretrained([saved(tmp_path / "a", 0), make(tmp_path / "b")], tmp_path / "mean")
    assert not list((tmp_path / "mean").glob("*"))


def test_whole_numbers_that_differ_are_refused(tmp_path) -> None:
    a = rewritten(saved(tmp_path / "a", 0), steps=torch.tensor(7))
    b = rewritten(saved(tmp_path / "b", 0), steps=torch.tensor(8))
    with pytest.raises(ValueError, match=r"tensor steps of torch\.int64 differs"):
        average_pretrained([a, b], tmp_path / "mean")


@pytest.mark.parametrize("weights", [[1.0], [1.0, -1.0], [0.0, 0.0], [1.0, float("nan")]])
def test_weights_that_make_no_mean_are_refused(tmp_path, weights: list[float]) -> None:
    a, b = saved(tmp_path / "a", 0), saved(tmp_path / "b", 1)
    with pytest.raises(ValueError, match="one finite weight"):
        average_pretrained([a, b], tmp_path / "mean", weights=weights)
    with pytest.raises(ValueError, match="at least one folder"):
        average_pretrained([], tmp_path / "mean")
    with pytest.raises(ValueError, match="another folder"):
        average_pretrained([a, b], a)


def test_the_configuration_travels_unchanged(tmp_path) -> None:
    a = saved(tmp_path / "a", 0)
    average_pretrained([a], tmp_path / "mean")
    assert json.loads((tmp_path / "mean" / "config.json").read_text()) == json.loads((a / "config.json").read_text())
