"""A plugin that answers requests (crypto, notify, parser, algo, report): msgpack in, msgpack out, on one thread."""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.core.errors import CodecError, PluginTrapped
from gateway.wasm import bulk
from gateway.wasm.abi import TOO_LARGE
from gateway.wasm.codec import MALFORMED, TRAPPED, code_text
from gateway.wasm.poison import PoisonMemory
from gateway.wasm.program import Program


class WasmCaller:
    """Calls gw_call. Every call must come from the thread that made its program."""

    def __init__(self, program: Program) -> None:
        """Wrap a program, which is closed with the caller."""
        self.program = program
        self.plugin_id = program.plugin_id
        self._limits = program.limits
        self._poison = PoisonMemory()

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
        answer = self.call_packed(packed_arguments(args), budget_s, aux, fair=fair)
        if most_bytes is not None and len(answer) > most_bytes:
            raise CodecError(
                TOO_LARGE, f"plugin {self.plugin_id} answered {len(answer)} bytes; at most {most_bytes} fit"
            )
        return self.unpacked(answer)

    def call_packed(
        self, args: bytes, budget_s: float, aux: int = 0, *, fair: bool = True, party: int | None = None
    ) -> bytes:
        """The same in msgpack, unchecked; raises CodecError, PluginTrapped or NotReady.

        Arguments that are proven to trap are refused without running them. party: as `Program.ask` has it.
        """
        if len(args) > self._limits.max_input:
            raise CodecError(
                TOO_LARGE, f"the arguments are larger than the plugin's max_input {self._limits.max_input}"
            )
        if self._poison.known and self._is_poison(args, aux, budget_s, fair=fair):
            self.program.stats.poison_refused += 1
            raise PluginTrapped(TRAPPED, f"plugin {self.plugin_id} trapped on the same arguments before")
        traps = self.program.stats.traps
        try:
            return self.program.ask("gw_call", args, aux, budget_s, fair=fair, party=party)
        except PluginTrapped:
            if fair or self.program.stats.traps > traps:  # else it was given less time than it may take
                self._poison.suspect(args)
            raise

    def _is_poison(self, args: bytes, aux: int, budget_s: float, *, fair: bool) -> bool:
        """Whether arguments trap by themselves; suspect ones are tried on an instance of their own."""
        suspicion = self._poison.suspicion(args)
        if suspicion != "suspect":
            return suspicion == "proven"
        traps = self.program.traps_aside("gw_call", args, aux, budget_s, fair=fair)
        if traps:
            self._poison.prove(args)
        elif traps is not None:
            self._poison.clear(args)
        return bool(traps)

    def unpacked(self, answer: bytes) -> Any:
        """An answer as plain data; raises CodecError where it is none."""
        try:
            return bulk.decode(answer)
        except bulk.TooManyValues:
            text = f"plugin {self.plugin_id} answered more than {bulk.MOST_VALUES} values"
            raise CodecError(TOO_LARGE, text) from None
        except (msgspec.MsgspecError, ValueError, TypeError, RecursionError):
            raise CodecError(MALFORMED, f"plugin {self.plugin_id}: {code_text(MALFORMED)}") from None


def packed_arguments(args: Any) -> bytes:
    """Plain data as a call carries it; raises CodecError 7 for what cannot be carried."""
    try:
        return bulk.encode(args)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise CodecError(7, f"the arguments cannot be carried: {error}") from error
