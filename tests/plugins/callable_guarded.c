/* SPDX-License-Identifier: Apache-2.0
 *
 * Feeds damaged arguments to gw_call, each ending where a page ends behind which nothing may be read. In Wasm a read past
 * the arguments, or a write past an array, finds other data and goes unnoticed; here it ends the process.
 *
 * guarded <seeds> <rounds> <start>: seeds are (u32le length, bytes). Prints how many calls gave an answer.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { PAGE = 65536, SEED_BYTES = 8192, SEEDS = 128 };

int64_t gw_call(uintptr_t ptr, uint32_t len, uint32_t aux);
int64_t gw_state_save(void) __attribute__((weak));
int32_t gw_state_load(uintptr_t ptr, uint32_t len) __attribute__((weak));

static uint8_t seeds[SEEDS][SEED_BYTES];
static uint32_t lens[SEEDS];
static uint64_t state;

static uint32_t draw(uint32_t below) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)(state >> 32) % below;
}

static uint32_t load(const char *path) {
    uint32_t count = 0, len;
    FILE *file = fopen(path, "rb");
    while (file && count < SEEDS && fread(&len, 4, 1, file) == 1 && len <= SEED_BYTES) {
        if (fread(seeds[count], 1, len, file) != len) return 0;
        lens[count++] = len;
    }
    if (file) fclose(file);
    return count;
}

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

int main(int argc, char **argv) {
    if (argc != 4) return 2;
    uint32_t count = load(argv[1]);
    long rounds = atol(argv[2]), given = 0;
    state = strtoull(argv[3], NULL, 10) | 1;
    uint8_t *pages = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (!count || pages == MAP_FAILED || mprotect(pages + PAGE, PAGE, PROT_NONE)) return 2;
    for (long round = 0; round < rounds; round++) {
        static uint8_t data[2 * SEED_BYTES];
        uint32_t seed = draw(count);
        memcpy(data, seeds[seed], lens[seed]);
        uint32_t len = damage(data, lens[seed]);
        uint8_t *at = pages + PAGE - len;
        memcpy(at, data, len);
        given += gw_call((uintptr_t)at, len, 0) >> 32 != 0;
        if (gw_state_load && draw(16) == 0) gw_state_load((uintptr_t)at, len);
        if (gw_state_save && draw(16) == 0) gw_state_save();
    }
    printf("%ld\n", given);
    return 0;
}
