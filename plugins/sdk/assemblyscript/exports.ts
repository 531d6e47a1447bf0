// SPDX-License-Identifier: Apache-2.0

/** The exports of ABI gw1 around the functions that a plugin named. A second entry of every build; not for plugins. */

import { Code, calls, decodes, encodes, failureText, forgetFailure, mostOutput, starts } from "gw1";
import { begin, buffer, finish, frame, item, out, pack, reader, received, taken } from "gw1_calls";

/** An error code as msgpack. */
const CODE_BYTES: u32 = 5;
/** Bytes of an error text that the host reads. */
const TEXT_BYTES: i32 = 512;

const words = new ArrayBuffer(4 * TEXT_BYTES);

export function gw_abi(): i32 {
  return 0x00010000;
}

export function gw_buf(length: u32): usize {
  return buffer(length);
}

export function gw_last_error(): i64 {
  const text = failureText.substring(0, TEXT_BYTES); // at most 3 bytes for each of its units
  const length = String.UTF8.encodeUnsafe(changetype<usize>(text), text.length, changetype<usize>(words));
  return length == 0 ? 0 : pack(changetype<usize>(words), min<usize>(length, TEXT_BYTES));
}

export function gw_init(at: usize, length: u32): i32 {
  const start = starts;
  forgetFailure();
  if (start === null || !received(at, length)) return 0;
  return taken(start(reader.over(at, length)));
}

export function gw_decode(at: usize, length: u32, aux: u32): i64 {
  const decode = decodes;
  if (decode === null || !received(at, length)) return Code.Unsupported;
  return finish(decode(begin(), frame.over(at, length), aux));
}

/** Decode n frames into one msgpack array. Every item keeps room for the codes of those after it. */
export function gw_decode_batch(at: usize, length: u32, n: u32): i64 {
  const decode = decodes;
  if (decode === null || !received(at, length)) return Code.Unsupported;
  if (n > length / 8 || n > (mostOutput - 16) / CODE_BYTES) return Code.Truncated;
  let payload = at + 8 * <usize>n;
  let left = length - 8 * n;
  begin().array(n);
  for (let i: u32 = 0; i < n; i++) {
    const size = load<u32>(at + 4 * <usize>i);
    if (size > left) return Code.Truncated;
    item.over(out.at, out.end - CODE_BYTES * (n - i));
    let code = decode(item, frame.over(payload, size), load<u32>(at + 4 * <usize>(n + i)));
    if (code == Code.Written && item.full) code = Code.TooLarge;
    if (code == Code.Written) out.at = item.at;
    else if (code == Code.Drop) out.nil();
    else out.uint(<u32>code);
    payload += size;
    left -= size;
  }
  return finish(Code.Written);
}

export function gw_encode(at: usize, length: u32, aux: u32): i64 {
  const encode = encodes;
  if (encode === null || !received(at, length)) return Code.Unsupported;
  return finish(encode(begin(), reader.over(at, length), aux));
}

export function gw_call(at: usize, length: u32, aux: u32): i64 {
  const call = calls;
  if (call === null || !received(at, length)) return Code.Unsupported;
  return finish(call(begin(), reader.over(at, length), aux));
}
