"""`[plugins]` and `[wasm]`: where plugins come from, what the operator trusts, grants and bounds. Knows no plugin."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from gateway.wasm.manifest import Capability


class WasmConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[wasm]`.

    call_path: `auto` takes the fast path where its self-test passes; `public` never does.
    cache: keep compiled modules below the data directory, so that a start takes milliseconds.
    max_module_bytes: the largest module that is read; compiling costs about 3 ms for each KB.
    default_grants: what every plugin may have if its manifest asks. `wasi` is missing because of its size: it gives
        no files and no network, but it is a hundred times the code of the rest.
    grants: the same for single plugins by id, instead of default_grants.
    settings: configuration of single plugins by id, handed to their gw_init and gw1.config.
    strikes, strike_window_s: so many failures (a frame or request that made the plugin trap or run out of time) within
        the window take a version out of use: the one before it comes back, or the plugin is held.
    max_start_ms: what a start on the loop's thread, which all traffic waits for, may take in all, whatever the manifest
        says in start_deadline_ms; handing state over may take as long once more.
    quarantine_s: how long a plugin is held the first time; doubled each further time, up to an hour.
    """

    call_path: Literal["auto", "public"] = "auto"
    cache: bool = True
    max_module_bytes: Annotated[int, msgspec.Meta(ge=1 << 10, le=256 << 20)] = 16 << 20
    default_grants: tuple[Capability, ...] = ("log", "clock", "random", "kv", "config")
    grants: dict[str, tuple[Capability, ...]] = {}
    settings: dict[str, dict[str, Any]] = {}
    strikes: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 3
    strike_window_s: Annotated[float, msgspec.Meta(gt=0, le=3600)] = 60.0
    max_start_ms: Annotated[int, msgspec.Meta(ge=1, le=2000)] = 500
    quarantine_s: Annotated[float, msgspec.Meta(gt=0, le=3600)] = 10.0


class PluginsConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where plugins come from: folders of plugin folders, and packages that are installed below the data directory.

    dirs: folders of plugin folders; they are the operator's own, so that what lies there needs no signature.
    require_signed: install and run only packages signed by a key of `[plugins.trusted]`.
    trusted: public keys by the name they are shown as, in base64, as `gateway plugin keygen` prints them.
    max_package_bytes: the largest package that is taken; it is held in memory while it is checked.
    max_versions: installed versions of one plugin that are kept.
    poll_s: how often folders and installed versions are looked at for changes; one that is seen twice the same is used.
    """

    dirs: tuple[str, ...] = ("plugins",)
    require_signed: bool = False
    trusted: dict[str, str] = {}
    max_package_bytes: Annotated[int, msgspec.Meta(ge=1 << 10, le=256 << 20)] = 32 << 20
    poll_s: Annotated[float, msgspec.Meta(gt=0, le=3600)] = 2.0
    max_versions: Annotated[int, msgspec.Meta(ge=2, le=1000)] = 16
