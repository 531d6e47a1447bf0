/* SPDX-License-Identifier: Apache-2.0
 *
 * Damaged frames and requests for a codec. The last seed is what gw_init gets; damaged, it must be refused or taken, too.
 * SEAL says how a damaged frame is made sound again, so that damage gets past the envelope: 0 not at all, 1 a sum in the
 * last byte but one and a length at LENGTH_AT, 2 a Modbus CRC, 3 the check code of JT/T 808. See guarded.h.
 */
#include "guarded.h"

int64_t gw_decode(uintptr_t ptr, uint32_t len, uint32_t aux);
#ifdef NO_ENCODER
#define gw_encode(ptr, len, aux) 0
#else
int64_t gw_encode(uintptr_t ptr, uint32_t len, uint32_t aux);
#endif
#ifdef STARTS
int32_t gw_init(uintptr_t ptr, uint32_t len);
#else
#define gw_init(ptr, len) 0
#endif
int64_t gw_now_ms(void) { return 1767225600000; }

/* Cut, lengthen and overwrite; returns the length. */
static uint32_t damage(uint8_t *data, uint32_t len) {
    if (draw(4) == 0) len = draw(len + 1);
    if (draw(8) == 0)
        for (uint32_t more = draw(40); more; more--) data[len++] = (uint8_t)draw(256);
    for (uint32_t times = draw(6); times && len; times--) data[draw(len)] = (uint8_t)draw(256);
    return len;
}

static void seal(uint8_t *frame, uint32_t len) {
#if SEAL == 1
    if (len < LENGTH_AT + 3 || draw(16) == 0) return;
    frame[0] = 0x68;
    if (LENGTH_AT == 9) frame[7] = 0x68;
    frame[LENGTH_AT] = (uint8_t)(len - LENGTH_AT - 3);
    frame[LENGTH_AT - 1] |= 0x80;
    uint8_t sum = 0;
    for (uint32_t i = 0; i + 2 < len; i++) sum = (uint8_t)(sum + frame[i]);
    frame[len - 2] = sum;
    frame[len - 1] = 0x16;
#elif SEAL == 2
    if (len < 4 || draw(16) == 0) return;
    if (frame[1] < 5) frame[2] = (uint8_t)(len - 5);
    uint16_t crc = 0xffff;
    for (uint32_t i = 0; i + 2 < len; i++) {
        crc ^= frame[i];
        for (int bit = 0; bit < 8; bit++) crc = (uint16_t)(crc & 1 ? crc >> 1 ^ 0xa001 : crc >> 1);
    }
    frame[len - 2] = (uint8_t)crc;
    frame[len - 1] = (uint8_t)(crc >> 8);
#elif SEAL == 3
    /* Another message id or part now and then. */
    static const uint16_t ids[] = {0x001, 0x002, 0x100, 0x102, 0x104, 0x107, 0x200, 0x201, 0x210, 0x500, 0x704, 0x801};
    if (len < 14) return;
    if (draw(3) == 0) {
        uint16_t id = ids[draw(sizeof ids / sizeof *ids)];
        frame[0] = (uint8_t)(id >> 8);
        frame[1] = (uint8_t)id;
    }
    uint32_t parts_at = frame[2] & 0x40 ? 17 : 12;
    if (draw(6) == 0 && len > parts_at + 4) {
        const uint8_t parts[4] = {0, (uint8_t)(1 + draw(3)), 0, (uint8_t)(1 + draw(3))};
        frame[2] |= 0x20;
        memcpy(frame + parts_at, parts, 4);
    }
    uint8_t sum = 0;
    for (uint32_t i = 0; i + 1 < len; i++) sum ^= frame[i];
    frame[len - 1] = sum;
#else
    (void)frame;
    (void)len;
#endif
}

static bool starts(uintptr_t at, uint32_t len) { return gw_init(at, len) == 0; }

static bool begin(void) {
    uint32_t first = seed_count - 1;
    return frame_count && frame_count < seed_count && starts((uintptr_t)seeds[first], lens[first]);
}

static bool play(void) {
    uint32_t first = seed_count - 1, requests = first - frame_count;
    bool begins = draw(64) == 0, encodes = requests && draw(4) == 0;
    uint32_t seed = begins ? first : encodes ? frame_count + draw(requests) : draw(frame_count);
    uint8_t *data = copy_of(seed);
    uint32_t len = damage(data, lens[seed]);
    if (!encodes && !begins) seal(data, len);
    uintptr_t at = placed(data, len);
    if (begins) {
        (void)starts(at, len);
        if (!begin()) exit(3);
        return false;
    }
    return (encodes ? gw_encode(at, len, 0) : gw_decode(at, len, draw(40))) >> 32 != 0;
}
