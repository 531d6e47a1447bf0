import re
from pathlib import Path

import pytest

from gateway.things.config import ThingsConfig
from gateway.things.files import load_model, load_product
from gateway.things.model import Property
from gateway.things.validation import MOST_FIELDS, MOST_FUNCTIONS, MOST_MEMBERS, MOST_PROPERTIES

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "thing-model.md").read_text()


@pytest.mark.parametrize(("kind", "ending"), [("thing-model", "json"), ("product", "toml")])
def test_each_example_of_the_page_loads(kind: str, ending: str, tmp_path: Path) -> None:
    examples = re.findall(rf"```{ending} {kind}\n(.*?)```", PAGE, re.DOTALL)
    assert examples
    for example in examples:
        path = tmp_path / f"example.{ending}"
        path.write_text(example)
        assert (load_model(path) if kind == "thing-model" else load_product(path).model).properties


def test_the_page_names_every_key_of_a_property() -> None:
    for name in Property.__struct_fields__:
        assert f"`{name}`" in PAGE


def test_the_page_gives_the_bounds_as_they_are() -> None:
    config = ThingsConfig()
    bounds = [MOST_PROPERTIES, MOST_FUNCTIONS, MOST_FIELDS, MOST_MEMBERS, config.text_chars, config.value_items]
    for bound in [*bounds, config.auto_devices_per_product, config.values_per_message, config.value_depth]:
        assert re.search(rf"\b{bound:,}(?:th)?\b", PAGE), bound
    for name in ThingsConfig.__struct_fields__:
        assert name in PAGE or name == "values_per_message"
