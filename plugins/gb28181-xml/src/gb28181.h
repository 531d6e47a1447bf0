/* SPDX-License-Identifier: Apache-2.0
 *
 * gb28181.h - MANSCDP bodies of GB/T 28181: what the source files share.
 */
#ifndef GB28181_H
#define GB28181_H

#define GW_IN_BYTES (4u * 1024u * 1024u)
#define GW_OUT_BYTES (8u * 1024u * 1024u)
#include "gw1_args.h"

enum {
    TEXT_MOST = 8 * 1024 * 1024, /* a body as UTF-8: Chinese text grows by half */
    NODES_MOST = 262144,         /* elements and kept attributes */
    DEPTH_MOST = 16,
    NAME_MOST = 128,
    ATTRIBUTES_MOST = 32, /* of one element */
    FIELDS_MOST = 64,     /* different children of one element that is no list */
    ITEMS_MOST = 10000
};

/* charset.c: from whatever the device sent to UTF-8 */
typedef enum { UTF_8, GB18030 } charset;
/* What a name stands for; false for one that is not spoken here. */
bool charset_named(const char *name, uint32_t len, charset *to);
/* What the bytes of an undeclared (or wrongly declared) body are. */
charset charset_guessed(const uint8_t *body, uint32_t len);
/* One character; gives the bytes it took. What is none takes one byte, and the code is REPLACEMENT. */
enum { REPLACEMENT = 0xfffd };
uint32_t read_char(charset c, const uint8_t *at, uint32_t left, uint32_t *code);
uint32_t put_utf8(char *to, uint32_t code);
/* Converts the body; false where it does not fit. `replaced` counts what was no character. */
bool to_utf8(charset c, const uint8_t *body, uint32_t len, char *text, uint32_t *text_len, uint32_t *replaced);
/* Where in the body the byte `at` of the converted text comes from. */
uint32_t source_offset(charset c, const uint8_t *body, uint32_t len, uint32_t at);

/* xml.c: a tree of elements. A node's texts point into the text that was parsed, which is changed on the way. */
typedef struct {
    const char *name, *text;  /* of an element with children the text is not kept */
    uint32_t text_len;
    uint32_t child, next;     /* places of nodes; 0: none */
    uint16_t name_len;
    bool is_attribute;
    uint8_t group;            /* among its siblings: body.c's note */
} node;
node *node_at(uint32_t place);
/* Parses into the tree and gives its root; NULL where it refuses: `at` says where, `ends` whether text is missing. */
typedef struct { const char *text; uint32_t at; bool ends; } refusal;
node *parse_xml(char *text, uint32_t len, refusal *why);
/* The first element child, and the next element after one; NULL: none. */
node *first_element(const node *parent);
node *next_element(const node *before);

/* values.c: numbers and times in text. False for a text that is none. */
bool read_whole(const char *text, uint32_t len, int64_t *to);
bool read_decimal(const char *text, uint32_t len, double *to);
/* A date and time as RFC 3339 writes it, with whatever offset it had; `to` takes TIME_MOST bytes. */
enum { TIME_MOST = 40 };
bool read_time(const char *text, uint32_t len, char *to, uint32_t *to_len);

/* fields.c: the elements that the standard names */
typedef enum { AS_TEXT, AS_WHOLE, AS_NUMBER, AS_TIME, AS_GROUP, AS_LIST } field_type;
typedef struct { const char *name, *key; field_type type; } field;
/* The field of an element's name, in any case of its letters; NULL: the standard has none. */
const field *field_named(const char *name, uint32_t len);

/* body.c: a tree as the answer */
int32_t write_body(gw_out *out, const node *root, charset c, uint32_t replaced);

#endif
