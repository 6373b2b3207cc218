"""Blocks, ranking and rollout: what every method on vision transformers is built from."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from saccade.pipeline.models.rollout import (
    attention_rollout,
    class_rollout,
    rollout_saliency,
)
from saccade.pipeline.models.vision_transformers.answering import confidence, relative_map
from saccade.pipeline.models.vision_transformers.blocks import (
    Attention,
    Encoder,
    PatchEmbedding,
    Size,
    as_grid,
    as_tokens,
)
from saccade.pipeline.models.vision_transformers.plain import DenseViT, RolloutViT, TileViT
from saccade.pipeline.models.vision_transformers.ranking import (
    best_first,
    parted,
    quarters,
    share_of,
)


def noise(*shape: int, seed: int = 5) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def maps(*shape: int, seed: int = 5) -> Tensor:
    """Attention maps: rows that sum to one, far from uniform."""
    return (8 * noise(*shape, seed=seed)).softmax(-1)


# ----------------------------------------------------------------------------------------- rollout


@given(
    images=st.integers(1, 3),
    layers=st.integers(1, 5),
    heads=st.integers(1, 3),
    tokens=st.integers(1, 13),
    seed=st.integers(0, 99),
)
def test_rows_of_a_rollout_sum_to_one(
    images: int, layers: int, heads: int, tokens: int, seed: int
) -> None:
    rolled = attention_rollout(maps(images, layers, heads, tokens, tokens, seed=seed))
    assert rolled.shape == (images, tokens, tokens)
    assert (rolled >= 0).all()
    torch.testing.assert_close(rolled.sum(-1), torch.ones(images, tokens))


def test_a_rollout_is_the_product_of_layers_each_half_itself() -> None:
    first, second = maps(1, 2, 1, 5, 5).double()[0, :, 0]
    half = 0.5 * torch.eye(5)
    by_hand = (0.5 * second + half) @ (0.5 * first + half)
    rolled = attention_rollout(torch.stack([first, second])[None, :, None])
    torch.testing.assert_close(rolled[0], by_hand.float())


def test_tokens_that_attend_to_nothing_else_go_back_to_themselves() -> None:
    alone = torch.eye(7).expand(2, 3, 4, 7, 7)
    torch.testing.assert_close(attention_rollout(alone), torch.eye(7).expand(2, 7, 7))


def test_the_class_token_s_rollout_is_the_first_row_of_all() -> None:
    layers = maps(3, 5, 2, 11, 11)
    torch.testing.assert_close(class_rollout(layers.unbind(1)), attention_rollout(layers)[:, 0])


@pytest.mark.parametrize("class_token", [0, 1])
def test_saliency_finds_the_patch_that_everything_goes_back_to(class_token: int) -> None:
    tokens, planted = 3 * 5 + class_token, 1 * 5 + 3 + class_token
    attention = torch.full((2, tokens, tokens), 0.1 / (tokens - 1))
    attention[:, :, planted] = 0.9
    saliency = rollout_saliency(attention, (3, 5))
    assert saliency.shape == (2, 1, 3, 5)
    assert float(saliency[0, 0, 1, 3]) == 1
    assert float(saliency.min()) >= 0
    assert int((saliency == 1).sum()) == 2


def test_saliency_refuses_tokens_that_are_not_the_grid_s() -> None:
    with pytest.raises(ValueError, match=r"15 tokens for 3 x 5 places expected.*found 17"):
        rollout_saliency(torch.ones(1, 17, 17), (3, 5))


def test_a_rollout_transformer_reports_the_rollout_of_its_own_attention() -> None:
    model = RolloutViT(("a", "b"), patch=4, grid=3).eval()
    x = noise(2, 3, 12, 20)
    tokens, layers = model.encoder.begin(x), []
    for block in model.encoder.layers:
        tokens, seen = block(tokens, look="everything")
        layers.append(seen)
    answer = model(x)
    expected = rollout_saliency(attention_rollout(torch.stack(layers, 1)), (3, 5))
    torch.testing.assert_close(answer["saliency"], expected)
    dense = DenseViT(("a", "b"), patch=4, grid=3).eval()
    torch.testing.assert_close(answer["scores"], dense(x)["scores"])


# ----------------------------------------------------------------------------------------- ranking


def test_equal_tokens_are_ranked_by_place() -> None:
    importance = torch.tensor([[1.0, 2.0, 2.0, 0.0, 2.0, 1.0]])
    assert best_first(importance).tolist() == [[1, 2, 4, 0, 5, 3]]
    assert best_first(torch.zeros(2, 999)).tolist() == [list(range(999))] * 2


def test_what_is_kept_and_what_is_left_stay_in_their_order() -> None:
    kept, left = parted(torch.tensor([[3.0, 9.0, 1.0, 9.0, 5.0]]), 0.5)
    assert kept.tolist() == [[1, 3, 4]]
    assert left.tolist() == [[0, 2]]
    assert [part.tolist() for part in parted(torch.tensor([[1.0, 2.0]]), 1)] == [[[0, 1]], [[]]]


@pytest.mark.parametrize(("share", "count", "expected"), [(0.1, 30, 3), (0.7, 10, 7), (0.5, 7, 4)])
def test_a_share_is_the_decimal_number_as_written(share: float, count: int, expected: int) -> None:
    assert share_of(share, count) == expected


def test_twelve_layers_reorganise_in_the_fourth_seventh_and_tenth() -> None:
    assert [number + 1 for number in quarters(12)] == [4, 7, 10]


# ------------------------------------------------------------------------------------------ blocks


def test_showing_its_maps_does_not_change_the_answer_of_attention() -> None:
    torch.manual_seed(3)
    attention = Attention(24, 3)
    tokens = noise(2, 11, 24)
    plain, nothing = attention(tokens)
    with_class, row = attention(tokens, look="class")
    with_all, everything = attention(tokens, look="everything")
    torch.testing.assert_close(with_all, plain)
    assert torch.equal(with_class, plain)
    assert [m.shape[2] for m in (nothing, row, everything)] == [0, 1, 11]
    torch.testing.assert_close(row, everything[:, :, :1])
    torch.testing.assert_close(everything.sum(-1), torch.ones(2, 3, 11))


def test_positions_are_the_learned_ones_on_their_own_grid_and_interpolated_on_others() -> None:
    embed = PatchEmbedding(Size(width=8, heads=2, patch=4, grid=3))
    blank = lambda *side: embed(torch.zeros(1, 3, *side)) - embed.project.bias.view(1, -1, 1, 1)  # noqa: E731
    torch.testing.assert_close(blank(12, 12), embed.positions)
    other = blank(24, 44)
    assert other.shape == (1, 8, 6, 11)
    torch.testing.assert_close(other.mean(), embed.positions.mean(), atol=0.01, rtol=0)


def test_tokens_and_grid_are_two_views_of_one_thing() -> None:
    cells = noise(2, 5, 3, 7)
    assert torch.equal(as_grid(as_tokens(cells), (3, 7)), cells)
    assert torch.equal(as_tokens(cells)[:, 7 + 2], cells[:, :, 1, 2])


@pytest.mark.parametrize("side", [(8, 8), (64, 64), (24, 104)])
def test_a_transformer_takes_windows_of_any_size(side: tuple[int, int]) -> None:
    x = noise(2, 3, *side)
    assert TileViT(("a", "b"))(x).shape == (2, 2)
    assert DenseViT()(x)["scores"].shape == (2, 1, side[0] // 8, side[1] // 8)


def test_weights_follow_from_the_seed_alone() -> None:
    first, second, other = TileViT(seed=7), TileViT(seed=7), TileViT(seed=8)
    assert all(
        torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True)
    )
    assert not torch.equal(first.head.weight, other.head.weight)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"width": 50, "heads": 4}, "width is a multiple of heads; found width 50, heads 4"),
        ({"patch": 0}, "1 or more"),
    ],
)
def test_a_size_that_can_not_be_is_refused(fields: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Encoder(Size(**fields))


def test_a_tile_of_half_patches_is_refused() -> None:
    with pytest.raises(ValueError, match="tile 20, patch 8"):
        TileViT(tile=20)


# --------------------------------------------------------------------------------------- answering


def test_confidence_is_that_of_the_most_probable_outcome() -> None:
    several = torch.tensor([[2.0, 0.0, -1.0]])
    torch.testing.assert_close(confidence(several), several.softmax(1)[:, 0])
    single = torch.tensor([[-3.0], [3.0], [0.0]])
    torch.testing.assert_close(confidence(single), torch.tensor([0.95257413, 0.95257413, 0.5]))


def test_a_map_is_relative_to_its_own_window_and_blank_stays_blank() -> None:
    relative = relative_map(torch.tensor([[1.0, 4.0, 2.0, 0.0], [0.0] * 4]), (2, 2))
    assert relative.flatten(1).tolist() == [[0.25, 1.0, 0.5, 0.0], [0.0] * 4]
