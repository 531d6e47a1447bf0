/* SPDX-License-Identifier: Apache-2.0
 *
 * Feeds damaged frames and requests to a codec, each ending where a page ends behind which nothing may be read.
 * In Wasm a read past a frame finds other data and goes unnoticed; here it ends the process.
 *
 * guarded <seeds> <frames> <rounds> <start>: seeds are (u32le length, bytes), the first <frames> are for gw_decode, the
 * last is what gw_init gets; damaged, it must be refused or taken, too.
 * SEAL says how a damaged frame is made sound again, so that damage gets past the envelope: 0 not at all, 1 a sum in the
 * last byte but one and a length at LENGTH_AT, 2 a Modbus CRC.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { PAGE = 65536, SEED_BYTES = 4096, SEEDS = 512 };

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

static uint8_t seeds[SEEDS][SEED_BYTES];
static uint32_t lens[SEEDS];
static uint64_t state;

static uint32_t draw(uint32_t below) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)(state >> 32) % below;
}

static int load(const char *path) {
    int count = 0;
    uint32_t len;
    FILE *file = fopen(path, "rb");
    while (file && count < SEEDS && fread(&len, 4, 1, file) == 1 && len <= SEED_BYTES) {
        if (fread(seeds[count], 1, len, file) != len) return -1;
        lens[count++] = len;
    }
    if (file) fclose(file);
    return count;
}

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
#else
    (void)frame;
    (void)len;
#endif
}

int main(int argc, char **argv) {
    if (argc != 5) return 2;
    int count = load(argv[1]) - 1, frames = atoi(argv[2]);
    long rounds = atol(argv[3]), given = 0;
    state = strtoull(argv[4], NULL, 10) | 1;
    uint8_t *pages = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (count < frames || frames < 1 || pages == MAP_FAILED || mprotect(pages + PAGE, PAGE, PROT_NONE)) return 2;
    if (gw_init((uintptr_t)seeds[count], lens[count])) return 3;
    for (long round = 0; round < rounds; round++) {
        static uint8_t data[2 * SEED_BYTES];
        int starts = draw(64) == 0, encodes = count > frames && draw(4) == 0;
        int seed = starts ? count : encodes ? frames + (int)draw((uint32_t)(count - frames)) : (int)draw((uint32_t)frames);
        memcpy(data, seeds[seed], lens[seed]);
        uint32_t len = damage(data, lens[seed]);
        if (!encodes && !starts) seal(data, len);
        uint8_t *at = pages + PAGE - len;
        memcpy(at, data, len);
        if (starts) {
            (void)gw_init((uintptr_t)at, len);
            if (gw_init((uintptr_t)seeds[count], lens[count])) return 3;
            continue;
        }
        int64_t result = encodes ? gw_encode((uintptr_t)at, len, 0) : gw_decode((uintptr_t)at, len, draw(40));
        given += result >> 32 != 0;
    }
    printf("%ld\n", given);
    return 0;
}
