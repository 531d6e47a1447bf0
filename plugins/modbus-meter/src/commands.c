/* SPDX-License-Identifier: Apache-2.0
 *
 * What the platform sends: the poll of a block, and writes. An answer carries no serial, so that a question is found
 * again by device and function, and of a write also by its address.
 *
 * Source: Modbus Application Protocol V1.1b3, 6; Modbus over Serial Line V1.02, 2.5.1 and 6.2.2 (CRC).
 */
#include "meter.h"

uint16_t crc_of(const uint8_t *bytes, uint32_t len) {
    uint16_t crc = 0xffff;
    for (uint32_t i = 0; i < len; i++) {
        crc ^= bytes[i];
        for (int bit = 0; bit < 8; bit++) crc = (uint16_t)(crc & 1 ? crc >> 1 ^ 0xa001 : crc >> 1);
    }
    return crc;
}

typedef struct {
    gw_in args;
    gw_value device;
    uint8_t unit_id;
    bool has_serial;
    uint32_t serial;
} request;

gw_asked *find_question(const device_id *device, uint8_t function) {
    uint8_t key[GW_ASKED_KEY_BYTES];
    return gw_asked_find(key, gw_asked_key(key, device->text, device->len, function));
}

/* On a line that returns what is sent, a request of eight bytes comes back before its answer, and the answer to a write
 * is the very same bytes: the first of them is awaited as the echo, under the function with its highest bit set. */
bool line_echoes;
enum { ECHO = 0x80, ECHOED_BYTES = 6 };

bool take_echo(const device_id *device, uint8_t function, const uint8_t words[4]) {
    gw_asked *sent = find_question(device, function | ECHO);
    if (!sent || sent->detail != gw_be32(words)) return false;
    gw_asked_forget(sent);
    return true;
}

static int32_t refuse(const char *why) { return gw_error(GW_BAD_CONFIG, why); }

static void finish(gw_out *out, const request *r, const uint8_t *start, uint8_t function, uint32_t detail) {
    uint8_t key[GW_ASKED_KEY_BYTES];
    if (out->full) return;
    uint32_t len = (uint32_t)(out->at - start);
    if (line_echoes && len == ECHOED_BYTES) {
        uint32_t echo = gw_asked_key(key, r->device.text, r->device.len, function | ECHO);
        gw_asked_note(key, echo, 0, gw_be32(start + 2));
    }
    uint16_t crc = crc_of(start, len);
    gw_byte(out, (uint8_t)crc);
    gw_byte(out, (uint8_t)(crc >> 8));
    uint32_t answer = gw_asked_key(key, r->device.text, r->device.len, function);
    if (r->has_serial) gw_asked_note(key, answer, r->serial, detail);
}

static uint8_t *begin(gw_out *out, const request *r, uint8_t function, uint16_t first, uint16_t second) {
    uint8_t *start = gw_mark(out);
    gw_byte(out, r->unit_id);
    gw_byte(out, function);
    gw_put16(out, first);
    gw_put16(out, second);
    return start;
}

static int32_t encode_read(gw_out *out, const request *r) {
    gw_value name = gw_get(r->args, "block");
    for (uint32_t i = 0; i < map_block_count; i++) {
        const block *b = &map_blocks[i];
        if (!gw_is(name, b->name) || (b->unit_id && b->unit_id != r->unit_id)) continue;
        finish(out, r, begin(out, r, b->function, b->address, b->count), b->function, i);
        return GW_WRITTEN;
    }
    return refuse("block must name a block of the map that is polled of this unit");
}

static int64_t whole(gw_value v, int64_t most) {
    return v.type == GW_T_UINT && v.uint <= (uint64_t)most ? (int64_t)v.uint : -1;
}

static int32_t encode_write_register(gw_out *out, const request *r) {
    int64_t address = whole(gw_get(r->args, "address"), 0xffff), value = whole(gw_get(r->args, "value"), 0xffff);
    if (address < 0) return refuse("address must be 0 to 65535, as it is sent");
    if (value < 0) return refuse("value must be 0 to 65535");
    finish(out, r, begin(out, r, WRITE_REGISTER, (uint16_t)address, (uint16_t)value), WRITE_REGISTER, (uint32_t)address);
    return GW_WRITTEN;
}

static int32_t encode_write_coil(gw_out *out, const request *r) {
    int64_t address = whole(gw_get(r->args, "address"), 0xffff);
    gw_value on = gw_get(r->args, "on");
    if (address < 0) return refuse("address must be 0 to 65535, as it is sent");
    if (on.type != GW_T_BOOL) return refuse("on must be true or false");
    uint16_t value = on.uint ? 0xff00 : 0;
    finish(out, r, begin(out, r, WRITE_COIL, (uint16_t)address, value), WRITE_COIL, (uint32_t)address);
    return GW_WRITTEN;
}

static int32_t encode_write_registers(gw_out *out, const request *r) {
    int64_t address = whole(gw_get(r->args, "address"), 0xffff);
    gw_in values;
    gw_value head = {.type = GW_T_END};
    if (gw_find(r->args, "values", &values)) head = gw_next(&values);
    if (head.type != GW_T_ARRAY || head.len < 1 || head.len > WRITE_MOST)
        return refuse("values must be a list of 1 to 123 registers");
    if (address < 0 || address + head.len > 0x10000) return refuse("address must be 0 to 65535, as it is sent");
    uint8_t *start = begin(out, r, WRITE_REGISTERS, (uint16_t)address, (uint16_t)head.len);
    gw_byte(out, (uint8_t)(2 * head.len));
    for (uint32_t i = 0; i < head.len; i++) {
        int64_t value = whole(gw_next(&values), 0xffff);
        if (value < 0) return refuse("values must be 0 to 65535 each");
        gw_put16(out, (uint16_t)value);
    }
    finish(out, r, start, WRITE_REGISTERS, (uint32_t)address);
    return GW_WRITTEN;
}

int32_t encode(gw_out *out, gw_in in, uint32_t aux) {
    static const struct { const char *name; int32_t (*encode)(gw_out *, const request *); } commands[] = {
        {"read", encode_read}, {"write_register", encode_write_register}, {"write_registers", encode_write_registers},
        {"write_coil", encode_write_coil},
    };
    gw_value command = gw_get(in, "command");
    for (uint32_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        if (!gw_is(command, commands[i].name)) continue;
        request r = {.device = gw_get(in, "device")};
        gw_value serial = gw_get(in, "serial");
        r.has_serial = serial.type == GW_T_UINT && serial.uint <= 0xffffffffu;
        if (r.has_serial) r.serial = (uint32_t)serial.uint;
        if (!gw_find(in, "args", &r.args)) return refuse("args is missing");
        if (!unit_of_device(r.device, &r.unit_id))
            return refuse("the device's id must end in its unit identifier, 1 to 247, as in the id of its reports");
        return commands[i].encode(out, &r);
    }
    return gw_error(GW_UNSUPPORTED, "the command must be read, write_register, write_registers or write_coil");
}
