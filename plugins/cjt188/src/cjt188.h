/* SPDX-License-Identifier: Apache-2.0
 *
 * cjt188.h - what the source files of the CJ/T 188 codec share: the frame, its units and one line about each part.
 *
 * Numbers are decimal digits, low byte first. A data identifier is written here as people write it: 901F is the reading
 * of the moment. On the wire meters send it either way round (90 1F by the edition of 2004, 1F 90 by that of 2018).
 */
#ifndef CJT188_H
#define CJT188_H

/* 255 bytes of data as hex, as a point and in `value`: 1.5 KB of a frame of 268 bytes. */
#define GW_IN_BYTES (64u * 1024u)
#define GW_OUT_BYTES (1024u * 1024u)
#include "gw1.h"
#include "gw1_asked.h"
#include "gw1_bcd.h"

enum {
    START = 0x68,
    END = 0x16,
    HEADER = 11,   /* start, type, seven bytes of address, control, length */
    OVERHEAD = 13, /* the header, checksum and end */
    ADDRESS = 7,
    YEAR_LEAST = 1970, /* of a meter's clock: one that shows an older year was never set */
    YEAR_MOST = 9999
};

/* Functions: the low six bits of the control code. Source: CJ/T 188-2004, table 3. */
enum { READ = 0x01, READ_ADDRESS = 0x03, WRITE = 0x04, READ_KEY = 0x09, WRITE_ADDRESS = 0x15, WRITE_SYNC = 0x16 };

/* Data identifiers. Source: tables 5 to 8. */
enum {
    READING = 0x901f,
    MONTH_FIRST = 0xd120,
    MONTH_LAST = 0xd12b,
    ADDRESS_DI = 0x810a,
    CLOCK_DI = 0xa015,
    VALVE_DI = 0xa017
};

typedef struct {
    uint8_t type;
    const uint8_t *address; /* low first */
    uint8_t control;
    uint8_t function;
    bool refused;
    const uint8_t *data;
    uint32_t len;
} frame;

/* frame.c: frames */
int32_t read_frame(frame *f, const uint8_t *bytes, uint32_t len);
void write_frame(gw_out *out, uint8_t type, const uint8_t address[ADDRESS], uint8_t control, const uint8_t *data,
                 uint32_t len);
uint16_t read_di(const uint8_t *bytes);

/* quantities.c: numbers with a unit */
typedef enum { ENERGY, POWER, FLOW_RATE, VOLUME } quantity;
typedef enum { UNIT_LAST, UNIT_FIRST } unit_place;
bool is_quantity(const uint8_t bytes[5], quantity kind, unit_place place);
void write_quantity(gw_out *out, const uint8_t bytes[5], quantity kind, unit_place place);

/* readings.c: the properties of an answer */
uint32_t write_values(gw_out *out, uint8_t type, uint16_t di, const uint8_t *data, uint32_t len);
uint32_t write_status(gw_out *out, const uint8_t status[2]);

/* commands.c: what the platform sends */
int32_t encode(gw_out *out, gw_in request, uint32_t aux);
gw_asked *find_question(const frame *f);

/* Settings. */
extern int32_t clock_offset_min;
extern uint8_t usual_type;
extern bool usual_di_high_first;
bool read_order(gw_value text, bool *high_first);

#endif
