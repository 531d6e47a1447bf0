"""UCUM codes: which texts are units of measure, and what an author probably meant by one that is not.

Knows the case-sensitive codes in common use, not their magnitudes: it checks, it does not convert.
Source: The Unified Code for Units of Measure, version 2.1 (ucum.org), section 2.1 for the grammar, tables 1 to 24 for
the codes.
"""

from __future__ import annotations

import difflib
import re
from typing import Final

from gateway.core.errors import Rejected

MOST_CHARS: Final = 64
"""Longest code accepted; the longest in clinical use is about half of it."""

_MOST_NESTING: Final = 8


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _pairs(text: str) -> dict[str, str]:
    words = text.replace(",", " ").split()
    return dict(zip(words[::2], words[1::2], strict=True))


PREFIXES: Final = (
    *("Y", "Z", "E", "P", "T", "G", "M", "k", "h", "da", "d", "c", "m", "u", "n", "p", "f", "a", "z", "y"),
    *("Ki", "Mi", "Gi", "Ti"),
)
"""Multiples that a metric atom may carry (tables 1 and 22 of the standard)."""

METRIC: Final = _words(
    """
    m s g rad K C cd mol sr Hz N Pa J W A V F Ohm S Wb Cel T H lm lx Bq Gy Sv l L ar t bar u eV pc
    [c] [h] [k] [eps_0] [mu_0] [e] [m_e] [m_p] [G] [ly] gf
    Ky Gal dyn erg P Bi St Mx G Oe Gb sb Lmb ph Ci R RAD REM
    cal_[15] cal_[20] cal_m cal_IT cal_th cal tex m[H2O] m[Hg] eq osm g% kat U [iU] [IU]
    Np B B[SPL] B[V] B[mV] B[uV] B[10.nV] B[W] B[kW] st b att mho bit By Bd
    """
)
"""Atoms that take a prefix."""

NON_METRIC: Final = _words(
    """
    10* 10^ [pi] % [ppth] [ppm] [ppb] [pptr] gon deg ' '' '' min h d a_t a_j a_g a wk mo_s mo_j mo_g mo AU atm [g]
    [lbf_av] [in_i] [ft_i] [yd_i] [mi_i] [fth_i] [nmi_i] [kn_i] [sin_i] [sft_i] [syd_i] [cin_i] [cft_i] [cyd_i]
    [bf_i] [cr_i] [mil_i] [cml_i] [hd_i] [ft_us] [yd_us] [in_us] [rd_us] [ch_us] [lk_us] [fth_us] [fur_us] [mi_us]
    [acr_us] [srd_us] [smi_us] [mil_us] [ft_br] [in_br] [yd_br] [mi_br] [acr_br]
    [gal_us] [bbl_us] [qt_us] [pt_us] [gil_us] [foz_us] [fdr_us] [min_us] [crd_us] [bu_us] [pk_us] [tbs_us] [tsp_us]
    [cup_us] [foz_m] [cup_m] [tsp_m] [tbs_m] [gal_br] [pk_br] [bu_br] [qt_br] [pt_br] [gil_br] [foz_br]
    [gr] [lb_av] [oz_av] [dr_av] [scwt_av] [lcwt_av] [ston_av] [lton_av] [stone_av] [pwt_tr] [oz_tr] [lb_tr]
    [sc_ap] [dr_ap] [oz_ap] [lb_ap] [oz_m] [degF] [degR] [degRe] [Cal] [Btu_39] [Btu_59] [Btu_60] [Btu_m] [Btu_IT]
    [Btu_th] [Btu] [HP] [den] [in_i'H2O] [in_i'Hg] [PRU] [wood'U] [diop] [p'diop] %[slope] [mesh_i] [Ch] [drp]
    [hnsf'U] [MET] [pH] [S] [HPF] [LPF] [arb'U] [USP'U] [GPL'U] [MPL'U] [APL'U] [beth'U] [anti'Xa'U] [todd'U]
    [dye'U] [smgy'U] [bdsk'U] [ka'U] [knk'U] [mclg'U] [tb'U] [CCID_50] [TCID_50] [EID_50] [PFU] [FFU] [CFU] [IR] [BAU]
    [AU] [Lf] [EU] [ELU] [psi] circ sph [car_m] [car_Au] [smoot] Ao bit_s [CCS'U]
    """
)
"""Atoms that take none."""

MEANT: Final = _pairs(
    """
    °C Cel, degC Cel, ℃ Cel, celsius Cel, °F [degF], degF [degF], ℉ [degF], ° deg, degree deg, degrees deg, Ω Ohm,
    ohm Ohm, kΩ kOhm, µm um, μm um, mmHg mm[Hg], cmH2O cm[H2O], inHg [in_i'Hg], psi [psi], Psi [psi],
    kmh km/h, km/hr km/h, knot [kn_i], knots [kn_i], kn [kn_i], rpm /min, bpm /min, RPM /min, sec s,
    seconds s, hr h, hour h, hours h, minute min, minutes min, day d, days d, week wk, month mo, year a, kWh kW.h,
    Wh W.h, MWh MW.h, Ah A.h, mAh mA.h, VA V.A, kVA kV.A, var V.A{reactive}, kvar kV.A{reactive}, ppm [ppm],
    ppb [ppb], %RH %{RH}, RH %{RH}, percent %, dBm dB{1mW}, dBA dB[SPL]{A}, inch [in_i],
    foot [ft_i], mile [mi_i], yd [yd_i], lb [lb_av], oz [oz_av], gal [gal_us], hp [HP], kgs kg, KM km, Km km, KG kg,
    Kg kg, kpa kPa, hz Hz, khz kHz, mhz MHz, byte By, bytes By, KB kBy, bps bit/s, kbps kbit/s,
    Mbps Mbit/s, m³ m3, m² m2, m^3 m3, m^2 m2, m³/h m3/h, lux lx, µg/m³ ug/m3, μg/m³ ug/m3, lumen lm, volt V, amp A,
    Amp A, watt W, count {count}, counts {count}, pcs {pieces}
    """
)
"""What people write, and the code they mean; without what is the code of something else, as mph (milliphot) is."""

_COMMON: Final = sorted(
    METRIC
    | NON_METRIC
    | set(MEANT.values())
    | _words("kg mg ug km cm mm um nm kPa hPa MPa mbar kW MW mW kV mV mA uA kHz MHz GHz mol/L mmol/L mg/dL g/L")
    | _words("m/s m/s2 km/h /min /s L/min L/h m3/h m3 m2 kW.h mm[Hg] cm[H2O] ms us ns dB kBy MBy GBy bit/s W/m2")
)
"""Where a near miss is looked for: the atoms, and the compounds that things report most."""

_MEANT_LOWER: Final = {said.lower(): meant for said, meant in MEANT.items()}

_SYMBOL: Final = re.compile(r"10[*^]|(?:[A-Za-z%'_]|\[[^\[\]{}()/\s]{1,16}\])+")
_EXPONENT: Final = re.compile(r"[+-]?[0-9]{1,3}(?![0-9])")
_FACTOR: Final = re.compile(r"[1-9][0-9]{0,8}(?![0-9])")
_ANNOTATION: Final = re.compile(r"\{[!-z|~]*\}")


class _Wrong(ValueError):
    """The code breaks the grammar; the text says where."""


def check_unit(code: str) -> None:
    """Raise Rejected, with the nearest known code, unless `code` is a UCUM code."""
    try:
        _check(code)
    except _Wrong as wrong:
        raise Rejected(f"{code[:MOST_CHARS]!r} is not a UCUM unit: {wrong}{_hint(code[:MOST_CHARS])}") from None


def _check(code: str) -> None:
    if not 1 <= len(code) <= MOST_CHARS:
        raise _Wrong(f"a code has 1 to {MOST_CHARS} characters")
    end = _term(code, 1 if code[0] == "/" else 0, 0)
    if end != len(code):
        raise _Wrong(f"{code[end]!r} at position {end + 1} is out of place")


def _term(code: str, at: int, depth: int) -> int:
    """Read components joined by `.` and `/`; return the position behind them."""
    at = _component(code, at, depth)
    while at < len(code) and code[at] in "./":
        at = _component(code, at + 1, depth)
    return at


def _component(code: str, at: int, depth: int) -> int:
    if code[at : at + 1] == "(":
        if depth == _MOST_NESTING:
            raise _Wrong(f"parentheses are nested deeper than {_MOST_NESTING}")
        at = _term(code, at + 1, depth + 1)
        if code[at : at + 1] != ")":
            raise _Wrong("a parenthesis is not closed")
        return at + 1
    start = at
    if symbol := _SYMBOL.match(code, at):
        _check_symbol(symbol.group())
        at = _behind(_EXPONENT, code, symbol.end())
    else:
        at = _behind(_FACTOR, code, at)
    at = _behind(_ANNOTATION, code, at)
    if at == start:
        raise _Wrong(f"a unit is missing at position {at + 1}")
    return at


def _behind(pattern: re.Pattern[str], code: str, at: int) -> int:
    found = pattern.match(code, at)
    return found.end() if found else at


def _check_symbol(symbol: str) -> None:
    if symbol in METRIC or symbol in NON_METRIC:
        return
    for prefix in PREFIXES:
        if symbol.startswith(prefix) and symbol[len(prefix) :] in METRIC:
            return
    raise _Wrong(f"{symbol!r} is unknown")


def _hint(code: str) -> str:
    """What the author probably meant, as the end of a sentence."""
    meant = MEANT.get(code) or _MEANT_LOWER.get(code.lower())
    if meant is None:
        near = difflib.get_close_matches(code, _COMMON, n=1, cutoff=0.5)
        meant = near[0] if near else None
    return f"; did you mean {meant!r}?" if meant else "; see https://ucum.org for the codes"
