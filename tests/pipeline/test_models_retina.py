"""The network that ships with its weights: what it is, how it is loaded, what holds of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import torch
from safetensors.torch import save_file
from torch import Tensor

from saccade.pipeline.models.base import PassModel, Views
from saccade.pipeline.models.choice import OVERRIDES, ModelChoice
from saccade.pipeline.models.fingerprint import fingerprint
from saccade.pipeline.models.loading import load_model
from saccade.pipeline.models.multipass import MultiPassNet
from saccade.pipeline.models.retina import BLOCKS, CLASSES, WEIGHTS, WIDTH

MOST_NBYTES = 5_000_000
HERE = Path(__file__).parent


def choice(**options: Any) -> ModelChoice:
    nothing = dict.fromkeys((*OVERRIDES, "halo", "weights", "saliency", "normalise"))
    made = SimpleNamespace(source="builtin:retina-lesions", options=options, **nothing)
    return cast(ModelChoice, made)


def loaded(**options: Any) -> PassModel:
    return load_model(choice(**options), base_folder=HERE)


def pixels(height: int, width: int) -> Tensor:
    return torch.rand((1, 3, height, width), generator=torch.Generator().manual_seed(5))


def test_its_weights_are_small_and_bring_their_card() -> None:
    card = WEIGHTS.with_suffix(".md").read_text(encoding="utf-8")
    assert WEIGHTS.stat().st_size < MOST_NBYTES
    for word in ("IDRiD", "CC BY 4.0", "validation", "Seed", "medical device"):
        assert word in card


def test_it_answers_for_every_class_at_half_the_resolution() -> None:
    model = loaded()
    scores = model(Views(pixels(96, 128), downsample=4.0)).scores
    assert model.spec.classes == CLASSES
    assert scores.shape == (1, len(CLASSES), 48, 64)
    assert 0 <= float(scores.min()) <= float(scores.max()) <= 1


def test_a_window_with_its_halo_answers_as_the_whole_image_does() -> None:
    model, image = loaded(), pixels(256, 256)
    whole = model(Views(image, downsample=2.0)).scores
    part = model(Views(image[..., 32:224, 0:256], downsample=2.0)).scores
    torch.testing.assert_close(part[..., 32:64, :], whole[..., 48:80, :], atol=1e-5, rtol=0)


def test_guidance_is_an_option_and_changes_what_it_says() -> None:
    plain, guided = loaded(), loaded(guidance=True)
    assert (plain.spec.guidance, guided.spec.guidance) == (False, True)
    views = Views(pixels(64, 64), downsample=2.0)
    alone = plain(views).scores
    given = guided(replace(views, guidance=torch.ones(1, len(CLASSES), 64, 64))).scores
    assert (alone != given).any()


def test_other_weights_of_the_same_network_may_be_named(tmp_path: Path) -> None:
    other = MultiPassNet(CLASSES, width=WIDTH, blocks=BLOCKS, depth=BLOCKS, guidance=len(CLASSES))
    save_file(other.state_dict(), tmp_path / "other.safetensors")
    stated = choice()
    stated.weights = "other.safetensors"  # type: ignore[misc]
    views = Views(pixels(64, 64), downsample=2.0)
    answer = load_model(stated, base_folder=tmp_path)(views).scores
    assert (answer != loaded()(views).scores).any()
    assert fingerprint(stated, tmp_path) != fingerprint(choice(), tmp_path)


def test_its_weights_are_part_of_a_run_s_identity() -> None:
    assert fingerprint(choice(), HERE) != fingerprint(choice(depth=1), HERE)
