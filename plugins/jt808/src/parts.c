/* SPDX-License-Identifier: Apache-2.0
 *
 * Messages that come in parts: holds parts until all have arrived and hands out the whole body.
 *
 * Bounded: SLOTS messages at a time, PARTS_MOST parts of at most BODY_MOST bytes each, BLOCKS parts over all messages;
 * of these SLOTS_EACH and BLOCKS_EACH for one connection. Where room is short, the message that waits longest without a
 * new part is forgotten, of the connection that is at its own bound, else of all: none of its parts was acknowledged,
 * so the terminal sends them again. The phone is only what a connection claims, so parts never meet across connections.
 */
#include "jt808.h"

enum { SLOTS = 256, SLOTS_EACH = 8, BLOCKS = 2048, BLOCKS_EACH = 256, NO_BLOCK = 0xffff };

typedef struct {
    bool used;
    uint32_t connection;
    uint8_t phone[10];
    uint8_t phone_bytes;
    uint16_t id, total, arrived;
    uint16_t base;        /* serial of part 1, when serials count up with the parts */
    uint16_t serial;      /* serial of the part that came first; some terminals give every part the same one */
    uint64_t touched;
    uint16_t blocks[PARTS_MOST];
    uint16_t lens[PARTS_MOST];
    uint16_t serials[PARTS_MOST];
} slot;

static slot slots[SLOTS];
static uint8_t blocks[BLOCKS][BODY_MOST + 1];
static uint16_t free_blocks[BLOCKS];
static uint32_t free_count, fresh_count; /* blocks given back, blocks ever taken */
static uint64_t turn;
static slot *completed;
static uint8_t whole[PARTS_MOST * BODY_MOST];
static uint16_t whole_serials[PARTS_MOST];

static void forget(slot *s) {
    for (uint32_t i = 0; i < s->total; i++)
        if (s->blocks[i] != NO_BLOCK) free_blocks[free_count++] = s->blocks[i];
    s->used = false;
}

/* Of one connection, or of all where that is NULL. */
static slot *oldest(const slot *but, const uint32_t *connection) {
    slot *found = NULL;
    for (uint32_t i = 0; i < SLOTS; i++) {
        slot *s = &slots[i];
        if (!s->used || s == but || (connection && s->connection != *connection)) continue;
        if (!found || s->touched < found->touched) found = s;
    }
    return found;
}

static uint32_t blocks_of(uint32_t connection) {
    uint32_t held = 0;
    for (uint32_t i = 0; i < SLOTS; i++)
        if (slots[i].used && slots[i].connection == connection) held += slots[i].arrived;
    return held;
}

/* A message holds at most PARTS_MOST blocks, so that at either bound there is another one to take them from. */
static uint16_t take_block(const slot *owner) {
    if (blocks_of(owner->connection) >= BLOCKS_EACH) forget(oldest(owner, &owner->connection));
    if (!free_count && fresh_count == BLOCKS) forget(oldest(owner, NULL));
    return free_count ? free_blocks[--free_count] : (uint16_t)fresh_count++;
}

static bool belongs(const slot *s, const message *m, uint16_t base) {
    return s->used && s->connection == m->connection && s->id == m->id && s->total == m->total && s->phone_bytes == m->phone_bytes &&
           (s->base == base || s->serial == m->serial) && memcmp(s->phone, m->phone, m->phone_bytes) == 0;
}

static slot *slot_for(const message *m) {
    uint16_t base = (uint16_t)(m->serial - m->index + 1);
    slot *empty = NULL;
    uint32_t own = 0;
    for (uint32_t i = 0; i < SLOTS; i++) {
        if (belongs(&slots[i], m, base)) return &slots[i];
        own += slots[i].used && slots[i].connection == m->connection;
        if (!slots[i].used && !empty) empty = &slots[i];
    }
    if (own >= SLOTS_EACH) forget(empty = oldest(NULL, &m->connection));
    else if (!empty) forget(empty = oldest(NULL, NULL));
    empty->used = true;
    empty->connection = m->connection;
    empty->id = m->id;
    empty->total = m->total;
    empty->arrived = 0;
    empty->base = base;
    empty->serial = m->serial;
    empty->phone_bytes = m->phone_bytes;
    memcpy(empty->phone, m->phone, m->phone_bytes);
    for (uint32_t i = 0; i < m->total; i++) empty->blocks[i] = NO_BLOCK;
    return empty;
}

static void put_together(message *m, const slot *s) {
    uint32_t at = 0;
    for (uint32_t i = 0; i < s->total; i++) {
        memcpy(whole + at, blocks[s->blocks[i]], s->lens[i]);
        at += s->lens[i];
        whole_serials[i] = s->serials[i];
    }
    m->body = whole;
    m->body_len = at;
    m->serials = whole_serials;
    m->serial_count = s->total;
}

/* Hold a part; when it is the last to arrive, `m` becomes the whole. PART_UNFIT: it cannot be put together here. */
part_result take_part(message *m) {
    if (m->index < 1 || m->index > m->total || m->total > PARTS_MOST || m->body_len > BODY_MOST) return PART_UNFIT;
    slot *s = slot_for(m);
    uint32_t i = m->index - 1u;
    s->touched = ++turn;
    if (s->blocks[i] == NO_BLOCK) {
        s->blocks[i] = take_block(s);
        s->arrived++;
    }
    s->lens[i] = (uint16_t)m->body_len;
    s->serials[i] = m->serial;
    memcpy(blocks[s->blocks[i]], m->body, m->body_len);
    if (s->arrived < s->total) return PART_HELD;
    put_together(m, s);
    completed = s;
    return PART_COMPLETED;
}

/* The message that was completed last is handed on. Until then its parts stay, so that the last one can be repeated. */
void drop_completed(void) { forget(completed); }
