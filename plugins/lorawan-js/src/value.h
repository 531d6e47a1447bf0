/* SPDX-License-Identifier: Apache-2.0
 *
 * value.h - JavaScript values to msgpack and back.
 *
 * A value travels as JSON would carry it: `toJSON` is honoured (a Date is its ISO text), what JSON leaves out is left
 * out, NaN and the infinities are nil. Beyond JSON: a BigInt is an integer (its digits as text past 64 bits), and typed
 * arrays and Buffers are arrays. Text is UTF-8: half a surrogate pair becomes U+FFFD.
 */
#ifndef LORAWAN_JS_VALUE_H
#define LORAWAN_JS_VALUE_H

#include "gw1.h"
#include "quickjs.h"

/* Levels of objects and arrays, the outermost included: what the host takes. */
#define VALUE_MOST_NESTING 16

typedef enum {
    VALUE_WRITTEN,
    VALUE_ABSENT, /* undefined, a function or a symbol: JSON has no word for it */
    VALUE_THROWN, /* an exception is pending in the context */
} value_result;

/* Look up what every conversion needs, before any script could change it. False: an exception is pending. */
bool value_start(JSContext *ctx);
void value_stop(JSContext *ctx);

/* Write one value. A full output ends it early: the caller looks at `out->full`. */
value_result value_write(JSContext *ctx, gw_out *out, JSValueConst value);

/* Write the own enumerable properties of an object as a map with a head of 3 bytes, and count them. */
value_result value_write_object(JSContext *ctx, gw_out *out, JSValueConst object, uint32_t *count);

/* Read one msgpack value; bytes become an array of numbers. An exception where it is broken or nested too deep. */
JSValue value_read(JSContext *ctx, gw_in *in);

/* An array of numbers. */
JSValue value_bytes(JSContext *ctx, const uint8_t *bytes, uint32_t len);

/* Write the numbers of an array, typed array or Buffer as raw bytes. */
value_result value_write_raw(JSContext *ctx, gw_out *out, JSValueConst array);

/* Write a value for people: text as it is, objects as JSON, the rest as JavaScript shows it. Returns the bytes written,
 * at most `room`; what throws is shown as nothing. */
size_t value_show(JSContext *ctx, char *to, size_t room, JSValueConst value);

#endif
