/* SPDX-License-Identifier: Apache-2.0
 *
 * jt808.h - what the source files of the JT/T 808 codec share: the message and one line about each part.
 *
 * Numbers on the wire are big endian. "2013" stands for the header of JT/T 808-2011 and -2013 (6-byte phone number),
 * "2019" for that of JT/T 808-2019 (version byte, 10-byte phone number), told apart by bit 14 of the attributes.
 */
#ifndef JT808_H
#define JT808_H

/* A heartbeat of 21 bytes with its place in the batch grows most, to some 350 bytes: 32 times the input is room for
 * all that one input can hold, and for a message put together from parts. */
#define GW_IN_BYTES (128u * 1024u)
#define GW_OUT_BYTES (4u * 1024u * 1024u)
#include "gw1.h"

enum {
    HEADER_2013 = 12,
    HEADER_2019 = 17,
    PART_FIELDS = 4,
    LOCATION_BYTES = 28,      /* the fixed part of a location */
    BODY_MOST = 1023,         /* what the 10-bit length of a header can say */
    PARTS_MOST = 128,         /* parts of one message that is put together */
    TEXT_MOST = 255
};

enum {
    GENERAL_REPLY_UP = 0x0001,
    HEARTBEAT = 0x0002,
    LOGOUT = 0x0003,
    REGISTER = 0x0100,
    AUTHENTICATE = 0x0102,
    PARAMETERS = 0x0104,
    ATTRIBUTES = 0x0107,
    LOCATION = 0x0200,
    LOCATION_REPLY = 0x0201,
    LOCATION_CHAIN = 0x0210,
    CONTROL_REPLY = 0x0500,
    LOCATION_BATCH = 0x0704,
    GENERAL_REPLY_DOWN = 0x8001,
    REGISTER_REPLY = 0x8100,
    SET_PARAMETERS = 0x8103,
    QUERY_PARAMETERS = 0x8104,
    QUERY_SOME_PARAMETERS = 0x8106,
    QUERY_ATTRIBUTES = 0x8107,
    LOCATE = 0x8201
};

/* Results of a general reply that this codec gives. Never 2, "message faulty": what a terminal sends is stored, decoded
 * or raw, and one that sends it again would double what was stored. */
enum { RESULT_OK = 0, RESULT_FAILED = 1 };
enum { REGISTER_NO_SUCH_TERMINAL = 4 };

/* One message: a frame's header and body, or the whole that its parts made. */
typedef struct {
    uint16_t id;
    bool is_2019;
    uint8_t version;
    uint8_t encryption; /* bits 10 to 12 of the attributes; not 0: the body is not readable */
    const uint8_t *phone;
    uint8_t phone_bytes;
    uint16_t serial;
    uint32_t connection; /* that it came by; 0 where the host tells none */
    bool is_part;
    uint16_t total, index;
    const uint8_t *body;
    uint32_t body_len;
    bool body_length_ok;
    const uint16_t *serials; /* of every part, when the body was put together */
    uint16_t serial_count;
} message;

/* header.c: frames */
int32_t read_message(message *m, const uint8_t *frame, uint32_t len);
void write_header_value(gw_out *out, const message *m);
uint32_t header_value_pairs(const message *m);

typedef struct {
    bool is_2019;
    uint8_t version;
    uint8_t phone[10];
} address;
bool read_address(address *to, gw_value phone, gw_value version);
void write_frame(gw_out *out, const address *to, uint16_t id, uint16_t serial, const uint8_t *body, uint16_t len);

/* parts.c: messages that come in parts */
typedef enum { PART_HELD, PART_COMPLETED, PART_UNFIT } part_result;
part_result take_part(message *m);
void drop_completed(void);

/* location.c: locations and their extras */
int32_t decode_location(gw_out *out, const message *m);
int32_t decode_location_batch(gw_out *out, const message *m);

/* parameters.c: terminal parameters by their type */
void write_parameters(gw_out *out, const uint8_t *bytes, uint32_t len);
int32_t read_parameters(gw_out *body, gw_in parameters);
int32_t read_parameter_ids(gw_out *body, gw_in ids);

/* item.c: pieces of a decoded item */
void write_item(gw_out *out, const message *m, const char *kind, uint32_t pairs);
void write_ack(gw_out *out, const message *m, const char *command, uint8_t result);
void write_text(gw_out *out, const char *name, const char *hex_name, const uint8_t *bytes, uint32_t len);
bool is_text(const uint8_t *bytes, uint32_t len);
uint32_t trimmed(const uint8_t *bytes, uint32_t len);
int32_t decode_raw(gw_out *out, const message *m);

/* registration.c: what a terminal says of itself */
int32_t decode_register(gw_out *out, const message *m);
int32_t decode_authenticate(gw_out *out, const message *m);
int32_t decode_attributes(gw_out *out, const message *m);

/* commands.c: what the platform sends */
int32_t encode(gw_out *out, gw_in request, uint32_t aux);

#endif
