/* SPDX-License-Identifier: Apache-2.0
 *
 * What the platform sends, and which answer belongs to it. The serial of a frame has one byte, and not every meter
 * sends it back, so that a question is found again by address, function and identifier.
 *
 * Source: CJ/T 188-2004, 7.
 */
#include "cjt188.h"

typedef struct {
    gw_in args;
    uint8_t type;
    uint8_t address[ADDRESS];
    bool di_high_first;
    bool has_serial;
    uint32_t serial;
} request;

/* The question that a frame answers, or NULL. A refusal names no identifier: it is of whatever was asked. */
gw_asked *find_question(const frame *f) {
    uint8_t key[GW_ASKED_KEY_BYTES];
    gw_asked *one = gw_asked_find(key, gw_asked_key(key, f->address, ADDRESS, f->function));
    if (!one || f->refused) return one;
    return f->len >= 2 && read_di(f->data) == one->detail ? one : NULL;
}

static int32_t refuse(const char *why) { return gw_error(GW_BAD_CONFIG, why); }

/* "high": 90 1F, as in the edition of 2004; "low": 1F 90, as in that of 2018 and in many older meters. */
bool read_order(gw_value text, bool *high_first) {
    *high_first = gw_is(text, "high");
    return *high_first || gw_is(text, "low");
}

static bool is_missing(gw_value v) { return v.type == GW_T_END || v.type == GW_T_NIL; }

static int32_t send(gw_out *out, const request *r, const uint8_t *address, uint8_t function, uint16_t di,
                    const uint8_t *more, uint32_t len) {
    uint8_t data[16] = {(uint8_t)(r->di_high_first ? di >> 8 : di), (uint8_t)(r->di_high_first ? di : di >> 8),
                        (uint8_t)r->serial};
    if (len) memcpy(data + 3, more, len);
    write_frame(out, r->type, address, function, data, 3 + len);
    uint8_t key[GW_ASKED_KEY_BYTES];
    if (r->has_serial) gw_asked_note(key, gw_asked_key(key, r->address, ADDRESS, function), r->serial, di);
    return GW_WRITTEN;
}

static int32_t encode_read(gw_out *out, const request *r) {
    uint8_t di[2];
    if (!gw_hex_bytes(gw_get(r->args, "di"), di, 2, false)) return refuse("di must be four hex digits, such as \"901F\"");
    return send(out, r, r->address, READ, gw_be16(di), NULL, 0);
}

/* Asks whichever single meter is on the line. */
static int32_t encode_read_address(gw_out *out, const request *r) {
    static const uint8_t anyone[ADDRESS] = {0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa};
    return send(out, r, anyone, READ_ADDRESS, ADDRESS_DI, NULL, 0);
}

static int32_t encode_valve(gw_out *out, const request *r) {
    gw_value position = gw_get(r->args, "position");
    bool open = gw_is(position, "open");
    if (!open && !gw_is(position, "closed")) return refuse("position must be open or closed");
    uint8_t code = open ? 0x55 : 0x99;
    return send(out, r, r->address, WRITE, VALVE_DI, &code, 1);
}

static int32_t encode_set_time(gw_out *out, const request *r) {
    int64_t ms;
    bool is_time = gw_read_moment(gw_get(r->args, "time"), &ms);
    gw_moment m = is_time ? gw_moment_of(ms, clock_offset_min) : (gw_moment){.year = 0};
    /* The years that are read back; beyond them a year has no four digits. */
    if (m.year < YEAR_LEAST || m.year > YEAR_MOST)
        return refuse("time must be RFC 3339 text, of the years 1970 to 9999 on the meters' clocks");
    int32_t parts[7] = {m.second, m.minute, m.hour, m.day, m.month, m.year % 100, m.year / 100};
    uint8_t clock[7];
    for (int i = 0; i < 7; i++) clock[i] = (uint8_t)(parts[i] / 10 << 4 | parts[i] % 10);
    return send(out, r, r->address, WRITE, CLOCK_DI, clock, sizeof clock);
}

int32_t encode(gw_out *out, gw_in in, uint32_t aux) {
    static const struct { const char *name; int32_t (*encode)(gw_out *, const request *); } commands[] = {
        {"read", encode_read}, {"read_address", encode_read_address}, {"valve", encode_valve},
        {"set_time", encode_set_time},
    };
    gw_value command = gw_get(in, "command");
    for (uint32_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        if (!gw_is(command, commands[i].name)) continue;
        request r = {.type = usual_type, .di_high_first = usual_di_high_first};
        gw_value serial = gw_get(in, "serial");
        r.has_serial = serial.type == GW_T_UINT && serial.uint <= 0xffffffffu;
        if (r.has_serial) r.serial = (uint32_t)serial.uint;
        if (!gw_find(in, "args", &r.args)) return refuse("args is missing");
        if (!gw_hex_bytes(gw_get(in, "device"), r.address, ADDRESS, true))
            return refuse("the device's id must be the meter's address of 14 digits");
        gw_value type = gw_get(r.args, "meter_type"), order = gw_get(r.args, "di_order");
        if (!is_missing(type) && !gw_hex_bytes(type, &r.type, 1, false))
            return refuse("meter_type must be two hex digits, such as \"10\" for cold water");
        if (!is_missing(order) && !read_order(order, &r.di_high_first)) return refuse("di_order must be high or low");
        return commands[i].encode(out, &r);
    }
    return gw_error(GW_UNSUPPORTED, "the command must be read, read_address, valve or set_time");
}
