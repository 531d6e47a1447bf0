/* SPDX-License-Identifier: Apache-2.0
 *
 * One reading of five values in 64 bytes on the wire, big endian:
 *
 *     u16 length (62) | device id, 8 ASCII bytes padded with NUL | u64 epoch ms | 5 x f64 | u32 sequence | u16 Fletcher-16
 *
 * The framing strips the length. The check covers everything between it and the length.
 * A reading is not acknowledged. `gw_encode` knows one command, `ping`: u16 length (10), the device id, u16 serial.
 */
#include "gw1.h"

enum { ID = 8, AT = 8, VALUES = 16, COUNT = 5, SEQUENCE = 56, CHECK = 60, FRAME = 62 };

static uint16_t fletcher16(const uint8_t *p, uint32_t n) {
    uint32_t a = 0, b = 0; /* 62 bytes cannot overflow: one reduction at the end is enough */
    for (uint32_t i = 0; i < n; i++) b += a += p[i];
    return (uint16_t)((b % 255) << 8 | a % 255);
}

/* The parts of an item that never change, as msgpack. */
static const char HEAD[] = "\x83\xa4kind\xa6report\xa6" "device";
static const char POINTS[] = "\xa6points\x91\x82\xa2" "at\xcf";
static const char *const NAMES[COUNT] = {
    "\xabtemperature\xcb", "\xa8humidity\xcb", "\xa8pressure\xcb", "\xa7voltage\xcb", "\xa7" "current\xcb",
};
static const uint8_t SIZES[COUNT] = {13, 10, 10, 9, 9};

static int32_t decode(gw_out *out, const uint8_t *frame, uint32_t len, uint32_t aux) {
    (void)aux;
    if (len < FRAME) return gw_error(GW_TRUNCATED, "a reading has 62 bytes");
    if (len > FRAME) return gw_error(GW_UNKNOWN_TYPE, "a reading has 62 bytes");
    if (fletcher16(frame, CHECK) != gw_be16(frame + CHECK)) return gw_error(GW_CHECKSUM, "Fletcher-16 differs");
    uint32_t id = 0;
    while (id < ID && frame[id] >= 0x20 && frame[id] < 0x7f) id++;
    if (!id) return gw_error(GW_UNKNOWN_TYPE, "no device id");

    gw_raw(out, HEAD, sizeof HEAD - 1);
    gw_str(out, (const char *)frame, id);
    gw_raw(out, POINTS, sizeof POINTS - 1);
    gw_raw(out, frame + AT, 8); /* big endian on both sides, like the values below */
    gw_raw(out, "\xa6values\x85", 8);
    for (uint32_t i = 0; i < COUNT; i++) {
        gw_raw(out, NAMES[i], SIZES[i]);
        gw_raw(out, frame + VALUES + 8 * i, 8);
    }
    return GW_WRITTEN;
}
GW_DECODER(decode)

static int32_t encode(gw_out *out, gw_in request, uint32_t aux) {
    (void)aux;
    if (!gw_is(gw_get(request, "command"), "ping")) return gw_error(GW_UNSUPPORTED, "the one command is ping");
    gw_value device = gw_get(request, "device");
    if (device.type != GW_T_STR || device.len == 0 || device.len > ID) return gw_error(GW_BAD_CONFIG, "no device");
    gw_put16(out, ID + 2);
    gw_raw(out, device.text, device.len);
    for (uint32_t i = device.len; i < ID; i++) gw_byte(out, 0);
    gw_put16(out, (uint16_t)gw_get_int(request, "serial", 0));
    return GW_WRITTEN;
}
GW_ENCODER(encode)
