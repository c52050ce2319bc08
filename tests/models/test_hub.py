"""The folder format of one network: what is written comes back, and nothing unsafe or foreign is ever loaded."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from models.hub import (
    config_from_json,
    config_to_json,
    from_pretrained,
    load_weights,
    read_safetensors,
    save_pretrained,
)


@dataclass(frozen=True)
class InnerConfig:
    rates: tuple[float, ...] = (0.5, 1.0)


@dataclass(frozen=True)
class NetConfig:
    width: int = 4
    name: str = "net"
    scale: float = 1.0
    is_wide: bool = False
    limit: int | None = None
    mode: Literal["a", "b"] = "a"
    pair: tuple[int, int] = (1, 2)
    inner: InnerConfig = field(default_factory=InnerConfig)


class Net(nn.Module):
    def __init__(self, config: NetConfig) -> None:
        super().__init__()
        self.config = config
        self.linear = nn.Linear(config.width, 3)
        self.register_buffer("mean", torch.zeros(3))


def _saved(folder: Path, config: NetConfig | None = None) -> Net:
    model = Net(config or NetConfig())
    save_pretrained(model, model.config, folder)
    return model


def test_a_saved_model_comes_back_bit_equal_with_its_config(tmp_path: Path) -> None:
    config = NetConfig(width=6, scale=2.0, limit=3, mode="b", pair=(4, 5), inner=InnerConfig((0.25,)))
    model = _saved(tmp_path / "net", config)
    loaded = from_pretrained(tmp_path / "net", NetConfig, Net)
    assert loaded.config == config
    assert not loaded.training
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)
    assert all(parameter.requires_grad for parameter in loaded.parameters())
    assert sorted(path.name for path in (tmp_path / "net").iterdir()) == ["config.json", "model.safetensors"]


def test_the_dtype_of_the_file_is_kept(tmp_path: Path) -> None:
    model = Net(NetConfig()).to(torch.bfloat16)
    save_pretrained(model, model.config, tmp_path)
    assert from_pretrained(tmp_path, NetConfig, Net).linear.weight.dtype == torch.bfloat16


@given(
    st.builds(
        NetConfig,
        width=st.integers(1, 9),
        name=st.text(max_size=5),
        scale=st.floats(allow_nan=False, allow_infinity=False),
        is_wide=st.booleans(),
        limit=st.none() | st.integers(),
        mode=st.sampled_from(["a", "b"]),
        pair=st.tuples(st.integers(), st.integers()),
        inner=st.builds(InnerConfig, st.lists(st.floats(0, 1), max_size=3).map(tuple)),
    )
)
def test_any_configuration_survives_json(config: NetConfig) -> None:
    assert config_from_json(NetConfig, json.loads(json.dumps(config_to_json(config)))) == config


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        ({"config_class": "DiTConfig"}, "DiTConfig"),
        ({"widht": 3}, "unknown settings"),
        ({"width": "4"}, "width"),
        ({"width": True}, "width"),
        ({"mode": "c"}, "mode"),
        ({"pair": [1, 2, 3]}, "pair"),
        ({"limit": 0.5}, "limit"),
        ({"inner": {"rates": ["x"]}}, "inner.rates"),
    ],
)
def test_a_config_that_does_not_describe_the_class_is_refused(data: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        config_from_json(NetConfig, data)


def test_a_setting_without_default_must_be_given() -> None:
    @dataclass(frozen=True)
    class Strict:
        width: int

    with pytest.raises(ValueError, match="no value for"):
        config_from_json(Strict, {})


def test_a_class_or_plain_object_is_no_configuration() -> None:
    with pytest.raises(ValueError, match="dataclass instance"):
        config_to_json(NetConfig)


def test_weights_of_another_shape_say_both_shapes_and_leave_the_model_untouched(tmp_path: Path) -> None:
    _saved(tmp_path)
    model = Net(NetConfig(width=5))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(ValueError, match=r"given \(3, 4\), expected \(3, 5\)"):
        load_weights(model, read_safetensors(tmp_path / "model.safetensors"), source="here")
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_missing_and_unexpected_tensors_are_named(tmp_path: Path) -> None:
    model = Net(NetConfig())
    weights = dict(model.state_dict())
    weights["other"] = weights.pop("mean")
    with pytest.raises(ValueError, match=r"missing \(first: mean\); 1 unexpected \(first: other\)"):
        load_weights(model, weights, source="here")


def test_a_missing_folder_or_file_says_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"config\.json"):
        from_pretrained(tmp_path / "absent", NetConfig, Net)
    _saved(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"no model\.safetensors"):
        from_pretrained(tmp_path, NetConfig, Net)


@pytest.mark.parametrize("name", ["model.bin", "model.pt", "model.pth", "model.ckpt", "model.pkl"])
def test_a_pickle_is_refused_and_never_opened(tmp_path: Path, name: str) -> None:
    _saved(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / name)
    with pytest.raises(ValueError, match="can run code"):
        from_pretrained(tmp_path, NetConfig, Net)
    with pytest.raises(ValueError, match="can run code"):
        read_safetensors(tmp_path / name)
    with pytest.raises(ValueError, match="can run code"):
        from_pretrained(tmp_path / name, NetConfig, Net)


def test_a_damaged_file_is_a_value_error(tmp_path: Path) -> None:
    _saved(tmp_path)
    whole = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="not readable as safetensors"):
        from_pretrained(tmp_path, NetConfig, Net)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match="not JSON"):
        from_pretrained(tmp_path, NetConfig, Net)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(ValueError, match="JSON object"):
        from_pretrained(tmp_path, NetConfig, Net)


def test_a_model_on_the_meta_device_has_nothing_to_save(tmp_path: Path) -> None:
    with torch.device("meta"):
        model = Net(NetConfig())
    with pytest.raises(ValueError, match="meta device"):
        save_pretrained(model, model.config, tmp_path)
