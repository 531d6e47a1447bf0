/* SPDX-License-Identifier: Apache-2.0
 *
 * The Modbus meter codec: RTU replies as items, the settings, and the exports of the ABI.
 *
 * Source: Modbus Application Protocol V1.1b3, 6 and 7; Modbus over Serial Line V1.02, 2.5.1.
 */
#include "meter.h"

enum { CRC = 2, EXCEPTION = 0x80, NO_MODEM = GW_OWN + 256 };

typedef struct {
    uint8_t unit_id, function;
    const uint8_t *data; /* behind unit and function */
    uint32_t len;        /* of the data, without the CRC */
    device_id device;
} reply;

/* The head of an item that answers a command, or that nobody asked for. */
static void write_head(gw_out *out, const reply *r, gw_asked *question, const char *otherwise, bool ok, uint32_t pairs) {
    gw_map(out, 2 + pairs + (question ? 2 : 0));
    gw_key(out, "kind"); gw_cstr(out, question ? "reply" : otherwise);
    gw_key(out, "device"); gw_str(out, r->device.text, r->device.len);
    if (!question) return;
    gw_key(out, "reply_to"); gw_uint(out, question->serial);
    gw_key(out, "ok"); gw_bool(out, ok);
}

enum { REPLY_VALUE_PAIRS = 2 };
static void write_reply_value(gw_out *out, const reply *r) {
    gw_key(out, "unit_id"); gw_uint(out, r->unit_id);
    gw_key(out, "function"); gw_uint(out, r->function);
}

/* Functions 1 to 4: the registers or bits of a block. */
static int32_t decode_read(gw_out *out, const reply *r) {
    if (r->len < 1 || r->len - 1 < r->data[0]) return gw_error(GW_TRUNCATED, "the reply is shorter than it says");
    if (r->len - 1 > r->data[0]) return gw_error(GW_UNKNOWN_TYPE, "the reply is longer than it says");
    const block *b = find_block(r->unit_id, r->function, r->data[0]);
    if (!b) return gw_error(GW_UNKNOWN_TYPE, "no block of the map has this unit, function and number of bytes");
    gw_asked *question = find_question(&r->device, r->function);
    if (question && &map_blocks[question->detail % BLOCKS_MOST] != b) question = NULL;
    write_head(out, r, question, "report", true, 2);
    gw_key(out, "points"); gw_array(out, 1);
    gw_map(out, 1);
    gw_key(out, "values"); write_points(out, b, r->data + 1);
    gw_key(out, "value"); gw_map(out, REPLY_VALUE_PAIRS + 2);
    write_reply_value(out, r);
    gw_key(out, "block"); gw_cstr(out, b->name);
    gw_key(out, "values"); write_points(out, b, r->data + 1);
    if (!out->full) gw_asked_forget(question);
    return GW_WRITTEN;
}

/* Functions 5, 6, 15 and 16: address, and value or quantity. */
static int32_t decode_write(gw_out *out, const reply *r) {
    if (r->len < 4) return gw_error(GW_TRUNCATED, "the reply to a write has eight bytes");
    if (r->len > 4) return gw_error(GW_UNKNOWN_TYPE, "the reply to a write has eight bytes");
    gw_asked *question = find_question(&r->device, r->function);
    if (question && question->detail != gw_be16(r->data)) question = NULL;
    write_head(out, r, question, "heartbeat", true, 1);
    gw_key(out, "value"); gw_map(out, REPLY_VALUE_PAIRS + 2);
    write_reply_value(out, r);
    gw_key(out, "address"); gw_uint(out, gw_be16(r->data));
    gw_cstr(out, r->function >= WRITE_COILS ? "quantity" : "value"); gw_uint(out, gw_be16(r->data + 2));
    if (!out->full) gw_asked_forget(question);
    return GW_WRITTEN;
}

/* Source: Modbus Application Protocol V1.1b3, 7. */
static const char *exception_text(uint8_t code) {
    static const char *const texts[] = {
        "exception", "illegal function", "illegal data address", "illegal data value", "server device failure",
        "acknowledge", "server device busy", "exception", "memory parity error", "exception",
        "gateway path unavailable", "gateway target device failed to respond",
    };
    return texts[code < sizeof texts / sizeof *texts ? code : 0];
}

static int32_t decode_exception(gw_out *out, reply *r) {
    if (r->len != 1) return gw_error(r->len ? GW_UNKNOWN_TYPE : GW_TRUNCATED, "an exception has five bytes");
    r->function &= 0x7f;
    gw_asked *question = find_question(&r->device, r->function);
    if (!question) return gw_error(GW_OWN + r->data[0], exception_text(r->data[0]));
    write_head(out, r, question, "", false, 1);
    gw_key(out, "value"); gw_map(out, REPLY_VALUE_PAIRS + 2);
    write_reply_value(out, r);
    gw_key(out, "exception"); gw_uint(out, r->data[0]);
    gw_key(out, "error"); gw_cstr(out, exception_text(r->data[0]));
    if (!out->full) gw_asked_forget(question);
    return GW_WRITTEN;
}

/* A request that a half-duplex line returned: eight bytes that no reply can have, or a write with its data. That of a
 * single register or coil looks like its answer: see take_echo. */
static bool is_echo(const reply *r) {
    switch (r->function) {
    case READ_COILS: case READ_DISCRETE_INPUTS: return r->len == 4 && r->data[0] != 3;
    case READ_HOLDING_REGISTERS: case READ_INPUT_REGISTERS: return r->len == 4;
    case WRITE_COILS: case WRITE_REGISTERS: return r->len > 5 && r->len == 5u + r->data[4];
    default: return false;
    }
}

static int32_t decode_reply(gw_out *out, reply *r, uint32_t connection) {
    if (is_echo(r)) return GW_DROP;
    if (!name_device(&r->device, connection, r->unit_id))
        return gw_error(NO_MODEM, "the modem of this connection has not registered; see modem_prefix");
    if (r->function & EXCEPTION) return decode_exception(out, r);
    if (line_echoes && r->len == 4 && take_echo(&r->device, r->function, r->data)) return GW_DROP;
    switch (r->function) {
    case READ_COILS: case READ_DISCRETE_INPUTS: case READ_HOLDING_REGISTERS: case READ_INPUT_REGISTERS:
        return decode_read(out, r);
    case WRITE_COIL: case WRITE_REGISTER: case WRITE_COILS: case WRITE_REGISTERS: return decode_write(out, r);
    default: return gw_error(GW_UNSUPPORTED, "of Modbus, functions 1 to 6, 15 and 16 are read");
    }
}

static int32_t decode(gw_out *out, const uint8_t *bytes, uint32_t len, uint32_t aux) {
    if (len >= 4 && crc_of(bytes, len - CRC) == gw_le16(bytes + len - CRC)) {
        reply r = {.unit_id = bytes[0], .function = bytes[1], .data = bytes + 2, .len = len - 2 - CRC};
        if (r.unit_id == 0) return GW_DROP; /* a broadcast, overheard: nobody answers it */
        return decode_reply(out, &r, aux);
    }
    if (is_registration(bytes, len)) {
        take_registration(aux, bytes, len);
        return GW_DROP;
    }
    if (len < 4) return gw_error(GW_TRUNCATED, "a reply has four bytes and more");
    return gw_error(GW_CHECKSUM, "CRC");
}

static int32_t read_echo(gw_in config) {
    gw_value echo = gw_get(config, "echo");
    if (echo.type != GW_T_END && echo.type != GW_T_BOOL)
        return gw_error(GW_BAD_CONFIG, "echo must be true where the line returns what is sent, else false");
    line_echoes = echo.type == GW_T_BOOL && echo.uint;
    return 0;
}

static int32_t init(gw_in start) {
    gw_in config;
    if (!gw_find(start, "config", &config)) return gw_error(GW_BAD_CONFIG, "config is missing: it holds the register map");
    int32_t status = read_names(config);
    if (!status) status = read_echo(config);
    return status ? status : read_map(config);
}

GW_INIT(init)
GW_DECODER(decode)
GW_ENCODER(encode)
GW_STATE(save_modems, load_modems)
