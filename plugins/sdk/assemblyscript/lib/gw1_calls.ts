// SPDX-License-Identifier: Apache-2.0

/** The buffers of ABI gw1, and how a call begins and ends. For files with exports; not for plugins. */

import { Bytes, Code, Reader, Writer, forgetFailure, mostOutput } from "gw1";

let input: ArrayBuffer = new ArrayBuffer(0);
let output: ArrayBuffer = new ArrayBuffer(0);

/** Used again by every call, so that none allocates. */
export const frame = new Bytes();
export const out = new Writer();
export const item = new Writer();
export const reader = new Reader();

/** The input buffer, of at least so many bytes. */
export function buffer(length: u32): usize {
  if (<u32>input.byteLength < length) input = new ArrayBuffer(length);
  return changetype<usize>(input);
}

/** A result of the ABI: where bytes lie, and how many. */
export function pack(at: usize, length: usize): i64 {
  return <i64>((<u64>at << 32) | length);
}

/** Whether the host's bytes lie in the buffer that it was given. */
export function received(at: usize, length: u32): bool {
  const start = at - changetype<usize>(input);
  return start <= <usize>input.byteLength && <usize>length <= <usize>input.byteLength - start;
}

/** A writer over the whole output, for a call that gives one result. */
export function begin(): Writer {
  forgetFailure();
  if (<u32>output.byteLength < mostOutput) output = new ArrayBuffer(mostOutput);
  return out.over(changetype<usize>(output), changetype<usize>(output) + mostOutput);
}

/** The result of such a call: what was written, or the code. Garbage goes now: no local holds an object here. */
export function finish(code: Code): i64 {
  __collect();
  if (code != Code.Written) return <i64>(<u32>code);
  return out.full ? Code.TooLarge : pack(out.start, out.length);
}

/** The result of a call that only reads. */
export function taken(code: Code): i32 {
  __collect();
  return code == Code.Written ? 0 : code;
}
