"""From a choice to a model: factories, weights, declarations, measurements, fingerprints."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from textwrap import dedent
from typing import Any, Literal

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from saccade.pipeline.errors import ModelContract, ModelNotFound
from saccade.pipeline.models.base import Activation, ModelSpec, SaliencyChoice, Views
from saccade.pipeline.models.loading import fingerprint, load_model
from saccade.pipeline.models.tissue import Tissue
from saccade.pipeline.models.wrap import TorchModel
from saccade.pipeline.normalising import ByDeviation, Normalise
from saccade.pipeline.recipe import ModelRecipe


@dataclass(frozen=True)
class Choice:
    source: str
    weights: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    classes: tuple[str, ...] | None = None
    halo: int | Literal["auto"] | None = None
    stride: int | None = None
    multiple: int | None = None
    channels: int | None = None
    activation: Activation | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    scale: float | None = None
    guidance: bool | None = None
    context: tuple[float, ...] | None = None
    saliency: SaliencyChoice | None = None
    normalise: Normalise | None = None


MODELS = """
    import torch
    from torch import nn
    from saccade.pipeline.models.base import ModelSpec, Prediction
    from parts import layers

    def bare(count=2, out=2):
        return layers(count, out)

    def declared(**fields):
        module = layers(2, 2)
        module.saccade = {"classes": ["a", "b"], "activation": "softmax", **fields}
        return module

    def specified():
        module = layers(3, 2)
        module.saccade = ModelSpec(("a", "b"), activation="softmax")
        return module

    class Pooled(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = layers(1, 2)

        def forward(self, x):
            y = self.inner(nn.functional.max_pool2d(x, 4))
            return nn.functional.interpolate(y, scale_factor=4).sigmoid()

    class Everywhere(nn.Module):
        def forward(self, x):
            return (x / x.amax((2, 3), keepdim=True)).clamp(0, 1)

    class Guided(nn.Module):
        saccade = {"classes": ("a",), "guidance": True, "activation": "sigmoid"}

        def forward(self, x, guidance):
            return x[:, :1] + nn.functional.avg_pool2d(guidance, 7, 1, 3)

    class Tiles(nn.Module):
        def forward(self, x):
            assert x.shape[-2:] == (32, 32)
            return x.mean((2, 3))

    class Ready:
        spec = ModelSpec(("a",), halo_px=3)

        def __call__(self, views):
            return Prediction(views.pixels[:, :1])

    def fails():
        raise RuntimeError("no network")

    def late():
        from parts import layers as again
        return again(1, 2)

    number = 7

    def gives_number():
        return number
"""
PARTS = """
    import torch
    from torch import nn

    def layers(count, out):
        torch.manual_seed(29)
        body = [nn.Conv2d(3, 3, 3, padding=1) for _ in range(count)]
        return nn.Sequential(*body, nn.BatchNorm2d(3), nn.Dropout(0.5), nn.Conv2d(3, out, 1))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "zoo.py").write_text(dedent(MODELS))
    (tmp_path / "parts.py").write_text(dedent(PARTS))
    return tmp_path


def pixels(height: int = 24, width: int = 40) -> torch.Tensor:
    return torch.rand((2, 3, height, width), generator=torch.Generator().manual_seed(31))


def zoo(name: str, **fields: Any) -> Choice:
    return Choice(f"zoo.py:{name}", **fields)


def test_the_recipes_own_choice_is_accepted(folder: Path) -> None:
    model = load_model(ModelRecipe(source="builtin:tissue"), base_folder=folder)
    assert isinstance(model, Tissue)
    stated = ModelRecipe(source="zoo.py:declared")
    assert load_model(stated, base_folder=folder).spec.classes == ("a", "b")
    assert len(fingerprint(stated, folder)) == 32


def test_a_bare_module_is_tried_and_measured(folder: Path) -> None:
    model = load_model(zoo("bare", options={"count": 5, "out": 4}), base_folder=folder)
    assert model.spec == ModelSpec(("0", "1", "2", "3"), halo_px=5)


def test_a_module_is_frozen_and_evaluates(folder: Path) -> None:
    model = load_model(zoo("declared"), base_folder=folder)
    assert isinstance(model, TorchModel)
    assert not any(m.training for m in model.module.modules())
    assert not any(p.requires_grad for p in model.module.parameters())
    first, second = (model(Views(pixels())).scores for _ in range(2))
    assert torch.equal(first, second)
    torch.testing.assert_close(first.sum(1), torch.ones(2, 24, 40))


def test_the_recipe_wins_over_the_declaration(folder: Path) -> None:
    choice = zoo("declared", classes=("x", "y"), activation="sigmoid", halo=11, scale=100.0)
    spec = load_model(choice, base_folder=folder).spec
    assert spec == ModelSpec(("x", "y"), halo_px=11, activation="sigmoid", scale=100.0)


def test_a_declared_halo_is_taken_and_auto_measures_it_anyway(folder: Path) -> None:
    options = {"halo_px": 17}
    declared = load_model(zoo("declared", options=options), base_folder=folder)
    measured = load_model(zoo("declared", options=options, halo="auto"), base_folder=folder)
    assert (declared.spec.halo_px, measured.spec.halo_px) == (17, 2)


def test_defaults_of_a_model_spec_declare_nothing(folder: Path) -> None:
    assert load_model(zoo("specified"), base_folder=folder).spec.halo_px == 3


def test_pooling_is_noticed_where_nobody_declares_it(folder: Path) -> None:
    spec = load_model(zoo("Pooled"), base_folder=folder).spec
    assert (spec.multiple, spec.stride, spec.halo_px) == (4, 1, 4)


def test_a_halo_too_small_is_kept_and_said_to_be_inexact(folder: Path) -> None:
    exact, short = (load_model(zoo("bare", halo=h), base_folder=folder).spec for h in (2, 1))
    assert (exact.halo_px, exact.local) == (2, True)
    assert (short.halo_px, short.local) == (1, False)


def test_a_model_that_sees_everything_needs_a_stated_halo(folder: Path) -> None:
    with pytest.raises(ModelContract, match="state 'halo' in the recipe; no halo is exact"):
        load_model(zoo("Everywhere"), base_folder=folder)
    spec = load_model(zoo("Everywhere", multiple=1, halo=13), base_folder=folder).spec
    assert (spec.halo_px, spec.local) == (13, False)


def test_the_field_through_guidance_counts(folder: Path) -> None:
    spec = load_model(zoo("Guided"), base_folder=folder).spec
    assert (spec.guidance, spec.halo_px) == (True, 3)


def test_a_tile_classifier_needs_its_stride_and_no_halo(folder: Path) -> None:
    with pytest.raises(ModelContract, match="stride"):
        load_model(zoo("Tiles", multiple=32), base_folder=folder)
    model = load_model(zoo("Tiles", stride=32), base_folder=folder)
    assert model.spec == ModelSpec(("0", "1", "2"), stride=32, multiple=32)
    assert model(Views(pixels(64, 96))).scores.shape == (2, 3, 2, 3)


def test_a_ready_model_is_used_as_it_is(folder: Path) -> None:
    model = load_model(zoo("Ready"), base_folder=folder)
    assert type(model).__name__ == "Ready"
    renamed = load_model(zoo("Ready", classes=("z",), halo=1), base_folder=folder)
    assert renamed.spec == ModelSpec(("z",), halo_px=1, local=False)
    assert torch.equal(renamed(Views(pixels())).scores, pixels()[:, :1])


@pytest.mark.parametrize(
    ("choice", "error", "message"),
    [
        (zoo("nothing"), ModelNotFound, "'nothing' expected in .*zoo.py; found bare, declared"),
        (zoo("number"), ModelNotFound, "'number' expected"),
        (zoo("gives_number"), ModelContract, "found int"),
        (zoo("fails"), ModelContract, "no network"),
        (zoo("bare", options={"depth": 3}), ModelContract, r"takes \(count=2, out=2\)"),
        (zoo("bare", classes=("a",)), ModelContract, "'classes'"),
        (zoo("bare", stride=2, multiple=2), ModelContract, "'stride'"),
        (zoo("bare", channels=4), ModelContract, "state 'channels'"),
        (zoo("declared", options={"halo": 3}), ModelContract, "did you mean 'halo_px'"),
        (zoo("Ready", activation="softmax"), ModelContract, "declares \\['activation'\\] itself"),
        (zoo("Ready", classes=("a", "b")), ModelContract, "1 classes expected"),
        (zoo("Ready", weights="w.pt"), ModelContract, "remove 'weights'"),
        (Choice("builtin:tissue", weights="w.pt"), ModelContract, "remove 'weights'"),
        (Choice("absent.py:f"), ModelNotFound, "expected at .*absent.py"),
        (Choice("saccade.absent:f"), ModelNotFound, "'saccade.absent'"),
        (Choice("zoo.py"), ModelNotFound, "file.py:factory"),
        (Choice("absent.pt2"), ModelNotFound, "absent.pt2"),
    ],
)
def test_a_wrong_choice_is_an_error_that_names_what_is_wrong(
    folder: Path, choice: Choice, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        load_model(choice, base_folder=folder)


def test_a_file_that_does_not_run_is_named(folder: Path) -> None:
    (folder / "zoo.py").write_text("import parts\n1 / 0\n")
    with pytest.raises(ModelContract, match=r"zoo.py can't be run: ZeroDivisionError"):
        load_model(zoo("f"), base_folder=folder)


def test_a_factory_in_a_module_is_found_on_the_python_path(folder: Path) -> None:
    model = load_model(Choice("saccade.pipeline.models.tissue:Tissue"), base_folder=folder)
    assert model.spec.classes == ("tissue",)


def test_neighbours_of_two_files_do_not_meet(folder: Path) -> None:
    other = folder / "other"
    other.mkdir()
    (other / "zoo.py").write_text(dedent(MODELS))
    (other / "parts.py").write_text(dedent(PARTS).replace("padding=1", "padding=2, dilation=2"))
    before = [*sys.path], {"parts", "zoo"} & set(sys.modules)
    halos = [
        load_model(Choice(f"{where}zoo.py:{name}"), base_folder=folder).spec.halo_px
        for where in ("", "other/", "")
        for name in ("bare", "late")
    ]
    assert halos == [2, 1, 4, 2, 2, 1]
    assert ([*sys.path], {"parts", "zoo"} & set(sys.modules)) == before


def state(folder: Path) -> dict[str, torch.Tensor]:
    model = load_model(zoo("bare", halo=2), base_folder=folder)
    assert isinstance(model, TorchModel)
    return {k: torch.rand_like(v.float()).to(v) for k, v in model.module.state_dict().items()}


@pytest.mark.parametrize(
    ("name", "save"),
    [
        ("w.safetensors", lambda s, p: save_file(s, p)),
        ("w.pt", lambda s, p: torch.save(s, p)),
        ("w.pth", lambda s, p: torch.save({"state_dict": s, "epoch": 7}, p)),
        ("p.pt", lambda s, p: torch.save({f"module.{k}": v for k, v in s.items()}, p)),
    ],
)
def test_every_weight_of_a_file_arrives(
    folder: Path, name: str, save: Callable[[dict[str, torch.Tensor], Path], None]
) -> None:
    weights = state(folder)
    save(weights, folder / name)
    model = load_model(zoo("bare", halo=2, weights=name), base_folder=folder)
    assert isinstance(model, TorchModel)
    found = model.module.state_dict()
    assert found.keys() == weights.keys()
    assert all(torch.equal(found[k], weights[k]) for k in found)


def test_missing_unexpected_and_misshapen_weights_are_named(folder: Path) -> None:
    weights = state(folder)
    moved = {
        k.replace("0.", "head.", 1) if k.startswith("0.") else k: v for k, v in weights.items()
    }
    save_file(moved, folder / "moved.safetensors")
    save_file({**weights, "0.bias": torch.zeros(7)}, folder / "shape.safetensors")
    message = r"2 missing from the file \(0.*2 not in the module \(head"
    with pytest.raises(ModelContract, match=message):
        load_model(zoo("bare", weights="moved.safetensors"), base_folder=folder)
    with pytest.raises(ModelContract, match=r"shapes differ.*0\.bias"):
        load_model(zoo("bare", weights="shape.safetensors"), base_folder=folder)


class Malicious:
    def __init__(self, touched: Path) -> None:
        self.touched = touched

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.touched,))


def test_a_malicious_pickle_is_refused_and_does_not_run(folder: Path) -> None:
    torch.save({"0.weight": Malicious(folder / "touched")}, folder / "evil.pt")
    (folder / "plain.pt").write_bytes(pickle.dumps(Malicious(folder / "touched"), protocol=2))
    for name in ("evil.pt", "plain.pt"):
        with pytest.raises(ModelContract, match="was not executed"):
            load_model(zoo("bare", weights=name), base_folder=folder)
    assert not (folder / "touched").exists()


@pytest.mark.parametrize("name", ["w.bin", "w.safetensors", "w.pt"])
def test_a_file_that_holds_no_weights_is_refused(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"not weights at all")
    with pytest.raises(ModelContract, match=name):
        load_model(zoo("bare", weights=name), base_folder=folder)
    with pytest.raises(ModelNotFound, match="absent"):
        load_model(zoo("bare", weights=f"absent/{name}"), base_folder=folder)


def test_a_fingerprint_changes_with_whatever_decides_the_answer(folder: Path) -> None:
    save_file({"a": torch.zeros(3)}, folder / "w.safetensors")
    base = zoo("bare", weights="w.safetensors", options={"count": 2})
    first = fingerprint(base, folder)
    assert fingerprint(replace(base, options={"count": 2}), folder) == first
    others = [
        replace(base, source="zoo.py:declared"),
        replace(base, options={"count": 3}),
        replace(base, halo=5),
        replace(base, mean=(0.5,)),
        replace(base, weights=None),
        Choice("builtin:tissue"),
        Choice("builtin:hematoxylin"),
    ]
    seen = {first} | {fingerprint(choice, folder) for choice in others}
    save_file({"a": torch.ones(3)}, folder / "w.safetensors")
    seen.add(fingerprint(base, folder))
    (folder / "zoo.py").write_text(dedent(MODELS) + "\n# changed\n")
    seen.add(fingerprint(base, folder))
    assert len(seen) == len(others) + 3


def test_a_fingerprint_reads_the_file_of_a_module_and_misses_no_file(folder: Path) -> None:
    by_module = fingerprint(Choice("saccade.pipeline.models.tissue:Tissue"), folder)
    assert by_module != fingerprint(Choice("saccade.pipeline.models.hematoxylin:Tissue"), folder)
    for choice in (zoo("bare", weights="no.pt"), Choice("no.pt2"), Choice("no.such.module:f")):
        with pytest.raises(ModelNotFound):
            fingerprint(choice, folder)


def test_a_network_that_ships_is_known_by_all_modules_beside_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from saccade.pipeline.models import fingerprint as module

    read: list[str] = []
    digest = module._file_digest
    monkeypatch.setattr(module, "_file_digest", lambda p: (read.append(p.name), digest(p))[1])
    fingerprint(Choice("saccade.pipeline.models.multipass:MultiPassNet"), folder)
    assert {"multipass.py", "multipass_parts.py", "points.py", "blocks.py"} <= set(read)


def test_a_field_is_measured_once_per_module(monkeypatch: pytest.MonkeyPatch) -> None:
    from saccade.pipeline.models import adopting

    calls: list[int] = []
    measure = adopting.measure_halo
    monkeypatch.setattr(
        adopting, "measure_halo", lambda *a, **k: (calls.append(1), measure(*a, **k))[1]
    )
    module = nn.Conv2d(3, 2, 5, padding=2).eval()
    specs = [adopting.adopt(module, {}, {}, None, "cpu").spec for _ in range(2)]
    assert specs[0] == specs[1] == ModelSpec(("0", "1"), halo_px=2)
    assert len(calls) == 1


def test_a_standard_normalisation_takes_the_models_own_back(folder: Path) -> None:
    own = load_model(zoo("bare", mean=(0.5,), std=(0.25,)), base_folder=folder).spec
    assert (own.mean, own.std) == ((0.5,), (0.25,))
    found = load_model(zoo("bare", normalise=ByDeviation()), base_folder=folder).spec
    assert (found.mean, found.std) == ((0.0,), (1.0,))
