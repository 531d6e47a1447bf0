"""A plugin that answers requests (crypto, notify, parser, algo, report): msgpack in, msgpack out, on one thread."""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.core.errors import CodecError
from gateway.wasm import bulk
from gateway.wasm.abi import TOO_LARGE
from gateway.wasm.codec import MALFORMED, code_text
from gateway.wasm.program import Program


class WasmCaller:
    """Calls gw_call. Every call must come from the thread that made its program."""

    def __init__(self, program: Program) -> None:
        """Wrap a program, which is closed with the caller."""
        self.program = program
        self.plugin_id = program.plugin_id
        self._limits = program.limits

    def close(self) -> None:
        """Free the program; the caller is of no further use."""
        self.program.close()

    def call(
        self, args: Any, budget_s: float, aux: int = 0, most_bytes: int | None = None, *, fair: bool = True
    ) -> Any:
        """Give the plugin arguments and take its answer, both plain data (bytes included).

        budget_s: wall time it may take. most_bytes: what the caller takes in msgpack, if less than max_output. fair: as
        `Program.ask` has it.
        Raises CodecError (7 for arguments that cannot be carried, MALFORMED for an answer that is no msgpack),
        PluginTrapped or NotReady.
        """
        try:
            packed = bulk.encode(args)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise CodecError(7, f"the arguments cannot be carried: {error}") from error
        answer = self.call_packed(packed, budget_s, aux, fair=fair)
        if most_bytes is not None and len(answer) > most_bytes:
            raise CodecError(
                TOO_LARGE, f"plugin {self.plugin_id} answered {len(answer)} bytes; at most {most_bytes} fit"
            )
        return self.unpacked(answer)

    def call_packed(self, args: bytes, budget_s: float, aux: int = 0, *, fair: bool = True) -> bytes:
        """The same in msgpack, unchecked; raises CodecError, PluginTrapped or NotReady."""
        if len(args) > self._limits.max_input:
            raise CodecError(
                TOO_LARGE, f"the arguments are larger than the plugin's max_input {self._limits.max_input}"
            )
        return self.program.ask("gw_call", args, aux, budget_s, fair=fair)

    def unpacked(self, answer: bytes) -> Any:
        """An answer as plain data; raises CodecError where it is none."""
        try:
            return bulk.decode(answer)
        except bulk.TooManyValues:
            text = f"plugin {self.plugin_id} answered more than {bulk.MOST_VALUES} values"
            raise CodecError(TOO_LARGE, text) from None
        except (msgspec.MsgspecError, ValueError, TypeError, RecursionError):
            raise CodecError(MALFORMED, f"plugin {self.plugin_id}: {code_text(MALFORMED)}") from None
