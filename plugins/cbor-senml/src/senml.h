/* SPDX-License-Identifier: Apache-2.0
 *
 * senml.h - what the source files of the SenML codec share: CBOR items, resolved records and one line about each part.
 */
#ifndef SENML_H
#define SENML_H

/* A record of three bytes becomes some 200 of output: a pack of 2,048 of them, shown twice, fits four times over. */
#define GW_IN_BYTES (64u * 1024u)
#define GW_OUT_BYTES (2u * 1024u * 1024u)
#include "gw1.h"

#if !defined(__wasm__)
int64_t gw_now_ms(void); /* given by whoever builds natively */
#endif

enum {
    RECORDS_MOST = 2048, /* of one pack */
    NESTING_MOST = 16,   /* of a field that is passed over */
    NAME_MOST = 128,     /* base name and name together */
    ID_MOST = 64,        /* of a device, and of a property */
    GROUP_MOST = 32,     /* values of one point */
    VERSION = 10         /* of SenML in RFC 8428, 4.1 */
};

/* Error codes of this plugin's own. */
enum {
    NOT_CBOR = GW_OWN, /* 256 */
    WRONG_TYPE,        /* 257 */
    MUST_UNDERSTAND,   /* 258 */
    WRONG_VERSION,     /* 259 */
    WRONG_NAME,        /* 260 */
    MANY_DEVICES,      /* 261 */
    NO_VALUE,          /* 262 */
    WRONG_TIME,        /* 263 */
    TOO_MUCH           /* 264 */
};

/* cbor.c: CBOR items */
typedef struct {
    const uint8_t *at, *end;
} cbor_in;
typedef enum { UNSIGNED, NEGATIVE, BYTES, TEXT, ARRAY, MAP, TAG, SIMPLE } major;
typedef struct {
    uint8_t major;
    uint8_t info;       /* the five low bits: of SIMPLE, which width a float has */
    bool is_indefinite; /* an ARRAY or MAP that a break ends */
    uint64_t value;     /* the argument: number, length, count, tag, or the bits of a float */
    const uint8_t *bytes; /* of BYTES and TEXT */
} cbor_head;
int32_t cbor_next(cbor_in *in, cbor_head *head);
int32_t cbor_skip_rest(cbor_in *in, const cbor_head *head);
bool cbor_take_break(cbor_in *in);

typedef struct {
    double value;
    bool is_int;       /* then exactly: */
    bool is_negative;
    uint64_t magnitude;
} number;
int32_t cbor_number(cbor_in *in, const cbor_head *head, number *to);
void write_number(gw_out *out, const number *n);

/* records.c: SenML records, resolved */
typedef struct {
    const uint8_t *bytes;
    uint32_t len;
} text;
typedef enum { NOTHING, NUMBER, STRING, BOOLEAN, DATA } value_kind;
typedef struct {
    uint32_t base_name_len;
    uint8_t name[NAME_MOST]; /* base name and name joined */
    uint32_t name_len;
    text unit;
    bool has_unit;
    value_kind kind;
    number number;
    text text; /* of STRING and DATA */
    bool boolean;
    bool has_sum, has_time, has_update_time;
    double sum, time, update_time;
} record;
typedef struct {
    text name, unit;
    bool has_unit, has_value, has_sum, has_time, has_version;
    number value;
    double sum, time;
    uint64_t version;
} base_fields;
typedef struct {
    cbor_in in;
    bool is_indefinite;
    uint64_t left;
    uint32_t count; /* records read so far */
    base_fields base;
} pack;
int32_t open_pack(pack *p, const uint8_t *bytes, uint32_t len);
int32_t next_record(pack *p, record *r, bool *is_last);

#endif
