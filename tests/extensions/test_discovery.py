from __future__ import annotations

import inspect
import sys
import types
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import msgspec
import pytest
import structlog

from gateway.extensions import hookspecs
from gateway.extensions.discovery import BUILT_IN, ExtensionManager, extension_manager, listener_kinds
from gateway.extensions.hookspecs import PROJECT, ListenerKind, hookimpl

_DOCS = Path(__file__).parents[2] / "docs" / "extensions.md"


class LoraConfig(msgspec.Struct):
    """A stranger's configuration."""


def kind(mark: str = "") -> ListenerKind:
    return ListenerKind(LoraConfig, lambda *_args, **_kwargs: mark)


@pytest.fixture
def install() -> Iterator[Any]:
    """Make an installed extension out of functions: `install("name", gateway_listener_kinds=...)`."""
    made: list[str] = []

    def make(name: str, **functions: Any) -> EntryPoint:
        module = types.ModuleType(f"extension_{name}")
        for hook, function in functions.items():
            setattr(module, hook, hookimpl(function))
        sys.modules[module.__name__] = module
        made.append(module.__name__)
        return EntryPoint(name=name, value=module.__name__, group=PROJECT)

    yield make
    for name in made:
        del sys.modules[name]


def quietly(*installed: EntryPoint) -> ExtensionManager:
    with structlog.testing.capture_logs():
        return extension_manager(installed)


def test_the_shipped_listener_comes_through_the_public_door() -> None:
    manager = extension_manager([])
    kinds = listener_kinds(manager)
    assert set(kinds) == {"tcp"}
    assert manager.failures == {}
    assert [name for name, _ in manager.list_name_plugin()] == list(BUILT_IN)


def test_an_installed_extension_adds_its_kind(install: Any) -> None:
    manager = quietly(install("lora", gateway_listener_kinds=lambda: {"lora": kind()}))
    assert set(listener_kinds(manager)) == {"tcp", "lora"}


def test_extensions_that_cannot_be_loaded_are_left_out_and_counted(install: Any) -> None:
    manager = quietly(
        EntryPoint(name="gone", value="no_such_module_at_all", group=PROJECT),
        EntryPoint(name="no-attribute", value="gateway.core.ids:nothing", group=PROJECT),
        install("good", gateway_listener_kinds=lambda: {"good": kind()}),
        install("unknown-hook", gateway_open_the_door=lambda: None),
        install("arguments", gateway_listener_kinds=wants_more),
    )
    assert set(manager.failures) == {"gone", "no-attribute", "unknown-hook", "arguments"}
    assert [(figure.name, figure.value) for figure in manager.samples()] == [("gateway_extensions_left_out", 4)]
    assert set(listener_kinds(manager)) == {"tcp", "good"}


def test_a_module_that_is_installed_under_two_names_serves_under_the_first(install: Any) -> None:
    first = install("lora", gateway_listener_kinds=lambda: {"lora": kind()})
    manager = quietly(first, EntryPoint(name="again", value=first.value, group=PROJECT))
    assert set(listener_kinds(manager)) == {"tcp", "lora"}
    assert manager.failures == {"again": "ValueError: its module is the extension lora already"}


def test_two_extensions_of_one_name_leave_the_first_at_work(install: Any) -> None:
    first = install("lora", gateway_listener_kinds=lambda: {"lora": kind()})
    other = install("other", gateway_listener_kinds=lambda: {"other": kind()})
    manager = quietly(first, EntryPoint(name="lora", value=other.value, group=PROJECT))
    assert set(listener_kinds(manager)) == {"tcp", "lora"}
    assert manager.failures["lora"].startswith("ValueError: Plugin name already registered")


def test_an_extension_whose_import_raises_anything_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "extension_that_explodes.py").write_text("raise ZeroDivisionError('boom')")
    monkeypatch.syspath_prepend(tmp_path)
    manager = quietly(EntryPoint(name="explodes", value="extension_that_explodes", group=PROJECT))
    assert manager.failures == {"explodes": "ZeroDivisionError: boom"}


def wants_more(_surprise: object) -> dict[str, ListenerKind]:
    return {"x": kind()}


def raises() -> dict[str, ListenerKind]:
    raise RuntimeError("not today")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (raises, "RuntimeError: not today"),
        (lambda: ["lora"], "a hook answered list instead of a dict"),
        (lambda: None, "a hook answered NoneType instead of a dict"),
        (lambda: {"lora": "kind"}, "listener kind 'lora' is no ListenerKind"),
        (lambda: {"lora": ListenerKind("port", kind)}, "listener kind 'lora': its `config` is no msgspec struct"),
        (lambda: {"lora": ListenerKind(dict, kind)}, "listener kind 'lora': its `config` is no msgspec struct"),
        (lambda: {"tcp": kind("stranger")}, "listener kind 'tcp' exists already"),
    ],
)
def test_a_bad_answer_leaves_the_others_alone(install: Any, answer: Any, reason: str) -> None:
    manager = quietly(
        install("bad", gateway_listener_kinds=answer), install("good", gateway_listener_kinds=lambda: {"good": kind()})
    )
    with structlog.testing.capture_logs() as lines:
        kinds = listener_kinds(manager)
    assert set(kinds) == {"tcp", "good"}
    assert manager.failures == {"bad": reason}
    assert lines[0]["event"] == "extension left out"
    assert kinds["tcp"].make.__name__ == "TcpListener"


def test_a_built_in_that_does_not_load_is_an_error_of_ours() -> None:
    with pytest.raises(ModuleNotFoundError):
        extension_manager([], ["gateway.no_such_room"])


def hooks() -> dict[str, Any]:
    return {
        name: function
        for name, function in inspect.getmembers(hookspecs, inspect.isfunction)
        if hasattr(function, f"{PROJECT}_spec")
    }


def test_there_are_hooks() -> None:
    assert "gateway_listener_kinds" in hooks()


@pytest.mark.parametrize("name", hooks())
def test_every_hook_is_documented_with_its_exact_signature(name: str) -> None:
    assert f"def {name}{inspect.signature(hooks()[name])}".replace("'", "") in _DOCS.read_text()


@pytest.mark.parametrize("name", hooks())
def test_every_hook_says_whether_it_notifies_or_decides(name: str) -> None:
    assert inspect.getdoc(hooks()[name]).startswith(("*Notify.* ", "*Decide.* "))


@pytest.mark.parametrize("name", hooks())
def test_every_hook_has_a_user_that_is_shipped_or_the_worked_example(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parent / "example")
    example = EntryPoint(name="example", value="flux_example.extension", group=PROJECT)
    assert getattr(extension_manager([example]).hook, name).get_hookimpls()
