/* SPDX-License-Identifier: Apache-2.0
 *
 * guarded.h - feeds damaged input to a plugin's exports, each ending where a page ends behind which nothing may be read.
 * In Wasm a read past the input, or a write past an array, finds other data and goes unnoticed; here it ends the process.
 *
 * guarded <seeds> <frames> <rounds> <start>: seeds are (u32le length, bytes), the first <frames> are for gw_decode.
 * Prints how many rounds gave a result. Each harness says what a round is.
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { PAGE = 65536, SEED_BYTES = 8192, SEEDS = 512 };

static uint8_t seeds[SEEDS][SEED_BYTES];
static uint32_t lens[SEEDS], seed_count, frame_count;
static uint8_t *pages;
static uint64_t state;

/* The harness's own: whether it can begin, and one round, which says whether the plugin gave a result. */
static bool begin(void);
static bool play(void);

static uint32_t draw(uint32_t below) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)(state >> 32) % below;
}

/* A copy of a seed with room to grow as long again. */
static uint8_t *copy_of(uint32_t seed) {
    static uint8_t data[2 * SEED_BYTES];
    return memcpy(data, seeds[seed], lens[seed]);
}

/* The same bytes before the page that nobody may touch. */
static uintptr_t placed(const uint8_t *data, uint32_t len) {
    return (uintptr_t)memcpy(pages + PAGE - len, data, len);
}

static bool load(const char *path) {
    uint32_t len;
    FILE *file = fopen(path, "rb");
    while (file && seed_count < SEEDS && fread(&len, 4, 1, file) == 1) {
        if (len > SEED_BYTES || fread(seeds[seed_count], 1, len, file) != len) return false;
        lens[seed_count++] = len;
    }
    return file && feof(file) && fclose(file) == 0;
}

int main(int argc, char **argv) {
    if (argc != 5 || !load(argv[1])) return 2;
    frame_count = (uint32_t)atol(argv[2]);
    long rounds = atol(argv[3]), given = 0;
    state = strtoull(argv[4], NULL, 10) | 1;
    pages = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pages == MAP_FAILED || mprotect(pages + PAGE, PAGE, PROT_NONE)) return 2;
    if (seed_count < 1 || frame_count > seed_count || !begin()) return 3;
    while (rounds--) given += play();
    printf("%ld\n", given);
    return 0;
}
