/* SPDX-License-Identifier: Apache-2.0
 *
 * gw1_args.h - the arguments of gw_call: the keys of one msgpack map, typed, with errors that name the key.
 *
 * Owns the index of the keys and the wording of refusals. Knows no plugin.
 *
 *     static int32_t call(gw_out *out, gw_in in, uint32_t aux) {
 *         gw_args args;
 *         double rate;
 *         GW_TRY(gw_args_read(&args, in));
 *         GW_TRY(gw_arg_number(&args, "rate_hz", 0.001, 1e9, "a number above 0", &rate));
 *         ...
 *         return GW_WRITTEN;
 *     }
 *     GW_CALLER(call)
 *
 * The map is walked once, so that a key behind a long list costs no second walk. Of a key that comes twice the first
 * counts. A nil is a missing key. Keys that nobody asks for are ignored.
 */
#ifndef GW1_ARGS_H
#define GW1_ARGS_H

#include "gw1.h"

enum {
    GW_ARGS_MOST = 32,      /* keys of one map that can be found; those behind them are refused */
    GW_ARG_TEXT_BYTES = 256 /* of a refusal */
};

/* Leave the function with the code, unless it says that all is well. */
#define GW_TRY(status)                                                                                                \
    do {                                                                                                              \
        int32_t gw_try_status = (status);                                                                             \
        if (gw_try_status != GW_WRITTEN) return gw_try_status;                                                        \
    } while (0)

typedef struct {
    struct { const char *name; uint32_t len; gw_in value; } entry[GW_ARGS_MOST];
    uint32_t count;
} gw_args;

/* A text in the making: cut at its end, never past it. */
typedef struct { char *at; char *end; } gw_text;

GW_FN void gw_say_n(gw_text *t, const char *text, size_t n) {
    while (n-- && t->at < t->end) *t->at++ = *text++;
}
GW_FN void gw_say(gw_text *t, const char *text) { gw_say_n(t, text, strlen(text)); }
GW_FN void gw_say_int(gw_text *t, int64_t v) {
    char digits[20];
    int n = 0;
    uint64_t rest = v < 0 ? 0 - (uint64_t)v : (uint64_t)v;
    do digits[n++] = (char)('0' + rest % 10); while (rest /= 10);
    if (v < 0) gw_say(t, "-");
    while (n) gw_say_n(t, &digits[--n], 1);
}

GW_SHARED char gw_refusal[GW_ARG_TEXT_BYTES];
GW_FN gw_text gw_refusal_begin(void) {
    return (gw_text){.at = gw_refusal, .end = gw_refusal + GW_ARG_TEXT_BYTES};
}
GW_FN int32_t gw_refusal_end(int32_t code, const gw_text *t) {
    return gw_error_n(code, gw_refusal, (size_t)(t->at - gw_refusal));
}

/* Code 7 with the text "key: what is wrong and what is asked for". */
GW_FN int32_t gw_bad_arg(const char *key, const char *text) {
    gw_text t = gw_refusal_begin();
    gw_say(&t, key);
    gw_say(&t, ": ");
    gw_say(&t, text);
    return gw_refusal_end(GW_BAD_CONFIG, &t);
}
/* The same about one item of a list, counted from 1. */
GW_FN int32_t gw_bad_item(const char *key, uint32_t index, const char *text) {
    gw_text t = gw_refusal_begin();
    gw_say(&t, key);
    gw_say(&t, ": item ");
    gw_say_int(&t, (int64_t)index + 1);
    gw_say(&t, " ");
    gw_say(&t, text);
    return gw_refusal_end(GW_BAD_CONFIG, &t);
}

/* Index the map at `in`: the arguments of a call, or a map inside them. */
GW_FN int32_t gw_args_read(gw_args *args, gw_in in) {
    gw_value map = gw_next(&in);
    args->count = 0;
    if (map.type != GW_T_MAP) return gw_error(GW_BAD_CONFIG, "the arguments must be a map of text keys");
    if (map.len > GW_ARGS_MOST) return gw_error(GW_BAD_CONFIG, "the arguments have more than 32 keys");
    for (uint32_t i = 0; i < map.len; i++) {
        gw_value key = gw_next(&in);
        gw_in value = in;
        if (key.type != GW_T_STR) return gw_error(GW_BAD_CONFIG, "the arguments must be a map of text keys");
        if (!gw_skip(&in)) return gw_error(GW_BAD_CONFIG, "the arguments end inside a value");
        value.end = in.at;
        args->entry[args->count].name = key.text;
        args->entry[args->count].len = key.len;
        args->entry[args->count++].value = value;
    }
    return GW_WRITTEN;
}

/* The reader stands before the key's value, which ends where the reader ends. */
GW_FN bool gw_arg(const gw_args *args, const char *key, gw_in *value) {
    size_t n = strlen(key);
    for (uint32_t i = 0; i < args->count; i++)
        if (args->entry[i].len == n && memcmp(args->entry[i].name, key, n) == 0) {
            *value = args->entry[i].value;
            return *value->at != 0xc0;
        }
    return false;
}
/* The scalar, or the head of a container; type GW_T_END when the key is missing. */
GW_FN gw_value gw_arg_value(const gw_args *args, const char *key) {
    gw_in value;
    return gw_arg(args, key, &value) ? gw_next(&value) : (gw_value){.type = GW_T_END};
}

GW_FN bool gw_is_number(gw_value v) { return v.type == GW_T_UINT || v.type == GW_T_INT || v.type == GW_T_F64; }
GW_FN bool gw_is_whole(gw_value v) { return (v.type == GW_T_UINT && v.uint <= INT64_MAX) || v.type == GW_T_INT; }
GW_FN bool gw_is_finite(double v) { return v - v == 0.0; }

/* Bytes as bin, or as text where the caller has no other kind of bytes. */
GW_FN int32_t gw_arg_bytes(const gw_args *args, const char *key, const uint8_t **bytes, uint32_t *len) {
    gw_value v = gw_arg_value(args, key);
    if (v.type == GW_T_END) return gw_bad_arg(key, "is missing: give bytes");
    if (v.type != GW_T_BIN && v.type != GW_T_STR) return gw_bad_arg(key, "must be bytes");
    *bytes = (const uint8_t *)v.text;
    *len = v.len;
    return GW_WRITTEN;
}

/* "key: is missing: give WANTED", or "key: must be WANTED". */
GW_FN int32_t gw_unwanted_arg(const gw_args *args, const char *key, const char *wanted) {
    gw_text t = gw_refusal_begin();
    gw_say(&t, key);
    gw_say(&t, gw_arg_value(args, key).type == GW_T_END ? ": is missing: give " : ": must be ");
    gw_say(&t, wanted);
    return gw_refusal_end(GW_BAD_CONFIG, &t);
}

/* A finite number within bounds. */
GW_FN int32_t gw_arg_number(const gw_args *args, const char *key, double least, double most, const char *wanted,
                            double *to) {
    gw_value v = gw_arg_value(args, key);
    if (!gw_is_number(v) || !(v.f64 >= least && v.f64 <= most)) return gw_unwanted_arg(args, key, wanted);
    *to = v.f64;
    return GW_WRITTEN;
}
/* The same; a missing key leaves `to` as it is. */
GW_FN int32_t gw_arg_number_or(const gw_args *args, const char *key, double least, double most, const char *wanted,
                               double *to) {
    if (gw_arg_value(args, key).type == GW_T_END) return GW_WRITTEN;
    return gw_arg_number(args, key, least, most, wanted, to);
}

/* A list of at most `most` items: the reader stands before the first. An empty map is an empty list, since a Lua table
 * without entries may arrive as either. */
GW_FN int32_t gw_arg_list(const gw_args *args, const char *key, uint32_t most, gw_in *items, uint32_t *count) {
    *count = 0;
    if (!gw_arg(args, key, items)) return gw_bad_arg(key, "is missing: give a list");
    gw_value v = gw_next(items);
    if (v.type == GW_T_MAP && v.len == 0) return GW_WRITTEN;
    if (v.type != GW_T_ARRAY) return gw_bad_arg(key, "must be a list");
    if (v.len > most) {
        gw_text t = gw_refusal_begin();
        gw_say(&t, key);
        gw_say(&t, ": has ");
        gw_say_int(&t, v.len);
        gw_say(&t, " items; give at most ");
        gw_say_int(&t, most);
        return gw_refusal_end(GW_BAD_CONFIG, &t);
    }
    *count = v.len;
    return GW_WRITTEN;
}

#endif
