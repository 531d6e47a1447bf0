/* SPDX-License-Identifier: Apache-2.0
 *
 * What the platform sends: acknowledgements and commands, as frames on the wire.
 */
#include "jt808.h"

enum { CODE_MOST = 200 }; /* room for an authentication code; far above what terminals keep */

/* Serial of messages for which the host gives none. */
static uint16_t own_serial;

static bool read_u16(uint16_t *to, gw_value v) {
    if (v.type != GW_T_UINT || v.uint > 0xffff) return false;
    *to = (uint16_t)v.uint;
    return true;
}

static int32_t bad(const char *text) { return gw_error(GW_BAD_CONFIG, text); }

static uint16_t frame_serial(gw_in request) {
    uint16_t serial;
    return read_u16(&serial, gw_get(request, "serial")) ? serial : own_serial++;
}

/* ---- Acknowledgements ------------------------------------------------------------------------------------------- */

typedef struct {
    address to;
    uint16_t message_id;
    uint8_t result;
    gw_value credential;
} reply;

static int32_t read_reply(reply *r, gw_in request, gw_in args, bool needs_message_id, uint8_t refused) {
    uint16_t result = RESULT_OK;
    gw_value phone = gw_get(args, "phone"), given = gw_get(args, "result");
    if (phone.type == GW_T_END) phone = gw_get(request, "device");
    if (!read_address(&r->to, phone, gw_get(args, "version"))) return bad("phone must be 12 or 20 digits");
    if (!read_u16(&r->message_id, gw_get(args, "message_id")) && needs_message_id)
        return bad("message_id must be a number from 0 to 65535");
    if (given.type != GW_T_END && (!read_u16(&result, given) || result > 0xff))
        return bad("result must be a number from 0 to 255");
    if (!gw_get_bool(request, "accepted", true)) result = refused;
    r->result = (uint8_t)result;
    r->credential = gw_get(request, "credential");
    if (r->credential.type == GW_T_END) r->credential = gw_get(args, "credential");
    return GW_WRITTEN;
}

static void write_general_reply(gw_out *out, const reply *r, uint16_t serial, uint16_t answered) {
    uint8_t body[5] = {(uint8_t)(answered >> 8), (uint8_t)answered, (uint8_t)(r->message_id >> 8),
                       (uint8_t)r->message_id, r->result};
    write_frame(out, &r->to, GENERAL_REPLY_DOWN, serial, body, sizeof body);
}

static void write_register_reply(gw_out *out, const reply *r, uint16_t serial, uint16_t answered) {
    uint8_t body[3 + CODE_MOST] = {(uint8_t)(answered >> 8), (uint8_t)answered, r->result};
    uint16_t len = 3;
    if (r->result == RESULT_OK && r->credential.type == GW_T_STR) {
        memcpy(body + 3, r->credential.text, r->credential.len);
        len = (uint16_t)(3 + r->credential.len);
    }
    write_frame(out, &r->to, REGISTER_REPLY, serial, body, len);
}

typedef void (*reply_writer)(gw_out *out, const reply *r, uint16_t serial, uint16_t answered);

/* One frame for `serial`, or one for each of `serials`. */
static int32_t write_replies(gw_out *out, gw_in request, gw_in args, const reply *r, reply_writer write) {
    uint16_t answered;
    gw_in serials;
    if (read_u16(&answered, gw_get(args, "serial"))) {
        write(out, r, frame_serial(request), answered);
        return GW_WRITTEN;
    }
    if (!gw_find(args, "serials", &serials)) return bad("serial must be a number from 0 to 65535");
    gw_value list = gw_next(&serials);
    if (list.type != GW_T_ARRAY || list.len < 1) return bad("serials must be a list of numbers");
    for (uint32_t i = 0; i < list.len; i++) {
        if (!read_u16(&answered, gw_next(&serials))) return bad("serials must be numbers from 0 to 65535");
        write(out, r, own_serial++, answered);
    }
    return GW_WRITTEN;
}

static int32_t encode_general_reply(gw_out *out, gw_in request, gw_in args) {
    reply r = {0};
    int32_t status = read_reply(&r, request, args, true, RESULT_FAILED);
    return status == GW_WRITTEN ? write_replies(out, request, args, &r, write_general_reply) : status;
}

static int32_t encode_register_reply(gw_out *out, gw_in request, gw_in args) {
    reply r = {0};
    int32_t status = read_reply(&r, request, args, false, REGISTER_NO_SUCH_TERMINAL);
    if (status != GW_WRITTEN) return status;
    if (r.credential.type == GW_T_STR && r.credential.len > CODE_MOST) return bad("credential is longer than 200 bytes");
    return write_replies(out, request, args, &r, write_register_reply);
}

/* ---- Commands --------------------------------------------------------------------------------------------------- */

static int32_t write_command(gw_out *out, gw_in request, uint16_t id, const gw_out *body) {
    address to;
    if (!read_address(&to, gw_get(request, "device"), gw_get(request, "version")))
        return bad("device must be a phone number of 12 or 20 digits");
    write_frame(out, &to, id, frame_serial(request), body->start, (uint16_t)gw_written(body));
    return GW_WRITTEN;
}

static gw_out body_writer(void) {
    static uint8_t bytes[BODY_MOST];
    return (gw_out){.start = bytes, .at = bytes, .end = bytes + BODY_MOST};
}

static int32_t encode_set_parameters(gw_out *out, gw_in request, gw_in args) {
    gw_out body = body_writer();
    gw_in parameters;
    if (!gw_find(args, "parameters", &parameters)) return bad("parameters are missing: give them as {\"0x0001\": 60}");
    int32_t status = read_parameters(&body, parameters);
    return status == GW_WRITTEN ? write_command(out, request, SET_PARAMETERS, &body) : status;
}

static int32_t encode_query_parameters(gw_out *out, gw_in request, gw_in args) {
    gw_out body = body_writer();
    gw_in ids;
    if (!gw_find(args, "ids", &ids)) return write_command(out, request, QUERY_PARAMETERS, &body);
    int32_t status = read_parameter_ids(&body, ids);
    return status == GW_WRITTEN ? write_command(out, request, QUERY_SOME_PARAMETERS, &body) : status;
}

static int32_t encode_locate(gw_out *out, gw_in request, gw_in args) {
    (void)args;
    gw_out body = body_writer();
    return write_command(out, request, LOCATE, &body);
}

static const struct {
    const char *name;
    int32_t (*encode)(gw_out *out, gw_in request, gw_in args);
} commands[] = {
    {"general_reply", encode_general_reply},       {"register_reply", encode_register_reply},
    {"set_parameters", encode_set_parameters},     {"query_parameters", encode_query_parameters},
    {"locate", encode_locate},
};

/* An encode request: {command, args, device, serial, accepted, credential}. */
int32_t encode(gw_out *out, gw_in request, uint32_t aux) {
    (void)aux;
    static const uint8_t no_args = 0x80;
    gw_value command = gw_get(request, "command");
    gw_in args;
    if (!gw_find(request, "args", &args)) args = (gw_in){.at = &no_args, .end = &no_args + 1};
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
        if (gw_is(command, commands[i].name)) return commands[i].encode(out, request, args);
    return gw_error(GW_UNSUPPORTED, "unknown command: set_parameters, query_parameters and locate are known");
}
