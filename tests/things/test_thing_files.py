from pathlib import Path

import pytest

from gateway.core.errors import ConfigError
from gateway.things.files import MOST_BYTES, load_model, load_product
from gateway.things.model import FieldMapping, Product, Property, ThingModel

MODEL = '{"properties": {"temperature": {"type": "float", "unit": "Cel"}}}'
PRODUCT = """
id = "thermometer"
plugin_id = "thermo"
registration = "auto"
model = "models/thermo.json"

[[mapping]]
field = "t"
rename = "temperature"
scale = 0.1
"""


def test_a_model_reads_the_same_from_json_and_toml(tmp_path: Path) -> None:
    (tmp_path / "m.json").write_text(MODEL)
    (tmp_path / "m.toml").write_text('[properties.temperature]\ntype = "float"\nunit = "Cel"\n')
    expected = ThingModel(properties={"temperature": Property(type="float", unit="Cel")})
    assert load_model(tmp_path / "m.json") == expected
    assert load_model(tmp_path / "m.toml") == expected


def test_a_product_names_the_file_of_its_model_from_its_own_place(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "thermo.json").write_text(MODEL)
    path = tmp_path / "thermometer.toml"
    path.write_text(PRODUCT)
    assert load_product(path, "acme") == Product(
        tenant_id="acme",
        id="thermometer",
        plugin_id="thermo",
        registration="auto",
        source="file",
        model=ThingModel(properties={"temperature": Property(type="float", unit="Cel")}),
        mapping=(FieldMapping(field="t", rename="temperature", scale=0.1),),
    )


def test_a_product_may_hold_its_model(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    path.write_text(f'{{"id": "p", "model": {MODEL}}}')
    assert set(load_product(path).model.properties) == {"temperature"}


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        (
            "m.json",
            '{"properties": {"a": {"type": "int"}, "b": {"type": "flaot"}}}',
            "`properties.b.type`: invalid enum",
        ),
        ("m.json", '{"properties": {"a": {"type": "int", "unti": "m"}}}', "`properties.a.unti`; did you mean `unit`?"),
        (
            "m.json",
            '{"functions": {"f": {"inputs": {"a": {"type": "int"}, "b": {"typ": "int"}}}}}',
            "`functions.f.inputs.b.typ`; did you mean `type`?",
        ),
        ("m.json", '{"properties": {"a": {"type": "enum", "values": [1, 2.5]}}}', "`properties.a.values[1]`: expected"),
        (
            "m.json",
            '{"properties": {"a": {"type": "int", "unit": "°C"}}}',
            "properties.a.unit: '°C' is not a UCUM unit",
        ),
        ("m.json", '{"properties": ', "truncated"),
        ("m.json", "[" * 100_000, "m.json: "),
        ("m.toml", "[properties", "m.toml: "),
        ("m.toml", "properties = 3", "`properties`: expected `object`, got `int`"),
    ],
)
def test_an_error_names_the_file_the_place_and_the_fault(tmp_path: Path, name: str, text: str, says: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(ConfigError) as refused:
        load_model(path)
    assert str(path) in str(refused.value)
    assert says in str(refused.value)


def test_a_wrong_product_is_refused_with_its_file(tmp_path: Path) -> None:
    path = tmp_path / "p.toml"
    path.write_text('id = "a b"')
    with pytest.raises(ConfigError, match=r"p\.toml: id: a product id"):
        load_product(path)


def test_a_missing_a_binary_and_a_huge_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load_model(tmp_path / "none.json")
    (tmp_path / "b.json").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not UTF-8 at byte 0"):
        load_model(tmp_path / "b.json")
    (tmp_path / "h.json").write_bytes(b" " * (MOST_BYTES + 1))
    with pytest.raises(ConfigError, match="at most"):
        load_model(tmp_path / "h.json")
