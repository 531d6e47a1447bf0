/* SPDX-License-Identifier: Apache-2.0
 *
 * The JT/T 808 codec: which function decodes which message, and the exports of the ABI.
 */
#include "jt808.h"

/* A message that needs nothing but its header shown. */
static int32_t decode_plain(gw_out *out, const message *m, const char *kind) {
    write_item(out, m, kind, 2);
    write_ack(out, m, "general_reply", RESULT_OK);
    gw_key(out, "value"); gw_map(out, header_value_pairs(m));
    write_header_value(out, m);
    return GW_WRITTEN;
}

/* A part that waits for the others: no points and no acknowledgement, since nothing of it is stored yet. */
static int32_t decode_held_part(gw_out *out, const message *m) {
    write_item(out, m, "report", 1);
    gw_key(out, "value"); gw_map(out, header_value_pairs(m));
    write_header_value(out, m);
    return GW_WRITTEN;
}

/* Commands that a message of their own answers. Some terminals send a general reply before it. */
static bool has_own_answer(uint16_t command) {
    return command == QUERY_PARAMETERS || command == QUERY_SOME_PARAMETERS || command == QUERY_ATTRIBUTES ||
           command == LOCATE;
}

/* 0x0001: the terminal answers a command with its serial, its id and a result. Success does not end a command whose
 * answer is still to come; it shows that the terminal lives. */
static int32_t decode_general_reply(gw_out *out, const message *m) {
    if (m->body_len < 5) return decode_raw(out, m);
    bool ok = m->body[4] == RESULT_OK;
    if (ok && has_own_answer(gw_be16(m->body + 2))) {
        write_item(out, m, "heartbeat", 1);
    } else {
        write_item(out, m, "reply", 3);
        gw_key(out, "reply_to"); gw_uint(out, gw_be16(m->body));
        gw_key(out, "ok"); gw_bool(out, ok);
    }
    gw_key(out, "value"); gw_map(out, header_value_pairs(m) + 1);
    write_header_value(out, m);
    gw_key(out, "reply"); gw_map(out, 3);
    gw_key(out, "serial"); gw_uint(out, gw_be16(m->body));
    gw_key(out, "message_id"); gw_uint(out, gw_be16(m->body + 2));
    gw_key(out, "result"); gw_uint(out, m->body[4]);
    return GW_WRITTEN;
}

/* 0x0104: the terminal answers a query with its parameters. */
static int32_t decode_parameters(gw_out *out, const message *m) {
    if (m->body_len < 3) return decode_raw(out, m);
    write_item(out, m, "reply", 3);
    gw_key(out, "reply_to"); gw_uint(out, gw_be16(m->body));
    gw_key(out, "ok"); gw_bool(out, true);
    gw_key(out, "value"); gw_map(out, header_value_pairs(m) + 2);
    write_header_value(out, m);
    gw_key(out, "reply"); gw_map(out, 2);
    gw_key(out, "serial"); gw_uint(out, gw_be16(m->body));
    gw_key(out, "count"); gw_uint(out, m->body[2]);
    gw_key(out, "parameters"); write_parameters(out, m->body + 3, m->body_len - 3);
    return GW_WRITTEN;
}

static int32_t decode_body(gw_out *out, const message *m) {
    switch (m->id) {
    case LOCATION: case LOCATION_REPLY: case CONTROL_REPLY: return decode_location(out, m);
    case LOCATION_BATCH: case LOCATION_CHAIN: return decode_location_batch(out, m);
    case HEARTBEAT: return decode_plain(out, m, "heartbeat");
    case LOGOUT: return decode_plain(out, m, "logout");
    case REGISTER: return decode_register(out, m);
    case AUTHENTICATE: return decode_authenticate(out, m);
    case GENERAL_REPLY_UP: return decode_general_reply(out, m);
    case PARAMETERS: return decode_parameters(out, m);
    case ATTRIBUTES: return decode_attributes(out, m);
    default: return decode_raw(out, m);
    }
}

static int32_t decode_whole(gw_out *out, const message *m) {
    return m->encryption ? decode_raw(out, m) : decode_body(out, m);
}

static int32_t decode_part(gw_out *out, message *m) {
    switch (take_part(m)) {
    case PART_HELD: return decode_held_part(out, m);
    case PART_UNFIT: return decode_raw(out, m);
    default: break;
    }
    int32_t status = decode_whole(out, m);
    /* What does not fit beside the rest of its batch is asked for once more, alone. */
    if (!out->full) drop_completed();
    return status;
}

static int32_t decode(gw_out *out, const uint8_t *frame, uint32_t len, uint32_t aux) {
    message m;
    int32_t status = read_message(&m, frame, len);
    if (status != GW_WRITTEN) return status;
    m.connection = aux;
    return m.is_part && m.total != 1 ? decode_part(out, &m) : decode_whole(out, &m);
}

GW_DECODER(decode)
GW_ENCODER(encode)
