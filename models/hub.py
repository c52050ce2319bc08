"""Saving and loading of one network as a folder: `config.json` beside `model.safetensors`.

Belongs here: frozen dataclass configuration <-> JSON, state dict <-> safetensors, and every check between the two. This is
the only file I/O of `models`. Does not belong here: downloading, digests (`pipelines/weights.py`), training checkpoints
(`training/checkpoint.py`), translation from other projects' formats (`models/tae/diffusers_weights.py`).

Only safetensors is ever read. A pickle (`.bin`, `.pt`, `.pth`, `.ckpt`, `.pkl`) can run code when opened, so it is refused by
name, even where it is the only file.
"""

import dataclasses
import json
import os
import types
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

CONFIG_NAME = "config.json"
WEIGHTS_NAME = "model.safetensors"
UNSAFE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")

C = TypeVar("C")
M = TypeVar("M", bound=nn.Module)


def save_pretrained(model: nn.Module, config: Any, folder: str | os.PathLike[str]) -> None:
    """Write `config` (a dataclass instance) and the model's state dict into `folder`, made if absent.

    Each file appears whole or not at all: it is written beside its name and renamed. Tensors keep their dtype and come from
    any device; a model on the meta device has nothing to save and raises ValueError.
    """
    state = {
        name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items() if not tensor.is_meta
    }
    empty = sorted(set(model.state_dict()) - set(state))
    if empty:
        raise ValueError(
            f"{len(empty)} tensors of {type(model).__name__} are on the meta device (first: {empty[0]}); expected real "
            "weights; give the model storage with model.to_empty(device=...) and initialise or load it before saving"
        )
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    _write_whole(target / WEIGHTS_NAME, lambda path: save_file(state, path, metadata={"format": "pt"}))
    text = json.dumps(config_to_json(config), indent=2) + "\n"
    _write_whole(target / CONFIG_NAME, lambda path: path.write_text(text, encoding="utf-8"))


def from_pretrained(folder: str | os.PathLike[str], config_class: type[C], build: Callable[[C], M]) -> M:
    """Read a folder written by `save_pretrained`: `build(config)` makes the module, the file fills it.

    The module is built on the meta device and takes the file's tensors as they are, so a network of any size is held
    once, on the CPU, in the dtype of the file. It is returned in eval mode. Raises ValueError for a missing folder or file,
    an unsafe format, a broken or foreign config, and tensors that are missing, unexpected or of another shape.
    """
    config = read_config(folder, config_class)
    weights = read_safetensors(find_weights(folder, WEIGHTS_NAME))
    with torch.device("meta"):
        model = build(config)
    load_weights(model, weights, source=str(folder))
    unfilled = [name for name, buffer in model.named_buffers() if buffer.is_meta]
    assert not unfilled, (
        f"non-persistent buffers cannot be loaded; compute them in forward or make them persistent: {unfilled}"
    )
    return model.eval()


def load_weights(model: nn.Module, weights: Mapping[str, Tensor], *, source: str) -> None:
    """Fill `model` with `weights`, every name and shape matching exactly, else ValueError and the model is untouched.

    Meta parameters take over the given tensors; real ones are copied into, keeping their dtype and device. `source` names
    where the weights came from, for the error text.
    """
    own = model.state_dict()
    missing, extra = sorted(own.keys() - weights.keys()), sorted(weights.keys() - own.keys())
    wrong = [
        f"{name}: given {tuple(weights[name].shape)}, expected {tuple(own[name].shape)}"
        for name in sorted(own.keys() & weights.keys())
        if weights[name].shape != own[name].shape
    ]
    problems = [f"{len(names)} {what} ({_first(names)})" for what, names in
                (("missing", missing), ("unexpected", extra), ("of another shape", wrong)) if names]  # fmt: skip
    if problems:
        raise ValueError(
            f"the weights from {source} do not fit {type(model).__name__}: tensors {'; '.join(problems)}; expected exactly "
            f"the model's {len(own)} tensors; load them with the configuration they were saved with"
        )
    is_meta = any(tensor.is_meta for tensor in own.values())
    model.load_state_dict(dict(weights), strict=True, assign=is_meta)


def find_weights(folder: str | os.PathLike[str], name: str) -> Path:
    """Path of the safetensors file `name` in `folder`; ValueError where it is absent or only an unsafe one is there."""
    root = Path(folder)
    _refuse_unsafe(root)
    if not root.is_dir():
        raise ValueError(f"no folder {root}; expected a local folder with {CONFIG_NAME} and {name}; check the path")
    path = root / name
    if path.is_file():
        return path
    unsafe = sorted(entry.name for entry in root.iterdir() if entry.suffix in UNSAFE_SUFFIXES)
    if unsafe:
        _refuse_unsafe(root / unsafe[0])
    raise ValueError(f"no {name} in {root}; expected weights in that file; save the model again or correct the folder")


def read_safetensors(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """All tensors of one safetensors file, on the CPU, by name. ValueError for another format or a damaged file."""
    source = Path(path)
    _refuse_unsafe(source)
    if not source.is_file():
        raise ValueError(f"no file {source}; expected a .safetensors file; check the path")
    try:
        return load_file(source)
    except SafetensorError as error:
        raise ValueError(
            f"{source} is not readable as safetensors ({error}); expected a whole file; copy it again"
        ) from error


def read_config(folder: str | os.PathLike[str], config_class: type[C]) -> C:
    """The `config_class` instance described by `config.json` in `folder`; ValueError where it does not describe one."""
    data = read_json(folder, CONFIG_NAME)
    return config_from_json(config_class, data)


def read_json(folder: str | os.PathLike[str], name: str) -> dict[str, Any]:
    """The JSON object in file `name` of `folder`, as a dict. ValueError if absent, unreadable or not an object."""
    root = Path(folder)
    _refuse_unsafe(root)
    path = root / name
    if not path.is_file():
        raise ValueError(f"no {name} in {root}; expected a folder written by save_pretrained; check the path")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not JSON ({error}); expected an object; save the model again") from error
    if not isinstance(data, dict):
        raise ValueError(
            f"{path} holds a {type(data).__name__}; expected a JSON object of settings; save the model again"
        )
    return data


def config_to_json(config: Any) -> dict[str, Any]:
    """A dataclass instance as JSON data, its class name under `config_class` so that a foreign file is noticed."""
    if not dataclasses.is_dataclass(config) or isinstance(config, type):
        raise ValueError(f"given {config!r} as a configuration; expected a dataclass instance; pass the model's config")
    return {"config_class": type(config).__name__, **dataclasses.asdict(config)}


def config_from_json(config_class: type[C], data: Mapping[str, Any]) -> C:
    """The reverse of `config_to_json`: nested dataclasses and tuples are restored, and each value's type is checked.

    Absent keys take the dataclass default, so an old file still loads; unknown keys raise ValueError, because a setting
    that is silently dropped gives another network.
    """
    given = dict(data)
    name = given.pop("config_class", config_class.__name__)
    if name != config_class.__name__:
        raise ValueError(
            f"{CONFIG_NAME} describes a {name}; expected a {config_class.__name__}; load it with the class it was saved from"
        )
    result: C = _decode_dataclass(config_class, given, config_class.__name__)
    return result


def _decode_dataclass(config_class: type[Any], data: Mapping[str, Any], where: str) -> Any:
    hints = typing.get_type_hints(config_class)
    fields = {field.name: field for field in dataclasses.fields(config_class) if field.init}
    unknown = sorted(data.keys() - fields.keys())
    if unknown:
        raise ValueError(
            f"{where} was given unknown settings {unknown}; expected some of {sorted(fields)}; correct the file"
        )
    absent = [
        name
        for name, field in fields.items()
        if name not in data and field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    if absent:
        raise ValueError(f"{where} was given no value for {absent}, which have no default; add them to {CONFIG_NAME}")
    return config_class(**{name: _decode(value, hints[name], f"{where}.{name}") for name, value in data.items()})


def _decode(value: Any, kind: Any, where: str) -> Any:
    """`value` out of JSON as an instance of the annotation `kind`."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type) and isinstance(value, dict):
        return _decode_dataclass(kind, value, where)
    if origin is tuple and isinstance(value, list):
        kinds = arguments[:1] * len(value) if arguments[-1:] == (Ellipsis,) else arguments
        if len(kinds) == len(value):
            return tuple(
                _decode(item, each, f"{where}[{i}]") for i, (item, each) in enumerate(zip(value, kinds, strict=True))
            )
    if origin in (typing.Union, types.UnionType):
        return _decode_union(value, arguments, where)
    if origin is Literal and value in arguments:
        return value
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(kind, type) and isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
        return value
    raise ValueError(f"{where} was given {value!r}; expected {kind}; correct {CONFIG_NAME} or save the model again")


def _decode_union(value: Any, kinds: tuple[Any, ...], where: str) -> Any:
    for kind in kinds:
        try:
            return _decode(value, kind, where)
        except ValueError:
            continue
    raise ValueError(f"{where} was given {value!r}; expected one of {kinds}; correct {CONFIG_NAME}")


def _refuse_unsafe(path: Path) -> None:
    if path.suffix in UNSAFE_SUFFIXES:
        raise ValueError(
            f"given {path}, a pickle format that can run code when opened; expected a .safetensors file; convert it where "
            "you trust it (safetensors.torch.save_file) and load the result"
        )


def _write_whole(path: Path, write: Callable[[Path], Any]) -> None:
    part = path.with_name(path.name + ".part")
    write(part)
    part.replace(path)


def _first(names: list[str]) -> str:
    return "first: " + ", ".join(names[:3])
