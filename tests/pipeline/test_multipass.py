"""The rules of MultiPassNet: one set of weights, exact halos, guidance that begins as none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from saccade.pipeline.geometry import round_up
from saccade.pipeline.models.adopting import adopt
from saccade.pipeline.models.base import Views
from saccade.pipeline.models.multipass import MultiPassNet
from saccade.pipeline.models.multipass_parts import edges, from_cells, to_cells, with_edges
from saccade.pipeline.models.points import uncertain_points

CELL_PX = 32
HALO_PX = 64


def net(**options: Any) -> MultiPassNet:
    """A small network that has seen something, so that no weight is at its neutral start."""
    made = MultiPassNet(("a", "b"), width=8, depth=2, blocks=2, **options)
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return made.eval().requires_grad_(False)


def pixels(height: int, width: int, seed: int = 5) -> Tensor:
    return torch.rand((1, 3, height, width), generator=torch.Generator().manual_seed(seed))


SIZE = torch.tensor([4.0])


@pytest.mark.parametrize("options", [{}, {"points": 0.1}, {"guidance": 2}])
def test_a_window_with_its_halo_answers_as_the_whole_image_does(options: dict[str, Any]) -> None:
    model, image = net(**options), pixels(256, 288)
    guided = {"guidance": pixels(256, 288, 9)[:, :2]} if "guidance" in options else {}
    whole = model(image, pixel_size=SIZE, **guided)["scores"]
    window = (slice(None), slice(None), slice(0, 224), slice(32, 256))
    part = {k: v[window] for k, v in guided.items()}
    answer = model(image[window], pixel_size=SIZE, **part)["scores"]
    core = (..., slice(32, 80), slice(32, 80))  # of scores: 64 px from every border of the window
    inside = whole[..., 32:80, 48:96]
    torch.testing.assert_close(answer[core], inside, atol=1e-5, rtol=0)


def test_without_a_halo_it_does_not() -> None:
    model, image = net(), pixels(256, 256)
    whole = model(image, pixel_size=SIZE)["scores"]
    alone = model(image[..., 64:128, 64:128], pixel_size=SIZE)["scores"]
    assert (whole[..., 32:64, 32:64] - alone).abs().max() > 1e-3


def test_the_declared_halo_is_what_perturbation_finds_it_to_need() -> None:
    module = net()
    stated = {k: v for k, v in module.saccade.items() if k not in ("halo_px", "local")}
    measured = adopt(module, stated, {}, None, "cpu").spec
    assert measured.local
    assert measured.halo_px == round_up(module.saccade["halo_px"], CELL_PX) == HALO_PX


def test_attention_over_the_window_is_declared_to_have_no_exact_halo() -> None:
    assert not net(reach="window").saccade["local"]


def test_guidance_begins_as_no_guidance() -> None:
    fresh = MultiPassNet(("a",), width=8, depth=1, guidance=1).eval()
    image, guidance = pixels(96, 64), pixels(96, 64, 7)[:, :1]
    with torch.inference_mode():
        alone = fresh(image, pixel_size=SIZE)["scores"]
        torch.testing.assert_close(
            fresh(image, guidance=guidance, pixel_size=SIZE)["scores"], alone, rtol=0, atol=0
        )


def test_guidance_matters_once_it_was_trained() -> None:
    model, image = net(guidance=2), pixels(64, 64)
    nothing, step = torch.zeros(1, 2, 64, 64), torch.zeros(1, 2, 64, 64)
    step[..., 32:] = 1
    unguided, guided = (
        model(image, guidance=g, pixel_size=SIZE)["scores"] for g in (nothing, step)
    )
    assert (unguided != guided).any()


def test_points_begin_as_no_points() -> None:
    image = pixels(64, 64)
    plain, refined = (
        MultiPassNet(width=8, depth=1, points=share, seed=1).eval() for share in (0.0, 0.2)
    )
    with torch.inference_mode():
        torch.testing.assert_close(
            plain(image, pixel_size=SIZE)["scores"],
            refined(image, pixel_size=SIZE)["scores"],
            rtol=0,
            atol=0,
        )


def test_only_the_most_uncertain_pixels_of_every_cell_are_answered_again() -> None:
    model = net(points=0.05)
    refine = model.points
    assert refine is not None
    maps, logits = torch.rand(1, 8, 32, 32), torch.randn(1, 2, 32, 32)
    changed = (refine(logits, maps) != logits).any(1, keepdim=True)
    per_cell = to_cells(changed.float(), 16).sum((1, 2))
    assert per_cell.tolist() == [round(0.05 * 256)] * 4


def test_equally_uncertain_pixels_are_taken_in_their_order() -> None:
    assert uncertain_points(torch.zeros(2, 7, 3), 4).tolist() == [[0, 1, 2, 3]] * 2
    logits = torch.tensor([[[3.0], [-1.0], [2.0], [1.0], [-1.0]]])
    assert uncertain_points(logits, 3).tolist() == [[1, 3, 4]]


def test_cells_come_back_as_they_went() -> None:
    maps = torch.rand(2, 5, 12, 20)
    assert (from_cells(to_cells(maps, 4), 4, (12, 20)) == maps).all()


def test_edges_are_where_scores_change() -> None:
    scores = torch.zeros(1, 1, 5, 8)
    scores[..., 4:] = 0.5
    assert edges(scores)[0, 0, 2].tolist() == [0, 0, 0, 0.5, 0.5, 0, 0, 0]


@pytest.mark.parametrize("shape", [(64, 40), (200, 24), (2, 2)])
@pytest.mark.parametrize("stride", [1, 2])
def test_edges_found_in_strips_are_those_of_the_whole(shape: tuple[int, int], stride: int) -> None:
    scores = torch.rand(2, 3, *shape)
    whole = functional.avg_pool2d(torch.cat([scores, edges(scores)], 1), stride)
    assert torch.equal(with_edges(scores, stride), whole)


def test_one_weight_file_serves_every_depth() -> None:
    deep = MultiPassNet(width=8, depth=3, blocks=3, seed=1).eval()
    shallow = MultiPassNet(width=8, depth=1, blocks=3, seed=2).eval()
    shallow.load_state_dict(deep.state_dict())
    image = pixels(64, 64)
    with torch.inference_mode():
        assert (
            deep(image, pixel_size=SIZE)["scores"] != shallow(image, pixel_size=SIZE)["scores"]
        ).any()


def test_going_on_from_cached_tokens_is_the_deeper_network() -> None:
    options: dict[str, Any] = {"width": 8, "blocks": 3, "seed": 4}
    first = MultiPassNet(**options, depth=1).eval()
    rest = MultiPassNet(**options, depth=3, start=1).eval()
    deep = MultiPassNet(**options, depth=3).eval()
    image = pixels(64, 96)
    with torch.inference_mode():
        tokens = first(image, pixel_size=SIZE)["features"]
        continued = rest(image, features=tokens, pixel_size=SIZE)
        whole = deep(image, pixel_size=SIZE)
    assert (continued["scores"] == whole["scores"]).all()
    assert (continued["features"] == whole["features"]).all()


def test_it_is_told_how_large_its_pixels_are() -> None:
    model, image = net(), pixels(64, 64)
    near, far = (model(image, pixel_size=torch.tensor([v]))["scores"] for v in (1.0, 16.0))
    assert (near != far).any()


@pytest.mark.parametrize("shape", [(33, 70), (1, 1), (64, 95)])
def test_any_size_is_answered_at_half_of_it(shape: tuple[int, int]) -> None:
    answer = net()(pixels(*shape), pixel_size=SIZE)
    half = (-(-shape[0] // 2), -(-shape[1] // 2))
    assert answer["scores"].shape == (1, 2, *half)
    assert answer["saliency"].shape == answer["confidence"].shape == (1, 1, *half)


def test_attention_of_a_window_is_one_map_per_block_whose_rows_sum_to_one() -> None:
    maps = net(reach="window", attention=True)(pixels(64, 32), pixel_size=SIZE)["attention"]
    assert maps.shape == (1, 2, 4, 32, 32)
    torch.testing.assert_close(maps.sum(-1), torch.ones(1, 2, 4, 32))


def test_asking_for_attention_changes_no_answer() -> None:
    image = pixels(64, 64)
    asked, quiet = (net(reach="window", attention=a)(image, pixel_size=SIZE) for a in (True, False))
    torch.testing.assert_close(asked["scores"], quiet["scores"], atol=1e-5, rtol=0)


def test_an_exported_network_gives_the_same_answers(tmp_path: Path) -> None:
    model, image = net(points=0.1), pixels(64, 96)
    exported = torch.export.export(model, (image,), {"pixel_size": SIZE})
    torch.export.save(exported, tmp_path / "net.pt2")
    loaded = torch.export.load(tmp_path / "net.pt2").module()
    for key, value in model(image, pixel_size=SIZE).items():
        torch.testing.assert_close(loaded(image, pixel_size=SIZE)[key], value)


def test_equal_seeds_give_equal_weights() -> None:
    one, same, other = (MultiPassNet(width=8, seed=s).state_dict() for s in (1, 1, 2))
    assert all((one[k] == same[k]).all() for k in one)
    assert any((one[k] != other[k]).any() for k in one)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"depth": 5, "blocks": 4}, "depth"),
        ({"start": 1, "features": True}, "start"),
        ({"attention": True}, "window"),
    ],
)
def test_options_that_do_not_fit_together_are_refused(options: dict[str, Any], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        MultiPassNet(width=8, **options)


def test_a_pass_runs_it_as_it_declares_itself() -> None:
    module = net(guidance=2)
    model = adopt(module, dict(module.saccade), {}, None, "cpu")
    views = Views(pixels(64, 64), guidance=pixels(64, 64)[:, :2], downsample=4.0)
    prediction = model(views)
    assert prediction.scores.shape == (1, 2, 32, 32)
    assert prediction.features is not None
    assert prediction.features.shape == (1, 32, 8, 8)
