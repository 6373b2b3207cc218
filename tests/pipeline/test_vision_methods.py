"""The token methods: what each promises about which tokens it computes, and what stays the same."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from saccade.pipeline.models.base import ModelForm, Views
from saccade.pipeline.models.casting import in_form
from saccade.pipeline.models.loading import load_model
from saccade.pipeline.models.vision_transformers.blocks import Block
from saccade.pipeline.models.vision_transformers.coarse_fine import CoarseFineViT, moving_average
from saccade.pipeline.models.vision_transformers.cropr import Cropr
from saccade.pipeline.models.vision_transformers.cross import ClassAsks, CrossViT
from saccade.pipeline.models.vision_transformers.evit import EViT, reorganised
from saccade.pipeline.models.vision_transformers.plain import DenseViT, TileViT, ViTFeatures
from saccade.pipeline.models.vision_transformers.scales import S2, ScaledFeatures
from saccade.pipeline.models.vision_transformers.tiny_drop import TinyDrop
from saccade.pipeline.models.wrap import TorchModel
from saccade.pipeline.recipe import ModelRecipe

PACKAGE = "saccade.pipeline.models.vision_transformers"
SMALL = {"width": 16, "heads": 2, "patch": 4}


def noise(*shape: int, seed: int = 5) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


@contextmanager
def tokens_of(model: nn.Module) -> Iterator[list[tuple[int, int]]]:
    """Images and tokens that every network for each token computes, block by block."""
    seen: list[tuple[int, int]] = []
    hooks = [
        block.each.register_forward_hook(
            lambda _m, given, _o: seen.append(tuple(given[0].shape[:2]))
        )
        for block in model.modules()
        if isinstance(block, Block)
    ]
    yield seen
    for hook in hooks:
        hook.remove()


# ------------------------------------------------------------------------------------------ CF-ViT


def coarse_fine(exit_at: float, **options: Any) -> CoarseFineViT:
    return CoarseFineViT(("a", "b", "c"), exit_at=exit_at, **(SMALL | options)).eval()


def between(model: CoarseFineViT, x: Tensor) -> float:
    """A confidence that about half of the images reach."""
    return float(model.look(x).confidence.median())


@torch.inference_mode()
def test_an_image_that_exits_keeps_its_coarse_answer_and_the_others_get_the_fine_one() -> None:
    x = noise(9, 3, 16, 24)
    coarse, fine = coarse_fine(0)(x), coarse_fine(1.1)(x)
    middle = between(coarse_fine(0), x)
    mixed = coarse_fine(middle)(x)
    leaves = coarse_fine(0).look(x).confidence >= middle
    assert 0 < int(leaves.sum()) < 9
    assert torch.equal(mixed["scores"][leaves], coarse["scores"][leaves])
    assert torch.equal(mixed["confidence"][leaves], coarse["confidence"][leaves])
    torch.testing.assert_close(mixed["scores"][~leaves], fine["scores"][~leaves])
    assert not torch.allclose(fine["scores"], coarse["scores"], atol=1e-3)


@torch.inference_mode()
def test_who_else_is_in_a_batch_does_not_change_an_answer() -> None:
    x = noise(7, 3, 16, 16)
    model = coarse_fine(between(coarse_fine(0), x))
    together = model(x)
    for i in range(7):
        for key, alone in model(x[i : i + 1]).items():
            torch.testing.assert_close(alone[0], together[key][i])


@torch.inference_mode()
def test_only_images_in_doubt_are_looked_at_twice_and_only_half_of_their_patches_are_split() -> (
    None
):
    x = noise(8, 3, 16, 24)
    model = coarse_fine(between(coarse_fine(0), x))
    doubtful = int((model.look(x).confidence < model.exit_at).sum())
    with tokens_of(model) as seen:
        model(x)
    coarse, split = 2 * 3, 3
    assert seen == [(8, 1 + coarse)] * 4 + [(doubtful, 1 + coarse - split + 4 * split)] * 4
    with tokens_of(coarse_fine(0)) as seen:
        coarse_fine(0)(x)
    assert all(images for images, _ in seen)


@torch.inference_mode()
def test_detail_is_seen_in_the_patches_of_highest_class_attention_and_nowhere_else() -> None:
    model, x = coarse_fine(1.1), noise(1, 3, 16, 24)
    answer = model(x)["scores"]
    attention = model.look(x).attention[0]
    informative = set(attention.argsort(descending=True)[:3].tolist())
    # Detail that a halved image does not show: pixels of a pair move apart.
    detail = torch.tensor([0.2, -0.2]).repeat(4)
    for patch in range(6):
        touched = x.clone()
        row, column = 8 * (patch // 3), 8 * (patch % 3)
        touched[:, :, row : row + 8, column : column + 8] += detail
        same = torch.allclose(model(touched)["scores"], answer, atol=1e-5)
        assert same == (patch not in informative)


@torch.inference_mode()
def test_saliency_is_the_global_class_attention_whether_or_not_an_image_exits() -> None:
    x = noise(3, 3, 16, 24)
    for exit_at in (0, 1.1):
        model = coarse_fine(exit_at)
        attention = model.look(x).attention
        expected = (attention / attention.amax(1, keepdim=True)).view(3, 1, 2, 3)
        torch.testing.assert_close(model(x)["saliency"], expected)


def test_global_class_attention_is_a_moving_average_over_layers() -> None:
    values = [torch.tensor([float(v)]) for v in (1, 3, 7)]
    assert float(moving_average(values, 0.9)) == pytest.approx(0.9 * (0.9 + 0.1 * 3) + 0.1 * 7)


def test_the_fine_stage_reuses_features_and_teaches_the_coarse_one() -> None:
    model = CoarseFineViT(("a", "b"), exit_at=1.1, **SMALL)
    x = noise(2, 3, 16, 16)
    model(x)["scores"].sum().backward()
    assert float(model.reuse[1].weight.grad.abs().sum()) > 0
    # The four parts of a coarse patch are given the same.
    tokens = noise(2, 4, 16)
    parts = model._split(x, tokens) - model._split(x, tokens.roll(1, 0))
    parts = parts.unflatten(-1, (-1, 4))
    torch.testing.assert_close(parts, parts[..., :1].expand_as(parts), atol=1e-5, rtol=0)


# ---------------------------------------------------------------------------------------- CrossViT


@torch.inference_mode()
def test_both_fields_of_view_change_the_answer() -> None:
    model = CrossViT(("a", "b"), tile=16, **SMALL).eval()
    x, around = noise(2, 3, 16, 16), noise(2, 3, 16, 16, seed=6)
    answer = model(x, context=(around,))
    assert answer.shape == (2, 2)
    assert not torch.allclose(model(x.flip(0), context=(around,)), answer, atol=1e-4)
    assert not torch.allclose(model(x, context=(around.flip(0),)), answer, atol=1e-4)


@torch.inference_mode()
def test_only_class_tokens_are_fused_and_they_ask_the_other_branch_s_patches() -> None:
    torch.manual_seed(2)
    asks = ClassAsks(8, 12, 2)
    here, around = noise(2, 1 + 5, 8), noise(2, 1 + 7, 12)
    fused = asks(here, around)
    assert torch.equal(fused[:, 1:], here[:, 1:])
    other_class = around.clone()
    other_class[:, 0] += 1
    assert torch.equal(asks(here, other_class), fused)
    shuffled = torch.cat([around[:, :1], around[:, 1:].flip(1)], 1)
    torch.testing.assert_close(asks(here, shuffled), fused)


def test_a_pass_gives_crossvit_its_context() -> None:
    source = ModelRecipe(source=f"{PACKAGE}.cross:CrossViT", options={"tile": 16, **SMALL})
    spec = load_model(source, base_folder=Path()).spec
    assert (spec.stride, spec.context, spec.local, spec.halo_px) == (16, (4.0,), True, 0)


# ---------------------------------------------------------------------------------------------- S2


class Colours(nn.Module):
    """Features that can be told by hand: mean and largest of every 4 x 4 pixels."""

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[-2:] == (16, 16), "the backbone is made for this size"
        return torch.cat([functional.avg_pool2d(x, 4), functional.max_pool2d(x, 4)], 1)


def test_features_of_each_scale_are_averaged_to_the_first_grid_and_put_side_by_side() -> None:
    x = noise(2, 3, 16, 16)
    features = ScaledFeatures(Colours(), scales=(1, 3), base=16)(x)
    large = functional.interpolate(x, scale_factor=3.0, mode="bicubic")
    whole = torch.cat([functional.avg_pool2d(large, 4), functional.max_pool2d(large, 4)], 1)
    expected = torch.cat([Colours()(x), functional.avg_pool2d(whole, 3)], 1)
    torch.testing.assert_close(features, expected)


def test_a_part_is_seen_by_itself_and_comes_back_to_its_place() -> None:
    x = noise(2, 3, 32, 48)
    backbone = ViTFeatures(width=8, heads=2, patch=4).eval()
    features = ScaledFeatures(backbone, scales=(1,), base=16)(x)
    torch.testing.assert_close(features[..., 4:, 8:], backbone(x[..., 16:, 32:]))


def test_only_the_head_of_s2_is_trained() -> None:
    model = S2(("a", "b"), backbone=Colours(), base=16).train()
    assert not model.features.backbone.training
    trained = [name for name, p in S2(base=32).train().named_parameters() if p.requires_grad]
    assert trained == ["head.weight", "head.bias"]
    assert model(noise(1, 3, 32, 16)).shape == (1, 2, 8, 4)
    assert model.saccade["stride"] == 4


def test_s2_takes_a_backbone_by_name_and_says_what_it_expects_of_one() -> None:
    options = {"width": 8, "heads": 2, "patch": 16}
    model = S2(backbone=f"{PACKAGE}.plain:ViTFeatures", options=options, base=32)
    assert model.saccade["stride"] == 16
    with pytest.raises(ValueError, match=r"features .* expected of the backbone.*without class"):
        S2(backbone=TileViT())
    with pytest.raises(ValueError, match="begin with 1"):
        S2(scales=(2, 3))


# -------------------------------------------------------------------------------------------- EViT


@torch.inference_mode()
def test_evit_that_keeps_everything_is_the_plain_transformer() -> None:
    x = noise(3, 3, 32, 32)
    plain = TileViT(("a", "b"), tile=32, **SMALL).eval()
    assert torch.equal(EViT(("a", "b"), keep=1, tile=32, **SMALL).eval()(x), plain(x))


@torch.inference_mode()
def test_evit_computes_the_kept_tokens_and_one_for_the_others() -> None:
    model = EViT(keep=0.5, tile=32, depth=12, **SMALL).eval()
    with tokens_of(model) as seen:
        model(noise(2, 3, 32, 32))
    # 64 patches; then 32 and a fused one; 17 of those 33 and another; 9 of 18 and another.
    assert [tokens for _, tokens in seen] == [65] * 3 + [34] * 3 + [19] * 3 + [11] * 3


def test_inattentive_tokens_become_their_sum_weighted_by_attention() -> None:
    tokens, attention = noise(1, 1 + 5, 3), torch.tensor([[0.1, 0.3, 0.05, 0.3, 0.25]])
    found = reorganised(tokens, attention, 0.4)
    fused = 0.1 * tokens[0, 1] + 0.05 * tokens[0, 3] + 0.25 * tokens[0, 5]
    expected = torch.stack([tokens[0, 0], tokens[0, 2], tokens[0, 4], fused])
    torch.testing.assert_close(found[0], expected)


def test_equally_attended_tokens_stay_by_their_place() -> None:
    tokens = noise(1, 1 + 7, 3)
    found = reorganised(tokens, torch.full((1, 7), 1 / 7), 0.4)
    assert torch.equal(found[:, :4], tokens[:, :4])


def test_a_share_that_keeps_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="above 0 and at most 1; found 0"):
        EViT(keep=0)


# ---------------------------------------------------------------------------------------- TinyDrop


@torch.inference_mode()
@pytest.mark.parametrize("guidance", [None, "everything"])
def test_tinydrop_that_drops_nothing_is_the_plain_transformer(guidance: str | None) -> None:
    x = noise(3, 3, 32, 32)
    plain = TileViT(tile=32, **SMALL).eval()
    model = TinyDrop(keep=1, tile=32, **SMALL).eval()
    told = None if guidance is None else noise(3, 2, 32, 32)
    assert torch.equal(model(x, guidance=told), plain(x))


@torch.inference_mode()
def test_pixels_that_the_guide_thinks_little_of_are_not_looked_at() -> None:
    model = TinyDrop(keep=0.25, tile=16, **SMALL).eval()
    x, guidance = noise(1, 3, 16, 16), torch.zeros(1, 2, 16, 16)
    guidance[:, 1, 4:12, 4:12] = 0.6
    answer = model(x, guidance=guidance)
    outside = noise(1, 3, 16, 16, seed=9)
    outside[..., 4:12, 4:12] = x[..., 4:12, 4:12]
    assert torch.equal(model(outside, guidance=guidance), answer)
    inside = x.clone()
    inside[..., 5, 5] += 1
    assert not torch.allclose(model(inside, guidance=guidance), answer, atol=1e-5)
    with tokens_of(model) as seen:
        model(x, guidance=guidance)
    assert {tokens for _, tokens in seen} == {1 + 4}


def test_a_guide_s_background_does_not_count_and_doubt_is_between_yes_and_no() -> None:
    guidance = torch.zeros(1, 2, 4, 8)
    guidance[:, 0, :, :4], guidance[:, 1, :, 4:] = 1.0, 0.6
    by_score = TinyDrop(tile=8, **SMALL).importance(guidance)
    no_background = TinyDrop(without=0, tile=8, **SMALL).importance(guidance)
    by_doubt = TinyDrop(by="doubt", tile=8, **SMALL).importance(guidance)
    torch.testing.assert_close(by_score, torch.tensor([[1.0, 0.6]]))
    torch.testing.assert_close(no_background, torch.tensor([[0.0, 0.6]]))
    torch.testing.assert_close(by_doubt, torch.tensor([[0.0, 0.8]]))


# ------------------------------------------------------------------------------------------- Cropr


@torch.inference_mode()
def test_cropr_that_keeps_everything_is_the_plain_transformer() -> None:
    x = noise(2, 3, 16, 24)
    plain = DenseViT(("a", "b"), **SMALL).eval()
    assert torch.equal(Cropr(("a", "b"), keep=1, **SMALL).eval()(x)["scores"], plain(x)["scores"])


@torch.inference_mode()
def test_cropr_computes_fewer_and_fewer_tokens_and_all_of_them_in_the_last_block() -> None:
    model = Cropr(keep=0.5, **SMALL, depth=8).eval()
    with tokens_of(model) as seen:
        answer = model(noise(2, 3, 32, 32))["scores"]
    assert [tokens for _, tokens in seen] == [65] * 2 + [33] * 2 + [17] * 2 + [9] + [65]
    assert answer.shape == (2, 1, 8, 8)


@torch.inference_mode()
def test_every_patch_comes_back_to_its_own_place() -> None:
    model = Cropr(keep=0.5, **SMALL, depth=2).eval()
    for block in model.encoder.layers:
        for name in (block.attention.out, block.each[-1]):
            name.weight.zero_(), name.bias.zero_()
    x = noise(2, 3, 16, 24)
    # Blocks that change nothing: what comes out is what went in, patch by patch.
    torch.testing.assert_close(model(x)["scores"], DenseViT.forward(model, x)["scores"])


def test_the_auxiliary_loss_teaches_the_croppers_and_nothing_else() -> None:
    model = Cropr(("a", "b", "c"), keep=0.5, **SMALL).train()
    answer = model(noise(2, 3, 16, 16))
    assert [a.shape for a in answer["auxiliary"]] == [(2, 3)] * 3
    sum(a.square().sum() for a in answer["auxiliary"]).backward()
    taught = {n.split(".")[0] for n, p in model.named_parameters() if p.grad is not None}
    assert taught == {"croppers"}
    assert all(float(c.queries.grad.abs().sum()) > 0 for c in model.croppers)
    assert "auxiliary" not in model.eval()(noise(2, 3, 16, 16))


# ------------------------------------------------------------------------------------------ export


def dynamic(value: Any) -> Any:
    auto = torch.export.Dim.AUTO
    return {0: auto, 2: auto, 3: auto} if isinstance(value, Tensor) else tuple(map(dynamic, value))


@pytest.mark.parametrize(
    ("name", "side", "given"),
    [
        ("plain:TileViT", 16, {}),
        ("plain:DenseViT", 24, {}),
        ("plain:RolloutViT", 24, {}),
        ("cross:CrossViT", 16, {"context": (noise(2, 3, 16, 16),)}),
        ("evit:EViT", 16, {}),
        ("tiny_drop:TinyDrop", 16, {"guidance": noise(2, 1, 16, 16)}),
        ("cropr:Cropr", 24, {}),
    ],
)
def test_an_exported_model_answers_as_the_one_it_was_made_from(
    tmp_path: Path, name: str, side: int, given: dict[str, Any]
) -> None:
    module, factory = name.split(":")
    options = SMALL | {"depth": 2} | ({"tile": 16} if side == 16 else {})
    model = getattr(import_module(f"{PACKAGE}.{module}"), factory)(**options).eval()
    export(model, noise(2, 3, side, side), given, tmp_path / "m.pt2", model.saccade)
    read = load_model(ModelRecipe(source="m.pt2"), base_folder=tmp_path)
    source = ModelRecipe(source=f"{PACKAGE}.{name}", options=options)
    made = load_model(source, base_folder=tmp_path)
    assert read.spec == made.spec
    context = tuple(noise(3, 3, side, side) for _ in given.get("context", ()))
    views = Views(noise(3, 3, side, side), guidance=noise(3, 1, side, side), context=context)
    torch.testing.assert_close(read(views).scores, made(views).scores)


def test_an_exported_s2_takes_windows_of_two_bases_or_more(tmp_path: Path) -> None:
    model = S2(base=16, options=SMALL | {"depth": 1}).eval()
    declared = model.saccade | {"multiple": 32}
    export(model, noise(2, 3, 32, 64), {}, tmp_path / "m.pt2", declared)
    read = load_model(ModelRecipe(source="m.pt2"), base_folder=tmp_path)
    x = noise(1, 3, 64, 96)
    with torch.inference_mode():
        expected = model((x - 0.5) / 0.5).sigmoid()
    torch.testing.assert_close(read(Views(x)).scores, expected)


def export(
    model: nn.Module, x: Tensor, given: dict[str, Any], path: Path, declared: dict[str, Any]
) -> None:
    shapes = {"x": dynamic(x)} | {key: dynamic(value) for key, value in given.items()}
    program = torch.export.export(model, (x,), given, dynamic_shapes=shapes)
    torch.export.save(program, path, extra_files={"saccade.json": json.dumps(declared)})


# ----------------------------------------------------------------------------------- in the engine


@pytest.mark.parametrize(
    ("name", "stride", "local"),
    [
        ("plain:TileViT", 64, True),
        ("plain:RolloutViT", 8, False),
        ("coarse_fine:CoarseFineViT", 16, False),
        ("evit:EViT", 64, True),
        ("tiny_drop:TinyDrop", 64, True),
        ("cropr:Cropr", 8, False),
        ("scales:S2", 8, False),
    ],
)
def test_a_recipe_names_it_and_needs_nothing_else(name: str, stride: int, local: bool) -> None:
    model = load_model(ModelRecipe(source=f"{PACKAGE}.{name}"), base_folder=Path())
    assert (model.spec.stride, model.spec.local, model.spec.halo_px) == (stride, local, 0)
    answer = model(Views(noise(1, 3, 128, 128), guidance=noise(1, 1, 128, 128)))
    assert answer.scores.shape == (1, 1, 128 // stride, 128 // stride)
    assert (answer.saliency is not None) == model.spec.saliency


@pytest.mark.parametrize(
    "name",
    [
        "plain:RolloutViT",
        "coarse_fine:CoarseFineViT",
        "cross:CrossViT",
        "evit:EViT",
        "tiny_drop:TinyDrop",
        "cropr:Cropr",
        "scales:S2",
    ],
)
def test_half_the_bits_give_nearly_the_same_answer(name: str) -> None:
    model = load_model(ModelRecipe(source=f"{PACKAGE}.{name}"), base_folder=Path())
    halved = in_form(model, ModelForm("bfloat16"))
    assert isinstance(halved, TorchModel)
    assert halved.dtype == torch.bfloat16
    x = noise(2, 3, 64, 64)
    views = Views(x, guidance=noise(2, 1, 64, 64), context=(x,) if "Cross" in name else ())
    difference = (halved(views).scores - model(views).scores).abs()
    assert float(difference.max()) < 0.05
