/* SPDX-License-Identifier: Apache-2.0
 *
 * Feeds damaged frames and requests to the codec, each ending where a page ends behind which nothing may be read.
 * In Wasm a read past a frame finds other data and goes unnoticed; here it ends the process.
 *
 * guarded <seeds> <frames> <rounds> <start>: seeds are (u32le length, bytes), the first <frames> are for gw_decode.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { PAGE = 65536, SEED_BYTES = 4096, SEEDS = 256 };

int64_t gw_decode(uintptr_t ptr, uint32_t len, uint32_t aux);
int64_t gw_encode(uintptr_t ptr, uint32_t len, uint32_t aux);

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

/* Another message id or part now and then, and a checksum that fits, so that damage gets past the header. */
static void seal(uint8_t *frame, uint32_t len) {
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
}

int main(int argc, char **argv) {
    if (argc != 5) return 2;
    int count = load(argv[1]), frames = atoi(argv[2]);
    long rounds = atol(argv[3]), given = 0;
    state = strtoull(argv[4], NULL, 10) | 1;
    uint8_t *pages = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (count <= frames || pages == MAP_FAILED || mprotect(pages + PAGE, PAGE, PROT_NONE)) return 2;
    for (long round = 0; round < rounds; round++) {
        static uint8_t data[2 * SEED_BYTES];
        int encodes = draw(4) == 0;
        int seed = encodes ? frames + (int)draw((uint32_t)(count - frames)) : (int)draw((uint32_t)frames);
        memcpy(data, seeds[seed], lens[seed]);
        uint32_t len = damage(data, lens[seed]);
        if (!encodes) seal(data, len);
        uint8_t *at = pages + PAGE - len;
        memcpy(at, data, len);
        int64_t result = encodes ? gw_encode((uintptr_t)at, len, 0) : gw_decode((uintptr_t)at, len, draw(40));
        given += result >> 32 != 0;
    }
    printf("%ld\n", given);
    return 0;
}
