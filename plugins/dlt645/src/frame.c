/* SPDX-License-Identifier: Apache-2.0
 *
 * Frames: 68 A0..A5 68 C L DATA CS 16. Knows no data identifier.
 *
 * Source: DL/T 645-2007, 5.2.
 */
#include "dlt645.h"

/* Read a frame without its preamble. */
int32_t read_frame(frame *f, const uint8_t *bytes, uint32_t len) {
    if (len < OVERHEAD) return gw_error(GW_TRUNCATED, "a frame has 12 bytes and more");
    if (bytes[0] != START || bytes[7] != START) return gw_error(GW_UNKNOWN_TYPE, "no frame of DL/T 645: 68 is missing");
    if (len < OVERHEAD + (uint32_t)bytes[9]) return gw_error(GW_TRUNCATED, "the frame is shorter than it says");
    if (len > OVERHEAD + (uint32_t)bytes[9]) return gw_error(GW_UNKNOWN_TYPE, "the frame is longer than it says");
    if (gw_sum(bytes, len - 2) != bytes[len - 2]) return gw_error(GW_CHECKSUM, "checksum");
    if (bytes[len - 1] != END) return gw_error(GW_UNKNOWN_TYPE, "no frame of DL/T 645: 16 is missing");
    f->address = bytes + 1;
    f->control = bytes[8];
    f->function = bytes[8] & 0x1f;
    f->refused = (bytes[8] & 0x40) != 0;
    f->more = (bytes[8] & 0x20) != 0;
    f->len = bytes[9];
    for (uint32_t i = 0; i < f->len; i++) f->data[i] = (uint8_t)(bytes[HEADER + i] - OFFSET);
    return GW_WRITTEN;
}

/* Write a frame of the master, with the four bytes that wake the meter up (5.2.1). */
void write_frame(gw_out *out, const uint8_t address[ADDRESS], uint8_t control, const uint8_t *data, uint32_t len) {
    static const uint8_t preamble[4] = {0xfe, 0xfe, 0xfe, 0xfe};
    gw_raw(out, preamble, sizeof preamble);
    const uint8_t *start = gw_mark(out);
    gw_byte(out, START);
    gw_raw(out, address, ADDRESS);
    gw_byte(out, START);
    gw_byte(out, control);
    gw_byte(out, (uint8_t)len);
    for (uint32_t i = 0; i < len; i++) gw_byte(out, (uint8_t)(data[i] + OFFSET));
    if (out->full) return;
    gw_byte(out, gw_sum(start, (uint32_t)(out->at - start)));
    gw_byte(out, END);
}
