/* SPDX-License-Identifier: Apache-2.0
 *
 * Frames: 68 T A0..A6 C L DATA CS 16. Knows no reading.
 *
 * Source: CJ/T 188-2004, 5.2.
 */
#include "cjt188.h"

/* Read a frame without its preamble. */
int32_t read_frame(frame *f, const uint8_t *bytes, uint32_t len) {
    if (len < OVERHEAD) return gw_error(GW_TRUNCATED, "a frame has 13 bytes and more");
    if (bytes[0] != START) return gw_error(GW_UNKNOWN_TYPE, "no frame of CJ/T 188: 68 is missing");
    if (len < OVERHEAD + (uint32_t)bytes[10]) return gw_error(GW_TRUNCATED, "the frame is shorter than it says");
    if (len > OVERHEAD + (uint32_t)bytes[10]) return gw_error(GW_UNKNOWN_TYPE, "the frame is longer than it says");
    if (gw_sum(bytes, len - 2) != bytes[len - 2]) return gw_error(GW_CHECKSUM, "checksum");
    if (bytes[len - 1] != END) return gw_error(GW_UNKNOWN_TYPE, "no frame of CJ/T 188: 16 is missing");
    *f = (frame){
        .type = bytes[1],
        .address = bytes + 2,
        .control = bytes[9],
        .function = bytes[9] & 0x3f,
        .refused = (bytes[9] & 0x40) != 0,
        .data = bytes + HEADER,
        .len = bytes[10],
    };
    return GW_WRITTEN;
}

/* Write a frame of the master, with bytes that wake the meter up: two to four of them. */
void write_frame(gw_out *out, uint8_t type, const uint8_t address[ADDRESS], uint8_t control, const uint8_t *data,
                 uint32_t len) {
    static const uint8_t preamble[3] = {0xfe, 0xfe, 0xfe};
    gw_raw(out, preamble, sizeof preamble);
    const uint8_t *start = gw_mark(out);
    gw_byte(out, START);
    gw_byte(out, type);
    gw_raw(out, address, ADDRESS);
    gw_byte(out, control);
    gw_byte(out, (uint8_t)len);
    gw_raw(out, data, len);
    if (out->full) return;
    gw_byte(out, gw_sum(start, (uint32_t)(out->at - start)));
    gw_byte(out, END);
}

/* An identifier in either order: the high byte of those that exist is 81 to 90, A0, A1 or D1, and no low byte is. */
uint16_t read_di(const uint8_t *bytes) {
    bool high_first = bytes[0] >= 0x80 || bytes[1] < 0x80;
    return high_first ? gw_be16(bytes) : gw_le16(bytes);
}
