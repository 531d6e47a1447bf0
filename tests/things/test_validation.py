from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.errors import Rejected
from gateway.things.model import EventType, FieldMapping, Function, Product, Property, ThingModel
from gateway.things.validation import check_device, check_model, check_product, is_device_id


def product(**fields: Any) -> Product:
    return Product(**{"tenant_id": "default", "id": "p", **fields})


def with_property(**fields: Any) -> Product:
    return product(model=ThingModel(properties={"t": Property(**fields)}))


def test_a_whole_product_is_well_formed() -> None:
    model = ThingModel(
        properties={
            "temperature": Property(type="float", unit="Cel", minimum=-40, maximum=85, name="Temperature"),
            "mode": Property(type="enum", values=("auto", 2), writable=True),
            "label": Property(type="string", max_length=10),
            "curve": Property(type="array", unit="kPa"),
        },
        functions={"reboot": Function(inputs={"delay": Property(type="int", unit="s", minimum=0)})},
        events={"fault": EventType(level="critical", data={"code": Property(type="int")})},
        tags={"vendor": "acme"},
    )
    check_product(product(model=model, mapping=(FieldMapping(field="t °C", rename="temperature", scale=0.1),)))
    check_model(model)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (product(id=""), "id: a product id"),
        (product(id="a/b"), "id: a product id"),
        (product(id="-a"), "id: a product id"),
        (product(id="a" * 65), "id: a product id"),
        (product(id="a\n"), "id: a product id"),
        (product(plugin_id="../x"), "plugin_id"),
        (product(name="x" * 201), "name: at most 200"),
        (product(retention_days=0.0), "retention_days"),
        (product(retention_days=float("nan")), "retention_days"),
        (with_property(type="float", minimum=2, maximum=1), "model.properties.t.minimum: 2 is above the maximum 1"),
        (with_property(type="float", maximum=float("nan")), "model.properties.t.maximum: not a number"),
        (with_property(type="string", minimum=1), "model.properties.t.minimum: only int and float"),
        (with_property(type="bool", maximum=1), "model.properties.t.maximum: only int and float"),
        (with_property(type="int", max_length=1), "max_length: only a string"),
        (with_property(type="string", max_length=0), "max_length: from 1"),
        (with_property(type="enum"), "values: an enum has 1 to 256 members"),
        (with_property(type="enum", values=tuple(range(257))), "values: an enum has 1 to 256 members"),
        (with_property(type="enum", values=("a", "a")), "values: a member is named twice"),
        (with_property(type="enum", values=(2**63,)), "values: an integer member"),
        (with_property(type="int", values=(1,)), "values: only an enum"),
        (with_property(type="float", unit="°C"), "model.properties.t.unit: '°C' is not a UCUM unit"),
        (with_property(type="string", unit="m"), "unit: only int, float and array"),
        (product(model=ThingModel(properties={"1a": Property(type="int")})), "properties: '1a' is not an id"),
        (product(model=ThingModel(properties={'a"b': Property(type="int")})), "is not an id"),
        (
            product(model=ThingModel(properties={f"p{n}": Property(type="int") for n in range(1025)})),
            "properties: at most 1024, there are 1025",
        ),
        (
            product(model=ThingModel(functions={"f": Function(inputs={"x": Property(type="enum")})})),
            "model.functions.f.inputs.x.values",
        ),
        (
            product(model=ThingModel(events={"e": EventType(data={"x y": Property(type="int")})})),
            "model.events.e.data: 'x y'",
        ),
        (product(model=ThingModel(tags={"a=b": "c"})), "model.tags: a key"),
        (product(model=ThingModel(tags={"a": "c" * 257})), "model.tags.a: at most 256"),
        (product(mapping=(FieldMapping(field="a b"),)), "mapping.0.rename: 'a b' is not a property id"),
        (product(mapping=(FieldMapping(field=""),)), "mapping.0.field"),
        (product(mapping=(FieldMapping(field="a"), FieldMapping(field="a", rename="b"))), "mapping.1.field: 'a' is"),
        (
            product(mapping=(FieldMapping(field="a", rename="c"), FieldMapping(field="b", rename="c"))),
            "mapping.1.rename: two fields become 'c'",
        ),
        (product(mapping=(FieldMapping(field="a", scale=float("inf")),)), "mapping.0: scale and offset"),
    ],
)
def test_what_is_wrong_with_a_product_is_named_by_its_path(wrong: Product, says: str) -> None:
    with pytest.raises(Rejected) as refused:
        check_product(wrong)
    assert says in str(refused.value)


def test_several_faults_are_told_at_once_but_not_all_of_a_thousand() -> None:
    model = ThingModel(properties={f"p{n}": Property(type="enum") for n in range(1000)})
    with pytest.raises(Rejected) as refused:
        check_model(model)
    assert str(refused.value).count("values:") == 5
    assert str(refused.value).endswith("; and more")


@pytest.mark.parametrize("device_id", ["014450376202", "a", "Pumpe 3", "泵-1", "x:y.z@host", "a" * 64])
def test_a_printable_name_is_a_device_id(device_id: str) -> None:
    assert is_device_id(device_id)
    check_device(device_id, "name", {"room": "3"})


@pytest.mark.parametrize(
    "device_id", ["", "a/b", "a\\b", "a\n", "\x00", "a" * 65, " a", "a ", ".", "..", "a+", "#", "\u202e"]
)
def test_what_breaks_urls_topics_or_terminals_is_no_device_id(device_id: str) -> None:
    assert not is_device_id(device_id)
    with pytest.raises(Rejected, match="a device id"):
        check_device(device_id)


def test_the_name_and_tags_of_a_device_are_bounded() -> None:
    with pytest.raises(Rejected, match="name: at most"):
        check_device("d", "x" * 201)
    with pytest.raises(Rejected, match="tags: at most 64"):
        check_device("d", "", {f"t{number}": "" for number in range(65)})


@given(st.text(max_size=70))
def test_any_text_is_a_device_id_or_not(text: str) -> None:
    if is_device_id(text):
        assert text.isprintable()
        assert "/" not in text
        assert 1 <= len(text) <= 64
