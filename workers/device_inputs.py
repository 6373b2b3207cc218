"""Samples as a model is given them, in runs and in training: by the image's numbers, or a scale."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from saccade.pipeline.inputs import Inputs
from saccade.pipeline.models.wrap import per_channel


def as_given(samples: Tensor, dtype: np.dtype[Any], inputs: Inputs, scale: float | None) -> Tensor:
    """Samples with zero and unit of their image, or divided by the model's scale.

    Args:
        samples: ``(N, C, H, W)`` uint8 or float32.
        dtype: that they were stored in.
        inputs: what they become.
        scale: of the model, where the inputs state none; None is the dtype's maximum, 1 of floats.

    Returns:
        ``(N, C, H, W)`` float32, on the same device.
    """
    if inputs.zero:
        return _normalised(samples, inputs)
    divisor = scale if scale is not None else most_of(dtype)
    if samples.dtype == torch.float32:
        return samples / divisor
    return samples.to(torch.float32).div_(divisor)


def most_of(dtype: np.dtype[Any]) -> float:
    """The largest sample of an integer type; 1 of floats."""
    return float(np.iinfo(dtype).max) if dtype.kind in "iu" else 1.0


def _normalised(samples: Tensor, inputs: Inputs) -> Tensor:
    zero, unit = (per_channel(values, samples.device) for values in (inputs.zero, inputs.unit))
    given = (samples - zero).div_(unit)
    return given.clamp_(0, 1) if inputs.clip else given
