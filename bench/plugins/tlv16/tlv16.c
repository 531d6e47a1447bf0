/* SPDX-License-Identifier: Apache-2.0
 *
 * Sixteen readings of four bytes: tag (0 to 15) | decimals (0 to 6) | i16 big endian. A reading is value / 10^decimals.
 */
#include "gw1.h"

enum { COUNT = 16, READING = 4, FRAME = COUNT * READING };

static const double SCALES[7] = {1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6};
static const char HEAD[] = "\x82\xa4kind\xa6report\xa6points\x91\x81\xa6values\xde\x00\x10";

static int32_t decode(gw_out *out, const uint8_t *frame, uint32_t len, uint32_t aux) {
    (void)aux;
    if (len < FRAME) return gw_error(GW_TRUNCATED, "a frame has 64 bytes");
    gw_raw(out, HEAD, sizeof HEAD - 1);
    for (uint32_t i = 0; i < COUNT; i++, frame += READING) {
        uint32_t tag = frame[0], decimals = frame[1];
        if (tag >= COUNT || decimals >= sizeof SCALES / sizeof *SCALES) return gw_error(GW_UNKNOWN_TYPE, "unknown tag");
        char name[4] = {(char)0xa3, 'v', (char)('0' + tag / 10), (char)('0' + tag % 10)};
        gw_raw(out, name, sizeof name);
        gw_f64(out, (double)(int16_t)gw_be16(frame + 2) * SCALES[decimals]);
    }
    return GW_WRITTEN;
}
GW_DECODER(decode)
