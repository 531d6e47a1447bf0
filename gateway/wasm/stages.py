"""Stages: crypto plugins between the wire and a codec, before it on whole frames or after it on single fields.

Owns a stage's configuration, its instance and the order of stages around a codec. Runs on the loop's thread under the
codec's kind of deadlines. Knows no product: it is told which stages a codec gets. A key is seen by the plugin alone:
it stands in no text, error or representation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from time import perf_counter
from typing import Any, Final, Literal, Protocol

import msgspec
import structlog
from typing_extensions import override

from gateway.core.errors import CodecError, ConfigError, FramingError, GatewayError, NotReady, PluginTrapped
from gateway.core.flow import Decoded
from gateway.core.metrics import Sample
from gateway.framing.spec import FramingSpec
from gateway.framing.wrap import unwrapped, wrapped
from gateway.wasm.caller import WasmCaller, packed_arguments
from gateway.wasm.codec import MALFORMED, TRAPPED, Codec, DecodeResult, code_text
from gateway.wasm.manifest import PluginId
from gateway.wasm.program import Program
from gateway.wasm.release import Release
from gateway.wasm.shown import from_shown
from gateway.wasm.stats import OTHER_CODES, count_code

log = structlog.get_logger(__name__)

Operation = Literal["decrypt", "encrypt"]

_OURS: Final = frozenset({"op", "data"})
"""Arguments that the host gives with every call."""
_BAD_ARGUMENTS: Final = 7
_SAID_AT: Final = frozenset({1, 10, 100, 1000, 10_000})
"""Refusals of a stage that are logged: the counter tells the rest."""


class StageConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A crypto plugin between the wire and the codec of the products that name it.

    plugin: a plugin of kind crypto; it is called with `op` (`decrypt` or `encrypt`), `data`, and what stands below.
    place: `before` gives it every frame ahead of the codec and what the codec encodes after it; `after` gives it the
        `fields` of decoded points and values, and those of a command's arguments.
    args: arguments as they are, bytes as `{"$hex" = "00ff"}`.
    secrets: arguments by reference, `key = { env = "NAME" }` or `key = { file = "PATH" }`.
    secrets_as: how the secrets are written: pairs of hexadecimal digits, or text that is taken as it is.
    fields: for `after`: names of values that a device sends, and is sent, as the hex text of their ciphertext.
    plaintext: for `after`: what such a field holds when it is open: hex text, UTF-8 text, or JSON.
    """

    plugin: PluginId
    place: Literal["before", "after"] = "before"
    args: dict[str, Any] = {}
    secrets: dict[str, str] = {}
    secrets_as: Literal["hex", "text"] = "hex"
    fields: tuple[str, ...] = ()
    plaintext: Literal["hex", "text", "json"] = "hex"

    @override
    def __repr__(self) -> str:
        """Show no secret."""
        return f"StageConfig(plugin={self.plugin!r}, place={self.place!r}, secrets={sorted(self.secrets)!r})"


class _Answer(msgspec.Struct, frozen=True):
    """What a stage's plugin answers; whatever else is in it is stepped over and never unfolds."""

    data: bytes


_answer: Final = msgspec.msgpack.Decoder(_Answer)
MOST_FIELD_BYTES: Final = 64 * 1024
"""Plaintext of one field: JSON of so many bytes is read in a few milliseconds, whatever is in it."""


class StagePlugins(Protocol):
    """The plugin host, as far as stages need it."""

    def running(self, plugin_id: str) -> Release:
        """The version that runs now, the same object until another does. Raises NotFound or NotReady."""
        ...

    def start_here(self, release: Release) -> Program:
        """A new instance on the loop's thread, for the caller to close. Raises ConfigError or CodecError."""
        ...


class Stages:
    """Every configured stage by its name, each with one instance for all products that name it."""

    def __init__(self, configs: Mapping[str, StageConfig], plugins: StagePlugins) -> None:
        """Start nothing yet. Raises ConfigError for a stage that cannot be."""
        self._stages = {name: Stage(name, config, plugins) for name, config in configs.items()}

    @property
    def names(self) -> frozenset[str]:
        """What products may name."""
        return frozenset(self._stages)

    def around(self, codec: Codec, names: Sequence[str], framing: FramingSpec | None = None) -> Codec:
        """The codec behind these stages; frames pass them in this order, cut and joined by `framing`.

        Raises NotReady for a stage that is not there, or whose plugin does not run.
        """
        if not names:
            return codec
        unknown = [name for name in names if name not in self._stages]
        if unknown:
            raise NotReady(f"there is no stage {unknown[0]!r}; declare it as [stages.{unknown[0]}]")
        return StagedCodec(codec, [self._stages[name] for name in names], framing)

    def start(self) -> None:
        """Start every stage now, to see that it can. Raises NotReady for the first that cannot."""
        for stage in self._stages.values():
            stage.start()

    def samples(self) -> Iterator[Sample]:
        """What stages refused, for `/metrics`."""
        for name, stage in self._stages.items():
            yield Sample("gateway_stage_calls_total", "Calls of stages.", "counter", {"stage": name}, stage.calls)
            for code, count in stage.refused.items():
                reason = "other" if code == OTHER_CODES else code_text(code).replace(" ", "_")
                labels = {"stage": name, "reason": reason}
                yield Sample("gateway_stage_refused_total", "What stages refused.", "counter", labels, count)

    def close(self) -> None:
        """Free every instance."""
        for stage in self._stages.values():
            stage.close()


class Stage:
    """One stage: data in, data out, by whichever version of its plugin runs."""

    def __init__(self, name: str, config: StageConfig, plugins: StagePlugins) -> None:
        """Start nothing yet. Raises ConfigError naming the key."""
        self.name = name
        self.place = config.place
        self.fields = config.fields
        self.calls = 0
        self.refused: dict[int, int] = {}
        self._where = f"stages.{name}"
        self._plugin = config.plugin
        self._plaintext = config.plaintext
        self._plugins = plugins
        self._args = _arguments(config, self._where)
        self._release: Release | None = None
        self._caller: WasmCaller | None = None
        if (config.place == "after") != bool(config.fields):
            raise ConfigError(f'{self._where}: `fields` names what is opened, with place = "after" and only then')

    @property
    def batch_s(self) -> float:
        """Time that the frames of one batch may take together."""
        limits = self._ready().program.limits
        return max(limits.batch_deadline_ms, limits.deadline_ms) / 1000

    def start(self) -> None:
        """Have an instance. Raises NotReady."""
        self._ready()

    def turn(self, op: Operation, data: bytes, party: int | None = None) -> bytes:
        """Decrypt or encrypt, for the connection `party` where there is one.

        Raises CodecError with the plugin's code, PluginTrapped or NotReady.
        """
        caller = self._ready()
        self.calls += 1
        try:
            packed = packed_arguments({**self._args, "op": op, "data": data})
            answer = caller.call_packed(packed, caller.program.limits.deadline_ms / 1000, party=party)
        except CodecError as refusal:
            # The plugin's own words stay here: it knows the key, and nobody knows what it says.
            raise self._refusal(refusal.number, op, trapped=isinstance(refusal, PluginTrapped)) from None
        try:
            return _answer.decode(answer).data
        except (msgspec.MsgspecError, ValueError, RecursionError):
            raise self._refusal(MALFORMED, op) from None

    def open_field(self, value: Any, party: int | None = None) -> Any:
        """What a field holds, from the hex text of its ciphertext. Raises as `turn` does."""
        try:
            data = bytes.fromhex(value)
        except (TypeError, ValueError):
            raise self._refusal(MALFORMED, "decrypt") from None
        plain = self.turn("decrypt", data, party)
        if len(plain) > MOST_FIELD_BYTES:
            raise self._refusal(MALFORMED, "decrypt")
        try:
            if self._plaintext == "hex":
                return plain.hex()
            return plain.decode() if self._plaintext == "text" else msgspec.json.decode(plain)
        except (UnicodeDecodeError, msgspec.DecodeError, RecursionError):
            raise self._refusal(MALFORMED, "decrypt") from None

    def close_field(self, value: Any) -> str:
        """The opposite, for a command's argument. Raises as `turn` does, 7 for one that is not as it must be."""
        try:
            if self._plaintext == "json":
                data = msgspec.json.encode(value)
            else:
                data = bytes.fromhex(value) if self._plaintext == "hex" else value.encode()
        except (TypeError, ValueError, AttributeError, msgspec.MsgspecError):
            raise CodecError(_BAD_ARGUMENTS, f"stage {self.name}: a field must be {self._plaintext}") from None
        return self.turn("encrypt", data).hex()

    def close(self) -> None:
        """Free the instance."""
        if self._caller is not None:
            self._caller.close()
        self._release = self._caller = None

    def _ready(self) -> WasmCaller:
        """An instance of the version that runs now. Raises NotReady."""
        try:
            release = self._plugins.running(self._plugin)
            if self._caller is not None and release is self._release:
                return self._caller
            if release.manifest.kind != "crypto":
                raise ConfigError(f"plugin {self._plugin} is of kind {release.manifest.kind}, not crypto")
            caller = WasmCaller(self._plugins.start_here(release))
        except GatewayError as failure:
            self.close()
            raise NotReady(f"stage {self.name}: {failure}") from failure
        self.close()
        self._release, self._caller = release, caller
        return caller

    def _refusal(self, code: int, op: Operation, *, trapped: bool = False) -> CodecError:
        count_code(self.refused, code)
        text = f"stage {self.name} does not {op}: {code_text(code)}"
        if self.refused.get(code) in _SAID_AT:
            log.warning("a stage refused", stage=self.name, reason=code_text(code), so_often=self.refused.get(code))
        return PluginTrapped(TRAPPED, text) if trapped else CodecError(code, text)


class StagedCodec(Codec):
    """A codec behind stages. A frame that a stage refuses gets the stage's code; its neighbours go on."""

    def __init__(self, codec: Codec, stages: Sequence[Stage], framing: FramingSpec | None = None) -> None:
        """Frames pass the stages in order, what is encoded passes them in the opposite one.

        framing: in which the codec encodes; a stage sees what stands inside of it.
        """
        self.plugin_id = codec.plugin_id
        self._codec = codec
        self._framing = framing
        self._before = [stage for stage in stages if stage.place == "before"]
        self._after = [stage for stage in stages if stage.place == "after"]
        self._batch_s = max(stage.batch_s for stage in stages)

    @override
    def decode_batch(self, frames: Sequence[bytes], aux: Sequence[int] | None = None) -> list[DecodeResult]:
        ends = perf_counter() + self._batch_s
        parties = aux if aux is not None else [None] * len(frames)
        opened = _until(ends, list(zip(frames, parties, strict=True)), lambda sent: self._open(*sent))
        whole = [place for place, frame in enumerate(opened) if isinstance(frame, bytes)]
        # Stops short where the codec did: what it left is decrypted again with the rest.
        decoded = iter(self._decode(opened, whole, aux))
        results: list[DecodeResult] = []
        for frame in opened:
            result = frame if isinstance(frame, int) else next(decoded, _NOT_YET)
            if result is _NOT_YET:
                break
            results.append(result)  # type: ignore[arg-type]  # the mark went above
        if not self._after:
            return results
        shown = list(zip(results, parties, strict=False))
        return _until(perf_counter() + self._batch_s, shown, lambda item: self._reveal(*item))

    @override
    def encode(self, request: bytes, aux: int = 0, *, party: int | None = None) -> bytes:
        data = self._codec.encode(self._hide(request) if self._after else request, aux, party=party)
        if not self._before:
            return data
        if self._framing is None:
            return self._seal(data, party)
        try:
            frames = unwrapped(self._framing, data)
            return b"".join(wrapped(self._framing, self._seal(frame, party)) for frame in frames)
        except FramingError as failure:
            raise CodecError(
                MALFORMED, f"plugin {self.plugin_id}: what it encoded cannot be encrypted: {failure}"
            ) from failure

    def _seal(self, frame: bytes, party: int | None) -> bytes:
        for stage in reversed(self._before):
            frame = stage.turn("encrypt", frame, party)
        return frame

    def _decode(self, opened: Sequence[bytes | int], whole: list[int], aux: Sequence[int] | None) -> list[DecodeResult]:
        if not whole:
            return []
        frames = [frame for frame in opened if isinstance(frame, bytes)]
        return self._codec.decode_batch(frames, None if aux is None else [aux[place] for place in whole])

    def _open(self, frame: bytes, party: int | None) -> bytes | int:
        """The frame as the codec wants it, or the code of the stage that refused it. Raises NotReady."""
        try:
            for stage in self._before:
                frame = stage.turn("decrypt", frame, party)
        except CodecError as refusal:
            return refusal.number or MALFORMED
        return frame

    def _reveal(self, result: DecodeResult, party: int | None) -> DecodeResult:
        """A decoded item with its fields open, or the code of the stage that refused one. Raises NotReady."""
        if not isinstance(result, Decoded):
            return result
        try:
            for stage in self._after:
                _reveal(result, stage, party)
        except CodecError as refusal:
            return refusal.number or MALFORMED
        return result

    def _hide(self, request: bytes) -> bytes:
        asked = msgspec.msgpack.decode(request)
        args = asked.get("args") if isinstance(asked, dict) else None
        if not isinstance(args, dict):
            return request
        for stage in reversed(self._after):
            args |= {field: stage.close_field(args[field]) for field in stage.fields if field in args}
        return msgspec.msgpack.encode(asked)


_NOT_YET: Final = object()


def _reveal(item: Decoded, stage: Stage, party: int | None) -> None:
    """Open a stage's fields wherever a decoded item has them."""
    for point in item.points:
        point.values.update(
            {name: stage.open_field(point.values[name], party) for name in stage.fields if name in point.values}
        )
    if bytes(item.value):
        value = msgspec.msgpack.decode(item.value)
        if isinstance(value, dict) and not value.keys().isdisjoint(stage.fields):
            value |= {name: stage.open_field(value[name], party) for name in stage.fields if name in value}
            item.value = msgspec.Raw(msgspec.msgpack.encode(value))


def _until(ends: float, items: Sequence[Any], work: Callable[[Any], Any]) -> list[Any]:
    """The work on items in order, at least on one, until the time is used up or a stage is not ready.

    Raises NotReady where not even the first could be done.
    """
    done: list[Any] = []
    for item in items:
        try:
            done.append(work(item))
        except NotReady:
            if not done:
                raise
            break
        if perf_counter() > ends:
            break
    return done


def _arguments(config: StageConfig, where: str) -> dict[str, Any]:
    """What every call of the stage is given. Raises ConfigError, which shows no secret."""
    clash = sorted((config.args.keys() & config.secrets.keys()) | ((config.args | config.secrets).keys() & _OURS))
    if clash:
        raise ConfigError(f"{where}: `{clash[0]}` stands in both args and secrets, or is the host's to give (op, data)")
    return {**from_shown(config.args), **{name: _secret(config, name, where) for name in config.secrets}}


def _secret(config: StageConfig, name: str, where: str) -> bytes:
    text = config.secrets[name]
    if config.secrets_as == "text":
        return text.encode()
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise ConfigError(f'{where}.secrets.{name}: not hexadecimal; or say secrets_as = "text"') from None
