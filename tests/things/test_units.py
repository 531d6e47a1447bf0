from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.errors import Rejected
from gateway.things.units import MEANT, METRIC, MOST_CHARS, NON_METRIC, PREFIXES, check_unit

SAMPLES = """
    m kg Cel [degF] km/h m/s2 kg.m/s2 kg.m2.s-2 /min 10*3/uL 10^6 mm[Hg] cm[H2O] [in_i'Hg] % %{RH} {rpm} m{total}
    (m.s)/kg 24.h 1/d dB dB[SPL]{A} B[10.nV] mol/L umol/(24.h.{body}) kBy/s MiBy V.A{reactive} kW.h m+2 ' '' [pH] dar
"""


@pytest.mark.parametrize("code", SAMPLES.split())
def test_a_ucum_code_is_a_unit(code: str) -> None:
    check_unit(code)


@pytest.mark.parametrize("code", sorted(set(MEANT.values())))
def test_every_suggestion_is_a_unit_itself(code: str) -> None:
    check_unit(code)


@pytest.mark.parametrize("written", sorted(MEANT))
def test_what_has_a_suggestion_is_not_a_unit_itself(written: str) -> None:
    with pytest.raises(Rejected) as refused:
        check_unit(written)
    assert f"did you mean {MEANT[written]!r}?" in str(refused.value)


@pytest.mark.parametrize(
    "code",
    [
        "",
        " ",
        "m s",
        "m//s",
        "m.",
        "(m",
        "m)",
        "()",
        "{open",
        "m{",
        "m}",
        "kkm",
        "k",
        "mm2000000",
        "0.m",
        "h\n",
        "kh",
        "m..s",
        "[",
        "[]",
        "[foo]",
        "10*x",
        "m2m",
        "°C",
        "C" * (MOST_CHARS + 1),
        "(" * 40 + "m" + ")" * 40,
        "{ä}",
    ],
)
def test_what_breaks_the_grammar_or_is_unknown_is_no_unit(code: str) -> None:
    with pytest.raises(Rejected):
        check_unit(code)


@pytest.mark.parametrize(("wrong", "meant"), [("kPA", "kPa"), ("MMHG", "mm[Hg]"), ("km/", "km/h"), ("Celsius", "Cel")])
def test_a_near_miss_names_the_nearest_code(wrong: str, meant: str) -> None:
    with pytest.raises(Rejected, match="did you mean") as refused:
        check_unit(wrong)
    assert repr(meant) in str(refused.value)


def test_only_metric_atoms_take_a_prefix() -> None:
    check_unit("kPa")
    with pytest.raises(Rejected, match="'kmin' is unknown"):
        check_unit("kmin")


def test_no_atom_is_metric_and_not() -> None:
    assert not METRIC & NON_METRIC


@given(st.sampled_from(PREFIXES), st.sampled_from(sorted(METRIC)), st.integers(-9, 9).filter(bool))
def test_any_prefixed_metric_atom_with_an_exponent_is_a_unit(prefix: str, atom: str, exponent: int) -> None:
    check_unit(f"{prefix}{atom}{exponent}")


@given(st.lists(st.sampled_from(sorted(METRIC | NON_METRIC)), min_size=1, max_size=5), st.sampled_from("./"))
def test_units_combine_to_units(atoms: list[str], by: str) -> None:
    code = by.join(f"({atom})" for atom in atoms)
    if len(code) <= MOST_CHARS:
        check_unit(code)


@given(st.text(max_size=80) | st.text(alphabet="mkgs/.(){}[]%'10*2-+ ", max_size=70))
def test_any_text_is_a_unit_or_refused_and_nothing_else(text: str) -> None:
    with suppress(Rejected):
        check_unit(text)
