"""Windows cut into cells of the one size that a module takes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from saccade.pipeline.errors import ModelContract
from saccade.pipeline.models.cells import InCells, cut, pasted


class Only(nn.Module):
    """Takes one shape, and says where in a cell each pixel lies and how bright the cell is."""

    def __init__(self, side: int, batch: int | None = None) -> None:
        super().__init__()
        self.side, self.batch, self.calls = side, batch, 0

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        assert tuple(x.shape[2:]) == (self.side, self.side)
        assert self.batch in (None, len(x))
        self.calls += 1
        ramp = torch.arange(self.side).float().view(1, 1, 1, -1) + torch.zeros_like(x[:, :1])
        return {"scores": ramp + x.mean((1, 2, 3), keepdim=True), "features": x[:, :, ::7, ::7]}


def test_cells_come_back_where_they_were_cut() -> None:
    x = torch.rand(2, 3, 21, 35)
    assert torch.equal(pasted(cut(x, 7), (3, 5)), x)


@pytest.mark.parametrize("batch", [None, 1, 4])
def test_each_cell_is_answered_by_itself_in_batches_of_the_only_size(batch: int | None) -> None:
    x = torch.rand(3, 3, 14, 21)
    answer = InCells(Only(7, batch), 7, batch=batch)(x)
    assert answer["scores"].shape == (3, 1, 14, 21)
    assert answer["features"].shape == (3, 3, 2, 3)
    for row in range(2):
        for column in range(3):
            place = (slice(row * 7, row * 7 + 7), slice(column * 7, column * 7 + 7))
            expected = Only(7)(x[(..., *place)])
            torch.testing.assert_close(answer["scores"][(..., *place)], expected["scores"])


def test_without_a_side_a_window_is_one_cell_and_batches_are_filled_up() -> None:
    only = Only(5, batch=4)
    answer = InCells(only, None, batch=4)(torch.rand(6, 3, 5, 5))
    assert (answer["scores"].shape, only.calls) == ((6, 1, 5, 5), 2)


def test_windows_of_broken_cells_are_refused_with_the_remedy() -> None:
    with pytest.raises(ModelContract, match=r"cells of 7 px.*found 14 x 20.*'multiple: 7'"):
        InCells(Only(7), 7)(torch.rand(1, 3, 14, 20))
