"""Growth of the position tables from one training stage to the next (paper, pre-training: spatial x2, x3, new time).

Two different needs, two functions. `extend_positions` gives a longer range at the same scale: other aspect ratios, longer
clips; every video that fitted before gives exactly the output it gave before. `stretch_positions` gives the same picture at
a higher resolution: what stood at patch i stands at patch factor x i, so the same place keeps its position.
Both return a new network and leave the given one as it is. All other weights are shared by value.
"""

import dataclasses

import torch
from torch import Tensor

from models.dit.config import DiTConfig
from models.dit.model import DiT


def extend_positions(
    model: DiT,
    *,
    generator: torch.Generator,
    frames: int | None = None,
    rows: int | None = None,
    columns: int | None = None,
) -> DiT:
    """A copy of `model` with longer tables (patches; None keeps a length); old rows are copied bit for bit.

    New rows in space begin as the old ones mirrored at the end, which keeps their statistics and joins without a jump; new
    rows in time begin as small noise of deviation 0.02, because a table of one frame (a text-to-image model) has nothing
    to mirror and equal rows would leave frames indistinguishable. ValueError for a length below the present one.
    """
    old = model.config
    lengths = (
        old.max_frames if frames is None else frames,
        old.max_rows if rows is None else rows,
        old.max_columns if columns is None else columns,
    )
    present = (old.max_frames, old.max_rows, old.max_columns)
    if any(new < now for new, now in zip(lengths, present, strict=True)):
        raise ValueError(
            f"given table lengths {lengths} (time, height, width); expected at least the present {present}, because "
            "shorter ones would lose trained rows; give None to keep a length"
        )
    config = dataclasses.replace(old, max_frames=lengths[0], max_rows=lengths[1], max_columns=lengths[2])
    tables = {
        "time": _with_noise(model.positions.time.detach(), lengths[0], generator),
        "height": _mirrored(model.positions.height.detach(), lengths[1]),
        "width": _mirrored(model.positions.width.detach(), lengths[2]),
    }
    return _with_tables(model, config, tables)


def stretch_positions(model: DiT, factor: int) -> DiT:
    """A copy of `model` whose height and width tables are `factor` times as long: row factor x i is the old row i.

    Rows between two old ones are interpolated linearly; after the last they repeat it. Time stays as it is.
    """
    if not isinstance(factor, int) or factor < 1:
        raise ValueError(
            f"given a stretch of {factor!r}; expected a whole number of at least 1, such as 3 for 256 -> 768"
        )
    old = model.config
    config = dataclasses.replace(old, max_rows=old.max_rows * factor, max_columns=old.max_columns * factor)
    tables = {
        "time": model.positions.time.detach().clone(),
        "height": _stretched(model.positions.height.detach(), factor),
        "width": _stretched(model.positions.width.detach(), factor),
    }
    return _with_tables(model, config, tables)


def _with_tables(model: DiT, config: DiTConfig, tables: dict[str, Tensor]) -> DiT:
    with torch.device("meta"):
        grown = DiT(config)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state |= {f"positions.{axis}": table for axis, table in tables.items()}
    grown.load_state_dict(state, strict=True, assign=True)
    for new, old in zip(grown.parameters(), model.parameters(), strict=True):
        new.requires_grad_(old.requires_grad)
    return grown.train(model.training)


def _mirrored(table: Tensor, length: int) -> Tensor:
    """Row i of the result is row i, then back from the last row to the first, and so on."""
    rows = len(table)
    place = torch.arange(length, device=table.device) % (2 * rows)
    return table[torch.where(place < rows, place, 2 * rows - 1 - place)]


def _with_noise(table: Tensor, length: int, generator: torch.Generator) -> Tensor:
    new = torch.randn(length - len(table), table.shape[1], generator=generator, device=generator.device) * 0.02
    return torch.cat([table, new.to(table)])


def _stretched(table: Tensor, factor: int) -> Tensor:
    after = torch.cat([table[1:], table[-1:]])
    steps = torch.arange(factor, device=table.device, dtype=table.dtype)[None, :, None] / factor
    return torch.lerp(table[:, None], after[:, None], steps).flatten(0, 1)
