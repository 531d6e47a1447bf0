// SPDX-License-Identifier: Apache-2.0

/**
 * Carries a plugin's state over a reload; the manifest says `[state] carry = true`. In the plugin's main file:
 *
 *     import { carrier } from "gw1_state";
 *     export { gw_state_load, gw_state_save } from "gw1_state";
 *
 *     carrier(save, load);
 */

import { Code, Reader, Writer, forgetFailure } from "gw1";
import { begin, finish, reader, received, taken } from "gw1_calls";

export type Save = (out: Writer) => Code;
export type Load = (state: Reader) => Code;

let saves: Save | null = null;
let loads: Load | null = null;

/** Name the function that writes the state as one msgpack value, and the one that reads what a version before wrote. */
export function carrier(save: Save, load: Load): void {
  saves = save;
  loads = load;
}

export function gw_state_save(): i64 {
  const save = saves;
  return save === null ? Code.Unsupported : finish(save(begin()));
}

export function gw_state_load(at: usize, length: u32): i32 {
  const load = loads;
  forgetFailure();
  if (load === null || !received(at, length)) return Code.Unsupported;
  return taken(load(reader.over(at, length)));
}
