"""What torch.compile would gain over the settings that calibration tries, and what it costs.

Each network is computed as loaded, in bfloat16 with channels last, the same *fused* (convolutions
take in what follows them), and compiled by Inductor with frozen weights, its fastest on a CPU. On
one thread, one window at a time; all ways take turns, the fastest of each counts. Compiling begins
with an empty cache, then is done again with what the first has cached, as a second worker would.
Needs a C++ compiler; without one its columns stay empty.

    python benchmarks/compiling.py
    python benchmarks/compiling.py --sides 608 --networks U-Net
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch._inductor.config as inductor
from common import command, machine, table
from networks import NETWORKS, ready
from torch import Tensor, nn

from saccade.pipeline.errors import ModelContract
from saccade.pipeline.models.base import ModelForm
from saccade.pipeline.models.casting import in_form
from saccade.pipeline.models.wrap import TorchModel
from saccade.workers.allocator import keep_large_blocks
from saccade.workers.device import set_threads

Forward = Callable[[Tensor], Any]


def module_of(name: str, form: ModelForm) -> nn.Module | None:
    """A network in a form; None where it has no such."""
    module = ready(name)
    try:
        model = in_form(TorchModel(module, module.saccade), form)  # type: ignore[arg-type]
    except ModelContract:
        return None
    assert isinstance(model, TorchModel)
    return model.module


def pixels(side: int, dtype: torch.dtype) -> Tensor:
    """One window in memory as it is read: channels last."""
    drawn = torch.rand((1, side, side, 3), generator=torch.Generator().manual_seed(side))
    return drawn.permute(0, 3, 1, 2).to(dtype)


def compiled(module: nn.Module, x: Tensor) -> tuple[Forward | None, list[float]]:
    """A compiled module with its seconds to the first answer: cache empty, then filled."""
    seconds: list[float] = []
    for _ in range(2):
        torch._dynamo.reset()
        forward = torch.compile(module, dynamic=False)
        since = time.perf_counter()
        try:
            # not by compile's 'options', which leave weights as they are (torch 2.13)
            with inductor.patch(freezing=True):
                forward(x)
        except Exception as error:  # whatever a compiler's absence or a graph is refused with
            print(f"not compiled: {type(error).__name__}: {str(error).splitlines()[0]}")
            return None, []
        seconds.append(time.perf_counter() - since)
    return forward, seconds


def fastest(ways: Sequence[Forward | None], given: Sequence[Tensor], rounds: int) -> list[float]:
    """Seconds of processor per way; they take turns."""
    best = [float("inf")] * len(ways)
    for _ in range(rounds):
        for index, (way, x) in enumerate(zip(ways, given, strict=True)):
            if way is not None:
                since = time.process_time()
                way(x)
                best[index] = min(best[index], time.process_time() - since)
    return best


def row_of(name: str, side: int, rounds: int) -> list[str]:
    """Speeds of all ways, what compiling costs, and from how many megapixels on it pays."""
    forms = [
        ModelForm(),
        ModelForm("bfloat16", channels_last=True),
        ModelForm("bfloat16", channels_last=True, fused=True),
    ]
    modules = [module_of(name, form) for form in forms]
    plain = modules[1]
    assert plain is not None
    narrow, wide = pixels(side, torch.bfloat16), pixels(side, torch.float32)
    frozen, cost = compiled(plain, narrow)
    seconds = fastest([*modules, frozen], [wide, *[narrow] * 3], rounds)
    area = side**2 / 1e6
    speeds = [f"{area / one:.2f}" if one < float("inf") else "" for one in seconds]
    said = " / ".join(f"{one:.1f}" for one in cost)
    return [f"{name}, {side} px", *speeds, said, _pays(seconds, cost, area)]


def _pays(seconds: Sequence[float], cost: Sequence[float], area: float) -> str:
    """Megapixels of one worker whose saved seconds are those of compiling once."""
    saved = min(seconds[1:3]) - seconds[3]
    return f"{cost[0] / (saved / area):.0f}" if cost and saved > 0 else "never"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", choices=tuple(NETWORKS), default=tuple(NETWORKS))
    parser.add_argument("--sides", nargs="+", type=int, default=[352, 608], help="with halo")
    parser.add_argument("--rounds", type=int, default=8)
    options = parser.parse_args()
    keep_large_blocks()
    set_threads(1)
    print(f"{machine()}, torch {torch.__version__}\n$ {command()}\n")
    ways = ["float32", "bfloat16", "fused", "compiled"]
    head = ["MP/s", *ways, "s to compile, first / again", "pays from MP"]
    with tempfile.TemporaryDirectory() as cache, torch.no_grad():
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache
        rows = [
            row_of(name, side, options.rounds)
            for name in options.networks
            for side in options.sides
        ]
    print(table(head, rows))


if __name__ == "__main__":
    main()
