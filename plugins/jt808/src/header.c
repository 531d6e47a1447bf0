/* SPDX-License-Identifier: Apache-2.0
 *
 * Frames: the header of a received message, and a message on the wire. Knows no body.
 */
#include "jt808.h"

enum { FLAG = 0x7e, ESCAPE = 0x7d, HAS_PARTS = 1 << 13, IS_2019 = 1 << 14 };

static uint8_t xor_of(const uint8_t *bytes, uint32_t len) {
    uint8_t sum = 0;
    for (uint32_t i = 0; i < len; i++) sum ^= bytes[i];
    return sum;
}

/* Read an unescaped frame without its flags: header, body, checksum. */
int32_t read_message(message *m, const uint8_t *frame, uint32_t len) {
    if (len < HEADER_2013 + 1) return gw_error(GW_TRUNCATED, "the frame is shorter than a header");
    if (xor_of(frame, len) != 0) return gw_error(GW_CHECKSUM, "checksum");
    uint16_t attributes = gw_be16(frame + 2);
    *m = (message){
        .id = gw_be16(frame),
        .is_2019 = (attributes & IS_2019) != 0,
        .is_part = (attributes & HAS_PARTS) != 0,
        .encryption = attributes >> 10 & 7,
    };
    uint32_t header = m->is_2019 ? HEADER_2019 : HEADER_2013;
    uint32_t body_at = header + (m->is_part ? PART_FIELDS : 0);
    if (len < body_at + 1) return gw_error(GW_TRUNCATED, "the frame is shorter than its header");
    m->version = m->is_2019 ? frame[4] : 0;
    m->phone = frame + (m->is_2019 ? 5 : 4);
    m->phone_bytes = m->is_2019 ? 10 : 6;
    m->serial = gw_be16(frame + header - 2);
    if (m->is_part) {
        m->total = gw_be16(frame + header);
        m->index = gw_be16(frame + header + 2);
    }
    m->body = frame + body_at;
    m->body_len = len - 1 - body_at;
    m->body_length_ok = m->body_len == (attributes & BODY_MOST);
    return GW_WRITTEN;
}

uint32_t header_value_pairs(const message *m) { return m->encryption ? 8 : 7; }

/* The pairs of an item's `value` that every message has. */
void write_header_value(gw_out *out, const message *m) {
    gw_key(out, "checksum_ok"); gw_bool(out, true);
    gw_key(out, "message_id"); gw_uint(out, m->id);
    gw_key(out, "version");
    if (m->is_2019) gw_uint(out, m->version);
    else gw_nil(out);
    gw_key(out, "terminal_phone"); gw_hex(out, m->phone, m->phone_bytes);
    gw_key(out, "serial"); gw_uint(out, m->serial);
    gw_key(out, "parts");
    if (m->is_part) {
        gw_map(out, 2);
        gw_key(out, "total"); gw_uint(out, m->total);
        gw_key(out, "index"); gw_uint(out, m->index);
    } else {
        gw_nil(out);
    }
    gw_key(out, "body_length_ok"); gw_bool(out, m->body_length_ok);
    if (m->encryption) {
        gw_key(out, "encryption"); gw_uint(out, m->encryption);
    }
}

static int hex_digit(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

/* The phone number as sent: 12 digits ask for a 2013 header, 20 for a 2019 one (of version 1 unless said). */
bool read_address(address *to, gw_value phone, gw_value version) {
    if (phone.type != GW_T_STR || (phone.len != 12 && phone.len != 20)) return false;
    *to = (address){.is_2019 = phone.len == 20, .version = 1};
    if (version.type == GW_T_UINT && version.uint <= 0xff) to->version = (uint8_t)version.uint;
    for (uint32_t i = 0; i < phone.len; i += 2) {
        int high = hex_digit(phone.text[i]), low = hex_digit(phone.text[i + 1]);
        if (high < 0 || low < 0) return false;
        to->phone[i / 2] = (uint8_t)(high << 4 | low);
    }
    return true;
}

static void write_escaped(gw_out *out, const uint8_t *bytes, uint32_t len) {
    for (uint32_t i = 0; i < len; i++) {
        if (bytes[i] == FLAG || bytes[i] == ESCAPE) {
            gw_byte(out, ESCAPE);
            gw_byte(out, bytes[i] == FLAG ? 2 : 1);
        } else {
            gw_byte(out, bytes[i]);
        }
    }
}

/* A whole message as on the wire: flags, escapes, checksum. `len` is at most BODY_MOST. */
void write_frame(gw_out *out, const address *to, uint16_t id, uint16_t serial, const uint8_t *body, uint16_t len) {
    uint8_t header[HEADER_2019];
    gw_out h = {.start = header, .at = header, .end = header + sizeof header};
    gw_put16(&h, id);
    gw_put16(&h, (uint16_t)(len | (to->is_2019 ? IS_2019 : 0)));
    if (to->is_2019) gw_byte(&h, to->version);
    gw_raw(&h, to->phone, to->is_2019 ? 10 : 6);
    gw_put16(&h, serial);
    uint8_t sum = xor_of(header, gw_written(&h)) ^ xor_of(body, len);
    gw_byte(out, FLAG);
    write_escaped(out, header, gw_written(&h));
    write_escaped(out, body, len);
    write_escaped(out, &sum, 1);
    gw_byte(out, FLAG);
}
