/* SPDX-License-Identifier: Apache-2.0
 *
 * Damaged arguments for gw_call, and now and then the same for gw_state_load. See guarded.h.
 */
#include "guarded.h"

int64_t gw_call(uintptr_t ptr, uint32_t len, uint32_t aux);
int64_t gw_state_save(void) __attribute__((weak));
int32_t gw_state_load(uintptr_t ptr, uint32_t len) __attribute__((weak));

/* Bytes that mean something: msgpack heads, marks of XML, digits. */
static uint8_t telling(void) {
    static const uint8_t bytes[] = "\x80\x8f\x90\x9f\xa0\xbf\xc0\xc2\xc4\xc6\xca\xcb\xcf\xd3\xd9\xdb\xdc\xdd\xdf\xff\x7f"
                                   "<>&;/!-[]='\"0123 \n";
    return draw(2) ? bytes[draw(sizeof bytes - 1)] : (uint8_t)draw(256);
}

/* Overwrite, double and drop; now and then cut. */
static uint32_t damage(uint8_t *data, uint32_t len) {
    for (uint32_t times = draw(3); times && len; times--) data[draw(len)] = telling();
    if (draw(8) == 0 && len) {
        uint32_t from = draw(len), n = draw(len - from) + 1;
        memmove(data + from + n, data + from, len - from);
        len += n;
    }
    if (draw(8) == 0 && len) {
        uint32_t from = draw(len), n = draw(len - from) + 1;
        memmove(data + from, data + from + n, len - from - n);
        len -= n;
    }
    return draw(16) == 0 ? draw(len + 1) : len;
}

static bool begin(void) { return true; }

static bool play(void) {
    uint32_t seed = draw(seed_count);
    uint8_t *data = copy_of(seed);
    uint32_t len = damage(data, lens[seed]);
    uintptr_t at = placed(data, len);
    bool given = gw_call(at, len, 0) >> 32 != 0;
    if (gw_state_load && draw(16) == 0) gw_state_load(at, len);
    if (gw_state_save && draw(16) == 0) gw_state_save();
    return given;
}
