"""TorchScript and torch.export archives: round trips, and archives that are refused."""

from __future__ import annotations

import json
import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from saccade.pipeline.errors import ModelContract
from saccade.pipeline.models.base import ModelSpec, Views
from saccade.pipeline.models.loading import load_model
from saccade.pipeline.recipe import ModelRecipe

DECLARED = {"classes": ["a", "b"], "activation": "softmax", "multiple": 2}


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 5, 3, padding=1), nn.Conv2d(5, 2, 3, padding=1)
        self.norm = nn.BatchNorm2d(5)

    def forward(self, x: Tensor) -> Tensor:
        y = nn.functional.max_pool2d(self.norm(self.first(x)).relu(), 2)
        return nn.functional.interpolate(self.last(y), scale_factor=2.0)


@pytest.fixture
def module() -> nn.Module:
    torch.manual_seed(37)
    return Small().eval()


def save_script(module: nn.Module, path: Path, declared: dict[str, Any] | None = None) -> None:
    extra = {} if declared is None else {"saccade.json": json.dumps(declared)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(module), path, _extra_files=extra)


def save_export(
    module: nn.Module, path: Path, declared: dict[str, Any] | None = None, *, fixed: bool = False
) -> None:
    auto = torch.export.Dim.AUTO
    shapes = None if fixed else ({0: auto, 2: auto, 3: auto},)
    program = torch.export.export(module, (torch.rand(2, 3, 32, 48),), dynamic_shapes=shapes)
    extra = {} if declared is None else {"saccade.json": json.dumps(declared)}
    torch.export.save(program, path, extra_files=extra)


SAVERS = {"m.pt": save_script, "m.ts": save_script, "m.pt2": save_export}


def load(path: Path, **fields: Any) -> Any:
    return load_model(ModelRecipe(source=path.name, **fields), base_folder=path.parent)


@pytest.mark.parametrize("name", SAVERS)
def test_an_archive_answers_as_the_module_it_was_made_from(
    module: nn.Module, tmp_path: Path, name: str
) -> None:
    SAVERS[name](module, tmp_path / name, DECLARED)
    model = load(tmp_path / name)
    assert model.spec == ModelSpec(("a", "b"), halo_px=4, multiple=2, activation="softmax")
    for shape in ((1, 3, 34, 46), (3, 3, 64, 32)):
        pixels = torch.rand(shape)
        with torch.inference_mode():
            expected = module(pixels).softmax(1)
        torch.testing.assert_close(model(Views(pixels)).scores, expected)


@pytest.mark.parametrize("name", SAVERS)
def test_an_archive_without_declaration_is_measured(
    module: nn.Module, tmp_path: Path, name: str
) -> None:
    SAVERS[name](module, tmp_path / name)
    spec = load(tmp_path / name, activation="softmax").spec
    assert spec == ModelSpec(("0", "1"), halo_px=4, multiple=2, activation="softmax")


@pytest.mark.parametrize("name", ["m.pt", "m.pt2"])
def test_a_file_that_is_no_archive_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"no archive")
    with pytest.raises(ModelContract, match="does not load"):
        load(tmp_path / name)


def test_weights_alone_are_no_torchscript(module: nn.Module, tmp_path: Path) -> None:
    torch.save(module.state_dict(), tmp_path / "w.pt")
    with pytest.raises(ModelContract, match="TorchScript archive expected"):
        load(tmp_path / "w.pt")


def test_weights_beside_an_archive_are_refused(module: nn.Module, tmp_path: Path) -> None:
    save_script(module, tmp_path / "m.ts")
    with pytest.raises(ModelContract, match="an archive brings its own"):
        load(tmp_path / "m.ts", weights="w.pt")


@pytest.mark.parametrize("declared", [[1, 2], {"class": ["a"]}, {"classes": []}])
def test_a_wrong_declaration_is_refused(module: nn.Module, tmp_path: Path, declared: Any) -> None:
    save_export(module, tmp_path / "m.pt2", declared)
    with pytest.raises(ModelContract, match=r"saccade\.json|declaration"):
        load(tmp_path / "m.pt2")


def test_an_archive_of_one_fixed_shape_is_refused_with_the_remedy(
    module: nn.Module, tmp_path: Path
) -> None:
    save_export(module, tmp_path / "m.pt2", DECLARED, fixed=True)
    with pytest.raises(ModelContract, match=r"axes \[0, 2, 3\].*dynamic_shapes"):
        load(tmp_path / "m.pt2")


class Touch:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def rewritten(path: Path, replaced: dict[str, bytes], added: dict[str, bytes]) -> None:
    """An archive with other content in members of these endings, and with more members."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    for ending, content in replaced.items():
        (name,) = (n for n in members if n.endswith(ending))
        members[name] = content
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {**members, **{f"m/{k}": v for k, v in added.items()}}.items():
            archive.writestr(name, content)


@pytest.mark.parametrize(
    "member",
    [
        "data/constants/opaque_obj_0",
        "data/constants/custom_obj_0",
        "data/constants/model.pt",
        "data/weights/model.pt",
        "data/aotinductor/model/lib.so",
    ],
)
def test_an_archive_with_members_that_run_code_is_refused(
    module: nn.Module, tmp_path: Path, member: str
) -> None:
    save_export(module, tmp_path / "m.pt2", DECLARED)
    evil = pickle.dumps(Touch(tmp_path / "touched"))
    rewritten(tmp_path / "m.pt2", {}, {member: evil})
    with pytest.raises(ModelContract, match="could run code"):
        load(tmp_path / "m.pt2")
    assert not (tmp_path / "touched").exists()


def test_an_archive_with_a_malicious_sample_is_refused(module: nn.Module, tmp_path: Path) -> None:
    save_export(module, tmp_path / "m.pt2", DECLARED)
    torch.save(Touch(tmp_path / "touched"), tmp_path / "evil")
    content = (tmp_path / "evil").read_bytes()
    rewritten(tmp_path / "m.pt2", {"sample_inputs/model.pt": content}, {})
    with pytest.raises(ModelContract, match="pickles more than tensors"):
        load(tmp_path / "m.pt2")
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize(
    ("ending", "key", "value"),
    [
        ("models/model.json", "expr_str", "__import__('os').getpid()"),
        ("models/model.json", "expr_str", "exec(s0)"),
        ("models/model.json", "expr_str", "s0.real"),
        ("models/model.json", "target", "torch.os.system"),
        ("model_weights_config.json", "use_pickle", True),
    ],
)
def test_an_archive_whose_graph_is_more_than_arithmetic_is_refused(
    module: nn.Module, tmp_path: Path, ending: str, key: str, value: Any
) -> None:
    path = tmp_path / "m.pt2"
    save_export(module, path, DECLARED)
    with zipfile.ZipFile(path) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith(ending))
        tree = json.loads(archive.read(name))
    replaced = put(tree, key, value)
    assert replaced > 0
    rewritten(path, {ending: json.dumps(tree).encode()}, {})
    with pytest.raises(ModelContract, match="could run code"):
        load(path)


def put(tree: Any, key: str, value: Any) -> int:
    """Set every such key; how many there were."""
    children = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ()
    count = sum(put(child, key, value) for child in children)
    if isinstance(tree, dict) and key in tree:
        tree[key] = value
        count += 1
    return count
