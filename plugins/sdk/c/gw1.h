/* SPDX-License-Identifier: Apache-2.0
 *
 * gw1.h - write a Flux Gateway codec plugin (ABI gw1) in freestanding C11.
 *
 * Owns the buffers of the ABI, the msgpack writer and reader, and the batch loop. Knows no protocol.
 *
 * A whole plugin:
 *
 *     #include "gw1.h"
 *
 *     static int32_t decode(gw_out *out, const uint8_t *frame, uint32_t len, uint32_t aux) {
 *         if (len < 3) return gw_error(GW_TRUNCATED, "frame is shorter than its header");
 *         gw_map(out, 2);
 *         gw_key(out, "kind");   gw_lit(out, "report");
 *         gw_key(out, "points"); gw_array(out, 1);
 *             gw_map(out, 1);
 *             gw_key(out, "values"); gw_map(out, 1);
 *                 gw_key(out, "temperature"); gw_f64(out, gw_be16(frame + 1) / 10.0);
 *         return GW_WRITTEN;
 *     }
 *     GW_DECODER(decode)
 *
 * A decoder writes one item and returns GW_WRITTEN, or returns a code (GW_DROP, GW_CHECKSUM, 256 and up for its own)
 * and whatever it wrote is taken back. Writing past the output buffer is safe: the writer turns deaf and the item
 * becomes GW_TOO_LARGE. `aux` is the number of the connection that a frame came by (0: the frame is only tried), or its
 * fPort or unit id where it has one of its own. An encoder writes the frame's raw bytes in the same way.
 *
 * Any number of source files may include this header: its state is shared (weak symbols).
 * Natively (for tests and benchmarks) the same source builds as a shared library: see "Native builds" at the end.
 */
#ifndef GW1_H
#define GW1_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- Sizes: override with -D, the same for every source file ------------------------------------------------ */

#ifndef GW_IN_BYTES
#define GW_IN_BYTES (256u * 1024u) /* input of one call; a manifest's max_input must not be larger */
#endif
#ifndef GW_OUT_BYTES
#define GW_OUT_BYTES (1024u * 1024u) /* output of one call, reused by the next one */
#endif

/* ---- Result codes of the ABI ----------------------------------------------------------------------------------- */

enum {
    GW_WRITTEN = -1,    /* not on the wire: "I wrote an item" */
    GW_DROP = 0,        /* nothing to tell, no error */
    GW_TRUNCATED = 1,
    GW_UNKNOWN_TYPE = 2,
    GW_CHECKSUM = 3,
    GW_TOO_LARGE = 4,
    GW_UNSUPPORTED = 5,
    GW_NEEDS_MORE = 6,
    GW_BAD_CONFIG = 7,
    GW_OWN = 256        /* the first code of the plugin's own */
};

/* ---- Compiler glue --------------------------------------------------------------------------------------------- */

#if defined(__wasm__)
#define GW_EXPORT(name) __attribute__((export_name(#name), visibility("default")))
#define GW_IMPORT(name) __attribute__((import_module("gw1"), import_name(#name)))
typedef uint32_t gw_ptr;
#else
#define GW_EXPORT(name) __attribute__((visibility("default")))
typedef uintptr_t gw_ptr;
#endif

#define GW_SHARED __attribute__((weak))
#define GW_FN static inline __attribute__((unused))
#define GW_LIKELY(x) __builtin_expect(!!(x), 1)

/* ---- memcpy and friends: the compiler emits calls to them, and -nostdlib has none ------------------------------ */

void *memcpy(void *restrict to, const void *restrict from, size_t n);
void *memmove(void *to, const void *from, size_t n);
void *memset(void *to, int byte, size_t n);
int memcmp(const void *a, const void *b, size_t n);
size_t strlen(const char *s);

#if defined(__wasm__) && !defined(__wasi__) /* `[build] libc = true` brings its own */
/* no_builtin keeps the compiler from turning these loops into calls of themselves. */
#define GW_LIBC GW_SHARED __attribute__((no_builtin))

GW_LIBC void *memcpy(void *restrict to, const void *restrict from, size_t n) {
    uint8_t *t = to;
    const uint8_t *f = from;
    for (; n >= 8; n -= 8, t += 8, f += 8) {
        uint64_t word;
        __builtin_memcpy_inline(&word, f, 8);
        __builtin_memcpy_inline(t, &word, 8);
    }
    while (n--) *t++ = *f++;
    return to;
}

GW_LIBC void *memmove(void *to, const void *from, size_t n) {
    uint8_t *t = to;
    const uint8_t *f = from;
    if (t < f) {
        while (n--) *t++ = *f++;
    } else {
        while (n--) t[n] = f[n];
    }
    return to;
}

GW_LIBC void *memset(void *to, int byte, size_t n) {
    uint8_t *t = to;
    while (n--) *t++ = (uint8_t)byte;
    return to;
}

GW_LIBC int memcmp(const void *a, const void *b, size_t n) {
    const uint8_t *x = a, *y = b;
    for (; n; n--, x++, y++)
        if (*x != *y) return *x - *y;
    return 0;
}

GW_LIBC size_t strlen(const char *s) {
    size_t n = 0;
    while (s[n]) n++;
    return n;
}
#endif

/* ---- Numbers in frames: any alignment -------------------------------------------------------------------------- */

GW_FN uint16_t gw_le16(const uint8_t *p) { uint16_t v; __builtin_memcpy(&v, p, 2); return v; }
GW_FN uint32_t gw_le32(const uint8_t *p) { uint32_t v; __builtin_memcpy(&v, p, 4); return v; }
GW_FN uint64_t gw_le64(const uint8_t *p) { uint64_t v; __builtin_memcpy(&v, p, 8); return v; }
GW_FN uint16_t gw_be16(const uint8_t *p) { return __builtin_bswap16(gw_le16(p)); }
GW_FN uint32_t gw_be32(const uint8_t *p) { return __builtin_bswap32(gw_le32(p)); }
GW_FN uint64_t gw_be64(const uint8_t *p) { return __builtin_bswap64(gw_le64(p)); }
GW_FN double gw_bits_f64(uint64_t bits) { double v; __builtin_memcpy(&v, &bits, 8); return v; }
GW_FN uint64_t gw_f64_bits(double v) { uint64_t bits; __builtin_memcpy(&bits, &v, 8); return bits; }
GW_FN double gw_le_f64(const uint8_t *p) { return gw_bits_f64(gw_le64(p)); }
GW_FN double gw_be_f64(const uint8_t *p) { return gw_bits_f64(gw_be64(p)); }
GW_FN float gw_bits_f32(uint32_t bits) { float v; __builtin_memcpy(&v, &bits, 4); return v; }
GW_FN float gw_le_f32(const uint8_t *p) { return gw_bits_f32(gw_le32(p)); }
GW_FN float gw_be_f32(const uint8_t *p) { return gw_bits_f32(gw_be32(p)); }

/* ---- Writer: a window on the output buffer. Past its end it writes nothing and remembers that ------------------- */

typedef struct {
    uint8_t *start; /* first byte of this item or frame */
    uint8_t *at;    /* where the next byte goes */
    uint8_t *end;   /* one past the last byte that may be written */
    bool full;      /* something did not fit; sticky until gw_rewind */
} gw_out;

/* Room for n bytes, or NULL (and `full`). */
GW_FN uint8_t *gw_room(gw_out *o, size_t n) {
    if (GW_LIKELY(!o->full && (size_t)(o->end - o->at) >= n)) {
        uint8_t *p = o->at;
        o->at = p + n;
        return p;
    }
    o->full = true;
    return NULL;
}

/* A place to come back to: everything written after gw_mark is taken back by gw_rewind, an overflow included. */
GW_FN uint8_t *gw_mark(const gw_out *o) { return o->at; }
GW_FN void gw_rewind(gw_out *o, uint8_t *mark) { o->at = mark; o->full = false; }
GW_FN uint32_t gw_written(const gw_out *o) { return (uint32_t)(o->at - o->start); }

/* Raw bytes, as they are: frames in an encoder, prepared msgpack in a decoder. */
GW_FN void gw_raw(gw_out *o, const void *bytes, size_t n) {
    uint8_t *p = gw_room(o, n);
    if (p) __builtin_memcpy(p, bytes, n);
}
GW_FN void gw_byte(gw_out *o, uint8_t v) { uint8_t *p = gw_room(o, 1); if (p) *p = v; }
GW_FN void gw_put16(gw_out *o, uint16_t v) { v = __builtin_bswap16(v); gw_raw(o, &v, 2); } /* big endian */
GW_FN void gw_put32(gw_out *o, uint32_t v) { v = __builtin_bswap32(v); gw_raw(o, &v, 4); } /* big endian */
GW_FN void gw_put64(gw_out *o, uint64_t v) { v = __builtin_bswap64(v); gw_raw(o, &v, 8); } /* big endian */

/* A tag byte and a big-endian number: the shape of most msgpack heads. */
GW_FN void gw_tag8(gw_out *o, uint8_t tag, uint8_t v) {
    uint8_t *p = gw_room(o, 2);
    if (p) { p[0] = tag; p[1] = v; }
}
GW_FN void gw_tag16(gw_out *o, uint8_t tag, uint16_t v) {
    uint8_t *p = gw_room(o, 3);
    if (p) { p[0] = tag; v = __builtin_bswap16(v); __builtin_memcpy(p + 1, &v, 2); }
}
GW_FN void gw_tag32(gw_out *o, uint8_t tag, uint32_t v) {
    uint8_t *p = gw_room(o, 5);
    if (p) { p[0] = tag; v = __builtin_bswap32(v); __builtin_memcpy(p + 1, &v, 4); }
}
GW_FN void gw_tag64(gw_out *o, uint8_t tag, uint64_t v) {
    uint8_t *p = gw_room(o, 9);
    if (p) { p[0] = tag; v = __builtin_bswap64(v); __builtin_memcpy(p + 1, &v, 8); }
}

GW_FN void gw_nil(gw_out *o) { gw_byte(o, 0xc0); }
GW_FN void gw_bool(gw_out *o, bool v) { gw_byte(o, v ? 0xc3 : 0xc2); }
GW_FN void gw_f64(gw_out *o, double v) { gw_tag64(o, 0xcb, gw_f64_bits(v)); }

GW_FN void gw_uint(gw_out *o, uint64_t v) {
    if (v < 128) gw_byte(o, (uint8_t)v);
    else if (v <= 0xff) gw_tag8(o, 0xcc, (uint8_t)v);
    else if (v <= 0xffff) gw_tag16(o, 0xcd, (uint16_t)v);
    else if (v <= 0xffffffffu) gw_tag32(o, 0xce, (uint32_t)v);
    else gw_tag64(o, 0xcf, v);
}
GW_FN void gw_int(gw_out *o, int64_t v) {
    if (v >= 0) gw_uint(o, (uint64_t)v);
    else if (v >= -32) gw_byte(o, (uint8_t)v);
    else if (v >= INT8_MIN) gw_tag8(o, 0xd0, (uint8_t)v);
    else if (v >= INT16_MIN) gw_tag16(o, 0xd1, (uint16_t)v);
    else if (v >= INT32_MIN) gw_tag32(o, 0xd2, (uint32_t)v);
    else gw_tag64(o, 0xd3, (uint64_t)v);
}

/* A map of n pairs follows, or an array of n items. */
GW_FN void gw_map(gw_out *o, uint32_t n) {
    if (n < 16) gw_byte(o, (uint8_t)(0x80 | n));
    else if (n <= 0xffff) gw_tag16(o, 0xde, (uint16_t)n);
    else gw_tag32(o, 0xdf, n);
}
GW_FN void gw_array(gw_out *o, uint32_t n) {
    if (n < 16) gw_byte(o, (uint8_t)(0x90 | n));
    else if (n <= 0xffff) gw_tag16(o, 0xdc, (uint16_t)n);
    else gw_tag32(o, 0xdd, n);
}

/* The same when the count is known only afterwards (at most 65,535): open, write, close with the count. */
GW_FN uint8_t *gw_map_open(gw_out *o) { uint8_t *head = o->at; gw_tag16(o, 0xde, 0); return head; }
GW_FN uint8_t *gw_array_open(gw_out *o) { uint8_t *head = o->at; gw_tag16(o, 0xdc, 0); return head; }
GW_FN void gw_close(gw_out *o, uint8_t *head, uint32_t count) {
    if (o->full) return;
    if (count > 0xffff) { o->full = true; return; }
    head[1] = (uint8_t)(count >> 8);
    head[2] = (uint8_t)count;
}

/* Whether bytes are UTF-8: no overlong form, no surrogate, nothing past U+10FFFF. Source: RFC 3629, section 4. */
GW_FN bool gw_is_utf8(const void *bytes, size_t n) {
    const uint8_t *p = bytes, *end = p + n;
    while (p < end) {
        uint8_t c = *p++;
        if (c < 0x80) continue;
        if (c < 0xc2 || c > 0xf4) return false;
        size_t more = c < 0xe0 ? 1 : c < 0xf0 ? 2 : 3;
        if ((size_t)(end - p) < more) return false;
        if ((c == 0xe0 && *p < 0xa0) || (c == 0xed && *p > 0x9f)) return false;
        if ((c == 0xf0 && *p < 0x90) || (c == 0xf4 && *p > 0x8f)) return false;
        for (; more; more--)
            if ((*p++ & 0xc0) != 0x80) return false;
    }
    return true;
}

/* Text must be UTF-8: the host takes an item with any other text for malformed. */
GW_FN void gw_str(gw_out *o, const char *text, size_t n) {
    if (n < 32) gw_byte(o, (uint8_t)(0xa0 | n));
    else if (n <= 0xff) gw_tag8(o, 0xd9, (uint8_t)n);
    else if (n <= 0xffff) gw_tag16(o, 0xda, (uint16_t)n);
    else gw_tag32(o, 0xdb, (uint32_t)n);
    gw_raw(o, text, n);
}
GW_FN void gw_cstr(gw_out *o, const char *text) { gw_str(o, text, strlen(text)); }
/* A string literal; its head is computed at compile time. */
#define gw_lit(o, text) gw_str((o), (text), sizeof(text "") - 1)
#define gw_key(o, text) gw_lit((o), text)

GW_FN void gw_bin(gw_out *o, const void *bytes, size_t n) {
    if (n <= 0xff) gw_tag8(o, 0xc4, (uint8_t)n);
    else if (n <= 0xffff) gw_tag16(o, 0xc5, (uint16_t)n);
    else gw_tag32(o, 0xc6, (uint32_t)n);
    gw_raw(o, bytes, n);
}

/* Bytes as a string of lower-case hex digits. */
GW_FN void gw_hex(gw_out *o, const uint8_t *bytes, size_t n) {
    size_t digits = 2 * n;
    if (digits < 32) gw_byte(o, (uint8_t)(0xa0 | digits));
    else if (digits <= 0xff) gw_tag8(o, 0xd9, (uint8_t)digits);
    else if (digits <= 0xffff) gw_tag16(o, 0xda, (uint16_t)digits);
    else gw_tag32(o, 0xdb, (uint32_t)digits);
    uint8_t *p = gw_room(o, digits);
    for (size_t i = 0; p && i < n; i++) {
        p[2 * i] = (uint8_t)"0123456789abcdef"[bytes[i] >> 4];
        p[2 * i + 1] = (uint8_t)"0123456789abcdef"[bytes[i] & 15];
    }
}

/* ---- Reader: walks msgpack that the host sent (encode requests, configuration) ---------------------------------- */

typedef struct {
    const uint8_t *at;
    const uint8_t *end;
} gw_in;

typedef enum { GW_T_END, GW_T_NIL, GW_T_BOOL, GW_T_UINT, GW_T_INT, GW_T_F64, GW_T_STR, GW_T_BIN, GW_T_ARRAY, GW_T_MAP } gw_type;

/* One msgpack value. Of an array or map it is only the head: `len` items (map: pairs) follow in the reader. */
typedef struct {
    gw_type type;     /* GW_T_END: nothing left, or not msgpack */
    uint32_t len;     /* bytes of STR and BIN, count of ARRAY and MAP */
    const char *text; /* bytes of STR and BIN, in place: not ended by a zero */
    uint64_t uint;    /* UINT (values >= 0), and BOOL as 0 or 1 */
    int64_t sint;     /* INT (values < 0), and UINT where it fits */
    double f64;       /* F64, and UINT and INT converted */
} gw_value;

GW_FN uint64_t gw_in_number(gw_in *in, uint32_t n) {
    uint64_t v = 0;
    for (uint32_t i = 0; i < n; i++) v = v << 8 | in->at[i];
    in->at += n;
    return v;
}

GW_FN gw_value gw_value_uint(uint64_t v) {
    return (gw_value){.type = GW_T_UINT, .uint = v, .sint = (int64_t)v, .f64 = (double)v};
}
GW_FN gw_value gw_value_int(int64_t v) {
    if (v >= 0) return gw_value_uint((uint64_t)v);
    return (gw_value){.type = GW_T_INT, .sint = v, .f64 = (double)v};
}
GW_FN gw_value gw_value_bytes(gw_in *in, gw_type type, uint64_t n) {
    if ((uint64_t)(in->end - in->at) < n) return (gw_value){.type = GW_T_END};
    gw_value v = {.type = type, .len = (uint32_t)n, .text = (const char *)in->at};
    in->at += n;
    return v;
}

/* Take the next value's head off the reader. What is not msgpack of the JSON types (and bin) ends the input. */
GW_FN gw_value gw_next(gw_in *in) {
    /* Bytes of the number that follows each tag from 0xc4 on; 0xff: an extension type, refused. */
    static const uint8_t follows[28] = {1, 2, 4, 255, 255, 255, 4, 8, 1, 2, 4, 8, 1, 2, 4, 8,
                                        255, 255, 255, 255, 255, 1, 2, 4, 2, 4, 2, 4};
    gw_value end = {.type = GW_T_END};
    if (in->at >= in->end) return end;
    uint8_t tag = *in->at++;
    if (tag < 0x80) return gw_value_uint(tag);
    if (tag < 0x90) return (gw_value){.type = GW_T_MAP, .len = tag & 15};
    if (tag < 0xa0) return (gw_value){.type = GW_T_ARRAY, .len = tag & 15};
    if (tag < 0xc0) return gw_value_bytes(in, GW_T_STR, tag & 31);
    if (tag >= 0xe0) return gw_value_int((int8_t)tag);
    if (tag == 0xc0) return (gw_value){.type = GW_T_NIL};
    if (tag == 0xc2 || tag == 0xc3) return (gw_value){.type = GW_T_BOOL, .uint = tag & 1};
    if (tag < 0xc4 || follows[tag - 0xc4] > 8 || (size_t)(in->end - in->at) < follows[tag - 0xc4]) {
        in->at = in->end;
        return end;
    }
    uint64_t n = gw_in_number(in, follows[tag - 0xc4]);
    switch (tag) {
    case 0xc4: case 0xc5: case 0xc6: return gw_value_bytes(in, GW_T_BIN, n);
    case 0xca: return (gw_value){.type = GW_T_F64, .f64 = (double)gw_bits_f32((uint32_t)n)};
    case 0xcb: return (gw_value){.type = GW_T_F64, .f64 = gw_bits_f64(n)};
    case 0xcc: case 0xcd: case 0xce: case 0xcf: return gw_value_uint(n);
    case 0xd0: return gw_value_int((int8_t)n);
    case 0xd1: return gw_value_int((int16_t)n);
    case 0xd2: return gw_value_int((int32_t)n);
    case 0xd3: return gw_value_int((int64_t)n);
    case 0xd9: case 0xda: case 0xdb: return gw_value_bytes(in, GW_T_STR, n);
    case 0xdc: case 0xdd: return (gw_value){.type = GW_T_ARRAY, .len = (uint32_t)n};
    default: return (gw_value){.type = GW_T_MAP, .len = (uint32_t)n};
    }
}

/* Step over one whole value, however deep. False when the input ends inside it. */
GW_FN bool gw_skip(gw_in *in) {
    uint64_t left = 1;
    while (left) {
        gw_value v = gw_next(in);
        if (v.type == GW_T_END) return false;
        left += (v.type == GW_T_MAP ? 2ull * v.len : v.type == GW_T_ARRAY ? v.len : 0ull) - 1;
    }
    return true;
}

GW_FN bool gw_is(gw_value v, const char *text) {
    size_t n = strlen(text);
    return v.type == GW_T_STR && v.len == n && memcmp(v.text, text, n) == 0;
}

GW_FN int gw_hex_digit(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

/* Read text of exactly 2n hex digits into n bytes, in their order or the last one first. */
GW_FN bool gw_hex_bytes(gw_value text, uint8_t *to, uint32_t n, bool last_first) {
    if (text.type != GW_T_STR || text.len != 2 * n) return false;
    for (uint32_t i = 0; i < n; i++) {
        int high = gw_hex_digit(text.text[2 * i]), low = gw_hex_digit(text.text[2 * i + 1]);
        if (high < 0 || low < 0) return false;
        to[last_first ? n - 1 - i : i] = (uint8_t)(high << 4 | low);
    }
    return true;
}

/* Look up a string key in the map at `in` (which does not move). On true `value` stands before the key's value. */
GW_FN bool gw_find(gw_in in, const char *key, gw_in *value) {
    gw_value map = gw_next(&in);
    if (map.type != GW_T_MAP) return false;
    for (uint32_t i = 0; i < map.len; i++) {
        gw_value k = gw_next(&in);
        if (k.type == GW_T_END) return false;
        if (gw_is(k, key)) { *value = in; return in.at < in.end; }
        /* A key that is itself a container is skipped with its contents. */
        uint64_t inner = k.type == GW_T_MAP ? 2ull * k.len : k.type == GW_T_ARRAY ? k.len : 0;
        while (inner--) if (!gw_skip(&in)) return false;
        if (!gw_skip(&in)) return false;
    }
    return false;
}

/* The scalar, or the container's head, of a key; type GW_T_END when the key is missing. */
GW_FN gw_value gw_get(gw_in map, const char *key) {
    gw_in value;
    if (!gw_find(map, key, &value)) return (gw_value){.type = GW_T_END};
    return gw_next(&value);
}
GW_FN int64_t gw_get_int(gw_in map, const char *key, int64_t otherwise) {
    gw_value v = gw_get(map, key);
    return (v.type == GW_T_UINT && v.uint <= INT64_MAX) || v.type == GW_T_INT ? v.sint : otherwise;
}
GW_FN bool gw_get_bool(gw_in map, const char *key, bool otherwise) {
    gw_value v = gw_get(map, key);
    return v.type == GW_T_BOOL ? v.uint != 0 : otherwise;
}

/* ---- Buffers and exports of the ABI ----------------------------------------------------------------------------- */

GW_SHARED _Alignas(16) uint8_t gw_in_buffer[GW_IN_BYTES];
GW_SHARED _Alignas(16) uint8_t gw_out_buffer[GW_OUT_BYTES];
GW_SHARED const char *gw_error_text;
GW_SHARED uint32_t gw_error_len;

/* Remember a text for gw_last_error (it must outlive the call: a literal or a static buffer); returns the code. */
GW_FN int32_t gw_error_n(int32_t code, const char *text, size_t n) {
    gw_error_text = text;
    gw_error_len = (uint32_t)(n > 512 ? 512 : n);
    return code;
}
GW_FN int32_t gw_error(int32_t code, const char *text) { return gw_error_n(code, text, strlen(text)); }

#if defined(__wasm__)
GW_FN int64_t gw_pack(const void *p, size_t n) { return (int64_t)((uint64_t)(gw_ptr)p << 32 | (uint32_t)n); }
#else
/* Native builds: the upper word is the distance from gw_native_base(), never 0. */
GW_SHARED GW_EXPORT(gw_native_base) uintptr_t gw_native_base(void) { return (uintptr_t)gw_out_buffer - 16; }
GW_FN int64_t gw_pack(const void *p, size_t n) {
    return (int64_t)((uint64_t)((uintptr_t)p - gw_native_base()) << 32 | (uint32_t)n);
}
#endif
GW_FN int64_t gw_code(int32_t code) { return (int64_t)(uint32_t)code; }

/* A writer over the whole output buffer, for a call that gives one result. */
GW_FN gw_out gw_out_begin(void) {
    gw_error_text = NULL; /* what a call before said is not this one's */
    return (gw_out){.start = gw_out_buffer, .at = gw_out_buffer, .end = gw_out_buffer + GW_OUT_BYTES};
}
/* The result of such a call: what was written, or the code. */
GW_FN int64_t gw_out_end(const gw_out *o, int32_t status) {
    if (status != GW_WRITTEN) return gw_code(status);
    return o->full ? gw_code(GW_TOO_LARGE) : gw_pack(o->start, gw_written(o));
}

GW_SHARED GW_EXPORT(gw_abi) int32_t gw_abi(void) { return 0x00010000; }
GW_SHARED GW_EXPORT(gw_buf) gw_ptr gw_buf(uint32_t len) { return len <= GW_IN_BYTES ? (gw_ptr)gw_in_buffer : 0; }
#if defined(__wasm__)
GW_SHARED GW_EXPORT(gw_last_error) int64_t gw_last_error(void) {
    return gw_error_text ? gw_pack(gw_error_text, gw_error_len) : 0;
}
#endif

typedef int32_t (*gw_decoder)(gw_out *out, const uint8_t *frame, uint32_t len, uint32_t aux);
typedef int32_t (*gw_encoder)(gw_out *out, gw_in request, uint32_t aux);

#define GW_ITEM_CODE_BYTES 5u /* the largest error code as msgpack */

/* Decode n frames into one msgpack array. Every item keeps room for the codes of those after it. */
GW_FN int64_t gw_batch(gw_decoder decode, const uint8_t *in, uint32_t len, uint32_t n) {
    gw_out o = gw_out_begin();
    if (n > len / 8 || n > (GW_OUT_BYTES - 16) / GW_ITEM_CODE_BYTES) return gw_code(GW_TRUNCATED);
    const uint8_t *frame = in + 8 * (size_t)n;
    uint32_t left = len - 8 * n;
    gw_array(&o, n);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t size = gw_le32(in + 4 * (size_t)i);
        if (size > left) return gw_code(GW_TRUNCATED);
        gw_out item = {.start = o.at, .at = o.at};
        item.end = gw_out_buffer + GW_OUT_BYTES - (size_t)GW_ITEM_CODE_BYTES * (n - i);
        int32_t status = decode(&item, frame, size, gw_le32(in + 4 * ((size_t)n + i)));
        if (status == GW_WRITTEN && item.full) status = GW_TOO_LARGE;
        if (GW_LIKELY(status == GW_WRITTEN)) o.at = item.at;
        else if (status == GW_DROP) gw_nil(&o);
        else gw_uint(&o, (uint32_t)status);
        frame += size;
        left -= size;
    }
    return gw_pack(o.start, gw_written(&o));
}

/* Define gw_decode and gw_decode_batch around a decoder of one frame. Use once per plugin. */
#define GW_DECODER(decode)                                                                                            \
    GW_EXPORT(gw_decode) int64_t gw_decode(gw_ptr ptr, uint32_t len, uint32_t aux) {                                  \
        gw_out out = gw_out_begin();                                                                                  \
        int32_t status = decode(&out, (const uint8_t *)ptr, len, aux);                                                \
        return gw_out_end(&out, status);                                                                              \
    }                                                                                                                 \
    GW_EXPORT(gw_decode_batch) int64_t gw_decode_batch(gw_ptr ptr, uint32_t len, uint32_t n) {                        \
        return gw_batch(decode, (const uint8_t *)ptr, len, n);                                                        \
    }

/* Define gw_encode around a function that reads the request map and writes the bytes for the device. */
#define GW_ENCODER(encode)                                                                                            \
    GW_EXPORT(gw_encode) int64_t gw_encode(gw_ptr ptr, uint32_t len, uint32_t aux) {                                  \
        gw_out out = gw_out_begin();                                                                                  \
        gw_in request = {.at = (const uint8_t *)ptr, .end = (const uint8_t *)ptr + len};                              \
        int32_t status = encode(&out, request, aux);                                                                  \
        return gw_out_end(&out, status);                                                                              \
    }

typedef int32_t (*gw_caller)(gw_out *out, gw_in args, uint32_t aux);

/* Define gw_call (crypto, notify, parser, algo, report) around a function that reads the argument map and writes one
 * msgpack value. Use once per plugin. */
#define GW_CALLER(call)                                                                                               \
    GW_EXPORT(gw_call) int64_t gw_call(gw_ptr ptr, uint32_t len, uint32_t aux) {                                      \
        gw_out out = gw_out_begin();                                                                                  \
        gw_in args = {.at = (const uint8_t *)ptr, .end = (const uint8_t *)ptr + len};                                 \
        int32_t status = call(&out, args, aux);                                                                       \
        return gw_out_end(&out, status);                                                                              \
    }

/* Define gw_state_save and gw_state_load: `save` writes one msgpack value, `load` reads what a version before saved and
 * returns 0 or a code (the state is then lost, the plugin runs). The manifest says `[state] carry = true`. */
#define GW_STATE(save, load)                                                                                          \
    GW_EXPORT(gw_state_save) int64_t gw_state_save(void) {                                                            \
        gw_out out = gw_out_begin();                                                                                  \
        int32_t status = save(&out);                                                                                  \
        return gw_out_end(&out, status);                                                                              \
    }                                                                                                                 \
    GW_EXPORT(gw_state_load) int32_t gw_state_load(gw_ptr ptr, uint32_t len) {                                        \
        gw_in state = {.at = (const uint8_t *)ptr, .end = (const uint8_t *)ptr + len};                                \
        return load(state);                                                                                           \
    }

/* Define gw_init around a function that reads the map {config, host, plugin_id} and returns 0 or a code. */
#define GW_INIT(init)                                                                                                 \
    GW_EXPORT(gw_init) int32_t gw_init(gw_ptr ptr, uint32_t len) {                                                    \
        gw_in config = {.at = (const uint8_t *)ptr, .end = (const uint8_t *)ptr + len};                               \
        return init(config);                                                                                          \
    }

/* ---- What the host offers: each needs its word in the manifest's [caps] and the operator's grant ---------------- */

#if defined(__wasm__)
/* caps.log: level 0 debug, 1 info, 2 warning, 3 error. Long text is cut, too many lines are dropped. */
GW_IMPORT(log) void gw_log(int32_t level, const char *text, uint32_t len);
/* caps.clock: epoch milliseconds UTC. */
GW_IMPORT(now_ms) int64_t gw_now_ms(void);
/* caps.config: the value of a key as msgpack. Returns its length, written only if it fits `cap`; -1: no such key. */
GW_IMPORT(config) int32_t gw_config(const char *key, uint32_t key_len, void *to, uint32_t cap);
/* caps.kv: a small store that outlives a respawn. Get is like config; set returns 0, or -1 when the store is full. */
GW_IMPORT(kv_get) int32_t gw_kv_get(const void *key, uint32_t key_len, void *to, uint32_t cap);
GW_IMPORT(kv_set) int32_t gw_kv_set(const void *key, uint32_t key_len, const void *value, uint32_t len);
/* caps.random: fill with unpredictable bytes (at most 4,096). */
GW_IMPORT(random) void gw_random(void *to, uint32_t len);
#endif

/* ---- Native builds ------------------------------------------------------------------------------------------------
 * cc -shared -fPIC -O2 -I plugins/sdk/c -o plugin.so plugin.c
 * Pointers are passed as uintptr_t; a result's upper word is an offset from gw_native_base(). There are no imports.
 */

#endif
