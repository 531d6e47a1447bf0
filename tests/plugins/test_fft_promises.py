"""Plugin fft: against the definition of the transform, and laws that hold for every window."""

from __future__ import annotations

import cmath
import math
import struct
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from fakes.callable_plugins import CallablePlugin, any_value, callable_plugin
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

hostile = settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])

MOST = 65_536
numbers = st.floats(-1e6, 1e6)
windows = st.lists(numbers, min_size=2, max_size=70)


@pytest.fixture(scope="module")
def fft() -> Iterator[CallablePlugin]:
    with callable_plugin("fft") as plugin:
        yield plugin


def bin_energies(samples: Sequence[float], window: str) -> list[float]:
    """One-sided energy of each bin, from the definition, term by term."""
    count = len(samples)
    length = 1 << (count - 1).bit_length()
    mean = math.fsum(samples) / count
    weights = [0.5 - 0.5 * math.cos(math.tau * i / count) if window == "hann" else 1.0 for i in range(count)]
    turns = [cmath.exp(-1j * math.tau * i / length) for i in range(length)]
    scale = length * math.fsum(weight * weight for weight in weights)
    energies = []
    for k in range(length // 2 + 1):
        terms = [
            weight * (sample - mean) * turns[i * k % length]
            for i, (weight, sample) in enumerate(zip(weights, samples, strict=True))
        ]
        total = complex(math.fsum(term.real for term in terms), math.fsum(term.imag for term in terms))
        energies.append(abs(total) ** 2 * (1 if k in {0, length // 2} else 2) / scale)
    return energies


def sine(count: int, rate_hz: float, hz: float, amplitude: float, offset: float = 0.0) -> list[float]:
    return [offset + amplitude * math.sin(math.tau * hz * i / rate_hz) for i in range(count)]


def test_the_examples_worked_out_by_hand_come_out(fft: CallablePlugin) -> None:
    assert fft.broken_promises() == []


@hostile
@given(samples=windows, window=st.sampled_from(["hann", "none"]))
def test_every_bin_is_what_the_definition_makes_of_it(fft: CallablePlugin, samples: list[float], window: str) -> None:
    expected = bin_energies(samples, window)
    bins = len(expected)
    # A rate at which the bins are 2 Hz apart, and bands around single ones.
    for first in range(0, bins, 64):
        bands = [[max(0, 2 * k - 1), 2 * k + 1] for k in range(first, min(first + 64, bins))]
        bands = [band for band in bands if band[0] < 2 * (bins - 1)]
        answer = fft.call(samples=samples, rate_hz=4.0 * (bins - 1), window=window, bands=bands)
        largest = max(abs(sample) for sample in samples) or 1.0
        for k, energy in enumerate(answer["energies"], first):
            assert energy == pytest.approx(expected[k], rel=1e-9, abs=1e-12 * largest**2)
        assert answer["bins"] == bins
        assert answer["bin_hz"] == 2


@hostile
@given(samples=st.lists(numbers, min_size=2, max_size=2000))
def test_all_bands_together_are_the_mean_square(fft: CallablePlugin, samples: list[float]) -> None:
    """Parseval's theorem."""
    answer = fft.call(samples=samples, rate_hz=1000.0, window="none", bands=[[0, 100], [100, 350], [350, 500]])

    mean = math.fsum(samples) / len(samples)
    square = math.fsum((sample - mean) ** 2 for sample in samples) / len(samples)
    slack = 1e-9 * max(map(abs, samples)) ** 2
    assert math.fsum(answer["energies"]) == pytest.approx(square, rel=1e-9, abs=slack)
    assert answer["rms"] ** 2 == pytest.approx(square, rel=1e-9, abs=slack)


@pytest.mark.parametrize("window", ["hann", "none"])
@pytest.mark.parametrize(("count", "hz"), [(1000, 120.0), (4096, 440.0), (MOST, 3000.25)])
def test_a_sine_is_found_with_its_energy_whatever_the_offset(
    fft: CallablePlugin, count: int, hz: float, window: str
) -> None:
    rate = 10_000.0
    data = struct.pack(f"<{count}d", *sine(count, rate, hz, 3.0, offset=9.81))

    answer = fft.call(samples=data, rate_hz=rate, window=window, bands=[[hz - 100, hz + 100], [hz + 500, 5000]])

    assert answer["peak_hz"] == pytest.approx(hz, abs=answer["bin_hz"])
    assert answer["energies"][0] == pytest.approx(4.5, rel=0.02)
    assert answer["energies"][1] < 0.05
    assert answer["mean"] == pytest.approx(9.81, abs=0.1)
    assert answer["crest"] == pytest.approx(math.sqrt(2), rel=0.02)


def test_two_sines_are_told_apart_by_their_bands(fft: CallablePlugin) -> None:
    low, high = sine(2048, 2048.0, 50, 1.0), sine(2048, 2048.0, 700, 0.1)
    samples = [one + other for one, other in zip(low, high, strict=True)]

    answer = fft.call(samples=samples, rate_hz=2048.0, bands=[[10, 100], [100, 600], [600, 1024]])

    assert answer["energies"] == pytest.approx([0.5, 0.0, 0.005], abs=1e-9)


@hostile
@given(samples=windows, rate=st.floats(0.01, 1e5))
def test_every_form_of_the_same_samples_gives_the_same(fft: CallablePlugin, samples: list[float], rate: float) -> None:
    as_list = fft.call(samples=samples, rate_hz=rate)
    as_bytes = fft.call(samples=struct.pack(f"<{len(samples)}d", *samples), rate_hz=rate)
    as_rows = fft.call(rows=[[1_700_000_000_000 + 1000 * i, one] for i, one in enumerate(samples)], rate_hz=rate)
    assert as_list == as_bytes == as_rows


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ({"samples": [1.0, float("nan")]}, "samples: item 2 must be a finite number of at most 1e100"),
        ({"samples": [1.0, float("inf")]}, "samples: item 2 must be a finite number of at most 1e100"),
        ({"samples": struct.pack("<2d", 1, float("-inf"))}, "samples: item 2 must be a finite number of at most 1e100"),
        ({"samples": [1.0]}, "samples: must hold at least 2 samples"),
        ({"samples": None}, "samples: is missing: give a list"),
        ({"samples": [0.0] * (MOST + 1)}, "samples: has 65537 items; give at most 65536"),
        ({"samples": bytes(8 * MOST + 8)}, "little-endian doubles of 8 bytes, at most 65536"),
        ({"rate_hz": None}, "rate_hz: is missing: give samples a second, above 0"),
        ({"bands": [[1, 2], [3, 3]]}, "bands: item 2 must be [from Hz, to Hz], from below to"),
        ({"bands": [[50, 60]]}, "bands: item 1 begins above half of rate_hz: nothing is there"),
        ({"bands": [[1, 2]] * 65}, "bands: has 65 items; give at most 64"),
        ({"window": "flat"}, 'window: must be "hann" or "none"'),
        ({"samples": None, "rows": [[0, 1], [0, 2]]}, "rows: item 2 is not later than the one before"),
        ({"samples": None, "rows": [[0, 1], [1, 2], [5, 3]]}, "rows: item 3 comes after a gap"),
        ({"samples": None, "rows": [[0, 1], [1]]}, "rows: item 2 must be [epoch ms, number]"),
    ],
)
def test_a_refusal_names_the_argument(fft: CallablePlugin, args: dict[str, Any], says: str) -> None:
    number, text = fft.refusal(**({"samples": [1.0, 2.0, 3.0], "rate_hz": 100.0} | args))
    assert number == 7
    assert says in text


def test_a_refused_window_leaves_no_trace_in_the_next(fft: CallablePlugin) -> None:
    before = fft.call(samples=[1.0, 2.0, 4.0], rate_hz=3.0, bands=[[0, 1.5]])
    fft.refusal(samples=[9.0, 9.0, 9.0, float("nan")], rate_hz=3.0, bands=[[0, 1]])
    assert fft.call(samples=[1.0, 2.0, 4.0], rate_hz=3.0, bands=[[0, 1.5]]) == before


lists = st.lists(st.floats() | any_value, max_size=6)
arguments = st.fixed_dictionaries(
    {},
    optional={
        "samples": lists | windows | st.binary(max_size=48) | any_value,
        "rows": st.lists(st.lists(st.integers(-10, 10) | st.floats(), max_size=3), max_size=5) | any_value,
        "rate_hz": st.floats() | any_value,
        "bands": st.lists(st.lists(st.floats(), max_size=3), max_size=3) | any_value,
        "window": st.sampled_from(["hann", "none"]) | any_value,
        "unit": st.text(max_size=70) | any_value,
    },
)


@hostile
@given(args=arguments)
@example(args={"samples": [1e100, -1e100] * 8, "rate_hz": 1e9, "bands": [[0, 1e308]]})
@example(args={"samples": [5e-324, 0.0], "rate_hz": 1e-9})
@example(args={"rows": [[-1e100, 1], [1e100, 2]]})
def test_any_arguments_give_finite_numbers_or_a_code(fft: CallablePlugin, args: dict[str, Any]) -> None:
    outcome = fft.outcome(args)
    if isinstance(outcome, int):
        assert outcome == 7
    else:
        shown = [*outcome["energies"], *(outcome[key] for key in ("mean", "rms", "peak", "bin_hz", "rate_hz"))]
        assert all(map(math.isfinite, shown))


@hostile
@given(packed=st.binary(max_size=200))
def test_any_bytes_for_arguments_give_an_answer_or_a_code(fft: CallablePlugin, packed: bytes) -> None:
    fft.outcome_of_bytes(packed)
