"""Models of timm, Hugging Face and smp: what their adapters declare, load, refuse and fingerprint.

Weights are drawn at random; nothing is fetched.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from libraries import library
from safetensors.torch import save_file

from saccade.pipeline.errors import ModelContract, ModelNotFound
from saccade.pipeline.models import borrowed
from saccade.pipeline.models.base import PassModel, Views
from saccade.pipeline.models.hf_checkpoint import preparation_of, prepared_side
from saccade.pipeline.models.loading import fingerprint, load_model
from saccade.pipeline.recipe import ModelRecipe

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
SEGFORMER: dict[str, Any] = {
    "depths": [1, 1, 1, 1],
    "hidden_sizes": [16, 16, 32, 32],
    "decoder_hidden_size": 16,
}


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing asks a network, and no cache of this machine answers."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    if "huggingface_hub" in sys.modules:
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    else:
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def load(source: str, folder: Path, **fields: Any) -> PassModel:
    return load_model(ModelRecipe(source=source, **fields), base_folder=folder)


def scores(model: PassModel, *shape: int) -> torch.Tensor:
    pixels = torch.rand(shape, generator=torch.Generator().manual_seed(3))
    return model(Views(pixels)).scores


# ------------------------------------------------------------------------------- every library

SMALL: dict[str, tuple[str, dict[str, Any]]] = {
    "timm:resnet18": ("timm", {"options": {"tile": 64}}),
    "smp:Unet": (
        "segmentation_models_pytorch",
        {
            "options": {
                "encoder_name": "resnet18",
                "encoder_depth": 1,
                "decoder_channels": [8],
            }
        },
    ),
    "hf:segformer": (
        "transformers",
        {
            "options": {"pretrained": False, "task": "segmentation", "config": SEGFORMER},
            "halo": 32,
        },
    ),
}


@pytest.mark.parametrize("source", SMALL)
def test_weights_without_a_file_are_the_seed_s(source: str, tmp_path: Path) -> None:
    package, fields = SMALL[source]
    library(package)
    seeds = [{**fields["options"], "seed": seed} for seed in (0, 0, 5)]
    made = [
        load(source, tmp_path, classes=("a", "b"), **{**fields, "options": options})
        for options in seeds
    ]
    first, again, other = (scores(model, 2, 3, 64, 64) for model in made)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("source", SMALL)
def test_a_file_of_weights_decides_answer_and_fingerprint(source: str, tmp_path: Path) -> None:
    package, fields = SMALL[source]
    library(package)
    choice = ModelRecipe(source=source, classes=("a", "b"), **fields)
    drawn = borrowed.borrow(choice, tmp_path)
    prints = {fingerprint(choice, tmp_path)}
    for factor in (1.0, 0.5):
        state = {key: value * factor for key, value in drawn.takes_weights.state_dict().items()}
        save_file({k: v.contiguous() for k, v in state.items()}, tmp_path / "w.safetensors")
        weighed = choice.model_copy(update={"weights": "w.safetensors"})
        model = load_model(weighed, base_folder=tmp_path)
        same = scores(model, 1, 3, 64, 64).equal(
            scores(load_model(choice, base_folder=tmp_path), 1, 3, 64, 64)
        )
        assert same == (factor == 1.0)
        prints.add(fingerprint(weighed, tmp_path))
    assert len(prints) == 3


@pytest.mark.parametrize("source", SMALL)
def test_a_missing_library_is_said_with_the_command_that_installs_it(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package, fields = SMALL[source]
    monkeypatch.setitem(sys.modules, package, None)
    extra = {"timm": "timm", "segmentation_models_pytorch": "smp"}.get(package, "huggingface")
    with pytest.raises(ModelNotFound, match=rf"pip install 'saccade\[{extra}\]'"):
        load(source, tmp_path, **fields)


def test_a_library_that_does_not_fit_torch_is_said_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(name: str) -> Any:
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr("saccade.pipeline.models.extras.importlib.import_module", broken)
    with pytest.raises(ModelNotFound, match=r"torchvision::nms does not exist.*fit each other"):
        load("timm:resnet18", tmp_path)


def test_a_fingerprint_needs_the_library_because_its_version_is_part_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    choice, found = ModelRecipe(source="timm:resnet18"), set()
    for version in ("1.0.7", "1.0.11"):
        monkeypatch.setattr(borrowed, "version", lambda _, version=version: version)
        found.add(fingerprint(choice, tmp_path))
    assert len(found) == 2


@pytest.mark.parametrize("source", ["timm:", "hf:", "smp:"])
def test_a_kind_without_a_name_is_refused(source: str, tmp_path: Path) -> None:
    with pytest.raises(ModelContract, match="a name expected after"):
        load(source, tmp_path)


@pytest.mark.parametrize(
    ("source", "package", "fields", "message"),
    [
        ("timm:resnet18x", "timm", {}, r"none of that name; near it: .*resnet18"),
        ("smp:Unett", "segmentation_models_pytorch", {}, "Unett"),
        ("smp:Unet", "segmentation_models_pytorch", {"options": {"encoder_name": "r"}}, "encoder"),
        ("hf:segf", "transformers", {"options": {"pretrained": False}}, "a type of model"),
        ("hf:some/where", "transformers", {}, "connect once to fill the cache"),
        ("timm:resnet18", "timm", {"options": {"pretrained": True}}, "connect once"),
        (
            "smp:Unet",
            "segmentation_models_pytorch",
            {"options": {"pretrained": True, "encoder_name": "resnet18"}},
            "connect once",
        ),
    ],
)
def test_what_is_not_there_is_named(
    source: str, package: str, fields: dict[str, Any], message: str, tmp_path: Path
) -> None:
    library(package)
    with pytest.raises(ModelNotFound, match=message):
        load(source, tmp_path, **fields)


@pytest.mark.parametrize(
    ("source", "package", "options", "message"),
    [
        ("timm:resnet18", "timm", {"tiles": 3}, "tiles"),
        ("timm:resnet18", "timm", {"tile": "big"}, "option 'tile' is a int"),
        ("timm:resnet18", "timm", {"features": True}, "state 'classes'"),
        ("smp:Unet", "segmentation_models_pytorch", {"wide": 3}, "wide"),
        ("smp:Unet", "segmentation_models_pytorch", {"encoder_weights": "x"}, "pretrained: true"),
        ("hf:segformer", "transformers", {"depth": 3}, "takes options"),
        ("hf:segformer", "transformers", {"pretrained": False}, "'task' is one of"),
    ],
)
def test_an_option_that_is_wrong_is_named(
    source: str, package: str, options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    library(package)
    with pytest.raises(ModelContract, match=message):
        load(source, tmp_path, options=options)


# ------------------------------------------------------------------------------------------ timm


@pytest.mark.parametrize(
    ("name", "tile"),
    [
        ("mvitv2_tiny", 96),
        ("efficientformerv2_s0", 96),
        ("efficientformer_l1", None),
        ("vit_tiny_patch16_224", 64),
        ("resnet18", 96),
    ],
)
def test_a_timm_backbone_is_a_tile_classifier_with_its_own_preparation(
    name: str, tile: int | None, tmp_path: Path
) -> None:
    library("timm")
    options = {} if tile is None else {"tile": tile}
    model = load(f"timm:{name}", tmp_path, classes=("a", "b", "c"), options=options)
    side, spec = tile or 224, model.spec
    assert (spec.stride, spec.multiple, spec.halo_px, spec.local) == (side, side, 0, True)
    assert (spec.channels, spec.activation, spec.classes) == (3, "softmax", ("a", "b", "c"))
    assert spec.mean == (IMAGENET[0] if not name.startswith("vit") else (0.5, 0.5, 0.5))
    prediction = model(Views(torch.rand(1, 3, side, 2 * side)))
    assert prediction.scores.shape == (1, 3, 1, 2)
    assert prediction.features is not None
    assert spec.features == (prediction.features.shape[1], side)
    torch.testing.assert_close(prediction.scores.sum(1), torch.ones(1, 1, 2))


def test_every_tile_is_judged_by_itself(tmp_path: Path) -> None:
    library("timm")
    model = load("timm:mvitv2_tiny", tmp_path, classes=("a", "b"), options={"tile": 64})
    pixels = torch.rand(1, 3, 128, 128)
    whole = model(Views(pixels)).scores
    alone = model(Views(pixels[..., 64:, :64])).scores
    torch.testing.assert_close(whole[..., 1:, :1], alone)


@pytest.mark.parametrize(
    ("name", "options", "fields", "stride"),
    [
        ("resnet18", {"level": 1}, {}, 4),
        ("resnet18", {"level": 2}, {}, 8),
        ("convnext_atto", {"level": 0}, {"halo": 16}, 4),
        ("efficientformer_l1", {}, {}, 32),
        ("efficientformerv2_s0", {"tile": 96}, {}, 32),
        ("mvitv2_tiny", {"tile": 96, "level": 2}, {}, 16),
        ("swin_tiny_patch4_window7_224", {}, {}, 32),
    ],
)
def test_a_timm_backbone_gives_dense_scores_and_the_features_they_are_read_from(
    name: str, options: dict[str, Any], fields: dict[str, Any], stride: int, tmp_path: Path
) -> None:
    library("timm")
    options = {"features": True, **options}
    model = load(f"timm:{name}", tmp_path, classes=("a", "b"), options=options, **fields)
    side = model.spec.multiple
    prediction = model(Views(torch.rand(1, 3, side, side)))
    assert model.spec.stride == stride
    assert prediction.scores.shape == (1, 2, side // stride, side // stride)
    assert prediction.features is not None
    assert model.spec.features == (prediction.features.shape[1], stride)


def test_a_model_with_position_tables_is_given_cells_and_others_have_their_halo_measured(
    tmp_path: Path,
) -> None:
    library("timm")
    dense: dict[str, Any] = {"classes": ("a",), "options": {"features": True}}
    cells = load("timm:efficientformer_l1", tmp_path, **dense).spec
    assert (cells.multiple, cells.halo_px, cells.local) == (224, 0, True)
    options = {"features": True, "level": 1}
    field = load("timm:resnet18", tmp_path, classes=("a",), options=options).spec
    assert (field.multiple, field.local) == (4, True)
    assert field.halo_px >= 20


def fetched(monkeypatch: pytest.MonkeyPatch, value: float) -> None:
    """Have timm's 'pretrained' weights be one value everywhere."""
    timm = library("timm")
    create = timm.create_model

    def pretend(name: str, pretrained: bool = False, **kwargs: Any) -> Any:
        model = create(name, pretrained=False, **kwargs)
        if pretrained:
            for parameter in model.parameters():
                torch.nn.init.constant_(parameter, value)
        return model

    monkeypatch.setattr(timm, "create_model", pretend)


def test_weights_that_the_library_fetched_are_part_of_the_fingerprint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    choice, found = ModelRecipe(source="timm:resnet18", options={"pretrained": True}), []
    for value in (0.1, 0.1, 0.2):
        with monkeypatch.context() as patch:
            fetched(patch, value)
            found.append(fingerprint(choice, tmp_path))
    assert found[0] == found[1] != found[2]


def test_a_pretrained_head_is_never_replaced_by_a_drawn_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched(monkeypatch, 0.1)
    with pytest.raises(ModelContract, match=r"1000 classes expected.*found 2"):
        load("timm:resnet18", tmp_path, classes=("a", "b"), options={"pretrained": True})


def test_a_file_beside_a_pretrained_backbone_is_its_linear_head(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched(monkeypatch, 0.1)
    head = {"weight": torch.zeros(2, 64, 1, 1), "bias": torch.tensor([0.0, 3.0])}
    save_file(head, tmp_path / "head.safetensors")
    options = {"features": True, "level": 1, "pretrained": True}
    recipe = ModelRecipe(
        source="timm:resnet18", classes=("a", "b"), options=options, weights="head.safetensors"
    )
    answer = scores(load_model(recipe, base_folder=tmp_path), 1, 3, 32, 32)
    expected = torch.tensor([0.0, 3.0]).softmax(0).view(1, 2, 1, 1).expand_as(answer)
    torch.testing.assert_close(answer, expected)


# ------------------------------------------------------------------------------------------- smp


def test_an_smp_network_has_its_period_from_its_encoder_and_its_halo_measured(
    tmp_path: Path,
) -> None:
    library("segmentation_models_pytorch")
    options = {"encoder_name": "resnet18", "encoder_depth": 2, "decoder_channels": [16, 8]}
    spec = load("smp:Unet", tmp_path, classes=("a", "b"), options=options).spec
    assert (spec.stride, spec.multiple, spec.local) == (1, 4, True)
    assert (spec.mean, spec.std, spec.activation) == (*IMAGENET, "softmax")
    assert spec.halo_px % 4 == 0
    assert spec.halo_px > 8


def test_an_smp_network_that_normalises_over_its_window_needs_a_stated_halo(tmp_path: Path) -> None:
    library("segmentation_models_pytorch")
    options = {"encoder_name": "resnet18"}
    spec = load("smp:FPN", tmp_path, options=options, halo=64).spec
    assert (spec.multiple, spec.halo_px, spec.local, spec.activation) == (32, 64, False, "sigmoid")


# ---------------------------------------------------------------------------------- Hugging Face


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A small SegFormer as save_pretrained leaves it, with its processor's settings."""
    transformers = library("transformers")
    labels = {"id2label": {0: "ground", 1: "road", 2: "tree"}}
    config = transformers.AutoConfig.for_model("segformer", **SEGFORMER, **labels)
    torch.manual_seed(7)
    model = transformers.AutoModelForSemanticSegmentation.from_config(config).eval()
    transformers.utils.logging.disable_progress_bar()
    folder = tmp_path / "checkpoint"
    model.save_pretrained(folder)
    settings = {"image_mean": [0.3, 0.4, 0.5], "image_std": [0.2, 0.2, 0.25], "do_rescale": True}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder


def test_a_checkpoint_brings_classes_preparation_and_stride(checkpoint: Path) -> None:
    spec = load("hf:checkpoint", checkpoint.parent, halo=32).spec
    assert spec.classes == ("ground", "road", "tree")
    assert (spec.mean, spec.std, spec.scale) == ((0.3, 0.4, 0.5), (0.2, 0.2, 0.25), None)
    assert (spec.stride, spec.multiple, spec.activation) == (4, 32, "softmax")
    assert (spec.halo_px, spec.local) == (32, False)


def test_a_checkpoint_answers_as_transformers_does(checkpoint: Path) -> None:
    transformers = library("transformers")
    model = load("hf:checkpoint", checkpoint.parent, halo=32)
    theirs = transformers.AutoModelForSemanticSegmentation.from_pretrained(checkpoint).eval()
    pixels = torch.rand(2, 3, 64, 96)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (model.spec.mean, model.spec.std))
    with torch.inference_mode():
        expected = theirs((pixels - mean) / std).logits.softmax(1)
    torch.testing.assert_close(model(Views(pixels)).scores, expected)


def test_logits_are_upsampled_to_the_input_on_request(checkpoint: Path) -> None:
    model = load("hf:checkpoint", checkpoint.parent, halo=32, options={"upsample": True})
    assert model.spec.stride == 1
    assert scores(model, 1, 3, 64, 96).shape == (1, 3, 64, 96)


def test_attention_over_a_window_needs_a_stated_halo(checkpoint: Path) -> None:
    with pytest.raises(ModelContract, match=r"no halo is exact; state 'halo'"):
        load("hf:checkpoint", checkpoint.parent)


def test_every_file_that_decides_a_checkpoint_s_answer_decides_its_fingerprint(
    checkpoint: Path,
) -> None:
    choice, found = ModelRecipe(source="hf:checkpoint"), set()
    for name in ("", "config.json", "preprocessor_config.json", "model.safetensors"):
        if name:
            with (checkpoint / name).open("ab") as file:
                file.write(b" ")
        found.add(fingerprint(choice, checkpoint.parent))
    (checkpoint / "README.md").write_text("a card")
    found.add(fingerprint(choice, checkpoint.parent))
    assert len(found) == 4


def test_a_checkpoint_that_does_not_fill_the_model_is_refused(checkpoint: Path) -> None:
    with pytest.raises(ModelContract, match=r"weights are missing.*'task' that it was trained for"):
        load("hf:checkpoint", checkpoint.parent, options={"task": "classification", "tile": 64})


def test_weights_that_could_run_code_are_not_read(checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").rename(checkpoint / "pytorch_model.bin")
    with pytest.raises(ModelNotFound, match=r"\.safetensors.*found none"):
        load("hf:checkpoint", checkpoint.parent, halo=32)


def test_a_classifier_of_hugging_face_judges_tiles_of_its_image_size(tmp_path: Path) -> None:
    library("transformers")
    config = {
        "image_size": 32,
        "patch_size": 8,
        "hidden_size": 16,
        "num_attention_heads": 2,
        "num_hidden_layers": 1,
        "intermediate_size": 16,
    }
    options = {"pretrained": False, "task": "classification", "config": config}
    model = load("hf:vit", tmp_path, classes=("a", "b"), options=options)
    assert (model.spec.stride, model.spec.multiple, model.spec.local) == (32, 32, True)
    assert scores(model, 2, 3, 64, 96).shape == (2, 2, 2, 3)


def test_a_backbone_of_hugging_face_is_read_through_a_linear_head(tmp_path: Path) -> None:
    library("transformers")
    config = {
        "depths": [1, 1],
        "hidden_sizes": [8, 16],
        "embedding_size": 8,
        "layer_type": "basic",
    }
    options = {"pretrained": False, "task": "backbone", "config": config}
    model = load("hf:resnet", tmp_path, classes=("a",), options=options, halo=32)
    assert (model.spec.stride, model.spec.features) == (8, (16, 8))
    prediction = model(Views(torch.rand(1, 3, 64, 64)))
    assert prediction.scores.shape == (1, 1, 8, 8)


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        ({}, {}),
        ({"rescale_factor": 1 / 255, "image_mean": [0.5], "image_std": [0.5]}, 0.5),
        ({"rescale_factor": 1 / 127.5, "do_normalize": False}, {"scale": 127.5}),
        ({"do_rescale": False, "do_normalize": False}, {"scale": 1.0}),
        ({"do_normalize": False, "image_mean": [0.5]}, {}),
    ],
)
def test_a_processor_s_settings_are_ours_in_other_words(stated: Any, expected: Any) -> None:
    if expected == 0.5:
        expected = {"mean": (0.5,), "std": (0.5,)}
    assert preparation_of(stated) == expected


@pytest.mark.parametrize(
    ("stated", "side"),
    [
        ({"size": 37}, 37),
        ({"size": {"height": 41, "width": 41}}, 41),
        ({"size": {"shortest_edge": 43}, "crop_size": {"height": 31, "width": 31}}, 31),
        ({"size": {"shortest_edge": 43}}, 43),
        ({}, None),
    ],
)
def test_a_processor_s_side_is_what_it_crops_to(
    stated: Any, side: int | None, tmp_path: Path
) -> None:
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(stated))
    assert prepared_side(tmp_path) == side


def test_a_hub_name_is_taken_from_the_cache_before_the_hub_is_asked(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []

    def snapshot(**which: Any) -> str:
        asked.append(which.get("local_files_only", False))
        if len(asked) == 1:
            raise FileNotFoundError("not in the cache")
        return str(checkpoint)

    hub = SimpleNamespace(snapshot_download=snapshot)
    monkeypatch.setattr("saccade.pipeline.models.hf_checkpoint.imported", lambda *_: hub)
    spec = load("hf:owner/name", checkpoint.parent / "elsewhere", halo=32).spec
    assert (asked, spec.classes) == ([True, False], ("ground", "road", "tree"))
