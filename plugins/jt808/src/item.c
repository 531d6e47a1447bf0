/* SPDX-License-Identifier: Apache-2.0
 *
 * Pieces of a decoded item that several messages share: its head, its acknowledgement, text, a message kept raw.
 */
#include "jt808.h"

/* Open an item of `pairs` further pairs. */
void write_item(gw_out *out, const message *m, const char *kind, uint32_t pairs) {
    gw_map(out, pairs + 2);
    gw_key(out, "kind"); gw_cstr(out, kind);
    gw_key(out, "device"); gw_hex(out, m->phone, m->phone_bytes);
}

/* The pair `ack`: everything that the encoder needs to answer this message, or each of its parts. */
void write_ack(gw_out *out, const message *m, const char *command, uint8_t result) {
    gw_key(out, "ack"); gw_map(out, 2);
    gw_key(out, "command"); gw_cstr(out, command);
    gw_key(out, "args"); gw_map(out, 5);
    gw_key(out, "phone"); gw_hex(out, m->phone, m->phone_bytes);
    gw_key(out, "version");
    if (m->is_2019) gw_uint(out, m->version);
    else gw_nil(out);
    gw_key(out, "message_id"); gw_uint(out, m->id);
    gw_key(out, "result"); gw_uint(out, result);
    if (m->serial_count) {
        gw_key(out, "serials"); gw_array(out, m->serial_count);
        for (uint32_t i = 0; i < m->serial_count; i++) gw_uint(out, m->serials[i]);
    } else {
        gw_key(out, "serial"); gw_uint(out, m->serial);
    }
}

/* Length without the zeros and spaces that fill a fixed-width field. */
uint32_t trimmed(const uint8_t *bytes, uint32_t len) {
    while (len && (bytes[len - 1] == 0 || bytes[len - 1] == ' ')) len--;
    return len;
}

/* Printable ASCII. Anything else on this wire is GBK, which the gateway does not guess at. */
bool is_text(const uint8_t *bytes, uint32_t len) {
    for (uint32_t i = 0; i < len; i++)
        if (bytes[i] < 0x20 || bytes[i] > 0x7e) return false;
    return true;
}

/* One pair: the text under `name`, or bytes that are no ASCII under `hex_name`. */
void write_text(gw_out *out, const char *name, const char *hex_name, const uint8_t *bytes, uint32_t len) {
    len = trimmed(bytes, len);
    if (is_text(bytes, len)) {
        gw_cstr(out, name);
        gw_str(out, (const char *)bytes, len);
    } else {
        gw_cstr(out, hex_name);
        gw_hex(out, bytes, len);
    }
}

/* An event `message_0xNNNN` with the body as it came: what is not understood is stored, never lost. */
int32_t decode_raw(gw_out *out, const message *m) {
    uint8_t id[2] = {(uint8_t)(m->id >> 8), (uint8_t)m->id};
    char name[] = "message_0x0000";
    for (uint32_t i = 0; i < 4; i++) name[10 + i] = "0123456789abcdef"[id[i / 2] >> (i % 2 ? 0 : 4) & 15];
    bool lone_part = m->is_part && !m->serial_count;
    write_item(out, m, "event", 3);
    gw_key(out, "event"); gw_map(out, 2);
    gw_key(out, "name"); gw_str(out, name, sizeof name - 1);
    gw_key(out, "data"); gw_map(out, 2u + (m->encryption != 0) + lone_part);
    gw_key(out, "message_id"); gw_uint(out, m->id);
    gw_key(out, "body"); gw_hex(out, m->body, m->body_len);
    if (m->encryption) {
        gw_key(out, "encryption"); gw_uint(out, m->encryption);
    }
    if (lone_part) {
        gw_key(out, "parts"); gw_map(out, 2);
        gw_key(out, "total"); gw_uint(out, m->total);
        gw_key(out, "index"); gw_uint(out, m->index);
    }
    write_ack(out, m, "general_reply", RESULT_OK);
    gw_key(out, "value"); gw_map(out, header_value_pairs(m));
    write_header_value(out, m);
    return GW_WRITTEN;
}
