"""Bar charts: read back by another library, pixel by pixel."""

import io

import matplotlib.image
import pytest

from fleetprompt_dagster.pictures import bar_chart

_HOURS = [0, 1, 2, 100, *[0] * 19, 50]


@pytest.mark.parametrize("values", [_HOURS, [0] * 24, [7] * 24, [10**12, 1, 0], [3]])
def test_every_bar_is_as_high_as_its_value(values: list[int]) -> None:
    pixels = matplotlib.image.imread(io.BytesIO(bar_chart(values)), format="png")
    assert pixels.shape == (48, 10 * len(values), 4)
    opaque = pixels[:, :, 3] > 0
    for number, value in enumerate(values):
        bar = opaque[:, number * 10 : number * 10 + 8]
        above_line = int(bar[:-1, 0].sum())
        assert above_line == (max(1, round(value / max(values) * 47)) if value else 0)
        assert (bar == bar[:, :1]).all(), "a bar is a rectangle"
        gap = opaque[:-1, number * 10 + 8 : number * 10 + 10]
        assert not gap.any()
    assert opaque[-1].all(), "the base line"


def test_a_picture_is_small() -> None:
    assert len(bar_chart(list(range(24)))) < 400
