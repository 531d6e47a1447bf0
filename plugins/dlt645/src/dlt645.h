/* SPDX-License-Identifier: Apache-2.0
 *
 * dlt645.h - what the source files of the DL/T 645-2007 codec share: the frame and one line about each part.
 *
 * Data on the wire is low byte first, and 33H is added to each byte of it. A data identifier is written here as people
 * write it, DI3 DI2 DI1 DI0: 00010000 is the total of forward active energy.
 */
#ifndef DLT645_H
#define DLT645_H

/* 255 bytes of data as 63 properties with their names and in `value` once more: some 8 KB of a frame of 267 bytes. */
#define GW_IN_BYTES (64u * 1024u)
#define GW_OUT_BYTES (2u * 1024u * 1024u)
#include "gw1.h"
#include "gw1_asked.h"
#include "gw1_bcd.h"

enum {
    START = 0x68,
    END = 0x16,
    HEADER = 10,   /* start, six bytes of address, start, control, length */
    OVERHEAD = 12, /* the header, checksum and end */
    OFFSET = 0x33, /* added to each byte of data */
    ADDRESS = 6,
    DATA_MOST = 255,
    WRITE_MOST = 38, /* bytes of a value: 50 of a writing frame without identifier, password and operator (7.1.3) */
    NAME_BYTES = 64
};

/* Functions: the low five bits of the control code. Source: DL/T 645-2007, 5.2.4; 1CH: its supplement of 2010. */
enum {
    BROADCAST_TIME = 0x08,
    READ = 0x11,
    READ_NEXT = 0x12,
    READ_ADDRESS = 0x13,
    WRITE = 0x14,
    RELAY = 0x1c
};

/* One frame, its data without the offset. */
typedef struct {
    const uint8_t *address; /* low first */
    uint8_t control;
    uint8_t function;
    bool refused;     /* the meter answers that it will not */
    bool more;        /* further frames hold the rest of the data */
    uint32_t len;
    uint8_t data[DATA_MOST];
} frame;

/* frame.c: frames */
int32_t read_frame(frame *f, const uint8_t *bytes, uint32_t len);
void write_frame(gw_out *out, const uint8_t address[ADDRESS], uint8_t control, const uint8_t *data, uint32_t len);

/* identifiers.c: what a data identifier stands for */
typedef enum {
    AS_NUMBER, /* decimal digits, perhaps with a sign in the highest bit */
    AS_DEMAND, /* such a number of three bytes, and when it was reached */
    AS_DIGITS, /* an address or a number without arithmetic */
    AS_TEXT,   /* printable characters, the last one first */
    AS_DATE, AS_TIME, AS_CLOCK,
    AS_STATUS  /* a word of bits */
} form;
typedef struct {
    char name[NAME_BYTES];
    form form;
    uint8_t bytes;
    uint8_t decimals;
    bool is_signed;
} item;
bool find_item(item *it, uint32_t di);
bool is_block(uint32_t di, uint32_t *first, uint32_t *step);

/* values.c: the properties of an answer */
uint32_t write_values(gw_out *out, uint32_t di, const uint8_t *data, uint32_t len);
uint32_t write_rest(gw_out *out, uint32_t di, uint8_t sequence, const uint8_t *data, uint32_t len);
extern int32_t clock_offset_min;

/* commands.c: what the platform sends */
int32_t encode(gw_out *out, gw_in request, uint32_t aux);
gw_asked *find_question(const frame *f);

#endif
