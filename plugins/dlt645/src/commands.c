/* SPDX-License-Identifier: Apache-2.0
 *
 * What the platform sends, and which answer belongs to what it sent: the frames carry no serial, so a question is found
 * again by the meter's address and the function, and of a reading also by its identifier.
 *
 * Source: DL/T 645-2007, 7; relay control: its supplement of 2010.
 */
#include "dlt645.h"

typedef struct {
    gw_in args;
    uint8_t address[ADDRESS];
    uint32_t serial;
    bool has_serial;
} request;

static void note(const request *r, uint8_t function, uint32_t di) {
    uint8_t key[GW_ASKED_KEY_BYTES];
    if (r->has_serial) gw_asked_note(key, gw_asked_key(key, r->address, ADDRESS, function), r->serial, di);
}

/* The question that a frame answers, or NULL. A refusal names no identifier: it is of whatever was asked. */
gw_asked *find_question(const frame *f) {
    uint8_t key[GW_ASKED_KEY_BYTES];
    gw_asked *one = gw_asked_find(key, gw_asked_key(key, f->address, ADDRESS, f->function));
    bool names_di = !f->refused && (f->function == READ || f->function == READ_NEXT);
    return one && names_di && (f->len < 4 || gw_le32(f->data) != one->detail) ? NULL : one;
}

static int32_t refuse(const char *why) { return gw_error(GW_BAD_CONFIG, why); }

static bool read_di(gw_value text, uint8_t di[4]) { return gw_hex_bytes(text, di, 4, true); }

/* A whole number from 0 to `most`; `otherwise` where the key is missing, -1 where it is something else. */
static int64_t number_arg(gw_in args, const char *key, int64_t most, int64_t otherwise) {
    gw_value v = gw_get(args, key);
    if (v.type == GW_T_END || v.type == GW_T_NIL) return otherwise;
    return v.type == GW_T_UINT && v.uint <= (uint64_t)most ? (int64_t)v.uint : -1;
}

/* Level, password and operator, eight bytes. */
static int32_t read_rights(gw_in args, uint8_t to[8]) {
    int64_t level = number_arg(args, "level", 99, 2);
    if (level < 0) return refuse("level must be 0 to 99, such as 2");
    to[0] = (uint8_t)level;
    if (!gw_hex_bytes(gw_get(args, "password"), to + 1, 3, true)) return refuse("password must be six digits");
    memset(to + 4, 0, 4);
    gw_value person = gw_get(args, "operator");
    if (person.type != GW_T_END && person.type != GW_T_NIL && !gw_hex_bytes(person, to + 4, 4, true))
        return refuse("operator must be eight digits, or left out for 00000000");
    return GW_WRITTEN;
}

/* The moment of an RFC 3339 text on the meters' clocks; false where it is none, or in a century that two digits of a year
 * do not name. */
static bool put_clock(uint8_t to[6], gw_value text) {
    int64_t ms;
    if (!gw_read_moment(text, &ms)) return false;
    gw_moment m = gw_moment_of(ms, clock_offset_min);
    if (m.year < 2000 || m.year > 2099) return false;
    int32_t parts[6] = {m.second, m.minute, m.hour, m.day, m.month, m.year % 100};
    for (int i = 0; i < 6; i++) to[i] = (uint8_t)(parts[i] / 10 << 4 | parts[i] % 10);
    return true;
}

static int32_t encode_read(gw_out *out, request *r) {
    uint8_t data[5];
    if (!read_di(gw_get(r->args, "di"), data)) return refuse("di must be eight hex digits, such as \"00010000\"");
    int64_t blocks = number_arg(r->args, "blocks", 255, 0);
    if (blocks < 0) return refuse("blocks must be 1 to 255, or left out");
    data[4] = (uint8_t)blocks;
    write_frame(out, r->address, READ, data, blocks ? 5 : 4);
    note(r, READ, gw_le32(data));
    return GW_WRITTEN;
}

static int32_t encode_read_next(gw_out *out, request *r) {
    uint8_t data[5];
    if (!read_di(gw_get(r->args, "di"), data)) return refuse("di must be eight hex digits, such as \"0001ff00\"");
    int64_t sequence = number_arg(r->args, "sequence", 255, 1);
    if (sequence < 1) return refuse("sequence must be 1 to 255");
    data[4] = (uint8_t)sequence;
    write_frame(out, r->address, READ_NEXT, data, 5);
    note(r, READ_NEXT, gw_le32(data));
    return GW_WRITTEN;
}

/* Asks whichever single meter is on the line. */
static int32_t encode_read_address(gw_out *out, request *r) {
    static const uint8_t anyone[ADDRESS] = {0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa};
    write_frame(out, anyone, READ_ADDRESS, NULL, 0);
    note(r, READ_ADDRESS, 0);
    return GW_WRITTEN;
}

/* To all meters of the line; none answers (7.7). */
static int32_t encode_broadcast_time(gw_out *out, request *r) {
    static const uint8_t everyone[ADDRESS] = {0x99, 0x99, 0x99, 0x99, 0x99, 0x99};
    uint8_t data[6];
    if (!put_clock(data, gw_get(r->args, "time")))
        return refuse("time must be RFC 3339 text, of the years 2000 to 2099 on the meters' clocks");
    write_frame(out, everyone, BROADCAST_TIME, data, sizeof data);
    return GW_WRITTEN;
}

static int32_t encode_write(gw_out *out, request *r) {
    uint8_t data[12 + WRITE_MOST];
    if (!read_di(gw_get(r->args, "di"), data)) return refuse("di must be eight hex digits, such as \"04000102\"");
    int32_t status = read_rights(r->args, data + 4);
    if (status != GW_WRITTEN) return status;
    gw_value value = gw_get(r->args, "data");
    uint32_t len = value.type == GW_T_STR ? value.len / 2 : 0;
    if (len < 1 || len > WRITE_MOST || !gw_hex_bytes(value, data + 12, len, true))
        return refuse("data must be the value's digits as people write them, 1 to 38 bytes in hex");
    write_frame(out, r->address, WRITE, data, 12 + len);
    note(r, WRITE, gw_le32(data));
    return GW_WRITTEN;
}

static int32_t encode_relay(gw_out *out, request *r) {
    static const struct { const char *name; uint8_t code; } actions[] = {
        {"open", 0x1a}, {"allow_close", 0x1b}, {"close", 0x1c}, {"alarm", 0x2a}, {"end_alarm", 0x2b},
        {"keep_supply", 0x3a}, {"end_keep_supply", 0x3b},
    };
    uint8_t data[16];
    gw_value action = gw_get(r->args, "action");
    data[8] = 0;
    for (uint32_t i = 0; i < sizeof actions / sizeof *actions; i++)
        if (gw_is(action, actions[i].name)) data[8] = actions[i].code;
    if (!data[8]) return refuse("action must be open, allow_close, close, alarm, end_alarm, keep_supply or end_keep_supply");
    int32_t status = read_rights(r->args, data);
    if (status != GW_WRITTEN) return status;
    data[9] = 0;
    if (!put_clock(data + 10, gw_get(r->args, "until")))
        return refuse("until must be RFC 3339 text, of the years 2000 to 2099: the meter obeys only before it");
    write_frame(out, r->address, RELAY, data, sizeof data);
    note(r, RELAY, data[8]);
    return GW_WRITTEN;
}

int32_t encode(gw_out *out, gw_in in, uint32_t aux) {
    static const struct { const char *name; int32_t (*encode)(gw_out *, request *); } commands[] = {
        {"read", encode_read}, {"read_next", encode_read_next}, {"read_address", encode_read_address},
        {"broadcast_time", encode_broadcast_time}, {"write", encode_write}, {"relay", encode_relay},
    };
    gw_value command = gw_get(in, "command");
    for (uint32_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        if (!gw_is(command, commands[i].name)) continue;
        request r = {.serial = 0};
        gw_value serial = gw_get(in, "serial");
        r.has_serial = serial.type == GW_T_UINT && serial.uint <= 0xffffffffu;
        if (r.has_serial) r.serial = (uint32_t)serial.uint;
        if (!gw_find(in, "args", &r.args)) return refuse("args is missing");
        if (!gw_hex_bytes(gw_get(in, "device"), r.address, ADDRESS, true))
            return refuse("the device's id must be the meter's address of 12 digits");
        return commands[i].encode(out, &r);
    }
    return gw_error(GW_UNSUPPORTED, "the command must be read, read_next, read_address, broadcast_time, write or relay");
}
