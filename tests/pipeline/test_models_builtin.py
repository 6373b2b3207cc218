"""The models that ship: local, bounded, blind to padding, and right on made-up and real slides."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openslide
import pytest
import torch
from PIL import Image
from torch import Tensor

from saccade.pipeline.errors import ModelContract, ModelNotFound
from saccade.pipeline.geometry import Box
from saccade.pipeline.models.base import PassModel, Views
from saccade.pipeline.models.builtin import BUILTIN_WEIGHTS, BUILTINS, builtin_model
from saccade.pipeline.models.filters import box_mean, box_std, ramp
from saccade.pipeline.models.hematoxylin import EOSIN, HEMATOXYLIN, unmixing_row

NAMES = sorted(set(BUILTINS) - set(BUILTIN_WEIGHTS))  # networks have tests of their own
BRIGHT_FIELD = ["hematoxylin", "tissue"]
GLASS = 243 / 255
CORES = [Box(0, 0, 61, 67), Box(37, 41, 101, 103), Box(90, 97, 131, 157), Box(0, 97, 29, 157)]
SLIDES = ["cmu-1-small-region.svs", "tcga-jpeg2000-no-mpp.svs"]


def noise(channels: int, height: int = 131, width: int = 157, seed: int = 11) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand((1, channels, height, width), generator=generator)


def glass(height: int = 64, width: int = 64) -> Tensor:
    return (GLASS + (noise(3, height, width) - 0.5) * 4 / 255).clamp(0, 1)


def stained(stain: tuple[float, float, float], amount: float, side: int = 64) -> Tensor:
    unit = torch.tensor(stain) / torch.tensor(stain).norm()
    colour = 0.95 * 10 ** (-amount * unit)
    return colour.view(1, 3, 1, 1).expand(1, 3, side, side).clone()


def scores(name: str, pixels: Tensor, valid: Tensor | None = None, **options: object) -> Tensor:
    return builtin_model(name, options)(Views(pixels, valid)).scores


def read(path: Path, downsample: int) -> Tensor:
    with openslide.OpenSlide(path) as slide:
        image = slide.read_region((0, 0), 0, slide.dimensions).convert("RGB")
    small = image.resize(
        (image.width // downsample, image.height // downsample), Image.Resampling.BOX
    )
    return torch.from_numpy(np.array(small)).permute(2, 0, 1)[None].float() / 255


@pytest.mark.parametrize("name", NAMES)
def test_a_built_in_is_a_pass_model_with_bounded_scores_of_the_declared_shape(name: str) -> None:
    model = builtin_model(name, {})
    assert isinstance(model, PassModel)
    answer = model(Views(noise(3).repeat(2, 1, 1, 1)))
    assert answer.scores.shape == (2, len(model.spec.classes), 131, 157)
    assert 0 <= float(answer.scores.min()) <= float(answer.scores.max()) <= 1
    assert answer.saliency is not None
    assert torch.equal(answer.saliency, answer.scores)


@pytest.mark.parametrize("core", CORES, ids=str)
@pytest.mark.parametrize(
    ("name", "channels"),
    [
        ("hematoxylin", 3),
        ("tissue", 3),
        ("tissue", 1),
        ("tissue", 5),
        ("contrast", 3),
        ("contrast", 1),
        ("field", 3),
    ],
)
def test_a_window_with_the_declared_halo_agrees_with_the_whole(
    name: str, channels: int, core: Box
) -> None:
    model, pixels = builtin_model(name, {}), noise(channels)
    pixels = ramp(box_mean(pixels, 3), 0.35, 0.65) * 0.8 + noise(channels, seed=13) * 0.1
    pixels[..., 50:75, 60:90] = 0
    valid = noise(1, seed=17) > 0.01
    whole = model(Views(pixels, valid)).scores
    window = core.grow(model.spec.halo_px).clip((131, 157))
    part = model(Views(pixels[..., *window.slices], valid[..., *window.slices])).scores
    inner = core.relative_to(Box(window.y0, window.x0, window.y0, window.x0))
    assert 0 < float(whole.mean()) < 1
    torch.testing.assert_close(
        part[..., *inner.slices], whole[..., *core.slices], atol=1e-6, rtol=0
    )


@pytest.mark.parametrize("name", BRIGHT_FIELD)
def test_glass_and_black_padding_score_exactly_nothing(name: str) -> None:
    assert scores(name, glass()).max() == 0
    assert scores(name, torch.zeros(1, 3, 64, 64)).max() == 0
    seam = glass()
    seam[..., :32] = 1
    assert scores(name, seam).max() == 0
    padded = glass()
    padded[..., :32] = 0
    assert scores(name, padded).max() == 0


@pytest.mark.parametrize("name", BRIGHT_FIELD)
def test_pixels_without_data_score_nothing_and_spread_nothing(name: str) -> None:
    pixels, valid = stained(HEMATOXYLIN, 0.8), torch.ones(1, 1, 64, 64, dtype=torch.bool)
    valid[..., :31] = False
    pixels[..., :31] = float("nan")
    answer = scores(name, pixels, valid)
    assert answer[..., :31].max() == 0
    assert torch.isfinite(answer).all()
    assert answer[..., 45:].min() == 1


@pytest.mark.parametrize("stain", [HEMATOXYLIN, EOSIN], ids=["hematoxylin", "eosin"])
def test_stained_ground_is_tissue(stain: tuple[float, float, float]) -> None:
    assert scores("tissue", stained(stain, 0.3)).min() > 0.9


def test_the_edge_of_tissue_scores_a_half() -> None:
    pixels = glass()
    pixels[..., :32] = stained(EOSIN, 0.6)[..., :32]
    answer = scores("tissue", pixels)[0, 0, 32]
    assert float(answer[28]) > 0.6 > 0.4 > float(answer[36])


def test_hematoxylin_scores_nuclei_and_not_eosin() -> None:
    assert scores("hematoxylin", stained(HEMATOXYLIN, 0.7)).min() == 1
    assert scores("hematoxylin", stained(EOSIN, 0.7)).max() == 0


def test_deconvolution_gives_back_the_amounts_that_were_mixed() -> None:
    h, e = (np.array(s) / np.linalg.norm(s) for s in (HEMATOXYLIN, EOSIN))
    row = np.array(unmixing_row(HEMATOXYLIN, EOSIN))
    assert row @ (0.31 * h + 0.53 * e) == pytest.approx(0.31)
    assert row @ np.cross(h, e) == pytest.approx(0, abs=1e-12)


def test_texture_stands_out_where_there_is_no_colour() -> None:
    pixels = torch.full((1, 5, 64, 64), 0.3)
    pixels[..., 32:] += (noise(5, 64, 32) - 0.5) * 0.4
    answer = scores("tissue", pixels)
    assert answer[..., :20].max() == 0
    assert answer[..., 44:].min() > 0.9


def test_box_filters_agree_with_plain_averages() -> None:
    x = noise(2, 17, 19)
    patch = x[:, :, 0:6, 4:11]
    assert box_mean(x, 3)[0, 1, 2, 7] == pytest.approx(float(patch[0, 1].mean()), abs=1e-6)
    expected = float(patch[0, 1].std(correction=0))
    assert box_std(x, 3)[0, 1, 2, 7] == pytest.approx(expected, abs=1e-5)
    assert torch.equal(box_mean(x, 0), x)


def test_an_unknown_built_in_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ModelNotFound, match="did you mean 'tissue'"):
        builtin_model("tisue", {})


@pytest.mark.parametrize("options", [{"radius": 3}, {"radius_px": 0}, {"colour": -1.0}])
def test_wrong_options_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ModelContract, match="radius_px"):
        builtin_model("tissue", options)


@pytest.mark.parametrize(("slide", "low", "high"), [(SLIDES[0], 0.3, 0.45), (SLIDES[1], 0.55, 0.7)])
def test_tissue_of_a_real_slide_is_tissue_and_its_glass_is_not(
    data: Path, slide: str, low: float, high: float
) -> None:
    pixels = read(data / "slides" / slide, 8)
    answer = scores("tissue", pixels)
    assert low < float((answer > 0.5).float().mean()) < high
    # An independent judge: thick stain is surely specimen, and what lies far from any is glass.
    colour = pixels.amax(1, keepdim=True) - pixels.amin(1, keepdim=True)
    assert float((answer[colour > 0.25] > 0.5).float().mean()) > 0.99
    far = torch.nn.functional.max_pool2d(colour, 25, stride=1, padding=12) < 0.06
    assert float((answer[far] > 0.5).float().mean()) < 0.01


@pytest.mark.parametrize("slide", SLIDES)
def test_nuclei_of_a_real_slide_are_where_it_is_blue_and_dark(data: Path, slide: str) -> None:
    pixels = read(data / "slides" / slide, 4)
    answer, tissue = scores("hematoxylin", pixels), scores("tissue", pixels) > 0.5
    red = box_mean(pixels[:, :1], 4)
    dark = tissue & (red < red[tissue].quantile(0.1))
    pale = tissue & (red > red[tissue].quantile(0.5))
    assert float(answer[dark].mean()) > 4 * float(answer[pale].mean()) > 0
    assert float(answer[~tissue].mean()) < 0.02
